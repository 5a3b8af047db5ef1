"""Predictor: an image and person boxes to keypoints, with crop, flip test and decoding, around one trained network."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.codecs import Codec
from keras_mrpose.codecs import codec as codec_of
from keras_mrpose.data import augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.models import fuse, networks, pretrained
from keras_mrpose.models.presets import PRESETS
from keras_mrpose.runtime.litert import ExportedModel

DEFAULT = "people"  # the network that comes with the package
CHECKPOINTS = ("best.keras", "last.keras")  # of a run folder, the first that is there


class Predictor:
    """Find the keypoints of people in images.

    Args:
        source: a model made by `keras_mrpose.build`, a ``.keras`` file of one, the folder of a run, an exported
            ``.tflite`` file with its sidecar beside it, or the name of a network that comes with the package
            (`list_presets`); by default that is ``"people"``.
        flip_test: also look at the mirror image and average (published test protocol; twice the work).
        batch_size: crops per step.
        codec: decodes the heatmaps: a codec, or the name of one (``"gaussian"``, ``"dark"``, ``"udp"``), then with the
            network's sigma; None is the codec that the network was trained with.

    An exported network that ends in keypoints has decoded its heatmaps itself: it takes no flip test and no codec.

    Attributes:
        model: the network, a `PoseModel` or an `ExportedModel`. A single crop goes through a fused copy of a
            `PoseModel`, which is made at the first one.
        skeleton: its joints.
        codec: that decodes its heatmaps.
        calibration: turns heights of peaks into probabilities; None if the network has none.
        input_size: ``(height, width)`` of its crops.

    Raises:
        InputError: no such file, a file that is not a model of this library, a codec that cannot decode its heatmaps,
            or a flip test of a network that has none, or whose joints are not known to be left or right
            (`Skeleton.check_mirroring`).
    """

    def __init__(
        self,
        source: str | Path | keras.Model | ExportedModel | None = None,
        *,
        flip_test: bool = True,
        batch_size: int = 32,
        codec: str | Codec | None = None,
    ):
        self.model = source if isinstance(source, keras.Model | ExportedModel) else load_model(source)
        if not isinstance(self.model, networks.PoseModel | ExportedModel):
            raise InputError(f"{source} is a Keras model, but not one made by keras_mrpose.build.")
        self.skeleton = self.model.skeleton
        self.input_size = tuple(self.model.input_shape[1:3])
        trained_with = self.model.codec
        self.codec = trained_with if codec is None else codec_of(codec, trained_with.sigma)
        if not np.array_equal(self.codec.scale(self.input_size), trained_with.scale(self.input_size)):
            raise InputError(
                f"{self.codec} cannot read the heatmaps of {self.model.name}, which was made for {trained_with}: they "
                "put the same joint at different places of a map. Leave codec out, or give one with the same scale."
            )
        if self.ends_in_keypoints and (flip_test or self.codec != trained_with):
            raise InputError(
                f"This export of {self.model.name} ends in keypoints, decoded by {trained_with}: give "
                "flip_test=False and no codec, or take the export that ends in heatmaps."
            )
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; give a number of at least 1.")
        if flip_test:
            self.skeleton.check_mirroring("A flip test", "flip_test=False")
        self.flip_test, self.batch_size = flip_test, batch_size
        self.calibration = getattr(self.model, "calibration", None)

    def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> np.ndarray:
        """Keypoints of the people in an image.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            boxes: ``(people, 4)`` x, y, w, h in image pixels, also none at all, ``(0, 4)``; None takes the whole
                image as one person's box.

        Returns:
            ``(people, joints, 3)`` float64: x, y in image pixels, and the probability that the joint is there, as
            near as the network's `calibration` says; without one the height of the heatmap's peak, about 0..1.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"The image has shape {image.shape} and type {image.dtype}; give (height, width, 3) uint8 RGB."
            )
        boxes = check_boxes([[0, 0, image.shape[1], image.shape[0]]] if boxes is None else boxes, image.shape)
        matrices = crop_matrices(boxes, self.input_size)
        found = [(np.zeros((0, self.skeleton.num_joints, 2)), np.zeros((0, self.skeleton.num_joints)))]
        for begin in range(0, len(boxes), self.batch_size):
            chunk = matrices[begin : begin + self.batch_size]
            crops = tf.stack([augmentation.warp(image, tf.constant(m, tf.float32), self.input_size) for m in chunk])
            found.append(self.keypoints(crops))
        points, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if self.calibration is not None:
            scores = self.calibration(scores)
        return np.concatenate([to_image(points, matrices), scores[..., None]], axis=-1)

    @property
    def ends_in_keypoints(self) -> bool:
        """Whether the network's output is keypoints; there are no heatmaps then."""
        return isinstance(self.model, ExportedModel) and self.model.output == "keypoints"

    def heatmaps(self, crops) -> np.ndarray:
        """Heatmaps ``(n, height / 4, width / 4, joints)``, flip test included, of crops ``(n, height, width, 3)``."""
        if self.ends_in_keypoints:
            raise InputError(
                f"This export of {self.model.name} ends in keypoints; take the export that ends in heatmaps."
            )
        crops = np.asarray(crops)
        network = self._for_one if len(crops) == 1 else self.model
        heatmaps = network.predict_on_batch(crops)
        if self.flip_test:
            flipped_heatmaps = network.predict_on_batch(crops[:, :, ::-1])
            heatmaps = keras.ops.convert_to_numpy(
                self.codec.merge_flipped(heatmaps, flipped_heatmaps, self.skeleton.flip_indices)
            )
        return heatmaps

    @cached_property
    def _for_one(self) -> keras.Model | ExportedModel:
        """Network for single crops: fused, 1.2 to 1.4 times as fast on two CPU cores, unless in bfloat16."""
        if isinstance(self.model, ExportedModel) or any(
            layer.compute_dtype != "float32" for layer in self.model.layers
        ):
            return self.model
        return fuse.fuse_for_inference(self.model)

    def keypoints(self, crops) -> tuple[np.ndarray, np.ndarray]:
        """Positions ``(n, joints, 2)`` in crop pixels and scores ``(n, joints)`` of crops ``(n, height, width, 3)``."""
        if self.ends_in_keypoints:
            found = self.model.predict_on_batch(np.asarray(crops)).astype(np.float64)
            return found[..., :2], found[..., 2]
        points, scores = (keras.ops.convert_to_numpy(part) for part in self.codec.decode(self.heatmaps(crops)))
        return points.astype(np.float64) / self.codec.scale(self.input_size), scores.astype(np.float64)


