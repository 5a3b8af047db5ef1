"""Where a folder in COCO's format has its annotation files and images: COCO's own layout, and annotation tools'.

- COCO: ``annotations/person_keypoints_SPLIT.json``, images in ``SPLIT/`` or ``images/SPLIT/``. CVAT and Datumaro write
  the same with the split ``default``.
- Roboflow: ``SPLIT/_annotations.coco.json`` beside the images of the split.
- Label Studio, FiftyOne, COCO Annotator and others: one file (``result.json``, ``labels.json`` ...) beside ``images/``
  or ``data/``, in the folder itself or in one for each split.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath

from keras_mrpose.data import json_stream
from keras_mrpose.errors import InputError

PREFIX = "person_keypoints_"
PREFIXES = (PREFIX, "keypoints_", "instances_")  # of files in annotations/; the first that a split has counts
NO_PEOPLE = ("captions_", "image_info_", "panoptic_", "stuff_")  # of other files there
ROBOFLOW = "_annotations.coco.json"
SPLITS = {
    "train": ("train2017", "train", "training"),
    "val": ("val2017", "val", "valid", "validation"),
}
HOLD_OUT = "train with a share of the images held out for validation (val_share=0.1)"
IMAGES = ("images", "data")  # folders of images for all splits


def annotation_files(root: str | Path) -> dict[str, Path]:
    """The annotation files of a folder by the names of their splits; empty if there are none."""
    root, files = Path(root), {}
    found = sorted(root.glob("annotations/*.json"))
    for prefix in PREFIXES:
        for file in found:
            if file.name.startswith(prefix):
                files.setdefault(file.stem.removeprefix(prefix), file)
    if not files:
        files = {file.stem: file for file in found if not file.name.startswith(NO_PEOPLE)}
    if not files:
        files = {file.parent.name: file for file in sorted(root.glob(f"*/{ROBOFLOW}"))}
    if not files:
        files = {_stem(file): file for file in sorted(root.glob("*.json")) if _has_people(file)}
    if not files:
        files = {file.parent.name: file for file in sorted(root.glob("*/*.json")) if _has_people(file)}
    return files


def _stem(file: Path) -> str:
    """The split's name of a file in the folder itself."""
    name = "default" if file.name == ROBOFLOW else file.stem
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _has_people(file: Path) -> bool:
    """Whether a JSON file has the lists of an annotation file."""
    found = set()
    try:
        for label, value in json_stream.iter_fields(file, ""):
            if isinstance(value, Iterator):
                found.add(label)
            if found >= {"images", "annotations"}:
                return True
    except InputError:
        pass
    return False


def split_file(root: str | Path, split: str) -> tuple[str, Path]:
    """Name and annotation file of a split.

    Args:
        root: the data folder.
        split: its name; also ``"train"`` and ``"val"`` for the names in `SPLITS`, and ``"train"`` for the only file of
            a folder whatever its name is, unless that is one of validation or test.

    Returns:
        Where COCO has it if there is none.
    """
    files, names = annotation_files(root), SPLITS.get(split, (split,))
    for name in (*names, split):
        if name in files:
            return name, files[name]
    if split == "train" and len(files) == 1 and not next(iter(files)).startswith(("val", "test")):
        return next(iter(files.items()))
    return names[0], Path(root, "annotations", f"{PREFIX}{names[0]}.json")


def has_validation(names: Sequence[str]) -> bool:
    """Whether one of these splits is ``"val"``."""
    return any(name in SPLITS["val"] for name in names)


def missing_split(root: str | Path, file: Path) -> str:
    """What to do if a split's annotation file is not there."""
    names = sorted(annotation_files(root))
    if not names:
        return f"a COCO folder has annotations/{file.name} and its images beside that folder"
    there = f"the folder has the splits {', '.join(names)}" if len(names) > 1 else f"the only split is {names[0]}"
    return f"{there}: give one by its name" + ("" if has_validation(names) else f", or {HOLD_OUT}")


def image_folders(root: str | Path, name: str, file: Path) -> list[Path]:
    """Where the images of a split may be, the likeliest first; at least one folder, which need not be there."""
    root, name = Path(root), name.replace("test-dev", "test")  # a part of the test images
    beside = [file.parent, *(file.parent / folder for folder in IMAGES)] if file.parent.name != "annotations" else []
    folders = [root / name, root / "images" / name, *beside[::-1], *(root / folder for folder in IMAGES), root]
    return list(dict.fromkeys(folder for folder in folders if folder.is_dir())) or [root / name]


def image_paths(folders: Sequence[str | Path] | str | Path, names: Sequence[str]) -> list[str]:
    """The image files of these names.

    A name may be a path of another machine, with ``\\`` or a drive letter, and the file may lie deeper in the folder:
    it is found by its name if that is the only one, or by as much of its path as tells it from others. An image that is
    not found gets the path where it is looked for first.

    Args:
        folders: one, or several of which the first that has images of these names counts (`image_folders`).
        names: ``file_name`` of each image.
    """
    several = [folders] if isinstance(folders, str | Path) else list(folders)
    folder = next((each for each in several if _has_one(each, names)), None)
    if folder is None:
        folder = next((each for each in several if _Files(each).find(names[0])), several[0]) if names else several[0]
    beside = {entry.name for entry in os.scandir(folder)} if os.path.isdir(folder) else set()
    paths = [str(Path(folder, name)) for name in names]
    lost = [row for row, path in enumerate(paths) if not (names[row] in beside or os.path.isfile(path) or not beside)]
    if lost:
        files = _Files(folder)
        for row in lost:
            paths[row] = files.find(names[row]) or str(Path(folder, *_parts(names[row])))
    return paths


def _has_one(folder: str | Path, names: Sequence[str]) -> bool:
    """Whether one of the first images is in a folder, by the path that its name says."""
    return any(os.path.isfile(Path(folder, name)) or os.path.isfile(Path(folder, *_parts(name))) for name in names[:9])


def _parts(name: str) -> tuple[str, ...]:
    """Folders and file of a path of any system, without what only its own machine has."""
    path = PureWindowsPath(name)  # which takes both kinds of slashes
    return path.parts if not path.anchor else (path.name,)


class _Files:
    """The files in a folder and below it, by their names."""

    def __init__(self, folder: str | Path):
        self.by_name = defaultdict(list)
        for where, _, names in os.walk(folder):
            for name in names:
                self.by_name[name.casefold()].append(Path(where, name))

    def find(self, name: str) -> str | None:
        """The file whose path ends as this one does; None if there is none, or more than one does as well."""
        parts = PureWindowsPath(name).parts
        ranked = defaultdict(list)
        for path in self.by_name.get(parts[-1].casefold(), ()) if parts else ():
            ranked[_common_end(path.parts, parts)].append(path)
        best = ranked[max(ranked)] if ranked else ()
        return str(best[0]) if len(best) == 1 else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> tuple[int, bool]:
    """How many parts the ends of two paths have in common, in any case of letters; and whether the names are equal."""
    count = 0
    for mine, its in zip(reversed(one), reversed(other), strict=False):
        if mine.casefold() != its.casefold():
            break
        count += 1
    return count, one[-1] == other[-1]
