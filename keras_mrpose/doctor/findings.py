"""Kinds of problems of a data folder, their collector, and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from keras_mrpose.data.issues import Issue
from keras_mrpose.data.suspicions import MEANINGS

ERROR, WARNING, NOTE = "error", "warning", "note"
MAX_EXAMPLES = 1000  # examples of each kind
MAX_VALUE = 80  # characters of a value


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        key: its name in reports.
        severity: ``"error"``: training would stop, lose the person, or learn or measure something wrong;
            ``"warning"``: likely a mistake, but real data of quality has some; ``"note"``: as the format means it.
        meaning: what it is and what to do.
    """

    key: str
    severity: str
    meaning: str


# In the order of a report: what stops everything first.
KINDS = {
    kind.key: kind
    for kind in (
        Kind("annotations", ERROR, "The annotation file is refused as a whole; get or make it again."),
        Kind("record", ERROR, "A field is missing or of a wrong type; fix or remove the record."),
        Kind("joint count", ERROR, "The record or file has other joints than the skeleton; choose one that fits."),
        Kind("not finite", ERROR, "A number is NaN or infinite; fix or remove the record."),
        Kind("joint flag", ERROR, "A joint's flag is not one that the format has; fix it."),
        *(Kind(key, ERROR, meaning) for key, meaning in MEANINGS.items()),
        Kind("duplicate id", ERROR, "Two images share an id; give each its own."),
        Kind("unknown image", ERROR, "The record's image is not in the file's list; add it or remove the record."),
        Kind("empty box", ERROR, "The box of a labelled person has no width or height; fix it or remove the record."),
        Kind("box outside", ERROR, "The box lies outside the image; fix it or remove the record."),
        Kind("small box", ERROR, "The box of a labelled person is smaller than 2 px: it is left out; fix it."),
        Kind("joint far outside", ERROR, "A labelled joint is farther outside the image than its side; fix it."),
        Kind("refused", ERROR, "Loader or evaluation refuse the data; do what they say."),
        Kind("missing image", ERROR, "The image is not there; put it there or remove its records."),
        Kind("unreadable image", ERROR, "The file cannot be read; replace it by a whole image file."),
        Kind("image size", ERROR, "The image's size is not the annotated one; get the image that was annotated."),
        Kind("image in train and val", ERROR, "Validation shows what was learnt by heart; take it out of one."),
        Kind("sigmas", ERROR, "A skeleton needs one sigma between 0 and 1 for each joint; fix them."),
        Kind("swap pairs", ERROR, "What left and right change into in a mirrored image is wrong; fix the pairs."),
        Kind("one-sided joint", ERROR, "The other side is missing, so nothing may be mirrored; rename or list pairs."),
        Kind("no left and right", ERROR, "No name says a side, so nothing may be mirrored; rename or list pairs."),
        Kind(
            "rotated by EXIF",
            WARNING,
            "Viewers and prediction turn this image. Training does not if its size says so, and does if the size does "
            "not tell: see whether the joints fit.",
        ),
        Kind("colours", WARNING, "Not plain RGB or gray (CMYK, transparency): convert it, colours may be off."),
        Kind("image twice", WARNING, "Two images of a split are the same file; remove one with its records."),
        Kind("person twice", WARNING, "Two records of an image have the same joints; remove one."),
        Kind("box over border", WARNING, "The box leaves the image; training cuts it, see whether it is right."),
        Kind("joint outside", WARNING, "A labelled joint lies outside the image; see whether it is right."),
        Kind("joint off box", WARNING, "A labelled joint is outside its person's box by more than the box's size."),
        Kind("no validation", WARNING, "No split to validate on: train with --val-share 0.1, or --val-split NAME."),
        Kind("category", WARNING, "The records' category is not that of people; give them its id."),
        Kind("joint names", WARNING, "The file names no joints, so they are taken for COCO's 17; name them in it."),
        Kind("zero area", WARNING, "A labelled person has no positive area: the box's is taken, which changes AP."),
        Kind("joint number", WARNING, "num_keypoints is not the number of labelled joints; training counts itself."),
        Kind("left-right suspect", WARNING, "Left and right may be exchanged in a part of the body; look at it."),
        Kind("unlabelled person", NOTE, "No joint is labelled: training leaves this person out."),
        Kind("record id", NOTE, "Ids of records are not positive or not unique: evaluation numbers them itself."),
        Kind("no scale", NOTE, "MPII gives no scale: this person cannot be cropped and is left out."),
    )
}


@dataclass(frozen=True)
class Example:
    """Where a problem is: the file, the record's number or name in it, the field, and what stands there."""

    file: str
    record: str
    field: str
    value: str


@dataclass(frozen=True)
class Finding:
    """All problems of a kind: how many, and the first thousand."""

    kind: Kind
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class DoctorReport:
    """Result of `doctor.examine`.

    Attributes:
        folder: which.
        splits: name -> number of people that training and evaluation take.
        left_out: name -> why other records are left out -> how many.
        images: that were read.
        findings: worst first.
        mirrored: skeleton -> its left/right pairs, in words (`Skeleton.mirrored`).
    """

    folder: str
    splits: dict[str, int]
    left_out: dict[str, dict[str, int]]
    images: int
    findings: tuple[Finding, ...]
    mirrored: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether no error was found; warnings and notes may be there."""
        return not self.count(ERROR)

    def count(self, severity: str) -> int:
        """How many problems of this severity."""
        return sum(finding.count for finding in self.findings if finding.kind.severity == severity)

    @property
    def kinds(self) -> list[str]:
        """Keys of the kinds that were found, notes left out."""
        return [finding.kind.key for finding in self.findings if finding.kind.severity != NOTE]

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return {**asdict(self), "clean": self.clean}


class IssueCollector:
    """Collects problems and counts them; keeps the first thousand of each kind."""

    def __init__(self):
        self._counts, self._examples = {}, {}

    def add(self, key: str, file, record, field: str, value) -> None:
        """Add a problem of the kind `key`."""
        self._counts[key] = self._counts.get(key, 0) + 1
        examples = self._examples.setdefault(key, [])
        if len(examples) < MAX_EXAMPLES:
            value = value if isinstance(value, str) else repr(value)
            value = value if len(value) <= MAX_VALUE else value[: MAX_VALUE - 3] + "..."
            examples.append(Example(str(file), str(record), field, value))

    def report(self, issue: Issue) -> None:
        """Add what a loader reports; the loader goes on without the record."""
        self.add(issue.kind, issue.source, issue.record, issue.field, issue.value)

    def findings(self) -> tuple[Finding, ...]:
        """In the order of `KINDS`."""
        return tuple(
            Finding(kind, self._counts[key], tuple(self._examples[key]))
            for key, kind in KINDS.items()
            if key in self._counts
        )

    def errors(self) -> int:
        """How many errors there are so far."""
        return sum(count for key, count in self._counts.items() if KINDS[key].severity == ERROR)
