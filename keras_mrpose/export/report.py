"""The report of an export, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from keras_mrpose.errors import InputError
from keras_mrpose.export.litert import QuantizedTensor
from keras_mrpose.export.verify import FormatReport, Tolerance

WORST = ("layers", "operation", "error, levels", "largest")
HEADINGS = ("file", "MB", "alike", "peaks", "shift")  # of 80 columns; the page explains them
MAX_WORST = 10  # worst tensors
EXPLAINED = """Every file has run in the LiteRT interpreter on the same {crops} crops {labels} as the Keras model.

- alike: mean correlation of its heatmaps with those of the Keras model, of the joints that this is confident of
- peaks: share of these joints whose highest cell is the same
- shift: how far these joints move, in crop pixels: median, 95 % of them, worst
- the metric, in hundredths, of the Keras model and of the file, without flip test
- levels: how many of their 256 values int8 heatmaps use"""


@dataclass(frozen=True)
class ExportReport:
    """Measurements of all exported files of a model.

    Attributes:
        model: name of the model.
        crops: number of crops that the files were checked on.
        metric: name of the data set's metric; None for crops without labels.
        before: metric of the Keras model, 0..1.
        calibration: number of crops that int8 was calibrated with; 0 without int8.
        files: file name -> its measurements.
        tolerances: format -> what it may lose.
        worst: tensors with the largest int8 error, the worst first.
        skipped: people who did not calibrate int8, since their image cannot be read: ``image``, ``person``, ``reason``.
    """

    model: str
    crops: int
    metric: str | None
    before: float | None
    calibration: int
    files: dict[str, FormatReport]
    tolerances: dict[str, Tolerance]
    worst: tuple[QuantizedTensor, ...]
    skipped: tuple[dict, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all files are within their tolerances."""
        return not any(measured.faults for measured in self.files.values())

    def headings(self) -> tuple[str, ...]:
        """Column headings of `lines`."""
        return (*HEADINGS, *([] if self.metric is None else [self.metric]), "levels")

    def lines(self) -> list[tuple[str, ...]]:
        """One row of text per file, named without its suffix."""
        return [self._line(name, measured) for name, measured in self.files.items()]

    def worst_lines(self) -> list[tuple[str, ...]]:
        """Layers, operation, error in levels and largest error of each of the worst tensors."""
        return [
            (", ".join(one.layers) or "-", one.operation, f"{one.levels:.2f}", f"{one.largest:.4g}")
            for one in self.worst
        ]

    def faults(self) -> list[str]:
        """Which files are beyond their tolerances, and where."""
        return [f"{name} {' and '.join(one.faults)}" for name, one in self.files.items() if one.faults]

    def unreadable(self) -> list[str]:
        """Which images were left out of the calibration, and why."""
        return list(dict.fromkeys(f"{one['image']} {one['reason']}" for one in self.skipped))

    def markdown(self) -> str:
        """The report as a page."""
        labels = "without labels" if self.metric is None else "of labelled people"
        parts = [f"# {self.model} as LiteRT", EXPLAINED.format(crops=self.crops, labels=labels)]
        parts.append(_table(self.headings(), self.lines()))
        if not self.passed:
            parts.append(f"Beyond the tolerance: {'; '.join(self.faults())}.")
        if self.skipped:
            parts.append("Not calibrated with, since the image cannot be read:")
            parts.append("\n".join(f"- {image}" for image in self.unreadable()))
        if self.worst:
            parts.append(
                f"Calibrated with {self.calibration} crops. What int8 does to single tensors, in its levels (rounding "
                "alone is 0.29):"
            )
            parts.append(_table(WORST, self.worst_lines()))
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict:
        """The report as JSON content."""
        return {**asdict(self), "passed": self.passed}

    def _line(self, name: str, one: FormatReport) -> tuple[str, ...]:
        near = one.parity
        maps = ("-", "-") if near.correlation is None else (f"{near.correlation:.5f}", f"{100 * near.same_peak:.1f} %")
        shifts = " ".join(f"{shift:.2f}" for shift in (near.shift_median, near.shift_95, near.shift_worst))
        value = () if one.value is None else (f"{100 * self.before:.2f} -> {100 * one.value:.2f}",)
        levels = "-" if one.levels is None else str(one.levels)
        return Path(name).stem, f"{one.size / 1e6:.2f}", *maps, shifts, *value, levels


class ToleranceError(InputError):
    """Exported files are beyond their tolerances; nothing has been written.

    Attributes:
        report: measurements of all files.
    """

    def __init__(self, report: ExportReport):
        hint = f"check on more crops than {report.crops}, among which a few joints may decide, or allow more"
        if any(one.faults and one.precision == "int8" for one in report.files.values()):
            hint = "keep layers of the worst tensors in float, calibrate with more or other crops, or allow more"
        super().__init__(f"Nothing was written: {'; '.join(report.faults())}; {hint}.")
        self.report = report


def _table(headings, lines) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
