"""The result tables of the paper, as printed: the numbers to compare with.

Tran, Nguyen, Kim: *Simple Multi-Resolution Representation Learning for Human Pose Estimation*, January 2021. All
numbers are percent. COCO: average precision and recall over object keypoint similarity. MPII: PCKh at half the head's
size; the number after a method's name is the depth of its ResNet. The cells are in the `.csv` files beside this one.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_mrpose.training.config import Experiment

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
MPII_METRICS = ("Hea", "Sho", "Elb", "Wri", "Hip", "Kne", "Ank", "Total")
SECTION = "Section"  # column with the heading above a line


@dataclass(frozen=True)
class PaperRow:
    """One line of a table.

    Args:
        section: the heading above it, None in a table without headings.
        words: what the paper says about the method: column -> text, None for an empty cell.
        numbers: what it reaches: column -> percent, None for an empty cell.
    """

    section: str | None
    words: dict[str, str | None]
    numbers: dict[str, float | None]

    @property
    def network(self) -> tuple[str, str] | None:
        """Model and backbone as `keras_mrpose.build` takes them; None for a method that it does not have."""
        name = re.fullmatch(r"(SimpleBaseline|MR\w+Net[12])(?: (\d+))?(?: \[\d+\])?", self.words["Method"] or "")
        if name is None:
            return None
        depth = name[2] or (self.words["Backbone"] or "").removeprefix("ResNet-")
        return name[1].lower(), f"resnet{depth}_v1b"


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Args:
        title: what was measured on.
        skeleton: name of the skeleton of that data.
        metrics: the columns with numbers.
        rows: all lines, methods of others too.
    """

    title: str
    skeleton: str
    metrics: tuple[str, ...]
    rows: tuple[PaperRow, ...]

    def of(self, experiment: Experiment) -> PaperRow | None:
        """The row of an experiment's data, model and backbone, however it is trained; None if there is none."""
        if experiment.skeleton != self.skeleton:
            return None
        network = experiment.model, experiment.backbone
        return next((row for row in self.rows if row.network == network), None)


def read_table(path: str | Path, title: str, skeleton: str, metrics: tuple[str, ...]) -> PaperTable:
    """A table out of a CSV file: a column of sections if the table has any, columns of words, then `metrics`.

    Raises:
        ValueError: a line has a cell too many or too few, or a cell that should be a number is none.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        columns, *lines = csv.reader(file)
    words = [name for name in columns if name not in (SECTION, *metrics)]
    rows = []
    for line in lines:
        cells = {name: text or None for name, text in zip(columns, line, strict=True)}
        numbers = {name: None if cells[name] is None else float(cells[name]) for name in metrics}
        rows.append(PaperRow(cells.get(SECTION), {name: cells[name] for name in words}, numbers))
    return PaperTable(title, skeleton, metrics, tuple(rows))


HERE = Path(__file__).parent
COCO_VAL2017 = read_table(HERE / "coco_val2017.csv", "COCO val2017 (detector boxes)", "coco", COCO_METRICS)
COCO_TEST_DEV = read_table(HERE / "coco_test_dev.csv", "COCO test-dev", "coco", COCO_METRICS)
MPII = read_table(HERE / "mpii.csv", "MPII (PCKh@0.5)", "mpii", MPII_METRICS)

TABLES = (COCO_VAL2017, COCO_TEST_DEV, MPII)
