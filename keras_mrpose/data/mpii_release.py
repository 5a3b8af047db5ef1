"""MPII Human Pose as its makers release it: ``mpii_human_pose_v1_u12_1.mat`` beside ``images/``."""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from keras_mrpose.data.formats import matlab
from keras_mrpose.data.mpii import HEAD_SHARE, MAT, MISSING, square, table
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import MPII

NAME = "mpii_human_pose_v1_u12_1.mat"
FOLDERS = ("", "annot", "mpii_human_pose_v1_u12_2")  # the last is what the published archive unpacks to
SPLITS = ("train", "separated")
PER_IMAGE = 1000  # more than the people of any image


def find(root: str | Path) -> Path | None:
    """The release file of a folder: in itself, in ``annot/`` or in ``mpii_human_pose_v1_u12_2/``."""
    files = (Path(root, folder, NAME) for folder in FOLDERS)
    return next((file for file in files if file.exists()), None)


def load(root: str | Path, split: str = "train", require_images: bool = True) -> People:
    """People of a folder with the release file (`find`) and ``images/``; `parse` says which and how.

    Args:
        root: the folder.
        split: as in `parse`.
        require_images: False does without the image files, where the annotations alone are needed.

    Raises:
        InputError: a missing or unreadable file, or a wrong field in it, named.
    """
    file = find(root)
    if file is None:
        raise InputError(f"{root} has no {NAME}; unpack the annotations of MPII Human Pose there.")
    content = matlab.read(file, MAT, "RELEASE")
    people = parse(content, str(file), Path(root, "images"), split)
    return people.require_images() if require_images else people


def parse(content: dict, source: str, folder: str | Path, split: str = "train") -> People:
    """People of the release file, with the window that the published loader crops; looks at no image.

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
        The people in the order of the file. Boxes are as in `mpii.parse`; ``v`` is 1 where ``is_visible`` is 0, 2
        where it is 1 or unknown, 0 for a joint that is not among the points. `image_ids` are i and `ids` 1000 i + k.

    Raises:
        InputError: another split, or a field that is wrong; names the file, the place and the field.
    """
    if split not in SPLITS:
        raise InputError(
            f"{source} has no split {split!r}; give one of {', '.join(SPLITS)}, or use the published MPII JSON, which "
            "has train and val."
        )
    paths, numbers, kept = [], [], []
    for number, annotation, apart in _training_images(content, source):
        people = []
        for k, rect in enumerate(_structs(annotation, "annorect"), 1):
            person = _person(rect, f"{source}: RELEASE.annolist({number}).annorect({k})")
            if person and (split == "train" or k in apart):
                people.append((len(paths), PER_IMAGE * number + k, *person))
        if people:
            paths.append(str(Path(folder, _image_name(annotation, f"{source}: RELEASE.annolist({number})"))))
            numbers.append(number)
            kept += people
    return table(source, paths, numbers, kept)


def _training_images(content: dict, source: str) -> Iterator[tuple[int, SimpleNamespace, np.ndarray]]:
    """Number (from 1), annotations, and the numbers of the people that stand apart, of each training image."""
    release = next(iter(np.ravel(content.get("RELEASE", ()))), None)
    fields = ("annolist", "img_train", "single_person")
    columns = [np.ravel(getattr(release, field, ())) for field in fields]
    lengths = [len(column) for column in columns]
    if not lengths[0] == lengths[1] == lengths[2] > 0:
        found = ", ".join(f"{count} {field}" for count, field in zip(lengths, fields, strict=True))
        raise InputError(f"{source}: RELEASE has {found}, expected as many of each; give MPII's {NAME}.")
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
    return square(centre, scale), _joints(points, name), HEAD_SHARE * hypot(x2 - x1, y2 - y1)


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
        raise InputError(f"{name} has image names {names}, expected one; give MPII's {NAME}.")
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
