"""The records of a file in COCO's format: each checked, who counts and why others do not, and whose joints they are.

`read_records` decides that once for loader, doctor and evaluation.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_mrpose.data import layout
from keras_mrpose.data.issues import Issue, Report, float_array, raise_issue
from keras_mrpose.data.suspicions import Suspicion, suspicions
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, Skeleton

PERSON = 1  # COCO's category_id of people, and that of all results
PERSON_NAMES = ("person", "people", "human")
NAMED_JOINTS = '"categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", ...]}]'
# Why records are left out.
CATEGORY, CROWD, NO_KEYPOINTS, NO_LABEL = (
    "of another category",
    "crowd",
    "without keypoints",
    "without a labelled joint",
)
SMALL, OUTSIDE = "box smaller than 2 px", "box outside the image"


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

    def paths(self, folder: str | Path | Sequence[Path]) -> list[str]:
        """The images' files in a folder, or in the first of several that has them."""
        return layout.image_paths(folder, self.names)


class AnnotationColumns:
    """The records of people in a file, crowds left out: in flat arrays, since there are hundreds of thousands.

    Which category is that of people is known only when all of them are read; so what is wrong with a record is reported
    by `report_wrong`, but for ids.

    Args:
        source: the file's name, for messages.
        report: gets what is wrong; wrong numbers become NaN if it returns.

    Attributes:
        all_ids: of all annotations, of crowds and other categories too.
        ids, image_ids, categories, places: of all records but crowds; the place is that in the file.
        lengths: how many numbers their keypoints are, 0 if there are none or they are no finite numbers.
        labelled: how many joints are, -1 if that cannot be said.
        declared: their ``num_keypoints``, None if the file does not say.
        boxes, areas, keypoints: of those who may have a labelled joint: four, one and `lengths` numbers each; an area
            that is missing or not positive is NaN.
        crowds: how many each category has.
    """

    def __init__(self, source: str, report: Report = raise_issue):
        self.source, self.report = source, report
        self.all_ids, self.ids, self.image_ids, self.categories = array("q"), array("q"), array("q"), array("q")
        self.places, self.lengths, self.labelled, self.declared = array("q"), array("q"), array("q"), []
        self.boxes, self.areas, self.keypoints = array("d"), array("d"), array("d")
        self.crowds = Counter()
        self._issues: dict[int, list[Issue]] = defaultdict(list)
        self._wrong: dict[int, tuple[str, str]] = {}  # row -> kind of issue and value of keypoints that are no numbers
        self._examples: dict[int, str] = {}  # length -> how a message begins about the first keypoints of this length

    def add(self, annotation, place: int) -> None:
        """Check an annotation, and keep what is needed of it."""
        name = _record_name("annotation", annotation, place)
        if not require_fields(annotation, dict.fromkeys(IDS, int), self.source, name, self.report):
            return
        category = annotation["category_id"]
        self.all_ids.append(annotation["id"])
        if annotation.get("iscrowd"):
            self.crowds[category] += 1
            return
        given = annotation.get("keypoints")
        keypoints, kind, value = (np.zeros(0), "", "") if given in (None, []) else float_array(given)
        labelled = -1
        if keypoints is None:
            self._wrong[len(self.ids)] = kind, value
            keypoints = np.zeros(0)
        elif keypoints.size % 3 == 0:
            labelled = int((keypoints.ravel()[2::3] > 0).sum())
        if keypoints.size not in self._examples:
            self._examples[keypoints.size] = f"has keypoints {given!r:.80}"
        self.ids.append(annotation["id"])
        self.image_ids.append(annotation["image_id"])
        self.categories.append(category)
        self.places.append(place)
        self.lengths.append(keypoints.size)
        self.labelled.append(labelled)
        self.declared.append(annotation.get("num_keypoints"))
        if labelled:
            box = read_floats(annotation, "bbox", 4, self.source, name, self._later(category))
            area, _, _ = float_array(annotation.get("area"))
            self.boxes.frombytes((np.full(4, np.nan) if box is None else box).tobytes())
            self.areas.append(area.item() if area is not None and area.size == 1 and area > 0 else np.nan)
            self.keypoints.frombytes(keypoints.tobytes())

    def _later(self, category: int) -> Report:
        """Keeps what is wrong until the category of people is known; the first is enough where that raises."""
        issues = self._issues[category]
        return lambda issue: issues.append(issue) if self.report is not raise_issue or not issues else None

    def with_keypoints(self) -> Counter:
        """How many records of each category have keypoints."""
        return Counter(np.asarray(self.categories)[np.asarray(self.labelled) != 0].tolist())

    def report_wrong(self, category: int, joints: int) -> None:
        """Report what is wrong with the records of a category, other numbers of joints too."""
        for issue in self._issues[category]:
            self.report(issue)
        for row in np.flatnonzero(np.asarray(self.categories) == category).tolist():
            length, record = self.lengths[row], f"annotation {self.ids[row]}"
            if length != 3 * joints and self.labelled[row]:
                kind, value = self._wrong.get(row, ("joint count", f"{length} numbers, not {3 * joints}"))
                message = f"{self.source}: {record} {self._examples[length]}, expected {_wanted(joints)}."
                self.report(Issue(kind, self.source, record, "keypoints", value, message))


