"""Person detectors: anything that takes an image and gives boxes with scores, and the ones that come as files or names.

A detector for `Predictor` is a function of an image ``(h, w, 3)`` uint8 RGB that returns boxes ``(people, 4)`` x, y, w,
h in image pixels and scores ``(people,)`` 0..1. `detector` makes one of

- a LiteRT file of a detector: with the four outputs of TensorFlow's detection models (EfficientDet-Lite, SSD), or with
  all boxes and their scores (NanoDet),
- ``"keras_hub:dfine_nano_coco"``, or another object detector of KerasHub (the extra ``detect``).

`BoxesFile` has the boxes that another program found.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from keras_mrpose.errors import InputError, install_command, short_message
from keras_mrpose.predict.predictor import Detector
from keras_mrpose.runtime.litert import check_installed, open_interpreter

SCORE_THRESHOLD, NMS_THRESHOLD = 0.3, 0.5
UNKNOWN = 0.5  # score of a box without one
KERAS_HUB = "keras_hub:"


def detector(
    spec: str | Path, score_threshold: float = SCORE_THRESHOLD, value_range: tuple[float, float] = (0.0, 255.0)
) -> Detector:
    """The detector of a `.tflite` file or of a name such as ``"keras_hub:dfine_nano_coco"``.

    Args: as of the detectors; `value_range` is of `.tflite` files.

    Raises:
        InputError: no such file or name, or a library that it takes is not installed.
    """
    if str(spec).startswith(KERAS_HUB):
        return KerasHubDetector(str(spec).removeprefix(KERAS_HUB), score_threshold)
    if Path(spec).suffix == ".tflite":
        return LiteRTDetector(spec, score_threshold, value_range=value_range)
    raise InputError(
        f"Unknown detector {str(spec)!r}; give a .tflite file of a person detector, {KERAS_HUB}NAME (such as "
        f"{KERAS_HUB}dfine_nano_coco), or a file of boxes, .json or .csv."
    )


class LiteRTDetector:
    """A `.tflite` file that finds people.

    The image goes in letterboxed: scaled to fit the network's input, at its upper left, black elsewhere.

    Args:
        path: with one image ``(1, H, W, 3)`` as input, and outputs of one of two kinds: boxes ``(1, n, 4)`` ymin, xmin,
            ymax, xmax as shares of the input's sides, classes ``(1, n)``, scores ``(1, n)`` and a count ``(1,)``, in
            any order; or boxes ``(1, n, 4)`` and scores ``(1, n)`` or ``(1, n, classes)``, of which overlapping ones
            are suppressed here.
        score_threshold: boxes of a lower score are left out.
        person_class: number of the class of people.
        value_range: what black and white are for a file with a float input, such as ``(-1, 1)``.
        threads: CPU threads.

    Raises:
        InputError: a file that is missing, damaged, or of other outputs; or ai-edge-litert is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        score_threshold: float = SCORE_THRESHOLD,
        person_class: int = 0,
        value_range: tuple[float, float] = (0.0, 255.0),
        threads: int = 2,
    ):
        check_installed()
        self.value_range = value_range
        self.path, self.score_threshold, self.person_class = Path(path), score_threshold, person_class
        try:
            self._content = self.path.read_bytes()  # see `open_interpreter`
            self._interpreter = open_interpreter(self._content, threads)
        except FileNotFoundError:
            raise InputError(f"The detector {path} is not there; give a .tflite file.") from None
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"The detector {path} cannot be read ({short_message(error)}).") from None
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shapes = [tuple(int(side) for side in tensor["shape"]) for tensor in (*inputs, *outputs)]
        self._input, self._outputs = inputs[0], outputs
        self._boxes = next(
            (tensor for tensor in outputs if len(tensor["shape"]) == 3 and tensor["shape"][2] == 4), None
        )
        if len(inputs) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1 or shapes[0][3] != 3 or not self._are_known():
            raise InputError(
                f"The detector {path} has inputs and outputs of shapes {shapes}; give one from an image (1, H, W, 3) "
                "to boxes (1, n, 4), classes (1, n), scores (1, n) and a count, or to boxes and scores."
            )

    def _are_known(self) -> bool:
        """Whether the outputs are of one of the two kinds, and have the class of people."""
        if self._boxes is None or self._boxes["shape"][0] != 1:
            return False
        count, number = int(self._boxes["shape"][1]), self.person_class
        others = [tensor["shape"].tolist() for tensor in self._outputs if tensor is not self._boxes]
        if len(others) == 1:
            (scores,) = others
            return scores == [1, count] or (scores[:2] == [1, count] and len(scores) == 3 and scores[2] > number)
        return len(others) == 3 and [1, count] in others and sum(shape == [1, count] for shape in others) == 2

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes ``(people, 4)`` and scores ``(people,)``, the likeliest first."""
        size = tuple(int(side) for side in self._input["shape"][1:3])
        canvas, scale = letterbox(image, size)
        self._interpreter.set_tensor(self._input["index"], self._as_input(canvas)[None])
        self._interpreter.invoke()
        shares, scores = self._people()
        corners = (shares * (*size, *size))[:, [1, 0, 3, 2]] / np.tile(scale, 2)
        return _boxes_of(corners, scores, scores >= self.score_threshold)

    def _as_input(self, canvas: np.ndarray) -> np.ndarray:
        kind = np.dtype(self._input["dtype"])
        if kind.kind == "f":
            low, high = self.value_range
            return (canvas * ((high - low) / 255) + low).astype(kind)
        # Quantised inputs take the grey levels themselves, whatever these mean to the network; int8 counts from -128.
        return (canvas.astype(np.int16) + np.iinfo(kind).min).astype(kind)

    def _value(self, tensor) -> np.ndarray:
        scale, zero = tensor["quantization"]
        value = self._interpreter.get_tensor(tensor["index"])[0]
        return (value.astype(np.float64) - zero) * scale if scale else value.astype(np.float64)

    def _people(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners ``(n, 4)`` as shares of the input's sides, and scores ``(n,)`` of people."""
        boxes = self._value(self._boxes)
        others = [self._value(tensor) for tensor in self._outputs if tensor is not self._boxes]
        if len(others) == 1:
            scores = others[0]
            return boxes, scores if scores.ndim == 1 else scores[:, self.person_class]
        lists = [value for value in others if value.ndim == 1 and len(value) == len(boxes)]
        # Classes are whole numbers, scores hardly ever all are; of two that are whole, scores do not exceed 1.
        scores, classes = sorted(lists, key=lambda value: (np.array_equal(value, np.rint(value)), value.max(initial=0)))
        people = np.rint(classes) == self.person_class
        return boxes[people], scores[people]


