"""Data sets: loaders that fill the `People` table, augmentation, and the `tf.data` pipeline to batches."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_mrpose.data import coco, layout, lsp, mpii
from keras_mrpose.data.people import People, concatenate
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton

_LOG = logging.getLogger(__name__)


def load(
    folder: str | Path, split: str, require_images: bool = True, skeleton: Skeleton | None = None, strict: bool = True
) -> People:
    """The people of a data set folder; the files in it decide which loader reads it.

    How many people there are, who is left out and why goes to the log, once for each annotation file, and so does what
    is odd about a file as a whole (`People.left_out`, `People.remarks`).

    Args:
        folder: with ``joints.mat`` (LSP, LSP extended), ``annot/*.json`` (MPII as published with the networks),
            ``mpii_human_pose_v1_u12_1.mat`` (MPII as its makers release it; also in ``annot/`` or
            ``mpii_human_pose_v1_u12_2/``, and not looked at beside ``annot/*.json``), or
            ``annotations/person_keypoints_*.json`` (COCO and everything in its format, such as drawn people, and what
            annotation tools write, see `layout`).
        split: ``"train"`` or ``"val"``; in an MPII or COCO-format folder also a split's full name, such as
            ``"trainval"`` or ``"test2017"``. MPII's release has ``"train"`` and ``"separated"``. As in TensorFlow
            Datasets, ``"train+val"`` is both, and a slice in brackets takes a part of the *images* in their order:
            ``"train[:-200]"`` all but the last 200, ``"train[80%:]"`` the last fifth. With ``@`` and a seed the images
            are shuffled first: ``"train@7[:10%]"`` is a tenth of them drawn at random, ``"train@7[10%:]"`` the rest
            (`held_out` makes such a pair).
        require_images: False does without the image files, where the annotations alone are needed.
        skeleton: of the people in a COCO-format folder, whose joints must be these; None takes those that the file
            names, COCO's if it names none (`coco_records.skeleton_of`). LSP and MPII have their own.
        strict: False: a COCO-format file that names other joints than `skeleton` has its own, and that is no error.

    Raises:
        InputError: no such folder, none of these files in it, what the loader finds wrong in them, or nobody who is not
            left out.
    """
    return load_splits(folder, [split], require_images, skeleton, strict)[0]


def load_splits(
    folder: str | Path,
    splits: Sequence[str],
    require_images: bool = True,
    skeleton: Skeleton | None = None,
    strict: bool = True,
) -> list[People]:
    """The people of several splits, each as `load` gives them; an annotation file that they share is read once."""
    whole = {}
    found = [_read(folder, split, whole, require_images, skeleton, strict) for split in splits]
    for table in whole.values():
        if not len(table) and table.left_out:
            odd = "".join(f" {remark.removeprefix(f'{table.source}: ')}" for remark in table.remarks)
            advice = odd or " Give another split, or fix the records."
            raise InputError(f"{table.source} has nobody who is not left out: {table.reasons()}.{advice}")
        _LOG.info("%s", table.account())
        for remark in table.remarks:
            _LOG.warning("%s", remark)
    return found


def read(
    folder: str | Path, split: str, require_images: bool = True, skeleton: Skeleton | None = None, strict: bool = True
) -> People:
    """The people of a data set folder as `load` gives them, without a word to the log; there may be nobody."""
    return _read(folder, split, {}, require_images, skeleton, strict)


def held_out(split: str, share: float, seed: int = 0) -> tuple[str, str]:
    """Two splits, to train and to validate on: a share of the images of one is held out, drawn by a seed.

    Whether an image is drawn before another depends on the seed and its id only, on every machine.

    Args:
        split: of which, a name without a slice.
        share: of its images, above 0 and below 1; rounded to a hundredth of a percent.
        seed: another one draws others.

    Raises:
        InputError: a share or a seed that cannot be, or a split that is a slice already.
    """
    percent = f"{round(100 * share, 4):g}%"
    if not 0 < share < 1 or percent in ("0%", "100%"):
        raise InputError(f"val_share is {share}; give a share of the images above 0 and below 1, such as 0.1.")
    found = _SLICE.fullmatch(split)
    if not found or found["seed"] or "[" in split:
        raise InputError(f"The split is {split!r}; a share can be held out of a whole split only, such as train.")
    return f"{split}@{seed}[{percent}:]", f"{split}@{seed}[:{percent}]"


def whole_split(split: str) -> str:
    """The split that a slice is of; one without a slice is itself."""
    found = _SLICE.fullmatch(split)
    return found["split"] if found else split


_SLICE = re.compile(
    r"(?P<split>[^\[\]@]+)(?:@(?P<seed>\d+))?(?:\[(?P<begin>-?\d+(?:\.\d+)?%|-?\d+)?:(?P<end>-?\d+(?:\.\d+)?%|-?\d+)?\])?"
)


def _read(folder: str | Path, split: str, whole: dict[str, People], *options) -> People:
    """The people of a split; `whole` has the tables that were read before, and gets those of its parts."""
    parts = []
    for part in split.split("+"):
        found = _SLICE.fullmatch(part.strip())
        if not found:
            raise InputError(
                f"The split is {part!r}; give a name, or a slice of one such as train[:-200] or val[:10%]."
            )
        if found["split"] not in whole:
            whole[found["split"]] = _read_split(Path(folder), found["split"], *options)
        parts.append(_part(whole[found["split"]], part, found))
    return parts[0] if len(parts) == 1 else concatenate(parts)


def _part(people: People, part: str, found: re.Match) -> People:
    """A slice of a split."""
    if found["begin"] is found["end"] is None:
        return people
    images = people.image_ids if found["seed"] is None else _shuffled(people.image_ids, int(found["seed"]))
    rows = slice(*(_border(found[name], len(images)) for name in ("begin", "end")))
    part_of = people.of_images(images[rows])
    if not len(part_of):
        raise InputError(
            f"{part!r} of {people.source} has nobody: the split has {len(images)} images; give a larger slice."
        )
    return part_of


def _shuffled(image_ids: np.ndarray, seed: int) -> np.ndarray:
    """Image ids in an order that each has by itself, so that an image more moves no other from part to part."""
    return np.array(sorted(image_ids.tolist(), key=lambda number: hashlib.sha256(f"{seed}/{number}".encode()).digest()))


def _border(number: str | None, images: int) -> int | None:
    """Where a slice begins or ends, of so many images."""
    if number is None:
        return None
    return round(float(number[:-1]) * images / 100) if number.endswith("%") else int(number)


def _kind(folder: Path):
    """The loader of what lies in a folder; None if there is none."""
    if (folder / "joints.mat").exists():
        return lsp
    if mpii.find_release(folder) or (folder / "annot").is_dir():
        return mpii
    return coco if (folder / "annotations").is_dir() or layout.annotation_files(folder) else None


def _read_split(folder: Path, split: str, require_images: bool, skeleton: Skeleton | None, strict: bool) -> People:
    """A whole split, by the loader of what lies in the folder."""
    kind = _kind(folder)
    if kind is lsp:
        return lsp.load(folder, split, require_images)
    if kind is mpii and mpii.find_release(folder) and not any(folder.glob("annot/*.json")):
        return mpii.load_release(folder, split, require_images)
    if kind is mpii:
        return mpii.load(folder, split, require_images)
    if kind is coco:
        return coco.load(folder, split, require_images, skeleton, strict)
    known = f"joints.mat (LSP), annot/ or {mpii.RELEASE_FILE} (MPII) or annotations/ (COCO format)"
    what = f"holds none of {known}" if folder.is_dir() else "is not there"
    raise InputError(f"The data folder {folder} {what}; give the folder that holds the data set.")
