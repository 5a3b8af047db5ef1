"""Predictor: images to people's keypoints, with detection, crop, flip test and decoding, around one trained network.

Keras and TensorFlow are imported for networks that need them only: an exported `.tflite` file predicts without, and is
ready in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from keras_mrpose import geometry, nms
from keras_mrpose.calibration import DEFAULT_PERSON, Calibration
from keras_mrpose.data.images import read_image
from keras_mrpose.errors import InputError
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.predict.results import JOINT_THRESHOLD, PERSON_THRESHOLD, Pose, nobody
from keras_mrpose.presets import PRESETS, exported_file
from keras_mrpose.runtime import decoder, litert
from keras_mrpose.runtime.litert import ExportedModel

if TYPE_CHECKING:
    import keras

    from keras_mrpose.codecs import Codec

DEFAULT = "people"  # the network that comes with the package
CHECKPOINTS = ("best.keras", "last.keras")  # of a run folder, the first that is there
PASSES, SETTLED = 3, 0.8  # looks at an image without a box; overlap (IoU) of two boxes from which on they are the same
MARGIN = 0.1  # of a box's sides: a body reaches so far beyond its joints
MIN_JOINTS = 3  # make a box
SAME_PERSON = 0.6  # OKS of two poses from which on they are of one person; of people beside each other it is below 0.2

# Boxes (people, 4) x, y, w, h in an image (height, width, 3) uint8 RGB, and their scores (people,) 0..1.
Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Predictor:
    """Find the keypoints of people in images.

    Args:
        source: a model made by `keras_mrpose.build`, a ``.keras`` file of one, the folder of a run, an exported
            ``.tflite`` file with its sidecar beside it, or the name of a preset (`list_presets`), which is then built
            in Keras. None is the package's ``"people"``, where LiteRT is installed as it was exported: without
            TensorFlow, it is ready in a fraction of the time.
        flip_test: also look at the mirror image and average (published test protocol; twice the work).
        batch_size: crops per step.
        codec: decodes the heatmaps: a codec, or the name of one (``"gaussian"``, ``"dark"``, ``"udp"``), then with the
            network's sigma; None is the codec that the network was trained with.
        detector: finds people's boxes where none are given: a function of an image ``(h, w, 3)`` uint8 RGB that returns
            boxes ``(people, 4)`` x, y, w, h and scores ``(people,)`` 0..1. `predict.detectors` has some. None: one
            person is looked for in each image, first in all of it, then around what was found, until that stays.
        person_threshold: who is looked for without boxes and has a lower person score is nobody; 0.5 is "as likely a
            person as not".

    A model that is trained further, or given other weights, predicts with those from then on. An exported network that
    ends in keypoints has decoded its heatmaps itself: it takes no flip test and no codec.

    Attributes:
        model: the network, a `PoseModel` or an `ExportedModel`.
        skeleton: its joints.
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
        detector: Detector | None = None,
        person_threshold: float = PERSON_THRESHOLD,
    ):
        self.model = load_model(source) if source is None or isinstance(source, str | Path) else source
        if not hasattr(self.model, "skeleton"):
            raise InputError(f"{source} is a Keras model, but not one made by keras_mrpose.build.")
        self.skeleton = self.model.skeleton
        self.input_size = tuple(self.model.input_shape[1:3])
        self._codec = None if codec is None else self._checked_codec(codec)
        if self.ends_in_keypoints and (flip_test or self._codec not in (None, self.model.codec)):
            raise InputError(
                f"This export of {self.model.name} ends in keypoints, decoded by {self.model.codec}: give "
                "flip_test=False and no codec, or take the export that ends in heatmaps."
            )
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; give a number of at least 1.")
        if flip_test:
            self.skeleton.check_mirroring("A flip test", "flip_test=False")
        self.flip_test, self.batch_size = flip_test, batch_size
        self.detector, self.person_threshold = detector, person_threshold
        self._networks, self._checksums = {}, {}

    def __repr__(self) -> str:
        height, width = self.input_size
        joints = f"{self.skeleton.num_joints} joints ({self.skeleton.name})"
        return f"<Predictor {self.model.name}: {height}x{width}, {joints}{', flip test' if self.flip_test else ''}>"

    @property
    def codec(self) -> Codec:
        """The codec that decodes the heatmaps."""
        return self.model.codec if self._codec is None else self._codec

    @property
    def calibration(self) -> Calibration | None:
        """Turns heights of peaks into probabilities; None if the network has none."""
        return self.model.calibration

    def _checked_codec(self, codec: str | Codec) -> Codec:
        import keras  # noqa: F401  see `load_model`

        from keras_mrpose.codecs import codec as codec_of

        trained_with = self.model.codec
        codec = codec_of(codec, trained_with.sigma)
        if not np.array_equal(codec.scale(self.input_size), trained_with.scale(self.input_size)):
            raise InputError(
                f"{codec} cannot read the heatmaps of {self.model.name}, which was made for {trained_with}: they "
                "put the same joint at different places of a map. Leave codec out, or give one with the same scale."
            )
        return codec

    def __call__(
        self, source: str | Path | np.ndarray | Iterable, boxes: np.ndarray | None = None
    ) -> Pose | Iterator[Pose]:
        """The people of an image; of several images, those of one after the other.

        Args:
            source: an image: ``(h, w, 3)`` uint8 RGB or float 0..255, or a file of one. Or a list or an iterator of
                such, which are read when their turn comes.
            boxes: of one image, ``(people, 4)`` x, y, w, h in image pixels, also none at all, ``(0, 4)``; None finds
                them.

        Returns:
            `Pose` of the image: with `boxes` a row for each, whoever is in it; without, those whose person score
            reaches `person_threshold`, the likeliest first. Of several images an iterator of such.

        Raises:
            InputError: an image that cannot be read or is none, or a box that cannot be.
        """
        if not (isinstance(source, str | Path) or hasattr(source, "__array__")) and isinstance(source, Iterable):
            if boxes is not None:
                raise InputError("boxes are of one image; give images with boxes of their own one by one.")
            return (self(one) for one in source)
        name = str(source) if isinstance(source, str | Path) else ""
        image = read_image(source) if name else check_image(source)
        if boxes is not None:
            return self.in_boxes(image, boxes, source=name)
        if self.detector is None:
            return self._search(image, name)
        boxes, scores = found_boxes(self.detector(image), image.shape)
        return distinct(self.in_boxes(image, boxes, scores, name).above(self.person_threshold))

    def in_boxes(self, image: np.ndarray, boxes, scores: np.ndarray | None = None, source: str = "") -> Pose:
        """`Pose` with a row for each box.

        Args:
            image: ``(h, w, 3)`` uint8 RGB.
            boxes: ``(people, 4)`` x, y, w, h in image pixels.
            scores: ``(people,)`` 0..1, probability of a person in each before anybody looks at the heatmaps, as a
                detector says; None is 0.5.
            source: name of the image.
        """
        boxes = check_boxes(boxes, image.shape)
        if not len(boxes):
            return nobody(self.skeleton, image=image, source=source)
        matrices = crop_matrices(boxes, self.input_size)
        found = []
        for begin in range(0, len(boxes), self.batch_size):
            chunk = matrices[begin : begin + self.batch_size]
            found.append(self.keypoints(np.stack([crop(image, matrix, self.input_size) for matrix in chunk])))
        points, heights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        there = None if self.calibration is None else self.calibration.person_scores(heights)
        if there is None:
            there = DEFAULT_PERSON(heights.mean(axis=1))
        if scores is not None:  # the detector's probability and the heatmaps', as if they were independent
            there = there * scores / np.maximum(there * scores + (1 - there) * (1 - scores), 1e-12)
        likely = heights if self.calibration is None else self.calibration(heights)
        keypoints = np.concatenate([to_image(points, matrices), likely[..., None]], axis=-1)
        return Pose(keypoints, boxes, there, self.skeleton, image, source)

    def _search(self, image: np.ndarray, source: str) -> Pose:
        """The one person of an image: in all of it, then around what was found, until that stays."""
        box = np.array([0, 0, image.shape[1], image.shape[0]], np.float64)
        best = pose = self.in_boxes(image, box[None], source=source)
        for _ in range(PASSES - 1):
            found = pose.keypoints[0]
            closer = box_of(found, image.shape, min(JOINT_THRESHOLD, found[:, 2].max() / 2))  # small people are weak
            if closer is None or overlap(box, closer) >= SETTLED:
                break
            box, pose = closer, self.in_boxes(image, closer[None], source=source)
            best = pose if pose.person_scores[0] >= best.person_scores[0] else best
        return best.above(self.person_threshold)

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
        if not self.flip_test:
            return self._run(crops)
        heatmaps, flipped_heatmaps = np.split(self._run(np.concatenate([crops, crops[:, :, ::-1]])), 2)
        if isinstance(self.model, ExportedModel) and self._codec is None:
            return self.model.merge_flipped(heatmaps, flipped_heatmaps)
        return np.asarray(self.codec.merge_flipped(heatmaps, flipped_heatmaps, self.skeleton.flip_indices))

    def _run(self, crops: np.ndarray) -> np.ndarray:
        return np.asarray(self.network()(crops))

    def network(self, batches: bool = False) -> Callable:
        """Function of crops ``(n, height, width, 3)`` that returns what the network makes of them, by the fastest way.

        Of a `PoseModel` it has a copy of the weights (`fuse.inference_function`), and is made anew when they have
        changed since, as after a training.

        Args:
            batches: for many crops at a time, as an evaluation has them: it is there sooner and takes less memory, but
                a single crop takes longer. Every weight is looked at for a change, not a few (`fuse.checksum`).
        """
        if isinstance(self.model, ExportedModel):
            return self.model.predict_on_batch
        from keras_mrpose.models import fuse

        if not self._networks or fuse.checksum(self.model, batches) != self._checksums[batches]:
            self._networks = {}
            self._checksums = {every: fuse.checksum(self.model, every) for every in (False, True)}
        if batches not in self._networks:
            self._networks[batches] = fuse.inference_function(self.model, batches)
        return self._networks[batches]

    def keypoints(self, crops) -> tuple[np.ndarray, np.ndarray]:
        """Positions ``(n, joints, 2)`` in crop pixels and scores ``(n, joints)`` of crops ``(n, height, width, 3)``."""
        if self.ends_in_keypoints:
            found = self._run(np.asarray(crops)).astype(np.float64)
            return found[..., :2], found[..., 2]
        heatmaps = self.heatmaps(crops)
        if isinstance(self.model, ExportedModel) and self._codec is None:
            about = self.model.codec_config
            found = np.stack([decoder.DECODERS[about["name"]](maps, about) for maps in heatmaps])
            return found[..., :2] / about["scale"], found[..., 2]
        points, scores = (np.asarray(part, np.float64) for part in self.codec.decode(heatmaps))
        return points / self.codec.scale(self.input_size), scores


