"""Verification of exported networks: each runs on the crops that the Keras model saw, and has to stay within tolerance.

- `Reference` is the Keras model with its heatmaps, points and metric on those crops.
- `measure` runs an exported network and compares: `parity`, and the metric of the data set.
- `reference_case` is one person's way from image to joints, which ships beside the networks for ports of the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.data import augmentation, pipeline
from keras_mrpose.data.images import read_image
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import PROTOCOLS, check, settings_of
from keras_mrpose.evaluation.predictions import Predictions, check_tables
from keras_mrpose.export import onnx
from keras_mrpose.export.litert import PRECISIONS, Conversion
from keras_mrpose.geometry import PADDING, crop_matrices, to_image
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime.litert import LiteRTModel, operations
from keras_mrpose.runtime.onnx import OnnxModel

BATCH = 16
CONFIDENT = 0.3  # least score of the joints that are compared: those below it may jump
MAX_DOWNSCALE = 2.0  # image pixels per crop pixel in the reference case: larger people make a large file


@dataclass(frozen=True)
class Tolerance:
    """What an exported network may lose.

    Args:
        points: hundredths of the data set's metric that may be lost.
        correlation: least mean correlation of heatmaps.
        shift: crop pixels within which 95 % of the joints stay, for networks that make no heatmaps.
    """

    points: float
    correlation: float
    shift: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"The tolerance's {name} is {value}; give a number of at least 0.")


# float32 differs in the order of its sums, float16 rounds weights to 2^-11 of themselves. int8 has 256 levels: one
# more or less beside a flat peak moves it to the next cell, which is 4 crop pixels in x and y.
TOLERANCES = {
    "float32": Tolerance(0.05, 0.9999, 0.1),
    "float16": Tolerance(0.1, 0.999, 1.0),
    "dynamic": Tolerance(1.0, 0.98, 6.0),
    "int8": Tolerance(1.0, 0.98, 6.0),
}
TOLERANCES[onnx.FORMAT] = TOLERANCES["float32"]
assert set(TOLERANCES) == {*PRECISIONS, onnx.FORMAT}


# --- the Keras model ----------------------------------------------------------------------------------------------


class Reference:
    """The Keras model, with its outputs on the crops that all exports are checked on.

    It runs in float32, whatever policy it was trained in: that is the function which is exported.

    Args:
        predictor: the model, without flip test.
        subjects: labelled people, cropped without augmentation; or crops ``(n, H, W, 3)``, RGB 0..255.
        whole: round the crops to whole numbers, for networks that take uint8.

    Attributes:
        crops: ``(n, H, W, 3)`` float32.
        heatmaps: ``(n, h, w, joints)`` float32.
        points: ``(n, joints, 2)`` in crop pixels.
        scores: ``(n, joints)``.
        metric: name of the data set's metric; None if the crops have no labels.
        score_fn: maps points and scores to that metric, 0..1; None without labels.
        value: the metric of the Keras model.

    Raises:
        InputError: people with other joints, or whom no protocol scores, or whose images cannot be read; crops that
            are not RGB 0..255 or of another size.
    """

    def __init__(self, predictor: Predictor, subjects: People | np.ndarray, whole: bool = False):
        self.score_fn = self.metric = self.value = None
        if isinstance(subjects, People):
            check_tables(predictor, subjects, subjects)
            self.score_fn, self.metric = _score_fn(predictor, subjects)
            crops = cropped(subjects, predictor.input_size)
        else:
            crops = _checked_crops(subjects, predictor.input_size)
        self._network, self._codec = _in_float32(predictor.model), predictor.codec
        self._scale = predictor.codec.scale(predictor.input_size)
        self.crops = np.rint(crops) if whole else crops
        self.heatmaps = self.heatmaps_of(self.crops)
        self.points, self.scores = self.decode(self.heatmaps)
        if self.score_fn:
            self.value = self.score_fn(self.points, self.scores)

    def heatmaps_of(self, crops: np.ndarray) -> np.ndarray:
        """Heatmaps ``(n, h, w, joints)`` of crops ``(n, H, W, 3)``."""
        return np.concatenate([self._network.predict_on_batch(some) for some in _batches(crops)])

    def decode(self, heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(n, joints, 2)`` in crop pixels and scores ``(n, joints)`` of heatmaps."""
        found = [[keras.ops.convert_to_numpy(part) for part in self._codec.decode(some)] for some in _batches(heatmaps)]
        points, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return points.astype(np.float64) / self._scale, scores


