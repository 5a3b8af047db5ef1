"""Every check of a data folder, in one pass: all problems at once, where training stops at the first.

`records` reads the annotations with the loaders, which report wrong records and go on; `images` reads every image file,
`left_right` compares left and right joints, `findings` says what each kind of problem means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from keras_mrpose import data
from keras_mrpose.data import layout
from keras_mrpose.data.people import protocol_of
from keras_mrpose.doctor import images as image_files
from keras_mrpose.doctor import left_right
from keras_mrpose.doctor.findings import DoctorReport, Finding, IssueCollector
from keras_mrpose.doctor.records import PersonRecord, Split, read_splits
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import evaluate
from keras_mrpose.joint_names import flip_pairs_of, side_of
from keras_mrpose.skeletons import Skeleton

SLACK = 2.0  # pixels that annotations of good data sets reach beyond a border by rounding


def examine(
    folder: str | Path,
    *,
    images: bool = True,
    skeleton: Skeleton | None = None,
    watch: Callable[[Iterable, int], Iterable] = lambda results, count: results,
) -> DoctorReport:
    """Report of everything that is wrong with a data folder, over all its splits.

    Args:
        folder: of any kind that `data.load` knows.
        images: read every image; False checks the annotations only.
        skeleton: of a COCO-format folder; None takes the file's. It is checked too (`check_skeleton`).
        watch: wraps an iterable of so many items and yields them: a progress bar over the images.

    Raises:
        InputError: no such folder, or none that could be a data set.
    """
    folder, issues = Path(folder), IssueCollector()
    splits = read_splits(folder, skeleton, issues)
    names = [split.name for split in splits]
    if names and not layout.has_validation(names) and not all(name.startswith("test") for name in names):
        issues.add("no validation", folder, "splits", "-", f"only {', '.join(names)}")
    inspected = image_files.inspect_images(splits, watch) if images else {}
    for split in splits:
        if images:
            image_files.check_images(split, inspected, issues)
        _check_people(split, {path: seen.size for path, seen in inspected.items()}, issues)
    if images:
        image_files.check_duplicates(splits, inspected, issues)
    for each in {split.skeleton for split in splits}:
        _check_skeleton(each, issues)
    if not issues.errors():  # what passes here, training and evaluation accept
        _load_strictly(folder, splits, skeleton, issues)
    return DoctorReport(
        folder=str(folder),
        splits={split.name: sum(person.kept for person in split.people) for split in splits},
        left_out={split.name: dict(+split.left_out) for split in splits},
        images=sum(seen.digest is not None for seen in inspected.values()),
        findings=issues.findings(),
        mirrored={split.skeleton.name: split.skeleton.mirrored() for split in splits},
    )


def check_skeleton(skeleton: Skeleton) -> tuple[Finding, ...]:
    """Problems of a custom skeleton: sigmas outside 0 to 1, left/right pairs missing or against the names."""
    issues = IssueCollector()
    _check_skeleton(skeleton, issues)
    return issues.findings()


def _check_skeleton(skeleton: Skeleton, issues: IssueCollector) -> None:
    where = f"skeleton {skeleton.name}"
    for joint, sigma in zip(skeleton.joints, skeleton.sigmas, strict=True):
        if not 0 < sigma < 1:
            issues.add("sigmas", where, joint, "sigmas", sigma)
    for joint in skeleton.one_sided:
        issues.add("one-sided joint", where, joint, "flip_pairs", "no other side")
    if skeleton.pairs_from_names and not (skeleton.flip_pairs or skeleton.one_sided):
        issues.add("no left and right", where, "-", "flip_pairs", ", ".join(skeleton.joints))
    pairs = [pair for pair in flip_pairs_of(skeleton.joints) if all(side_of(skeleton.joints[i]) for i in pair)]
    expected = {frozenset(pair) for pair in pairs}
    given = {frozenset(pair) for pair in skeleton.flip_pairs}
    named = {joint for pair in expected for joint in pair}
    for pair in sorted(map(sorted, expected - given)):
        issues.add("swap pairs", where, " and ".join(skeleton.joints[i] for i in pair), "flip_pairs", "no pair")
    for pair in sorted(map(sorted, given - expected)):
        if named & set(pair):  # joints whose names tell no side may be paired as their maker knows
            issues.add("swap pairs", where, " and ".join(skeleton.joints[i] for i in pair), "flip_pairs", "a pair")


def _check_people(split: Split, sizes: dict[str, tuple[int, int] | None], issues: IssueCollector) -> None:
    """Checks of single records, and of records of one image against each other."""
    if not split.people:
        return
    keypoints = np.stack([person.keypoints for person in split.people])
    labelled = keypoints[..., 2] > 0
    for person, seen in zip(split.people, labelled.any(axis=1), strict=True):
        if not seen:
            issues.add("unlabelled person", split.file, person.record, "keypoints", "no labelled joint")
        elif person.box is not None:
            _check_box(person, split, issues)
    rows = np.flatnonzero(labelled.any(axis=1))
    for row in rows:
        image = split.images[split.people[row].image]
        size = image.size or sizes.get(image.path)
        if size:
            _check_inside(split, split.people[row], size, issues)
    _check_duplicates(split, rows, issues)
    for cue, suspected in left_right.suspects(keypoints, split.skeleton).items():
        for row in np.flatnonzero(suspected):
            issues.add("left-right suspect", split.file, split.people[row].record, "keypoints", cue)


def _check_box(person: PersonRecord, split: Split, issues: IssueCollector) -> None:
    x, y, w, h = person.box.tolist()
    if w <= 0 or h <= 0:
        issues.add("empty box", split.file, person.record, "bbox", [x, y, w, h])
    points = person.keypoints[person.keypoints[:, 2] > 0, :2]
    away = np.maximum((x, y) - points, points - (x + w, y + h)).max(axis=1)
    if w > 0 and h > 0 and away.max() > max(w, h):
        joint = split.skeleton.joints[np.flatnonzero(person.keypoints[:, 2] > 0)[away.argmax()]]
        issues.add("joint off box", split.file, person.record, "keypoints", f"{joint} {away.max():.0f} px away")


def _check_inside(split: Split, person: PersonRecord, size: tuple[int, int], issues: IssueCollector) -> None:
    """Box and joints against the image."""
    sides = np.array(size, np.float64)
    if person.box is not None:
        low, high = person.box[:2], person.box[:2] + person.box[2:]
        if (low >= sides).any() or (high <= 0).any():
            issues.add("box outside", split.file, person.record, "bbox", person.box.tolist())
        elif (low < -SLACK).any() or (high > sides + SLACK).any():
            issues.add("box over border", split.file, person.record, "bbox", person.box.tolist())
    rows = np.flatnonzero(person.keypoints[:, 2] > 0)
    points = person.keypoints[rows, :2]
    beyond = np.maximum(-points, points - (sides - 1))
    for joint, point, far in zip(rows, points, beyond, strict=True):
        if (far > SLACK).any():
            key = "joint far outside" if (far > sides).any() else "joint outside"
            place = f"{split.skeleton.joints[joint]} at {point.round(1).tolist()} of {size[0]}x{size[1]}"
            issues.add(key, split.file, person.record, "keypoints", place)


def _check_duplicates(split: Split, rows: np.ndarray, issues: IssueCollector) -> None:
    """Records of one image whose joints are the same."""
    seen = {}
    for row in rows:
        person = split.people[row]
        first = seen.setdefault((split.images[person.image].path, person.keypoints.tobytes()), person)
        if first is not person:
            issues.add("person twice", split.file, person.record, "the same as", first.record)


def _load_strictly(folder: Path, splits: list[Split], skeleton: Skeleton | None, issues: IssueCollector) -> None:
    """Report what the loader or the evaluation refuses and no check above covers."""
    for split in splits:
        try:
            people = data.read(folder, split.name, require_images=False, skeleton=skeleton)
            evaluate.check(protocol_of(people), people)
        except InputError as error:
            why = str(error).removeprefix(split.file).lstrip(": ")
            issues.add("refused", split.file, "-", "-", why)
