"""The gate: what each exported network does on the crops that the Keras model saw, and whether it may leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import PROTOCOLS, check, settings_of
from keras_mrpose.evaluation.predictions import Predictions, check_tables
from keras_mrpose.export import onnx
from keras_mrpose.export.litert import PRECISIONS, Conversion
from keras_mrpose.export.parity import Parity, parity
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime.interpreter import Interpreter, levels_used, ops

BATCH = 16


@dataclass(frozen=True)
class Tolerance:
    """What an exported network may cost.

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
                raise InputError(f"The budget's {name} is {value}; give a number of at least 0.")


# float32 differs in the order of its sums, float16 rounds weights to 2^-11 of themselves. int8 has 256 levels: one
# more or less beside a peak turns the quarter cell of the gaussian codec around, which is 2 crop pixels in x and y.
TOLERANCES = {
    "float32": Tolerance(0.05, 0.9999, 0.1),
    "float16": Tolerance(0.1, 0.999, 1.0),
    "dynamic": Tolerance(1.0, 0.98, 3.0),
    "int8": Tolerance(1.0, 0.98, 3.0),
}
TOLERANCES[onnx.PRECISION] = TOLERANCES["float32"]
assert set(TOLERANCES) == {*PRECISIONS, onnx.PRECISION}


class Reference:
    """The Keras model, and what it makes of the crops that all exports are checked on.

    It runs in float32, whatever policy it was trained in: that is the function which is exported.

    Args:
        predictor: the model, without flip test.
        subjects: people with labels, cropped as they are; or crops ``(n, H, W, 3)``, RGB 0..255.
        whole: round the crops to whole numbers, for networks that take uint8.

    Attributes:
        crops: ``(n, H, W, 3)`` float32.
        heatmaps: ``(n, h, w, joints)`` float32.
        points: ``(n, joints, 2)`` in crop pixels.
        scores: ``(n, joints)``.
        metric: name of the data set's metric; None if the crops have no labels.
        judge: points and scores -> that metric, 0..1.
        value: the metric of the Keras model.

    Raises:
        InputError: people with other joints, whom no protocol judges, or whose images cannot be read; crops that are
            not RGB 0..255 or of another size.
    """

    def __init__(self, predictor: Predictor, subjects: People | np.ndarray, whole: bool = False):
        self.judge = self.metric = self.value = None
        if isinstance(subjects, People):
            check_tables(predictor, subjects, subjects)
            self.judge, self.metric = _judge(predictor, subjects)
            crops = cropped(subjects, predictor.input_size)
        else:
            crops = _checked(subjects, predictor.input_size)
        self._network, self._codec = _in_float32(predictor.model), predictor.codec
        self._scale = predictor.codec.scale(predictor.input_size)
        self.crops = np.rint(crops) if whole else crops
        self.heatmaps = self.heatmaps_of(self.crops)
        self.points, self.scores = self.decode(self.heatmaps)
        if self.judge:
            self.value = self.judge(self.points, self.scores)

    def heatmaps_of(self, crops: np.ndarray) -> np.ndarray:
        """Heatmaps ``(n, h, w, joints)`` of crops ``(n, H, W, 3)``."""
        return np.concatenate([self._network.predict_on_batch(some) for some in _batches(crops)])

    def decode(self, heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(n, joints, 2)`` in crop pixels and scores ``(n, joints)`` of heatmaps."""
        found = [[keras.ops.convert_to_numpy(part) for part in self._codec.decode(some)] for some in _batches(heatmaps)]
        points, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return points.astype(np.float64) / self._scale, scores


@dataclass(frozen=True)
class FormatReport:
    """An exported network, measured.

    Attributes:
        twin: "heatmaps" or "keypoints".
        form: one of `litert.FORMS`.
        size: of its file, in bytes.
        parity: with the Keras model.
        value: its metric, 0..1; None without labels.
        levels: how many different values its int8 heatmaps have, of 256; None for heatmaps in float.
        faults: why it may not leave; empty if it may.
    """

    output: str
    form: str
    size: int
    parity: Parity
    value: float | None
    levels: int | None
    faults: tuple[str, ...]


def measure(conversion: Conversion, output: str, keras_model: Reference, budget: Tolerance) -> FormatReport:
    """Run an exported network in its interpreter on the same crops and judge what comes out.

    Raises:
        InputError: the interpreter is not installed, or the Keras model is confident of no joint.
    """
    run = onnx.OnnxModel if conversion.form == onnx.PRECISION else Interpreter
    found = run(conversion.content)(keras_model.crops)
    maps, levels = (), None
    if output == "heatmaps":
        points, scores = keras_model.decode(found)
        maps = keras_model.heatmaps, found
        levels = levels_used(found) if _quantized(conversion) else None
    else:
        points, scores = found[..., :2], found[..., 2]
    near = parity(keras_model.points, points, keras_model.scores, *maps)
    value = keras_model.judge(points, scores) if keras_model.judge else None
    faults = _faults(near, keras_model, value, budget)
    return FormatReport(output, conversion.form, len(conversion.content), near, value, levels, faults)


def _quantized(conversion: Conversion) -> bool:
    """Whether its last layer was computed with 256 levels, even if its output is float again."""
    if conversion.form != "int8":
        return False
    return conversion.output_type != "float32" or ops(conversion.content)[-1] == "DEQUANTIZE"


def cropped(people: People, size: tuple[int, int], count: int | None = None, **options) -> np.ndarray:
    """Crops ``(n, H, W, 3)`` of the training pipeline: everybody once, or `count` with the `options` of `batches`."""
    data = pipeline.batches(people, size, min(BATCH, len(people)), **options)
    if count is not None:
        data = data.unbatch().take(count).batch(BATCH)
    try:
        return np.concatenate([crops.numpy() for crops, _ in data])
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        raise pipeline.explain_failure(people, error) from error


def _checked(crops: np.ndarray, size: tuple[int, int]) -> np.ndarray:
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


def _judge(predictor: Predictor, people: People) -> tuple[Callable, str]:
    """What judges points ``(people, joints, 2)`` in crop pixels by the data set's protocol, and the metric's name."""
    name = protocol_of(people)
    check(name, people)
    settings = settings_of(predictor)
    matrices = crop_matrices(people.boxes, predictor.input_size)

    def judge(points, scores) -> float:
        joints = np.concatenate([to_image(points, matrices), scores[..., None]], axis=-1)
        kept = {settings.decoding: joints.astype(np.float32)}
        found = Predictions.of(people, predictor.input_size, kept, skeleton=predictor.skeleton)
        return float(PROTOCOLS[name].score_fn(found, people, settings).value)

    return judge, PROTOCOLS[name].metric


def _faults(near: Parity, keras_model: Reference, value: float | None, budget: Tolerance) -> tuple[str, ...]:
    """Written so that what is not a number is over every budget."""
    faults = []
    if value is not None:
        lost = 100 * (keras_model.value - value)
        if not lost <= budget.points:
            faults.append(f"loses {lost:.2f} points of {keras_model.metric} (budget {budget.points:g})")
    if near.correlation is None:
        if not near.shift_95 <= budget.shift:
            faults.append(f"moves one joint in twenty by {near.shift_95:.1f} crop pixels (budget {budget.shift:g})")
    elif not near.correlation >= budget.correlation:
        faults.append(f"has heatmaps of correlation {near.correlation:.4f} (at least {budget.correlation:g})")
    return tuple(faults)


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