def cropped(people: People, size: tuple[int, int], count: int | None = None, **options) -> np.ndarray:
    """Crops ``(n, H, W, 3)`` of the training pipeline: everybody once, or `count` with the `options` of `batches`."""
    data = pipeline.batches(people, size, min(BATCH, len(people)), **options)
    if count is not None:
        data = data.unbatch().take(count).batch(BATCH)
    try:
        return np.concatenate([crops.numpy() for crops, _ in data])
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        raise pipeline.explain_failure(people, error) from error


def _checked_crops(crops: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    crops = np.asarray(crops, np.float32)
    if crops.ndim != 4 or crops.shape[1:] != (*size, 3) or not len(crops):
        raise InputError(
            f"The crops to check on have shape {crops.shape}; give people, or crops (n, {size[0]}, {size[1]}, 3)."
        )
    low, high = crops.min(), crops.max()
    if not (low >= 0 and 1 < high <= 255):  # NaN is refused as well
        raise InputError(f"The crops to check on have values from {low:g} to {high:g}; give RGB 0..255.")
    return crops


def _batches(arrays: np.ndarray) -> list[np.ndarray]:
    return [arrays[begin : begin + BATCH] for begin in range(0, len(arrays), BATCH)]


def _score_fn(predictor: Predictor, people: People) -> tuple[Callable, str]:
    """Function from points ``(people, joints, 2)`` in crop pixels and scores to the data set's metric, and its name."""
    name = protocol_of(people)
    check(name, people)
    settings = settings_of(predictor)
    matrices = crop_matrices(people.boxes, predictor.input_size)

    def score(points, scores) -> float:
        joints = np.concatenate([to_image(points, matrices), scores[..., None]], axis=-1)
        kept = {settings.decoding: joints.astype(np.float32)}
        found = Predictions.of(people, predictor.input_size, kept, skeleton=predictor.skeleton)
        return float(PROTOCOLS[name].score_fn(found, people, settings).value)

    return score, PROTOCOLS[name].metric


def _in_float32(model: keras.Model) -> keras.Model:
    """The same network, layer by layer, computed in float32."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def copied(layer):
        config = layer.get_config()
        return type(layer).from_config({**config, "dtype": "float32"} if "dtype" in config else config)

    copy = keras.models.clone_model(keras.Model(model.input, model.output), clone_function=copied)
    for layer in copy.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


# --- an exported network ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parity:
    """Differences of an exported network to the Keras model; those of heatmaps are None where there are only joints.

    Attributes:
        crops: number of crops compared.
        joints: number of joints compared: those that the Keras model is confident of.
        shift_median: median distance of these joints, in crop pixels.
        shift_95: distance that 95 % of them stay within.
        shift_worst: the largest distance.
        correlation: mean correlation of the two heatmaps of these joints; 0 with a map that is constant.
        correlation_worst: the least correlation.
        same_peak: share of these joints whose highest cell is the same.
        largest: largest difference of any two heatmap cells.
    """

    crops: int
    joints: int
    shift_median: float
    shift_95: float
    shift_worst: float
    correlation: float | None = None
    correlation_worst: float | None = None
    same_peak: float | None = None
    largest: float | None = None


@dataclass(frozen=True)
class FormatReport:
    """Measurements of one exported network.

    Attributes:
        output: "heatmaps" or "keypoints".
        precision: one of `litert.PRECISIONS`, or "onnx".
        size: of its file, in bytes.
        parity: with the Keras model.
        value: its metric, 0..1; None without labels.
        levels: how many different values its int8 heatmaps have, of 256; None for heatmaps in float.
        faults: where it is beyond its tolerance; empty if it may ship.
    """

    output: str
    precision: str
    size: int
    parity: Parity
    value: float | None
    levels: int | None
    faults: tuple[str, ...]


def measure(conversion: Conversion, output: str, reference: Reference, tolerance: Tolerance) -> FormatReport:
    """Run an exported network on the crops of the reference and compare the results.

    Raises:
        InputError: its runtime is not installed, or the Keras model is confident of no joint.
    """
    run = OnnxModel if conversion.precision == onnx.FORMAT else LiteRTModel
    found = run(conversion.content)(reference.crops)
    maps, levels = (), None
    if output == "heatmaps":
        points, scores = reference.decode(found)
        maps = reference.heatmaps, found
        levels = len(np.unique(found)) if _is_quantized(conversion) else None
    else:
        points, scores = found[..., :2], found[..., 2]
    near = parity(reference.points, points, reference.scores, *maps)
    value = reference.score_fn(points, scores) if reference.score_fn else None
    faults = _faults(near, reference, value, tolerance)
    return FormatReport(output, conversion.precision, len(conversion.content), near, value, levels, faults)


def _is_quantized(conversion: Conversion) -> bool:
    """Whether its last layer was computed with 256 levels, even if its output is float again."""
    if conversion.precision != "int8":
        return False
    return conversion.output_type != "float32" or operations(conversion.content)[-1] == "DEQUANTIZE"


def _faults(near: Parity, reference: Reference, value: float | None, tolerance: Tolerance) -> tuple[str, ...]:
    """Where a network is beyond its tolerance; written so that what is not a number always is."""
    faults = []
    if value is not None:
        lost = 100 * (reference.value - value)
        if not lost <= tolerance.points:
            faults.append(f"loses {lost:.2f} points of {reference.metric} (tolerance {tolerance.points:g})")
    if near.correlation is None:
        if not near.shift_95 <= tolerance.shift:
            faults.append(
                f"moves one joint in twenty by {near.shift_95:.1f} crop pixels (tolerance {tolerance.shift:g})"
            )
    elif not near.correlation >= tolerance.correlation:
        faults.append(f"has heatmaps of correlation {near.correlation:.4f} (at least {tolerance.correlation:g})")
    return tuple(faults)


def parity(
    points, exported_points, scores, heatmaps=None, exported_heatmaps=None, confident: float = CONFIDENT
) -> Parity:
    """Compare the outputs of two networks on the same crops.

    Args:
        points: ``(n, joints, 2)`` of the original, in crop pixels.
        exported_points: the same of the other network.
        scores: ``(n, joints)`` of the original.
        heatmaps: ``(n, height, width, joints)`` of the original; None if the other network makes none.
        exported_heatmaps: the same of the other network.
        confident: joints of this score or more are compared.

    Raises:
        InputError: outputs of different shape, or no joint that the original is confident of.
    """
    for original, exported in ((points, exported_points), (heatmaps, exported_heatmaps)):
        if np.shape(original) != np.shape(exported):
            raise InputError(
                f"The exported network makes {np.shape(exported)} of what the original makes {np.shape(original)}."
            )
    counted = np.asarray(scores) >= confident
    if not counted.any():
        raise InputError(
            f"The network is confident of no joint of these {len(counted)} crops (no score of {confident:g}): train "
            "it, or give crops of people."
        )
    shift = np.linalg.norm(np.asarray(points, np.float64) - exported_points, axis=-1)[counted]
    of_maps = {} if heatmaps is None else _heatmap_parity(heatmaps, exported_heatmaps, counted)
    return Parity(
        crops=len(counted),
        joints=int(counted.sum()),
        shift_median=float(np.median(shift)),
        shift_95=float(np.percentile(shift, 95)),
        shift_worst=float(shift.max()),
        **of_maps,
    )


def _heatmap_parity(heatmaps: np.ndarray, exported: np.ndarray, counted: np.ndarray) -> dict:
    """The fields of `Parity` that compare heatmaps, computed crop by crop: the maps of all crops are large."""
    correlations, same, largest = [], [], []
    for one, other, confident in zip(heatmaps, exported, counted, strict=True):
        joints = one.shape[-1]
        one, other = (np.asarray(maps, np.float64).reshape(-1, joints).T for maps in (one, other))
        largest.append(np.abs(one - other).max())
        one, other = one[confident], other[confident]
        same.append(one.argmax(axis=1) == other.argmax(axis=1))
        one, other = (maps - maps.mean(axis=1, keepdims=True) for maps in (one, other))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        correlations.append((one * other).sum(axis=1) / np.maximum(norms, 1e-12))
    correlations = np.concatenate(correlations)
    return {
        "correlation": float(correlations.mean()),
        "correlation_worst": float(correlations.min()),
        "same_peak": float(np.concatenate(same).mean()),
        "largest": float(max(largest)),
    }


# --- the reference case -------------------------------------------------------------------------------------------


def reference_case(predictor: Predictor, subjects: People | np.ndarray, reference: Reference) -> dict[str, np.ndarray]:
    """One person from image to joints, as the library computes it; `decoder.check` reads it.

    The person is the one whose least confident joint has the highest score, of those who are not large. Of crops
    without an image around them, the crop is the image.

    Args:
        predictor: the Keras model, without flip test.
        subjects: people or crops that `reference` has seen.
        reference: the Keras model's results on them.

    Returns:
        ``image`` ``(h, w, 3)`` uint8, ``box`` ``(4,)`` x, y, w, h in it, ``crop`` ``(H, W, 3)`` float32, ``heatmaps``
        ``(H / 4, W / 4, joints)`` float32, and ``joints`` ``(joints, 3)``: x, y in image pixels, score, which is a
        probability if the network has a calibration; then also ``person``, the probability of one, if it was fitted.
    """
    size, confidence = predictor.input_size, reference.scores.min(axis=1)
    if isinstance(subjects, People):
        large = 1 / crop_matrices(subjects.boxes, size)[:, 0, 0] > MAX_DOWNSCALE
        person = np.where(large & ~large.all(), -np.inf, confidence).argmax()
        image, box = _cut_out(subjects, person, size)
    else:
        image = np.rint(reference.crops[confidence.argmax()]).astype(np.uint8)
        sides = np.array(size[::-1])
        box = np.concatenate([sides / 2 * (1 - 1 / PADDING), sides / PADDING])  # whose padded window is the image
    matrices = crop_matrices(box[None], size)
    crop = augmentation.warp(tf.constant(image), tf.constant(matrices[0], tf.float32), size).numpy()
    heatmaps = reference.heatmaps_of(crop[None])
    points, scores = reference.decode(heatmaps)
    case = {"image": image, "box": box, "crop": crop, "heatmaps": heatmaps[0]}
    if (calibration := predictor.calibration) is not None:
        if calibration.person is not None:
            case["person"] = calibration.person_scores(scores)[0]
        scores = calibration(scores)
    return {**case, "joints": np.concatenate([to_image(points, matrices), scores[..., None]], axis=-1)[0]}


def _cut_out(people: People, person: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The piece of a person's image that the crop shows, with a pixel around it, and the box in that piece."""
    number, box = people.image_index[person], people.boxes[person]
    image = read_image(people.image_paths[number], people.image_sizes[number].tolist())
    corners = to_image(np.array([[[0, 0], [size[1] - 1, size[0] - 1]]], float), crop_matrices(box[None], size))[0]
    left, top = np.maximum(np.floor(corners[0]) - 1, 0).astype(int)
    right, bottom = np.ceil(corners[1]).astype(int) + 2
    return image[top:bottom, left:right], box - (left, top, 0, 0)
