"""COCO keypoints: ``annotations/person_keypoints_*.json`` beside the image folders, and boxes of a person detector."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_mrpose.data import json_stream
from keras_mrpose.data.issues import Issue, Report, float_array, raise_issue
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, Skeleton, flip_pairs_of

PERSON = 1  # category_id
SPLITS = {"train": "train2017", "val": "val2017"}


def load(
    root: str | Path,
    split: str = "val",
    require_images: bool = True,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People with keypoint annotations of a COCO folder (`parse` says which).

    The file is read piece by piece: next to the table itself, this needs little memory.

    Args:
        root: holds ``annotations/person_keypoints_SPLIT.json`` and the images in ``SPLIT/`` or ``images/SPLIT/``.
        split: ``"train"``, ``"val"`` (of 2017), or the split's full name.
        require_images: False does without the image files, where the annotations alone are needed.
        skeleton: of the people, see `skeleton_of`, like strict; None takes the file's.
        strict: a file that names other joints is an error.

    Raises:
        InputError: a missing or unreadable file, or an annotation with a wrong field, each named.
    """
    file, folder = split_paths(Path(root), SPLITS.get(split, split), "person_keypoints")
    people = parse(json_stream.iter_fields(file, _advice(file)), str(file), folder, skeleton, strict)
    return people.require_images() if require_images else people