def load_model(source: str | Path | None = None) -> keras.Model | ExportedModel:
    """Load the model of a ``.keras`` file, the best one of a run folder, an exported one, or one of the package."""
    name = DEFAULT if source is None else str(source)
    if name in PRESETS:
        return networks.build(PRESETS[name].network, PRESETS[name].backbone, weights=name)
    path = Path(name)
    if path.is_dir():
        found = [path / name for name in CHECKPOINTS if (path / name).exists()]
        if not found:
            raise InputError(f"{path} has none of {', '.join(CHECKPOINTS)}; give the folder of a run or a .keras file.")
        path = found[0]
    if not path.exists():
        raise InputError(f"The model {path} is not there; give a .keras file, a .tflite file or the folder of a run.")
    if path.suffix == ".tflite":
        return ExportedModel(path)
    return pretrained.read_keras(path)


def check_boxes(boxes, image_shape: tuple[int, ...]) -> np.ndarray:
    """Check boxes: ``(n, 4)`` float64; an empty, non-finite or outside one is an `InputError` that names it."""
    try:
        boxes = np.asarray(boxes, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"The boxes {boxes!r} are not a table of numbers; give (people, 4): x, y, w, h.") from None
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"Boxes have shape {boxes.shape}; give (people, 4): x, y, width, height in pixels.")
    height, width = image_shape[:2]
    for box in boxes:
        x, y, w, h = box
        if not np.isfinite(box).all() or w <= 0 or h <= 0:
            raise InputError(f"The box {box.tolist()} has no area; give x y w h in pixels, w and h above 0.")
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise InputError(f"The box {box.tolist()} lies outside the image of {width}x{height} pixels.")
    return boxes
