"""MPII Human Pose, in the two forms that it is published in.

`load` reads the JSON files that come with the published networks (``annot/train.json``, ``annot/valid.json``),
`load_release` the MATLAB file of MPII's makers (``mpii_human_pose_v1_u12_1.mat``); both beside ``images/``.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from math import hypot
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from keras_mrpose.data import json_stream, matlab
from keras_mrpose.data.issues import Issue, Report, float_array, raise_issue
from keras_mrpose.data.layout import HOLD_OUT
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.geometry import PADDING
from keras_mrpose.skeletons import MPII

SPLITS = {"train": "train", "val": "valid"}
HEAD_SHARE = 0.6  # of the head box's diagonal: the head size of PCKh
UNIT = 200  # pixels of scale 1
HEADS_PER_UNIT = 8  # MPII makes its scale from the head box: so many head sizes are 200 pixels x scale
LOWER = 15  # pixels of scale 1 by which the published loader moves centres down, towards the legs
MAT_ADVICE = "give the .mat file of the published MPII files"  # where it is missing
NO_SCALE, NOT_WHOLE = "without a scale", "without joints, centre, scale or head box"  # why people are left out
MISSING = -1  # stands for a centre, scale or joint that is not annotated

RELEASE_FILE = "mpii_human_pose_v1_u12_1.mat"
RELEASE_FOLDERS = ("", "annot", "mpii_human_pose_v1_u12_2")  # the last is what the published archive unpacks to
RELEASE_SPLITS = ("train", "separated")
PEOPLE_PER_IMAGE = 1000  # more than the people of any image


def load(root: str | Path, split: str = "val", require_images: bool = True) -> People:
    """People of an MPII folder (`parse` says how).

    Args:
        root: holds ``annot/SPLIT.json`` and ``images/``; with ``annot/gt_SPLIT.mat`` (published as ``gt_valid.mat``)
            the head sizes are those of its head boxes.
        split: ``"train"``, ``"val"`` (the file is ``valid.json``), or the name of another file, such as ``"trainval"``.
        require_images: False does without the image files, where the annotations alone are needed.

    Raises:
        InputError: a missing or unreadable file, or a record with a wrong field, each named.
    """
    root = Path(root)
    split = SPLITS.get(split, split)
    file, boxes = root / "annot" / f"{split}.json", root / "annot" / f"gt_{split}.mat"
    heads = head_sizes(boxes) if boxes.exists() else None
    people = parse(read_file(file), str(file), root / "images", heads)
    return people.require_images() if require_images else people


def parse(content: list[dict], source: str, folder: str | Path, heads: np.ndarray | None = None) -> People:
    """People of an annotation file, with the window that the published loader crops; reads no image.

    A record has a centre, a scale in units of 200 pixels and 16 joints, counted from 1 as in MATLAB; here they start
    at 0. The centre moves down by 15 pixels x scale and the window's side is 1.25 x 200 pixels x scale. The box is the
    square that `geometry.crop_window` pads to this window; a crop that is wider than high sees more. A record whose
    centre is missing (x = -1) gets, as published, a window of 200 pixels x scale that is not moved; one whose scale
    is missing (-1) cannot be cropped and is left out.

    Args:
        content: of the file, a list of records ``image``, ``center``, ``scale``, ``joints``, ``joints_vis``.
        source: the file's name, for messages.
        folder: where the images are.
        heads: ``(records,)`` the head sizes of PCKh in pixels. None takes 25 x scale, which is the same up to the
            rounding of the scale, because MPII made it from the head box (all 2,958 of the validation split agree to
            1e-6).

    Returns:
        The people in the order of the file; `ids` are places in it, from 0. MPII does not say which joints are hidden:
        ``v`` is 2 or, for a missing joint, 0. It has no areas either; they are those of the boxes.

    Raises:
        InputError: a field that is missing or wrong; names the file, the record and the field.
    """
    if heads is not None and len(heads) != len(content):
        raise InputError(f"{source} has {len(content)} records, its head boxes {len(heads)}; give files of one split.")
    row_of, kept, left_out = {}, [], Counter()
    for record in read_records(content, source):
        if record.scale == MISSING:
            left_out[NO_SCALE] += 1
            continue
        row = row_of.setdefault(record.image, len(row_of))
        head = record.scale * UNIT / HEADS_PER_UNIT if heads is None else heads[record.place]
        kept.append((row, record.place, box_of_window(record.centre, record.scale), record.keypoints, head))
    return _table(source, [str(Path(folder, image)) for image in row_of], range(len(row_of)), kept, left_out)


class MpiiRecord(NamedTuple):
    """One person of the published JSON: place in the file, image name, centre and scale as annotated, joints.

    `keypoints` is ``(16, 3)``: x, y from 0, v 2 or 0. The centre counts from 1, and the scale may be `MISSING`.
    """

    place: int
    image: str
    centre: tuple[float, float]
    scale: float
    keypoints: np.ndarray


def read_records(content: list, source: str, report: Report = raise_issue) -> Iterator[MpiiRecord]:
    """The records of an annotation file, each checked.

    Args:
        content: as in `parse`, like source.
        report: gets what is wrong with a record; the record is left out if it returns.
    """
    fields = {"center": (2,), "scale": (), "joints": (MPII.num_joints, 2), "joints_vis": (MPII.num_joints,)}
    for place, record in enumerate(content):
        name = f"record {place}"
        image = record.get("image") if isinstance(record, dict) else None
        if not isinstance(image, str) or not image:
            message = f"has image {reprlib.repr(image)}, expected a file name; see the published MPII JSON."
            report(Issue("record", source, name, "image", reprlib.repr(image), f"{source}: {name} {message}"))
            continue
        values = [_floats(record, field, shape, source, name, report) for field, shape in fields.items()]
        if any(value is None for value in values):
            continue
        centre, scale, joints, visible = values
        wrong = ~np.isin(visible, (0, 1))
        if wrong.any():
            value = f"flag {visible[wrong][0]:g} of joint {np.argmax(wrong)}"
            message = f"has joints_vis {reprlib.repr(record['joints_vis'])}, expected 0 or 1 for each joint."
            report(Issue("joint flag", source, name, "joints_vis", value, f"{source}: {name} {message}"))
            continue
        if scale <= 0 and scale != MISSING:
            message = f"has scale {scale:g}, expected a positive one (or -1, if it is missing)."
            report(Issue("empty box", source, name, "scale", f"{scale:g}", f"{source}: {name} {message}"))
            continue
        yield MpiiRecord(place, image, tuple(centre.tolist()), scale.item(), np.column_stack([joints - 1, 2 * visible]))


def _table(
    source: str, image_paths: Sequence[str], image_ids: Sequence[int], kept: list[tuple], left_out: Counter
) -> People:
    """The table of people ``kept``: image row, id, box, keypoints, head size. Areas are the boxes'."""
    rows, ids, boxes, keypoints, heads = zip(*kept, strict=True) if kept else ((),) * 5
    return People(
        source=source,
        skeleton=MPII,
        image_paths=image_paths,
        image_ids=image_ids,
        image_index=rows,
        ids=ids,
        boxes=boxes,
        keypoints=keypoints,
        reference_length=heads,
        areas=[w * h for _, _, w, h in boxes],
        protocol="pckh",
        left_out=dict(left_out),
    )