def load_detections(
    boxes_file: str | Path,
    root: str | Path,
    split: str = "val",
    score_threshold: float = 0.0,
    require_images: bool = True,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People that a detector found in the images of a COCO folder (`parse_detections` says which).

    Args:
        boxes_file: the detector's boxes in the COCO results format, such as
            ``COCO_val2017_detections_AP_H_56_person.json``.
        root: holds the images, as in `load`, and ``annotations/person_keypoints_SPLIT.json``, which lists them; for
            ``"test2017"`` and ``"test-dev2017"``, which have no annotations, ``annotations/image_info_SPLIT.json`` and
            ``test2017/``.
        split: as in `load`.
        score_threshold: boxes of a lower score are left out.
        require_images: as in `load`, like skeleton.

    Raises:
        InputError: a missing or unreadable file, or a record with a wrong field, each named.
    """
    split = SPLITS.get(split, split)
    file, folder = split_paths(Path(root), split, "image_info" if split.startswith("test") else "person_keypoints")
    images = _read(file, lists=("images",))
    skeleton = skeleton_of(images.get("categories"), str(file), skeleton, strict)
    boxes = json_stream.read(Path(boxes_file), "give the file of a person detector's boxes")
    people = parse_detections(boxes, str(boxes_file), images["images"], str(file), folder, score_threshold, skeleton)
    return people.require_images() if require_images else people


def parse(
    content: dict | Iterable[tuple[str, object]],
    source: str,
    folder: str | Path,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> People:
    """People of a COCO annotation file, selected and cleaned as the published loader does; reads no image.

    Crowds and people without a keypoint are left out. A box is cut at the image's border and measured from pixel
    centre to pixel centre (one less than annotated); one that has no size left cannot be cropped and is left out
    (where one side only is zero, the other still sets the crop). A joint's ``v`` stays 0, 1 or 2.

    Args:
        content: of the file, with lists ``images`` and ``annotations``; or its fields, see `json_stream.iter_fields`.
        source: the file's name, for messages.
        folder: where the images are.
        skeleton: as in `load`, like strict.
        strict: as in `load`.

    Returns:
        The people in the order of the images, and inside an image in the order of the annotations.

    Raises:
        InputError: a field that is missing or wrong; names the file, the annotation and the field.
    """
    records = read_records(content, source, skeleton, strict)
    images, annotations, skeleton = records.images, records.annotations, records.skeleton
    counts = np.array(annotations.counts, bool)
    rows, ids = np.array(records.rows, np.int64)[counts], np.array(annotations.ids, np.int64)[counts]
    boxes, has_size = _clean(np.reshape(annotations.boxes, (-1, 4)), np.reshape(images.sizes, (-1, 2))[rows])
    kept = np.argsort(rows, kind="stable")
    kept = kept[has_size[kept]]
    areas = np.array(annotations.areas)[kept]
    return People(
        source=source,
        skeleton=skeleton,
        image_paths=images.paths(folder),
        image_ids=images.ids,
        image_sizes=images.sizes,
        image_index=rows[kept],
        ids=ids[kept],
        boxes=boxes[kept],
        keypoints=np.reshape(annotations.keypoints, (-1, skeleton.num_joints, 3))[kept],
        reference_length=np.sqrt(areas),
        areas=areas,
        protocol="ap",
    )


def parse_detections(
    content: list,
    source: str,
    images: list[dict],
    images_source: str,
    folder: str | Path,
    score_threshold: float = 0.0,
    skeleton: Skeleton = COCO,
) -> People:
    """People of a detector's boxes, selected as the published loader does; reads no image.

    Other categories and scores below the threshold are left out. A box stays as it was found, also outside the image.

    Args:
        content: of the boxes' file, a list of records with image_id, category_id, bbox and score.
        source: its name, for messages.
        images: list ``images`` of a COCO annotation file.
        images_source: that file's name, for messages.
        folder: where the images are.
        score_threshold: a box of exactly this score is kept.
        skeleton: of the people.

    Returns:
        The people in the order of the boxes, their number in the file (from 0) as ids, their box's area as areas. No
        joint is labelled; nothing can be measured with the reference_length, which is 1.

    Raises:
        InputError: a field that is missing or wrong; names the file, the record and the field.
    """
    if not isinstance(content, list):
        raise InputError(f"{source} holds no list; give a person detector's boxes in the COCO results format.")
    listed = ImageColumns(images, images_source)
    kept = []
    for place, record in enumerate(content):
        name = f"record {place}"
        require_fields(record, {"image_id": int, "category_id": int}, source, name)
        (score,) = read_floats(record, "score", 1, source, name)
        if record["category_id"] == PERSON and score >= score_threshold:
            box = read_floats(record, "bbox", 4, source, name)
            row = listed.row(record["image_id"], source, name, f"the images of {images_source}")
            kept.append((row, place, box, score))
    rows, ids, boxes, scores = zip(*kept, strict=True) if kept else ((),) * 4
    return People(
        source=source,
        skeleton=skeleton,
        image_paths=listed.paths(folder),
        image_ids=listed.ids,
        image_sizes=listed.sizes,
        image_index=rows,
        ids=ids,
        boxes=boxes,
        keypoints=np.zeros((len(ids), skeleton.num_joints, 3)),
        reference_length=np.ones(len(ids)),
        areas=[w * h for _, _, w, h in boxes],
        scores=scores,
        protocol="ap",
    )


def ground_truth(file: str | Path, skeleton: Skeleton | None = None, hidden: Sequence[int] = ()) -> dict:
    """All annotations of people in a file, unchanged, for pycocotools.

    Args:
        file: as in `annotation_file`.
        skeleton: of the people, see `skeleton_of`; None takes the file's.
        hidden: joints to treat as unlabelled, since the evaluated network does not have them.

    Returns:
        ``images``, ``annotations`` (crowds and people without a keypoint too) and ``categories`` of a COCO data set.

    Raises:
        InputError: what pycocotools would fail on or silently get wrong, named with file and annotation.
    """
    content = _read(Path(file))
    joints = skeleton_of(content.get("categories"), str(file), skeleton).num_joints
    source = str(file)
    images = ImageColumns(content["images"], source)
    people = {}
    for place, annotation in enumerate(content["annotations"]):
        name = _record_name("annotation", annotation, place)
        require_fields(annotation, {"id": int, "image_id": int, "category_id": int}, source, name)
        if annotation["category_id"] != PERSON:
            continue
        require_fields(annotation, {"iscrowd": int, "num_keypoints": int}, source, name)
        images.row(annotation["image_id"], source, name)
        for field, count in (("keypoints", joints * 3), ("bbox", 4), ("area", 1)):
            read_floats(annotation, field, count, source, name)
        if annotation["id"] <= 0 or annotation["id"] in people:  # pycocotools takes 0 for "matched with nobody"
            raise InputError(
                f"{source}: {name} has an id that is not positive or not its own; give each annotation another."
            )
        people[annotation["id"]] = _without(dict(annotation), hidden)
    return {
        "images": content["images"],
        "annotations": list(people.values()),
        "categories": [{"id": PERSON, "name": "person"}],
    }


def _without(annotation: dict, hidden: Sequence[int]) -> dict:
    """The annotation without the labels of some joints."""
    if not len(hidden):
        return annotation
    keypoints = np.reshape(annotation["keypoints"], (-1, 3))
    keypoints[hidden] = 0
    counted = int((keypoints[:, 2] > 0).sum())
    return {**annotation, "keypoints": keypoints.ravel().tolist(), "num_keypoints": counted}


def skeleton_in(file: str | Path, skeleton: Skeleton | None = None) -> Skeleton:
    """The skeleton of an annotation file, see `skeleton_of`."""
    return skeleton_of(_read(Path(file)).get("categories"), str(file), skeleton)


def annotation_file(root: str | Path, split: str = "val") -> Path:
    """The annotation file of a split in a COCO folder."""
    return split_paths(Path(root), SPLITS.get(split, split), "person_keypoints")[0]


def split_paths(root: Path, split: str, prefix: str) -> tuple[Path, Path]:
    """The annotation file of a split, and the folder of its images."""
    images = split.replace("test-dev", "test")  # a part of the test images
    folder = next((f for f in (root / images, root / "images" / images) if f.is_dir()), root / images)
    return root / "annotations" / f"{prefix}_{split}.json", folder


def _clean(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of boxes inside their images, as the published loader measures them; and which have a size left."""
    corner = np.maximum(boxes[:, :2], 0)
    end = np.minimum(sizes - 1.0, corner + np.maximum(boxes[:, 2:] - 1, 0))
    sides = end - corner
    return np.concatenate([corner, sides], axis=1), (sides >= 0).all(axis=1) & (sides.sum(axis=1) > 0)


def _read(file: Path, lists: tuple[str, ...] = ("images", "annotations")) -> dict:
    """An annotation file that has these lists."""
    content = json_stream.read(file, _advice(file))
    for label in lists:
        if not isinstance(content, dict) or not isinstance(content.get(label), list):
            raise _no_list(file, label)
    return content


def _advice(file: Path) -> str:
    return f"a COCO folder has annotations/{file.name} and its images beside that folder"


def _no_list(source: str | Path, label: str) -> InputError:
    return InputError(f"{source} has no list {label!r}; give a COCO keypoint annotation file.")


# --- the records of an annotation file --------------------------------------------------------------------------------


class ImageColumns:
    """The images that a file lists.

    Args:
        records: with id, file_name, width and height.
        source: the file's name, for messages.
        report: gets what is wrong; a wrong record is left out if it returns.

    Attributes:
        ids, names, sizes: of each image; a size is ``(width, height)``.
        row_of: the row of each image by its id.
    """

    def __init__(self, records: Iterable, source: str, report: Report = raise_issue):
        self.ids, self.names, self.sizes = [], [], []
        fields = {"id": int, "file_name": str, "width": int, "height": int}
        for place, image in enumerate(records):
            if require_fields(image, fields, source, f"image {place}", report):
                self.ids.append(image["id"])
                self.names.append(image["file_name"])
                self.sizes.append((image["width"], image["height"]))
        self.row_of = {number: row for row, number in enumerate(self.ids)}

    def row(
        self, image_id: int, source: str, record: str, where: str = "the file's images", report: Report = raise_issue
    ) -> int:
        """The row of an image, -1 if there is none and `report` returns."""
        row = self.row_of.get(image_id, -1)
        if row < 0:
            message = f"{source}: {record} has image_id {image_id}, which is not among {where}."
            report(Issue("unknown image", source, record, "image_id", str(image_id), message))
        return row

    def paths(self, folder: str | Path) -> list[str]:
        """The images' files in a folder."""
        return [str(Path(folder, name)) for name in self.names]


class AnnotationColumns:
    """The annotated people of a file, without crowds: in flat arrays, since there are hundreds of thousands.

    Args:
        source: the file's name, for messages.
        report: gets what is wrong; wrong numbers become NaN if it returns.
        keep_all: keep the numbers of everybody; else of those only who have an area and a keypoint.

    Attributes:
        ids, image_ids: of all people.
        counts: whether the arrays below have the numbers of each of them.
        boxes, areas, keypoints: four, one and three for each joint.
        lengths: how many numbers the keypoints of each of all people have, 0 if they are no finite numbers.
        declared: ``num_keypoints`` of each of all people, None if the file does not say.
        all_ids: of all annotations with `keep_all`, of crowds and other categories too.
    """

    def __init__(self, source: str, report: Report = raise_issue, keep_all: bool = False):
        self.source, self.report, self.keep_all = source, report, keep_all
        self.ids, self.image_ids, self.counts, self.declared, self.all_ids = [], [], [], [], []
        self.boxes, self.areas, self.keypoints, self.lengths = array("d"), array("d"), array("d"), array("q")
        self._wrong: dict[int, tuple[str, str]] = {}  # row -> kind of issue and value of keypoints that are no numbers
        self._examples: dict[int, str] = {}  # length -> how a message begins about the first keypoints of this length

    def add(self, annotation, place: int) -> None:
        """Check an annotation, and keep what is needed of it."""
        name = _record_name("annotation", annotation, place)
        fields = {"id": int, "image_id": int, "category_id": int, "iscrowd": int}
        if not require_fields(annotation, fields, self.source, name, self.report):
            return
        if self.keep_all:
            self.all_ids.append(annotation["id"])
        if annotation["category_id"] != PERSON or annotation["iscrowd"]:
            return
        keypoints, kind, value = float_array(annotation.get("keypoints"))
        if keypoints is None:
            self._wrong[len(self.ids)] = kind, value
            keypoints = np.zeros(0)
        if keypoints.size not in self._examples:
            self._examples[keypoints.size] = f"has keypoints {annotation.get('keypoints')!r:.80}"
        box = read_floats(annotation, "bbox", 4, self.source, name, self.report)
        area = read_floats(annotation, "area", 1, self.source, name, self.report)
        box = np.full(4, np.nan) if box is None else box
        area = np.nan if area is None else area.item()
        counts = self.keep_all or bool(area > 0 and keypoints.size and keypoints.max() > 0)
        self.ids.append(annotation["id"])
        self.image_ids.append(annotation["image_id"])
        self.counts.append(counts)
        self.declared.append(annotation.get("num_keypoints"))
        self.lengths.append(keypoints.size)
        if counts:
            self.boxes.frombytes(box.tobytes())
            self.areas.append(area)
            self.keypoints.frombytes(keypoints.tobytes())

    def require_joints(self, count: int) -> None:
        """Report the annotations with another number of joints."""
        for row, length in enumerate(self.lengths):
            if length != 3 * count:
                kind, value = self._wrong.get(row, ("joint count", f"{length} numbers, not {3 * count}"))
                record = f"annotation {self.ids[row]}"
                message = f"{self.source}: {record} {self._examples[length]}, expected {_wanted(count)}."
                self.report(Issue(kind, self.source, record, "keypoints", value, message))


@dataclass
class Records:
    """What is in an annotation file.

    Attributes:
        images, annotations: checked.
        rows: of each of the annotations' people, the row of the image; -1 if the file does not list it.
        skeleton: the joints.
    """

    images: ImageColumns
    annotations: AnnotationColumns
    rows: list[int]
    skeleton: Skeleton


def read_records(
    content: dict | Iterable[tuple[str, object]],
    source: str,
    skeleton: Skeleton | None = None,
    strict: bool = True,
    report: Report = raise_issue,
    keep_all: bool = False,
) -> Records:
    """Images and people of an annotation file, each record checked.

    Args:
        content: as in `parse`, like source, skeleton and strict.
        report: gets what is wrong with a record.
        keep_all: see `AnnotationColumns`.

    Raises:
        InputError: a file without a list of images and of annotations; and whatever `report` raises.
    """
    images, annotations, categories = None, None, None
    for label, value in content.items() if isinstance(content, dict) else content:
        if label in ("images", "annotations") and not isinstance(value, list | Iterator):
            raise _no_list(source, label)
        if label == "images":
            images = ImageColumns(value, source, report)
        elif label == "annotations":
            annotations = AnnotationColumns(source, report, keep_all)
            for place, annotation in enumerate(value):
                annotations.add(annotation, place)
        elif label == "categories":
            categories = list(value) if isinstance(value, list | Iterator) else None
    for label, found in (("images", images), ("annotations", annotations)):
        if found is None:
            raise _no_list(source, label)
    try:
        found = skeleton_of(categories, source, skeleton, strict)
    except InputError as error:
        value = str(error).removeprefix(source)
        report(Issue("joint count", source, "categories", "keypoints", value, str(error)))
        found = skeleton or COCO
    rows = [
        images.row(image_id, source, f"annotation {number}", report=report)
        for number, image_id in zip(annotations.ids, annotations.image_ids, strict=True)
    ]
    annotations.require_joints(found.num_joints)
    return Records(images, annotations, rows, found)


def skeleton_of(categories, source: str, skeleton: Skeleton | None = None, strict: bool = True) -> Skeleton:
    """Joints of a COCO-format file.

    Args:
        categories: the file's list; that of people (id 1) may name ``keypoints``, and edges as ``skeleton``, which
            counts joints from 1.
        source: the file's name, for messages.
        skeleton: which it should be; None takes COCO's where the file names these joints or none, else the file's own,
            with left/right pairs found from the names, and the default sigmas.
        strict: False: it is that of a file that names no joints only; a file that names others keeps its own.

    Raises:
        InputError: a file that names other joints than the skeleton, or joints or edges that cannot be.
    """
    categories = [category for category in categories or () if isinstance(category, dict)]
    category = next((each for each in categories if each.get("id") == PERSON), {})
    named = [each.get("id") for each in categories if each.get("keypoints")]
    if named and PERSON not in named:
        raise InputError(f"{source}: category {named[0]!r} has the keypoints; give people the category_id {PERSON}.")
    joints = category.get("keypoints")
    if joints is None:
        return skeleton or COCO
    if not isinstance(joints, list) or not joints or not all(isinstance(joint, str) for joint in joints):
        raise InputError(f"{source}: category {PERSON} has keypoints {joints!r:.80}, expected a list of names.")
    for wanted in (skeleton, COCO):
        if wanted and tuple(joints) == wanted.joints and (wanted is skeleton or skeleton is None or not strict):
            return wanted
    if skeleton is not None and strict:
        raise InputError(
            f"{source} has the joints {', '.join(joints)}, but the skeleton {skeleton.name} has "
            f"{', '.join(skeleton.joints)}; give the file's, in its order."
        )
    edges = category.get("skeleton") or ()
    try:
        edges = [(a - 1, b - 1) for a, b in edges]
        name = category.get("name")
        return Skeleton(name if isinstance(name, str) else "own", joints, flip_pairs_of(joints), edges)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: category {PERSON} has keypoints or a skeleton that cannot be ({error}); fix it, or give a "
            "skeleton file."
        ) from error