class KerasHubDetector:
    """An object detector of KerasHub, such as D-FINE or RetinaNet.

    The image goes in as its preprocessor makes it for training: stretched to the network's input, or letterboxed where
    that keeps the aspect.

    Args:
        preset: name or folder, as KerasHub's ``from_preset`` takes it.
        score_threshold: boxes of a lower score are left out.
        person_class: number of the class of people; COCO's is 0.
        model: the detector itself, instead of one that is loaded.

    Raises:
        InputError: KerasHub is not installed, or it has no such preset.
    """

    def __init__(self, preset: str, score_threshold: float = SCORE_THRESHOLD, person_class: int = 0, model=None):
        if model is None:
            try:
                import keras_hub
            except ImportError:
                raise InputError(f"The detector {preset} is of KerasHub: {install_command('detect')}.") from None
            try:
                model = keras_hub.models.ObjectDetector.from_preset(preset)
            except Exception as error:  # a name that is unknown, no network, a damaged cache: each raises its own
                raise InputError(f"KerasHub cannot load the detector {preset!r} ({short_message(error)}).") from error
        self.model, self.score_threshold, self.person_class = model, score_threshold, person_class
        decoder = model.prediction_decoder
        if decoder.confidence_threshold != score_threshold:  # its own would leave out more
            settings = {**decoder.get_config(), "confidence_threshold": score_threshold}
            model.prediction_decoder = type(decoder).from_config(settings)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes ``(people, 4)`` and scores ``(people,)``, the likeliest first."""
        converter = getattr(self.model.preprocessor, "image_converter", None)
        size, scale, seen = getattr(converter, "image_size", None), np.ones(2), image
        if size is not None and (converter.crop_to_aspect_ratio or converter.pad_to_aspect_ratio):
            seen, scale = letterbox(image, size)
        elif size is not None:
            seen, scale = _resized(image, size), np.divide(size[::-1], image.shape[1::-1])
        found = self.model.predict(seen[None], verbose=0)
        found = {name: np.asarray(value)[0] for name, value in found.items()}
        corners = found["boxes"].astype(np.float64)
        form = self.model.bounding_box_format
        if form.startswith("rel_"):
            corners = corners * np.tile(seen.shape[1::-1] if form == "rel_xyxy" else seen.shape[:2], 2)
        if form.endswith("yxyx"):
            corners = corners[:, [1, 0, 3, 2]]
        scores = found["confidence"].astype(np.float64)
        people = (found["labels"] == self.person_class) & (scores >= self.score_threshold)
        return _boxes_of(corners / np.tile(scale, 2), scores, people)


def letterbox(image: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image scaled to fit a size ``(height, width)``, at its upper left, black elsewhere; and the scales of x, y."""
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[:height, :width] = _resized(image, (height, width))
    return canvas, np.array([width / image.shape[1], height / image.shape[0]])


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _boxes_of(corners: np.ndarray, scores: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores of corners ``(n, 4)`` x, y, x, y where there are people ``(n,)``, suppressed."""
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = people & np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    return suppress(boxes[kept], np.clip(scores[kept], 0, 1))


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float = NMS_THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``(n, 4)`` x, y, w, h and scores ``(n,)`` without those that overlap a better one by more (IoU)."""
    if not len(boxes):
        return np.zeros((0, 4)), np.zeros(0)
    kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, threshold)).reshape(-1)
    return boxes[kept], scores[kept]