def head_sizes(file: str | Path) -> np.ndarray:
    """``(people,)`` head sizes of PCKh in pixels, 0.6 x the diagonal of the head box, from a ``gt_valid.mat``.

    Raises:
        InputError: a missing or unreadable file, or a head box without size.
    """
    corners = read_mat(file, headboxes_src=(2, 2, None))["headboxes_src"]
    sizes = HEAD_SHARE * np.hypot(*(corners[1] - corners[0]))
    possible = (sizes > 0) & np.isfinite(sizes)
    if not possible.all():
        raise InputError(f"{file}: headboxes_src of person {np.argmin(possible)} has no size; fix the box.")
    return sizes


def read_mat(file: str | Path, **shapes: tuple[int | None, ...]) -> dict[str, np.ndarray]:
    """Variables of a MATLAB file, by name, as float64.

    Args:
        file: MATLAB 5 format.
        shapes: what is expected of each variable, None for any length (the number of people).

    Raises:
        InputError: a missing or unreadable file, or a variable that is missing, of another shape, or not finite.
    """
    content = matlab.read(file, MAT_ADVICE, *shapes)
    values = {}
    for name, shape in shapes.items():
        try:
            values[name] = np.asarray(content[name], np.float64)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{file} has no table of numbers {name!r}; give the published MPII file.") from None
        found = values[name].shape
        if len(found) != len(shape) or any(b not in (None, a) for a, b in zip(found, shape, strict=True)):
            wanted = ", ".join("people" if side is None else str(side) for side in shape)
            raise InputError(f"{file}: {name} has shape {found}, expected ({wanted}); give the published MPII file.")
        if not np.isfinite(values[name]).all():
            raise InputError(f"{file}: {name} has a value that is not a finite number; fix the file.")
    return values