IDS = ("id", "image_id", "category_id")


@dataclass
class Records:
    """What is in an annotation file, and who counts.

    Attributes:
        images: that the file lists.
        skeleton: the joints.
        category: that of people.
        all_ids: of all annotations.
        ids: ``(people,)`` of all who have a labelled joint and whose record is right, as are all columns below.
        places: where each one's record is in the file.
        rows: of each one's image.
        boxes: ``(people, 4)`` x, y, w, h as annotated.
        areas: annotated, or the box's where that is missing or not positive.
        keypoints: ``(people, joints, 3)``.
        clean_boxes: the part inside the image, see `coco.parse`.
        kept: ``(people,)`` whether that has a size; who has is trained and measured.
        left_out: reason -> how many other records.
        suspicions: of the file as a whole.
        remarks: a sentence about each of them, and what else is odd about the file.
    """

    images: ImageColumns
    skeleton: Skeleton
    category: int
    all_ids: Sequence[int]
    ids: np.ndarray
    places: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    keypoints: np.ndarray
    clean_boxes: np.ndarray
    kept: np.ndarray
    left_out: dict[str, int]
    suspicions: list[Suspicion]
    remarks: tuple[str, ...]


def read_records(
    content: dict | Iterable[tuple[str, object]],
    source: str,
    skeleton: Skeleton | None = None,
    strict: bool = True,
    report: Report = raise_issue,
) -> Records:
    """Images and people of an annotation file, each record checked; who counts, and why others do not.

    Args:
        content: as in `coco.parse`, like source, skeleton and strict.
        report: gets what is wrong with a record, and what is odd.

    Raises:
        InputError: a file without a list of images and of annotations, with several categories that could be people, or
            without the names of joints that are not COCO's 17; and whatever `report` raises.
    """
    images, annotations, categories = None, None, None
    for label, value in content.items() if isinstance(content, dict) else content:
        if label in ("images", "annotations") and not isinstance(value, list | Iterator):
            raise no_list(source, label)
        if label == "images":
            images = ImageColumns(value, source, report)
        elif label == "annotations":
            annotations = AnnotationColumns(source, report)
            for place, annotation in enumerate(value):
                annotations.add(annotation, place)
        elif label == "categories":
            categories = list(value) if isinstance(value, list | Iterator) else None
    for label, found in (("images", images), ("annotations", annotations)):
        if found is None:
            raise no_list(source, label)
    used = annotations.with_keypoints()
    category = person_category(categories, source, used)
    remarks = []
    if used and category not in used:
        remarks.append(f"The records with keypoints have the category_id {min(used)}, but people are {category}.")
        report(Issue("category", source, "annotations", "category_id", f"{min(used)}, but people are {category}"))
    of_people = np.asarray(annotations.categories) == category
    lengths = np.asarray(annotations.lengths)
    try:
        joints = skeleton_of(categories, source, skeleton, strict, category)
        if joints is COCO and skeleton is None and used and not _names_joints(categories, category):
            _require_17(lengths[of_people & (lengths > 0)], source)
            remarks.append("The file names no joints; COCO's 17 are taken.")
            report(Issue("joint names", source, "categories", "keypoints", "none; COCO's 17 are taken"))
    except InputError as error:
        value = str(error).removeprefix(source)
        report(Issue("joint count", source, "categories", "keypoints", value, str(error)))
        joints = skeleton or COCO
    else:
        annotations.report_wrong(category, joints.num_joints)
    rows = np.array(
        [
            images.row(image_id, source, f"annotation {number}", report=report) if mine else -1
            for number, image_id, mine in zip(annotations.ids, annotations.image_ids, of_people.tolist(), strict=True)
        ],
        np.int64,
    )
    return _select(images, annotations, rows, joints, category, remarks)


