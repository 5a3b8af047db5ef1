"""From a data set's folder to batches: loaders that fill the `People` table, and the `tf.data` pipeline behind it."""

from __future__ import annotations

from pathlib import Path

from keras_mrpose.data import coco, lsp, mpii, mpii_release
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton


def load(folder: str | Path, split: str, require_images: bool = True, skeleton: Skeleton | None = None) -> People:
    """The people of a data set folder, whose kind is told by what lies in it.

    Args:
        folder: with ``joints.mat`` (LSP, LSP extended), ``annot/*.json`` (MPII as published with the networks),
            ``mpii_human_pose_v1_u12_1.mat`` (MPII as its makers release it; also in ``annot/`` or
            ``mpii_human_pose_v1_u12_2/``, and not looked at beside ``annot/*.json``), or
            ``annotations/person_keypoints_*.json`` (COCO and everything in its format, such as drawn people).
        split: ``"train"`` or ``"val"``; in an MPII or COCO-format folder also a split's full name, such as
            ``"trainval"`` or ``"test2017"``. MPII's release has ``"train"`` and ``"separated"``.
        require_images: False does without the image files, where the annotations alone are needed.
        skeleton: of the people in a COCO-format folder, whose joints must be these; None takes those that the file
            names, COCO's if it names none (`coco_records.skeleton_of`). LSP and MPII have their own.

    Raises:
        InputError: no such folder, none of these files in it, or what the loader finds wrong in them.
    """
    folder = Path(folder)
    if (folder / "joints.mat").exists():
        return lsp.load(folder, split, require_images)
    if mpii_release.find(folder) and not any(folder.glob("annot/*.json")):
        return mpii_release.load(folder, split, require_images)
    if (folder / "annot").is_dir():
        return mpii.load(folder, split, require_images)
    if (folder / "annotations").is_dir():
        return coco.load(folder, split, require_images, skeleton)
    known = f"joints.mat (LSP), annot/ or {mpii_release.NAME} (MPII) or annotations/ (COCO format)"
    what = f"holds none of {known}" if folder.is_dir() else "is not there"
    raise InputError(f"The data folder {folder} {what}; give the folder that holds the data set.")