class BoxesFile:
    """Boxes that another program found, by the image's name.

    Args:
        path: ``.csv`` with the columns image, x, y, w, h and perhaps score; or ``.json`` in the COCO results format
            (``image_id``, ``bbox``, ``score``), where an image's id is the number in its name
            (``000000000785.jpg`` is 785) or a record has the name in ``file_name``; or an annotation file of COCO.
            A name may have folders; they count where several images have one name.

    A box without a score may have a person in it or not (0.5).

    Raises:
        InputError: a file that is missing or not of this kind; the record is named.
    """

    def __init__(self, path: str | Path):
        self.path, self._boxes = Path(path), defaultdict(list)
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                records = list(csv.DictReader(file)) if self.path.suffix.lower() == ".csv" else json.load(file)
            if isinstance(records, dict) and "annotations" in records:
                names = {image["id"]: image["file_name"] for image in records["images"]}
                records = [{"file_name": names[record["image_id"]], **record} for record in records["annotations"]]
        except FileNotFoundError:
            raise InputError(f"The file of boxes {path} is not there.") from None
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(f"The file of boxes {path} cannot be read ({short_message(error)}).") from None
        for number, record in enumerate(records if isinstance(records, list) else [records], 1):
            try:
                self._add(record)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(
                    f"{path}: record {number} is no box ({short_message(error)}); give image, x, y, w, h, score, or "
                    "COCO results."
                ) from None

    def _add(self, record: dict) -> None:
        if "bbox" in record:
            if record.get("category_id", 1) != 1:
                return
            name, box = record["file_name" if "file_name" in record else "image_id"], record["bbox"]
        else:
            name, box = record["image"], [record[field] for field in ("x", "y", "w", "h")]
        *box, score = (
            float(value) for value in (*box, UNKNOWN if record.get("score") in (None, "") else record["score"])
        )
        if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
            raise ValueError(f"its box is {box}")
        if not 0 <= score <= 1:
            raise ValueError(f"its score is {score:g}, which is not from 0 to 1")
        *folders, name = _parts(name)
        self._boxes[name].append((folders, [*box, score]))

    def of(self, image: str | Path) -> tuple[np.ndarray, np.ndarray]:
        """Boxes ``(people, 4)`` and scores ``(people,)`` of an image by its name; none if the file has none."""
        *folders, name = _parts(image)
        found = self._boxes.get(name, [])
        if any(given != found[0][0] for given, _ in found):  # of several images of this name
            found = [(given, values) for given, values in found if given == folders[len(folders) - len(given) :]]
        values = np.reshape([values for _, values in found], (-1, 5))
        return values[:, :4], values[:, 4]


def _parts(name: str | int | Path) -> list[str]:
    """The folders of a file and what it is found by: its name, or of one such as COCO's the number in it."""
    *folders, name = [part for part in str(name).replace("\\", "/").split("/") if part not in ("", ".")] or [""]
    stem = name.rpartition(".")[0] or name
    return [*folders, str(int(stem)) if stem.isdecimal() else name]