def _select(
    images: ImageColumns, annotations: AnnotationColumns, rows: np.ndarray, skeleton: Skeleton, category: int,
    remarks: list[str],
) -> Records:  # fmt: skip
    """Who counts, of the records that are right, and why others do not."""
    report, source = annotations.report, annotations.source
    ids, labelled = np.asarray(annotations.ids, np.int64), np.asarray(annotations.labelled)
    of_people, lengths = np.asarray(annotations.categories) == category, np.asarray(annotations.lengths)
    numbers = labelled != 0  # whose numbers there are
    length, boxes = 3 * skeleton.num_joints, np.reshape(annotations.boxes, (-1, 4))
    whole = of_people & numbers & (lengths == length) & (rows >= 0)
    whole[numbers] &= np.isfinite(boxes).all(axis=1)
    of_whole = whole[numbers]
    keypoints = np.asarray(annotations.keypoints)
    if not of_whole.all():
        keypoints = keypoints[np.repeat(of_whole, lengths[numbers])]
    keypoints, boxes = keypoints.reshape(-1, skeleton.num_joints, 3), boxes[of_whole]
    ids_of, rows_of, sizes = ids[whole], rows[whole], np.reshape(images.sizes, (-1, 2))[rows[whole]]

    for row in np.flatnonzero(of_people & ~numbers):
        value = "no labelled joint" if lengths[row] else "missing"
        report(Issue("unlabelled person", source, f"annotation {ids[row]}", "keypoints", value))
    counted = labelled[whole]
    declared = [number for number, is_whole in zip(annotations.declared, whole, strict=True) if is_whole]
    wrong_counts = [row for row, number in enumerate(declared) if number not in (None, counted[row])]
    for row in wrong_counts:
        value = f"{declared[row]}, labelled {counted[row]}"
        report(Issue("joint number", source, f"annotation {ids_of[row]}", "num_keypoints", value))
    areas = np.asarray(annotations.areas)[of_whole]
    without_area = np.flatnonzero(np.isnan(areas))
    with np.errstate(over="ignore"):  # the table refuses what is not finite
        areas[without_area] = np.maximum(boxes[without_area, 2:], 1).prod(axis=1)
        clean_boxes, kept = _clean(boxes, sizes)
    for row in without_area:
        report(Issue("zero area", source, f"annotation {ids_of[row]}", "area", f"the box's {areas[row]:g} is taken"))
    outside = (clean_boxes[:, 2:] < 0).any(axis=1)
    for row in np.flatnonzero(~kept & ~outside & (boxes[:, 2:] > 0).all(axis=1)):
        report(Issue("small box", source, f"annotation {ids_of[row]}", "bbox", str(boxes[row].tolist())))
    whole_file = suspicions(boxes, keypoints, sizes)
    remarks = [*remarks, *map(str, whole_file)]
    if len(without_area):
        remarks.append(f"{len(without_area)} of {len(areas)} areas are missing or not positive; the box's is taken.")
    if wrong_counts:
        remarks.append(
            f"{len(wrong_counts)} of {len(declared)} num_keypoints are not the number of labelled joints, which counts."
        )
    reasons = {
        CATEGORY: (~of_people).sum() + annotations.crowds.total() - annotations.crowds[category],
        CROWD: annotations.crowds[category],
        NO_KEYPOINTS: (of_people & ~numbers & (lengths == 0)).sum(),
        NO_LABEL: (of_people & ~numbers & (lengths > 0)).sum(),
        SMALL: (~kept & ~outside).sum(),
        OUTSIDE: (~kept & outside).sum(),
    }
    return Records(
        images=images,
        skeleton=skeleton,
        category=category,
        all_ids=annotations.all_ids,
        ids=ids_of,
        places=np.asarray(annotations.places)[whole],
        rows=rows_of,
        boxes=boxes,
        areas=areas,
        keypoints=keypoints,
        clean_boxes=clean_boxes,
        kept=kept,
        left_out={reason: int(count) for reason, count in reasons.items() if count},
        suspicions=whole_file,
        remarks=tuple(f"{source}: {remark}" for remark in remarks),
    )