def box_of_window(centre: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    """The box x, y, w, h, from 0, that becomes the published window (`parse`) when it is padded.

    Args:
        centre: x, y as annotated, from 1.
        scale: as annotated, in units of 200 pixels.
    """
    x, y = centre
    side = UNIT * scale
    if x == MISSING:
        side /= PADDING
    else:
        y += LOWER * scale
    return x - 1 - side / 2, y - 1 - side / 2, side, side


def _floats(
    record: dict, field: str, shape: tuple[int, ...], source: str, name: str, report: Report
) -> np.ndarray | None:
    """A field of finite numbers of this shape; None if it is not, and `report` returns."""
    values, kind, value = float_array(record.get(field))
    if values is not None and values.shape == shape:
        return values
    if values is not None:
        joints = field in ("joints", "joints_vis") and values.ndim == len(shape)
        kind, value = "joint count" if joints else "record", f"shape {values.shape}, not {shape}"
    wanted = " x ".join(map(str, shape)) or "1"
    message = f"has {field} {reprlib.repr(record.get(field))}, expected {wanted} finite number(s)."
    report(Issue(kind, source, name, field, value if field in record else "missing", f"{source}: {name} {message}"))
    return None


def read_file(file: Path) -> list:
    """The records of an annotation file, as they are."""
    content = json_stream.read(file, "an MPII folder has annot/train.json, valid.json and images/")
    if not isinstance(content, list):
        raise InputError(f"{file} is not a list of records; give the published MPII JSON.")
    return content


# --- the release file ------------------------------------------------------------------------------------------------


def find_release(root: str | Path) -> Path | None:
    """The release file of a folder: in itself, in ``annot/`` or in ``mpii_human_pose_v1_u12_2/``."""
    files = (Path(root, folder, RELEASE_FILE) for folder in RELEASE_FOLDERS)
    return next((file for file in files if file.exists()), None)


def load_release(root: str | Path, split: str = "train", require_images: bool = True) -> People:
    """People of a folder with the release file (`find_release`) and ``images/``; `parse_release` says which and how.

    Args:
        root: the folder.
        split: as in `parse_release`.
        require_images: False does without the image files, where the annotations alone are needed.

    Raises:
        InputError: a missing or unreadable file, or a wrong field in it, named.
    """
    file = find_release(root)
    if file is None:
        raise InputError(f"{root} has no {RELEASE_FILE}; unpack the annotations of MPII Human Pose there.")
    content = matlab.read(file, MAT_ADVICE, "RELEASE")
    people = parse_release(content, str(file), Path(root, "images"), split)
    return people.require_images() if require_images else people


def parse_release(content: dict, source: str, folder: str | Path, split: str = "train") -> People:
    """People of the release file, with the window that the published loader crops; reads no image.

    In MATLAB's words: ``RELEASE.annolist(i)`` has ``image.name`` and people ``annorect(k)``, each with the head box
    ``x1 y1 x2 y2``, a ``scale`` in units of 200 pixels, a centre ``objpos.x .y`` and
    ``annopoints.point(j)`` with ``x y id is_visible``, ids 0 to 15 in the order of `skeletons.MPII`; coordinates are
    from 1. ``RELEASE.img_train(i)`` is 1 for the images whose joints are given, ``RELEASE.single_person{i}`` lists the
    k of people that stand apart from others. Any field may be missing or empty: a person without joints, centre,
    scale or head box cannot be cropped or measured and is left out.

    MPII has no published validation split of its own. The published JSON is made of the same people: 2,958 whom
    Tompson et al. (2015) chose, in a list that is not in the release, are ``valid.json``; the 22,246 of all images
    without any of them are ``train.json``; the 3,679 others in the images of ``valid.json`` are in neither
    (github.com/bearpaw/pytorch-pose, issues 25 and 80). So neither file keeps to the people that stand apart.

    Args:
        content: variables of the file, as `matlab.read` gives them.
        source: the file's name, for messages.
        folder: where the images are.
        split: ``"train"``, everybody with joints (28,883 people), or ``"separated"``, those of them that stand apart.

    Returns:
        The people in the order of the file. Boxes are as in `parse`; ``v`` is 1 where ``is_visible`` is 0, 2
        where it is 1 or unknown, 0 for a joint that is not among the points. `image_ids` are i and `ids` 1000 i + k.

    Raises:
        InputError: another split, or a field that is wrong; names the file, the place and the field.
    """
    if split not in RELEASE_SPLITS:
        raise InputError(
            f"{source} has no split {split!r}; give one of {', '.join(RELEASE_SPLITS)}, or use the published MPII "
            f"JSON, which has train and val; or {HOLD_OUT}."
        )
    paths, numbers, kept, left_out = [], [], [], Counter()
    for number, annotation, apart in _training_images(content, source):
        people = []
        for k, rect in enumerate(_structs(annotation, "annorect"), 1):
            person = _person(rect, f"{source}: RELEASE.annolist({number}).annorect({k})")
            if person is None:
                left_out[NOT_WHOLE] += 1
            elif split == "train" or k in apart:
                people.append((len(paths), PEOPLE_PER_IMAGE * number + k, *person))
        if people:
            paths.append(str(Path(folder, _image_name(annotation, f"{source}: RELEASE.annolist({number})"))))
            numbers.append(number)
            kept += people
    return _table(source, paths, numbers, kept, left_out)


def _training_images(content: dict, source: str) -> Iterator[tuple[int, SimpleNamespace, np.ndarray]]:
    """Number (from 1), annotations, and the numbers of the people that stand apart, of each training image."""
    release = next(iter(np.ravel(content.get("RELEASE", ()))), None)
    fields = ("annolist", "img_train", "single_person")
    columns = [np.ravel(getattr(release, field, ())) for field in fields]
    lengths = [len(column) for column in columns]
    if not lengths[0] == lengths[1] == lengths[2] > 0:
        found = ", ".join(f"{count} {field}" for count, field in zip(lengths, fields, strict=True))
        raise InputError(f"{source}: RELEASE has {found}, expected as many of each; give MPII's {RELEASE_FILE}.")
    for number, (annotation, train, apart) in enumerate(zip(*columns, strict=True), 1):
        if train:
            yield number, annotation, np.ravel(apart)


def _person(rect: SimpleNamespace, name: str) -> tuple[tuple, np.ndarray, float] | None:
    """Box, ``(16, 3)`` joints and head size of a person; None if something is not annotated."""
    points = [point for group in _structs(rect, "annopoints") for point in _structs(group, "point")]
    centre = [_number(place, axis, name) for place in _structs(rect, "objpos") for axis in ("x", "y")]
    scale, *head = (_number(rect, field, name) for field in ("scale", "x1", "y1", "x2", "y2"))
    if not points or not centre or None in (scale, *centre, *head):
        return None
    x1, y1, x2, y2 = head
    return box_of_window(centre, scale), _joints(points, name), HEAD_SHARE * hypot(x2 - x1, y2 - y1)


def _joints(points: list[SimpleNamespace], name: str) -> np.ndarray:
    joints = np.tile((MISSING - 1.0, MISSING - 1.0, 0.0), (MPII.num_joints, 1))  # as the published JSON has them
    for j, point in enumerate(points, 1):
        name_j = f"{name}.annopoints.point({j})"
        x, y, joint, visible = (_number(point, field, name_j) for field in ("x", "y", "id", "is_visible"))
        if joint not in range(MPII.num_joints) or None in (x, y):
            raise InputError(f"{name_j} has x {x}, y {y}, id {joint}; expected two numbers and an id from 0 to 15.")
        joints[int(joint)] = x - 1, y - 1, 1 if visible == 0 else 2
    return joints


def _image_name(annotation: SimpleNamespace, name: str) -> str:
    names = [str(text) for image in _structs(annotation, "image") for text in np.ravel(getattr(image, "name", ()))]
    if len(names) != 1:
        raise InputError(f"{name} has image names {names}, expected one; give MPII's {RELEASE_FILE}.")
    return names[0]


def _structs(parent: SimpleNamespace, field: str) -> list[SimpleNamespace]:
    """The structs of a field, which is an array of them, a single one, empty, or not there."""
    return list(np.ravel(getattr(parent, field, ())))


def _number(struct: SimpleNamespace, field: str, name: str) -> float | None:
    """A field that is a number of any kind or, as often ``is_visible``, its text; None if empty or not there."""
    values = np.ravel(getattr(struct, field, ()))
    try:
        return float(values.item()) if values.size else None
    except (TypeError, ValueError):
        raise InputError(f"{name} has {field} {values.tolist()!r:.80}, expected one number; fix the file.") from None