def _record_name(kind: str, record, place: int) -> str:
    """What messages call a record: by its id, or by its place."""
    return f"{kind} {record.get('id', place) if isinstance(record, dict) else place!s:.40}"


def require_fields(record, fields: dict[str, type], source: str, name: str, report: Report = raise_issue) -> bool:
    """Whether a record has all these fields, whole numbers of 64 bits; each that is wrong is reported."""
    right = True
    for label, kind in fields.items():
        value = record.get(label) if isinstance(record, dict) else None
        if not isinstance(value, kind) or (kind is int and not -(2**63) <= value < 2**63):
            message = f"{source}: {name} has {label} {value!r:.80}, expected {kind.__name__}; see the COCO data format."
            if not isinstance(record, dict):  # one issue, not one for each field
                report(Issue("record", source, name, "-", f"a {type(record).__name__}, not a dict", message))
                return False
            report(Issue("record", source, name, label, repr(value) if label in record else "missing", message))
            right = False
    return right


def read_floats(
    record: dict, label: str, count: int, source: str, name: str, report: Report = raise_issue
) -> np.ndarray | None:
    """A field of so many finite numbers, flat; None if it is not, and `report` returns."""
    values, kind, value = float_array(record.get(label))
    if values is not None and values.size == count:
        return values.ravel()
    if values is not None:
        joints = label == "keypoints"
        kind, value = "joint count" if joints else "record", f"{values.size} numbers, not {count}"
    wanted = _wanted(count // 3) if label == "keypoints" else f"{count} finite number(s)"
    message = f"{source}: {name} has {label} {record.get(label)!r:.80}, expected {wanted}."
    report(Issue(kind, source, name, label, value if label in record else "missing", message))
    return None


def _wanted(joints: int) -> str:
    return f"{joints} joints of x, y, v: {3 * joints} finite numbers"