def _clean(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parts of boxes inside their images, as the published loader measures them; and which have a size left."""
    corner = np.maximum(boxes[:, :2], 0)
    end = np.minimum(sizes - 1.0, corner + np.maximum(boxes[:, 2:] - 1, 0))
    sides = end - corner
    return np.concatenate([corner, sides], axis=1), (sides >= 0).all(axis=1) & (sides.sum(axis=1) > 0)


def person_category(categories, source: str, used: Collection[int] = ()) -> int:
    """The category of people: the only one, of any id; of several the one that has keypoints, or is named ``person``.

    Args:
        categories: the file's list; None if it has none.
        source: the file's name, for messages.
        used: categories of records with keypoints.

    Raises:
        InputError: several categories that could be.
    """
    listed = _categories(categories)
    named = [number for number, category in listed.items() if category.get("keypoints")]
    possible = named or list(listed) or sorted(used)
    if len(possible) > 1:
        possible = [number for number in possible if number in used] or possible
    names = {number: str(listed.get(number, {}).get("name", number)) for number in possible}
    for wanted in PERSON_NAMES if len(possible) > 1 else ():
        if so_named := [number for number in possible if names[number].lower() == wanted]:
            possible = so_named[:1]
            break
    if not possible or (len(possible) > 1 and PERSON in possible and not listed):
        return PERSON
    if len(possible) > 1:
        raise InputError(
            f"{source}: the categories {', '.join(names.values())} have keypoints, but a network finds one kind; name "
            "the one to be used person, or leave the records of the others out."
        )
    return possible[0]


def _categories(categories) -> dict[int, dict]:
    """The categories of a file by their ids."""
    return {each["id"]: each for each in categories or () if isinstance(each, dict) and type(each.get("id")) is int}


def _names_joints(categories, category: int) -> bool:
    return bool(_categories(categories).get(category, {}).get("keypoints"))


def _require_17(lengths: np.ndarray, source: str) -> None:
    """Refuse a file that names no joints and has others than COCO's: all people the same number."""
    if len(lengths) and lengths[0] != 3 * COCO.num_joints and (lengths == lengths[0]).all() and lengths[0] % 3 == 0:
        raise InputError(
            f"{source}: its people have {lengths[0] // 3} joints, which are not named; give a skeleton file "
            f"(skeleton=FILE), or name them in the annotation file: {NAMED_JOINTS}."
        )


def skeleton_of(
    categories, source: str, skeleton: Skeleton | None = None, strict: bool = True, person: int | None = None
) -> Skeleton:
    """Joints of a COCO-format file.

    Args:
        categories: the file's list; that of people may name ``keypoints``, and edges as ``skeleton``, which counts
            joints from 1.
        source: the file's name, for messages.
        skeleton: which it should be; None takes COCO's where the file names these joints or none, else the file's own,
            with left/right pairs found from the names, and the default sigmas.
        strict: False: it is that of a file that names no joints only; a file that names others keeps its own.
        person: id of the category of people; None is as `person_category` says.

    Raises:
        InputError: a file that names other joints than the skeleton, or joints or edges that cannot be.
    """
    person = person_category(categories, source) if person is None else person
    category = _categories(categories).get(person, {})
    joints = category.get("keypoints")
    if joints is None or joints == []:
        return skeleton or COCO
    if not isinstance(joints, list) or not all(isinstance(joint, str) for joint in joints):
        raise InputError(f"{source}: category {person} has keypoints {joints!r:.80}, expected a list of names.")
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
        return Skeleton(name if isinstance(name, str) else "own", joints, edges=edges)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: category {person} has keypoints or a skeleton that cannot be ({error}); fix it, or give a "
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


def no_list(source: str | Path, label: str) -> InputError:
    """The error of a file without one of its lists."""
    return InputError(f"{source} has no list {label!r}; give a COCO keypoint annotation file.")