def load_model(source: str | Path | None = None) -> keras.Model | ExportedModel:
    """Load the model of a ``.keras`` file, the best one of a run folder, an exported one, or one of the package."""
    if source is None and litert.is_installed():
        return ExportedModel(exported_file(DEFAULT))
    path = Path(DEFAULT if source is None else source)
    if path.suffix == ".tflite" and path.is_file():
        return ExportedModel(path)
    import keras  # noqa: F401  before modules of ours do: all our classes are registered then

    from keras_mrpose.models import networks, pretrained

    if (name := str(path)) in PRESETS:
        return networks.build(preset=name)
    if path.is_dir():
        found = [path / name for name in CHECKPOINTS if (path / name).exists()]
        if not found:
            raise InputError(f"{path} has none of {', '.join(CHECKPOINTS)}; give the folder of a run or a .keras file.")
        path = found[0]
    if not path.exists():
        raise InputError(
            f"The model {path} is not there; give a .keras file, a .tflite file or the folder of a run, or a preset."
        )
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


# --- images and boxes -------------------------------------------------------------------------------------------------


def crop(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The crop ``size + (3,)`` float32 0..255 of an image by a matrix: bilinear, black outside the image.

    The same pixels as of the training's pipeline (`data.augmentation.warp`) within rounding, without TensorFlow.

    Args:
        image: ``(h, w, 3)`` uint8.
        matrix: ``(2, 3)`` image pixels to crop pixels, upright.
        size: ``(height, width)`` of the crop.
    """
    height, width = size
    corners = geometry.transform(geometry.inverse(matrix), np.array([[0, 0], [width - 1, height - 1]], np.float64))
    sides = np.array(image.shape[1::-1])
    low = np.clip(np.floor(corners[0]).astype(int) - 1, 0, sides - 1)  # the window that the crop sees
    high = np.clip(np.ceil(corners[1]).astype(int) + 2, low + 1, sides)
    window = image[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    moved = np.concatenate([matrix[:, :2], matrix[:, 2:] + matrix[:, :2] @ low[:, None]], axis=1)
    return cv2.warpAffine(window, moved, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)


def distinct(pose: Pose) -> Pose:
    """The people of an image, the likeliest first, without those who are found twice, as in two boxes around one."""
    areas = np.prod(pose.boxes[:, 2:], axis=1)
    kept = nms.oks_nms(pose.keypoints, areas, pose.person_scores, pose.skeleton.sigmas, SAME_PERSON)
    return pose.take(kept[np.lexsort((kept, -pose.person_scores[kept]))])


def box_of(
    keypoints: np.ndarray, image_shape: tuple[int, ...], threshold: float = JOINT_THRESHOLD
) -> np.ndarray | None:
    """The box ``(4,)`` of a person around the likely keypoints ``(joints, 3)``; None if those are too few.

    Args:
        keypoints: x, y in image pixels, score.
        image_shape: ``(height, width, ...)``; the box ends at the image's border.
        threshold: keypoints of a lower score are not likely.
    """
    points = keypoints[keypoints[:, 2] >= threshold, :2]
    if len(points) < MIN_JOINTS:
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    margin = MARGIN * np.maximum(high - low, (high - low).max() / 4)  # arms and legs in one line have a width, too
    low = np.clip(low - margin, 0, np.array(image_shape[1::-1]) - 1)
    high = np.clip(high + margin, low + 1, image_shape[1::-1])
    return np.concatenate([low, high - low])


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union ``(...)`` of boxes ``(..., 4)`` x, y, w, h."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    return both / np.maximum(np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - both, 1e-12)


def check_image(image) -> np.ndarray:
    """An image array as ``(h, w, 3)`` uint8 RGB; float values 0..255 are rounded.

    Raises:
        InputError: another shape or type, or float values outside 0..255 or only up to 1.
    """
    image = np.asarray(image)
    known = image.dtype == np.uint8 or (image.dtype.kind == "f" and image.itemsize <= 8)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or not known:
        raise InputError(
            f"The image has shape {image.shape} and type {image.dtype}; give (height, width, 3) uint8 RGB, or float "
            "0..255."
        )
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 255) or 0 < high <= 1:
        raise InputError(
            f"The image has float values from {low:g} to {high:g}; give RGB 0..255 (multiply by 255 what is 0..1)."
        )
    return np.rint(image).astype(np.uint8)


def found_boxes(found, image_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What a detector returned, checked: boxes ``(n, 4)`` cut at the image's border, and scores ``(n,)``.

    Args:
        found: boxes and scores; or one array ``(n, 5)``, the score last, or ``(n, 4)`` without: then 0.5. Empty ones
            of any shape are nobody.
        image_shape: ``(height, width, ...)``.

    Raises:
        InputError: it is none of these.
    """
    try:
        if isinstance(found, tuple) and len(found) == 2:
            boxes, scores = (np.asarray(part, np.float64) for part in found)
        else:
            found = np.asarray(found, np.float64)
            found = found if found.size else np.zeros((0, 5))
            boxes, scores = (found[:, :4], found[:, 4]) if found.shape[-1] == 5 else (found, np.full(len(found), 0.5))
        boxes = boxes if boxes.size else np.zeros((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.size != len(boxes):
            raise ValueError(f"boxes of shape {boxes.shape} and scores of shape {scores.shape}")
        scores = scores.reshape(-1)
        if not ((scores >= 0) & (scores <= 1)).all() or not np.isfinite(boxes).all():
            raise ValueError("a score is not from 0 to 1, or a box is not finite")
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"The detector returned no boxes and scores ({error}); return (people, 4) x, y, w, h and (people,) 0..1."
        ) from None
    sides = np.array(image_shape[1::-1])
    low = np.clip(boxes[:, :2], 0, sides)
    boxes = np.concatenate([low, np.clip(boxes[:, :2] + boxes[:, 2:], 0, sides) - low], axis=1)
    kept = (boxes[:, 2:] >= 2).all(axis=1)
    return boxes[kept], scores[kept]
