"""MPII Human Pose in the published JSON form: ``annot/train.json``, ``annot/valid.json``, ``images/``."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_mrpose.data.formats import json_fields, matlab
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.geometry import PADDING
from keras_mrpose.skeletons import MPII

SPLITS = {"train": "train", "val": "valid"}
HEAD_SHARE = 0.6  # of the head box's diagonal: the head size of PCKh
UNIT = 200  # pixels of scale 1
HEADS_PER_UNIT = 8  # MPII makes its scale from the head box: so many head sizes are 200 pixels x scale
LOWER = 15  # pixels of scale 1 by which the published loader moves centres down, towards the legs
MAT = "give the .mat file of the published MPII files"  # where it is missing
MISSING = -1  # stands for a centre, scale or joint that is not annotated


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
    people = parse(_read(file), str(file), root / "images", heads)
    return people.require_images() if require_images else people


def parse(content: list[dict], source: str, folder: str | Path, heads: np.ndarray | None = None) -> People:
    """People of an annotation file, with the window that the published loader crops; looks at no image.

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
    row_of, kept = {}, []
    for place, record in enumerate(content):
        name = f"{source}: record {place}"
        image = record.get("image") if isinstance(record, dict) else None
        if not isinstance(image, str) or not image:
            raise InputError(
                f"{name} has image {reprlib.repr(image)}, expected a file name; see the published MPII JSON."
            )
        centre = _numbers(record, "center", (2,), name).tolist()
        scale = float(_numbers(record, "scale", (), name))
        joints = _numbers(record, "joints", (MPII.num_joints, 2), name)
        visible = _numbers(record, "joints_vis", (MPII.num_joints,), name)
        if not np.isin(visible, (0, 1)).all():
            raise InputError(
                f"{name} has joints_vis {reprlib.repr(record['joints_vis'])}, expected 0 or 1 for each joint."
            )
        if scale == MISSING:
            continue
        if scale <= 0:
            raise InputError(f"{name} has scale {scale:g}, expected a positive one (or -1, if it is missing).")
        row = row_of.setdefault(image, len(row_of))
        head = scale * UNIT / HEADS_PER_UNIT if heads is None else heads[place]
        kept.append((row, place, square(centre, scale), np.column_stack([joints - 1, 2 * visible]), head))
    return table(source, [str(Path(folder, image)) for image in row_of], range(len(row_of)), kept)


def table(source: str, image_paths: Sequence[str], image_ids: Sequence[int], kept: list[tuple]) -> People:
    """The table of people ``kept``: image row, id, box, keypoints, head size; MPII has no areas but those of boxes."""
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
    content = matlab.read(file, MAT, *shapes)
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


def square(centre: Sequence[float], scale: float) -> tuple[float, float, float, float]:
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


def _numbers(record: dict, field: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A field of finite numbers of this shape."""
    try:
        values = np.asarray(record.get(field), np.float64)
    except (TypeError, ValueError, OverflowError):
        values = None
    if values is None or values.shape != shape or not np.isfinite(values).all():
        wanted = " x ".join(map(str, shape)) or "1"
        raise InputError(f"{name} has {field} {reprlib.repr(record.get(field))}, expected {wanted} finite number(s).")
    return values


def _read(file: Path) -> list:
    content = json_fields.whole(file, "an MPII folder has annot/train.json, valid.json and images/")
    if not isinstance(content, list):
        raise InputError(f"{file} is not a list of records; give the published MPII JSON.")
    return content
