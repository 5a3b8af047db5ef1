"""Leeds Sports Pose and its extended training set: ``images/`` and ``joints.mat``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_mrpose.data import matlab
from keras_mrpose.data.issues import Issue, Report, raise_issue
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import LSP

SPLITS = ("train", "val")
NO_LABEL = "without a labelled joint"  # why people are left out


def load(folder: str | Path, split: str | None = None, require_images: bool = True) -> People:
    """People of an LSP folder.

    LSP has neither boxes nor areas. The box is the bounding box of the labelled joints; the area, which only OKS asks
    for, is 0.53 times the box's, the usual stand-in where there are no segments. People without a labelled joint are
    left out.

    Args:
        folder: holds ``joints.mat`` and ``images/``, either as in the extended set (joints ``(14, 3, people)`` with
            flag 1 for labelled, ``im00001.jpg`` ...) or as in the original (``(3, 14, people)`` with flag 1 for
            hidden, ``im0001.jpg`` ...). Coordinates in the file start at 1 as in MATLAB; here they start at 0.
        split: ``"train"`` or ``"val"``; None takes everybody. The original set is halved, as published; the extended
            one, published for training only, gives its first 80 % to train and the rest to val.
        require_images: False does without the image files, where the annotations alone are needed.

    Raises:
        InputError: a missing or unreadable file, a wrong shape, or an unknown split.
    """
    folder = Path(folder)
    file = folder / "joints.mat"
    joints, original = read_joints(file)
    if split not in (None, *SPLITS):
        raise InputError(f"Unknown split {split!r} of {folder}; give one of {', '.join(SPLITS)}.")
    rows = split_rows(len(joints), original, split)
    keypoints = keypoints_of(joints[rows.start : rows.stop], original)
    labelled = keypoints[..., 2:] > 0
    numbers = np.arange(rows.start, rows.stop) + 1
    kept = labelled.any(axis=(1, 2))
    left_out = {NO_LABEL: int((~kept).sum())} if not kept.all() else {}
    keypoints, labelled, numbers = keypoints[kept], labelled[kept], numbers[kept]
    low = np.where(labelled, keypoints[..., :2], np.inf).min(axis=1)
    high = np.where(labelled, keypoints[..., :2], -np.inf).max(axis=1)
    boxes = np.concatenate([low, high - low], axis=-1)
    with np.errstate(over="ignore"):  # the table refuses what is not finite
        areas = 0.53 * np.prod(np.maximum(high - low, 1), axis=-1)

    people = People(
        source=str(file),
        skeleton=LSP,
        image_paths=np.array([image_path(folder, number, original) for number in numbers]),
        image_ids=numbers,
        image_index=np.arange(len(numbers)),
        ids=numbers,
        boxes=boxes,
        keypoints=keypoints,
        reference_length=np.sqrt(areas),
        areas=areas,
        protocol="pck",
        left_out=left_out,
    )
    return people.require_images() if require_images else people


def split_rows(count: int, original: bool, split: str | None) -> range:
    """Which of so many people are in a split, see `load`."""
    border = count // 2 if original else count * 4 // 5
    return {None: range(count), "train": range(border), "val": range(border, count)}[split]


def image_path(folder: str | Path, number: int, original: bool) -> str:
    """The image of a person, counted from 1: four digits in the original set, five in the extended one."""
    return str(Path(folder, "images", f"im{number:0{4 if original else 5}d}.jpg"))


def keypoints_of(joints: np.ndarray, original: bool) -> np.ndarray:
    """Joints ``(people, 14, 3)`` of the file as keypoints: coordinates from 0, COCO's flags."""
    flags = np.where(joints[..., 2] > 0, 1.0, 2.0) if original else np.where(joints[..., 2] > 0, 2.0, 0.0)
    return np.concatenate([joints[..., :2] - 1, flags[..., None]], axis=-1)


def read_joints(file: Path, report: Report = raise_issue) -> tuple[np.ndarray, bool]:
    """Joints ``(people, 14, 3)`` as in the file, x, y and flag, and whether it is the original set's.

    Args:
        file: ``joints.mat``.
        report: gets a wrong shape; there is nobody if it returns.

    Raises:
        InputError: a missing or unreadable file, or one without numbers.
    """
    content = matlab.read(file, "an LSP folder has joints.mat and images/", "joints")
    if "joints" not in content:
        raise InputError(f"{file} has no variable 'joints'; give the joints.mat of LSP or LSP extended.")
    try:
        joints = np.asarray(content["joints"], np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{file}: joints are no numbers; give the joints.mat of LSP or LSP extended.") from None
    if joints.ndim == 3 and joints.shape[:2] == (14, 3):
        return joints.transpose(2, 0, 1), False
    if joints.ndim == 3 and joints.shape[:2] == (3, 14):
        return joints.transpose(2, 1, 0), True
    message = (
        f"{file}: joints has shape {joints.shape}, expected (14, 3, people) or (3, 14, people): LSP has 14 joints."
    )
    report(Issue("joint count", str(file), "-", "joints", f"shape {joints.shape}", message))
    return np.zeros((0, 14, 3)), False
