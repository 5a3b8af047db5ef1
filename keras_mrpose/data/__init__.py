"""Data sets: loaders that fill the `People` table, augmentation, and the `tf.data` pipeline to batches."""

from __future__ import annotations

import re
from pathlib import Path

from keras_mrpose.data import coco, lsp, mpii
from keras_mrpose.data.people import People, concatenate
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton


def load(
    folder: str | Path, split: str, require_images: bool = True, skeleton: Skeleton | None = None, strict: bool = True
) -> People:
    """The people of a data set folder; the files in it decide which loader reads it.

    Args:
        folder: with ``joints.mat`` (LSP, LSP extended), ``annot/*.json`` (MPII as published with the networks),
            ``mpii_human_pose_v1_u12_1.mat`` (MPII as its makers release it; also in ``annot/`` or
            ``mpii_human_pose_v1_u12_2/``, and not looked at beside ``annot/*.json``), or
            ``annotations/person_keypoints_*.json`` (COCO and everything in its format, such as drawn people).
        split: ``"train"`` or ``"val"``; in an MPII or COCO-format folder also a split's full name, such as
            ``"trainval"`` or ``"test2017"``. MPII's release has ``"train"`` and ``"separated"``. As in TensorFlow
            Datasets, ``"train+val"`` is both, and a slice in brackets takes a part of the *images* in their order:
            ``"train[:-200]"`` all but the last 200, ``"train[80%:]"`` the last fifth.
        require_images: False does without the image files, where the annotations alone are needed.
        skeleton: of the people in a COCO-format folder, whose joints must be these; None takes those that the file
            names, COCO's if it names none (`coco.skeleton_of`). LSP and MPII have their own.
        strict: False: a COCO-format file that names other joints than `skeleton` has its own, and that is no error.

    Raises:
        InputError: no such folder, none of these files in it, or what the loader finds wrong in them.
    """
    folder = Path(folder)
    parts = [_load_part(folder, part, require_images, skeleton, strict) for part in split.split("+")]
    return parts[0] if len(parts) == 1 else concatenate(parts)


_SLICE = re.compile(r"(?P<split>[^\[\]]+)(?:\[(?P<begin>-?\d+%?)?:(?P<end>-?\d+%?)?\])?")


def _load_part(folder: Path, part: str, require_images: bool, skeleton: Skeleton | None, strict: bool) -> People:
    """A split, or a slice of one."""
    found = _SLICE.fullmatch(part.strip())
    if not found:
        raise InputError(f"The split is {part!r}; give a name, or a slice of one such as train[:-200] or val[:10%].")
    people = _load_split(folder, found["split"], require_images, skeleton, strict)
    if found["begin"] is found["end"] is None:
        return people
    images = len(people.image_ids)
    rows = slice(*(_border(found[name], images) for name in ("begin", "end")))
    part_of = people.of_images(people.image_ids[rows])
    if not len(part_of):
        raise InputError(f"{part!r} of {people.source} has nobody: the split has {images} images; give a larger slice.")
    return part_of


def _border(number: str | None, images: int) -> int | None:
    """Where a slice begins or ends, of so many images."""
    if number is None or not number.endswith("%"):
        return number and int(number)
    return round(int(number[:-1]) * images / 100)


def _load_split(folder: Path, split: str, require_images: bool, skeleton: Skeleton | None, strict: bool) -> People:
    """A whole split, by the loader of what lies in the folder."""
    if (folder / "joints.mat").exists():
        return lsp.load(folder, split, require_images)
    if mpii.find_release(folder) and not any(folder.glob("annot/*.json")):
        return mpii.load_release(folder, split, require_images)
    if (folder / "annot").is_dir():
        return mpii.load(folder, split, require_images)
    if (folder / "annotations").is_dir():
        return coco.load(folder, split, require_images, skeleton, strict)
    known = f"joints.mat (LSP), annot/ or {mpii.RELEASE_FILE} (MPII) or annotations/ (COCO format)"
    what = f"holds none of {known}" if folder.is_dir() else "is not there"
    raise InputError(f"The data folder {folder} {what}; give the folder that holds the data set.")
