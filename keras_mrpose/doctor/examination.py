"""One pass over a data folder that tells everything that is wrong with it, where the loaders stop at the first mistake.

`lenient` reads the annotations past their mistakes, `images` looks at every image file, `swaps` at left and right;
`findings` says what each kind of problem means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from keras_mrpose import data
from keras_mrpose.doctor import images as image_files
from keras_mrpose.doctor import left_right, lenient
from keras_mrpose.doctor.findings import DoctorReport, Finding, Notes
from keras_mrpose.doctor.lenient import Split
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton, flip_pairs_of

SLACK = 2.0  # pixels that annotations of good data sets reach beyond a border by rounding


def examine(
    folder: str | Path,
    *,
    images: bool = True,
    skeleton: Skeleton | None = None,
    watch: Callable[[Iterable, int], Iterable] = lambda looks, count: looks,
) -> DoctorReport:
    """Everything that is wrong with a data folder, over all its splits.

    Args:
        folder: of any kind that `data.load` knows.
        images: read every image; False looks at annotations only.
        skeleton: of a COCO-format folder; None takes the file's. It is checked too (`check_skeleton`).
        watch: passes on what it is given, an iterable and its length: a progress bar over the images.

    Raises:
        InputError: no such folder, or none that could be a data set.
    """
    folder, notes = Path(folder), Notes()
    splits = lenient.read(folder, skeleton, notes)
    looks = image_files.inspect_images(splits, watch) if images else {}
    for split in splits:
        if images:
            image_files.check(split, looks, notes)
        _check_people(split, {path: seen.size for path, seen in looks.items()}, notes)
    if images:
        image_files.check_twice(splits, looks, notes)
    for each in {split.skeleton for split in splits}:
        _check_skeleton(each, notes)
    if not notes.errors():  # what passes here, training accepts
        _ask_the_loader(folder, splits, skeleton, notes)
    counts = {split.name: len(split.people) for split in splits}
    return DoctorReport(str(folder), counts, sum(seen.digest is not None for seen in looks.values()), notes.findings())


def check_skeleton(skeleton: Skeleton) -> tuple[Finding, ...]:
    """What is wrong with a skeleton of one's own: sigmas that are no share of a person, pairs against the names."""
    notes = Notes()
    _check_skeleton(skeleton, notes)
    return notes.findings()


def _check_skeleton(skeleton: Skeleton, notes: Notes) -> None:
    where = f"skeleton {skeleton.name}"
    for joint, sigma in zip(skeleton.joints, skeleton.sigmas, strict=True):
        if not 0 < sigma < 1:
            notes.add("sigmas", where, joint, "sigmas", sigma)
    told = {frozenset(pair) for pair in flip_pairs_of(skeleton.joints)}
    given = {frozenset(pair) for pair in skeleton.flip_pairs}
    named = {joint for pair in told for joint in pair}
    for pair in sorted(map(sorted, told - given)):
        notes.add("swap pairs", where, " and ".join(skeleton.joints[i] for i in pair), "flip_pairs", "no pair")
    for pair in sorted(map(sorted, given - told)):
        if named & set(pair):  # joints whose names tell no side may be paired as their maker knows
            notes.add("swap pairs", where, " and ".join(skeleton.joints[i] for i in pair), "flip_pairs", "a pair")


def _check_people(split: Split, sizes: dict[str, tuple[int, int] | None], notes: Notes) -> None:
    """What one record, or two of one image, tell."""
    if not split.people:
        return
    keypoints = np.stack([person.keypoints for person in split.people])
    labelled = keypoints[..., 2] > 0
    for person, seen in zip(split.people, labelled.any(axis=1), strict=True):
        if not seen:
            notes.add("unlabelled person", split.file, person.record, "keypoints", "no labelled joint")
        elif person.box is not None:
            _check_box(person, split, notes)
    rows = np.flatnonzero(labelled.any(axis=1))
    for row in rows:
        image = split.images[split.people[row].image]
        size = image.size or sizes.get(image.path)
        if size:
            _check_places(split, split.people[row], size, notes)
    _check_same(split, rows, notes)
    for cue, suspected in left_right.suspects(keypoints, split.skeleton).items():
        for row in np.flatnonzero(suspected):
            notes.add("left-right suspect", split.file, split.people[row].record, "keypoints", cue)


def _check_box(person: lenient.PersonRecord, split: Split, notes: Notes) -> None:
    x, y, w, h = person.box.tolist()
    if w <= 0 or h <= 0:
        notes.add("empty box", split.file, person.record, "bbox", [x, y, w, h])
    if person.area <= 0:
        notes.add("zero area", split.file, person.record, "area", person.area)
    points = person.keypoints[person.keypoints[:, 2] > 0, :2]
    away = np.maximum((x, y) - points, points - (x + w, y + h)).max(axis=1)
    if w > 0 and h > 0 and away.max() > max(w, h):
        joint = split.skeleton.joints[np.flatnonzero(person.keypoints[:, 2] > 0)[away.argmax()]]
        notes.add("joint off box", split.file, person.record, "keypoints", f"{joint} {away.max():.0f} px away")


def _check_places(split: Split, person: lenient.PersonRecord, size: tuple[int, int], notes: Notes) -> None:
    """Box and joints against the image."""
    sides = np.array(size, np.float64)
    if person.box is not None:
        low, high = person.box[:2], person.box[:2] + person.box[2:]
        if (low >= sides).any() or (high <= 0).any():
            notes.add("box outside", split.file, person.record, "bbox", person.box.tolist())
        elif (low < -SLACK).any() or (high > sides + SLACK).any():
            notes.add("box over border", split.file, person.record, "bbox", person.box.tolist())
    rows = np.flatnonzero(person.keypoints[:, 2] > 0)
    points = person.keypoints[rows, :2]
    beyond = np.maximum(-points, points - (sides - 1))
    for joint, point, far in zip(rows, points, beyond, strict=True):
        if (far > SLACK).any():
            key = "joint far outside" if (far > sides).any() else "joint outside"
            place = f"{split.skeleton.joints[joint]} at {point.round(1).tolist()} of {size[0]}x{size[1]}"
            notes.add(key, split.file, person.record, "keypoints", place)


def _check_same(split: Split, rows: np.ndarray, notes: Notes) -> None:
    """Records of one image whose joints are the same."""
    seen = {}
    for row in rows:
        person = split.people[row]
        first = seen.setdefault((split.images[person.image].path, person.keypoints.tobytes()), person)
        if first is not person:
            notes.add("person twice", split.file, person.record, "the same as", first.record)


def _ask_the_loader(folder: Path, splits: list[Split], skeleton: Skeleton | None, notes: Notes) -> None:
    """Whatever the loader refuses and no check above knows."""
    for split in splits:
        try:
            data.load(folder, split.name, require_images=False, skeleton=skeleton)
        except InputError as error:
            notes.add("refused", split.file, "-", "-", str(error))
