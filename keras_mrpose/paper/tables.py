"""The result tables of the paper, as printed: the numbers to compare with.

Tran, Nguyen, Kim: *Simple Multi-Resolution Representation Learning for Human Pose Estimation*, January 2021. All
numbers are percent. COCO: average precision and recall over object keypoint similarity. MPII: PCKh at half the head's
size; the number after a method's name is the depth of its ResNet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keras_mrpose.training.config import Experiment


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        section: the heading above it, None in a table without headings.
        words: what the paper says about the method: column -> text, None for "-".
        numbers: what it reaches: column -> percent, None for "-".
    """

    section: str | None
    words: dict[str, str | None]
    numbers: dict[str, float | None]

    @property
    def network(self) -> tuple[str, str] | None:
        """Model and backbone as `keras_mrpose.build` takes them; None for a method that it does not have."""
        name = re.fullmatch(r"(SimpleBaseline|MR\w+Net[12])(?: (\d+))?(?: \[\d+\])?", self.words["Method"])
        if name is None:
            return None
        depth = name[2] or self.words["Backbone"].removeprefix("ResNet-")
        return name[1].lower(), f"resnet{depth}_v1b"


@dataclass(frozen=True)
class Table:
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
    rows: tuple[Row, ...]

    def of(self, experiment: Experiment) -> Row | None:
        """The row of an experiment's data, model and backbone, however it is trained; None if there is none."""
        if experiment.skeleton != self.skeleton:
            return None
        network = experiment.model, experiment.backbone
        return next((row for row in self.rows if row.network == network), None)


def _table(title: str, skeleton: str, text: str) -> Table:
    """Reads the notation below: ``|`` after each column of words, then numbers; a line without ``|`` is a heading.

    A line with a cell too many or too few, or with what is no number, is a ValueError.
    """
    (*columns, metrics), *lines = ([cell.strip() for cell in line.split("|")] for line in text.strip().splitlines())
    metrics, section, rows = metrics.split(), None, []
    for *words, numbers in lines:
        if not words:
            section = numbers
            continue
        words = (None if cell == "-" else cell for cell in words)
        numbers = (None if cell == "-" else float(cell) for cell in numbers.split())
        rows.append(Row(section, dict(zip(columns, words, strict=True)), dict(zip(metrics, numbers, strict=True))))
    return Table(title, skeleton, tuple(metrics), tuple(rows))


COCO_VAL2017 = _table(
    "COCO val2017 (detector boxes)",
    "coco",
    """
Method                | Backbone          | Pretrain | AP   AP50 AP75 APM  APL  AR   AR50 AR75 ARM  ARL
8-stage Hourglass [4] | 8-stage Hourglass | N        | 66.9 -    -    -    -    -    -    -    -    -
CPN [5]               | ResNet-50         | Y        | 68.6 -    -    -    -    -    -    -    -    -
CPN + OHKM [5]        | ResNet-50         | Y        | 69.4 -    -    -    -    -    -    -    -    -
SimpleBaseline [6]    | ResNet-50         | Y        | 70.4 88.6 78.3 67.1 77.2 76.3 92.9 83.4 72.1 82.4
MRHeatNet1            | ResNet-50         | Y        | 70.2 88.5 77.6 66.8 77.2 76.2 92.8 83.0 71.8 82.4
MRHeatNet2            | ResNet-50         | Y        | 70.3 88.5 78.0 67.2 77.0 76.4 92.9 83.1 72.1 82.4
MRFeaNet1             | ResNet-50         | Y        | 70.6 88.7 78.1 67.3 77.5 76.5 92.9 83.3 72.1 82.7
MRFeaNet2             | ResNet-50         | Y        | 70.9 88.8 78.3 67.2 78.1 76.8 93.0 83.6 72.2 83.4
SimpleBaseline [6]    | ResNet-101        | Y        | 71.4 89.3 79.3 68.1 78.1 77.1 93.4 84.0 73.0 83.2
MRFeaNet2             | ResNet-101        | Y        | 71.8 89.1 79.6 68.5 78.8 77.8 93.5 84.5 73.5 84.0
SimpleBaseline [6]    | ResNet-152        | Y        | 72.0 89.3 79.8 68.7 78.9 77.8 93.4 84.6 73.6 83.9
MRFeaNet2             | ResNet-152        | Y        | 72.6 89.4 80.4 69.4 79.3 78.2 93.4 85.2 74.1 84.2
""",
)

COCO_TEST_DEV = _table(
    "COCO test-dev",
    "coco",
    """
Method                        | Backbone      | Input size | AP   AP50 AP75 APM  APL  AR   AR50 AR75 ARM  ARL
Bottom-up approach: keypoint detection and grouping
OpenPose [10]                 | -             | -          | 61.8 84.9 67.5 57.1 68.2 -    -    -    -    -
Associative Embedding [11]    | -             | -          | 65.5 86.8 72.3 60.6 72.6 70.2 89.5 76.0 64.6 78.1
PersonLab [12]                | ResNet-152    | -          | 68.7 89.0 75.4 64.1 75.5 75.4 92.7 81.2 69.7 83.0
MultiPoseNet [13]             | -             | -          | 69.6 86.3 76.6 65.0 76.3 73.5 88.1 79.5 68.6 80.3
Top-down approach: person detection and single-person keypoint detection
Mask-RCNN [14]                | ResNet-50-FPN | -          | 63.1 87.3 68.7 57.8 71.4 -    -    -    -    -
G-RMI [15]                    | ResNet-101    | 353x257    | 64.9 85.5 71.3 62.3 70.0 69.7 88.7 75.5 64.4 77.1
Integral Pose Regression [16] | ResNet-101    | 256x256    | 67.8 88.2 74.8 63.9 74.0 -    -    -    -    -
G-RMI + extra data [15]       | ResNet-101    | 353x257    | 68.5 87.1 75.5 65.8 73.3 73.3 90.1 79.5 68.1 80.4
SimpleBaseline [6]            | ResNet-50     | 256x192    | 70.0 90.9 77.9 66.8 75.8 75.6 94.5 83.0 71.5 81.3
SimpleBaseline [6]            | ResNet-101    | 256x192    | 70.9 91.1 79.3 67.9 76.7 76.7 94.9 84.2 72.7 82.2
SimpleBaseline [6]            | ResNet-152    | 256x192    | 71.6 91.2 80.1 68.7 77.2 77.2 94.9 85.0 73.4 82.6
Our multi-resolution representation learning models
MRHeatNet1                    | ResNet-50     | 256x192    | 69.7 90.8 77.8 66.6 75.4 75.4 94.4 82.9 71.3 81.1
MRHeatNet2                    | ResNet-50     | 256x192    | 69.9 90.8 78.3 66.9 75.6 75.6 94.5 83.3 71.6 81.2
MRFeaNet1                     | ResNet-50     | 256x192    | 70.1 90.7 78.4 67.0 75.9 75.8 94.3 83.3 71.7 81.3
MRFeaNet2                     | ResNet-50     | 256x192    | 70.4 90.9 78.7 67.3 76.3 76.2 94.6 83.7 72.0 81.9
MRFeaNet2                     | ResNet-101    | 256x192    | 71.2 91.0 79.6 68.2 76.9 77.0 94.7 84.5 72.9 82.5
MRFeaNet2                     | ResNet-152    | 256x192    | 71.8 91.2 80.1 68.9 77.5 77.4 94.8 84.9 73.5 82.8
""",
)

MPII = _table(
    "MPII (PCKh@0.5)",
    "mpii",
    """
Method                   | Hea  Sho  Elb  Wri  Hip  Kne  Ank  Total
Pishchulin et al. [18]   | 74.3 49.0 40.8 34.1 36.5 34.4 35.2 44.1
Tompson et al. [19]      | 95.8 90.3 80.5 74.3 77.6 69.7 62.8 79.6
Carreira et al. [20]     | 95.7 91.7 81.7 72.4 82.8 73.2 66.4 81.3
Tompson et al. [2]       | 96.1 91.9 83.9 77.8 80.9 72.3 64.8 82.0
Hu et al. [21]           | 95.0 91.6 83.0 76.6 81.9 74.5 69.5 82.4
Pishchulin et al. [22]   | 94.1 90.2 83.4 77.3 82.6 75.7 68.6 82.4
Lifshitz et al. [23]     | 97.8 93.3 85.7 80.4 85.3 76.6 70.2 85.0
Gkioxary et al. [24]     | 96.2 93.1 86.7 82.1 85.2 81.4 74.1 86.1
Rafi et al. [25]         | 97.2 93.9 86.4 81.3 86.8 80.6 73.4 86.3
Belagiannis et al. [26]  | 97.7 95.0 88.2 83.0 87.9 82.6 78.4 88.1
Insafutdinov et al. [27] | 96.8 95.2 89.3 84.4 88.4 83.4 78.0 88.5
Wei et al. [3]           | 97.8 95.0 88.7 84.0 88.4 82.8 79.4 88.5
SimpleBaseline 50 [6]    | 96.4 95.3 89.0 83.2 88.4 84.0 79.6 88.5
MRHeatNet1 50            | 96.7 95.2 88.9 83.8 88.1 83.6 78.6 88.4
MRHeatNet2 50            | 96.8 95.5 88.6 83.8 88.5 83.6 78.7 88.5
MRFeaNet1 50             | 96.5 95.5 89.6 84.3 88.6 84.6 80.6 89.1
MRFeaNet2 50             | 96.6 95.4 88.9 83.9 88.5 84.6 80.9 88.9
SimpleBaseline 101 [6]   | 96.9 95.9 89.5 84.4 88.4 84.5 80.7 89.1
MRHeatNet1 101           | 96.7 95.7 89.7 84.4 89.1 84.7 81.4 89.3
MRHeatNet2 101           | 97.4 95.6 89.3 84.2 89.0 84.9 81.2 89.3
MRFeaNet1 101            | 96.8 95.6 89.4 84.6 89.2 85.2 81.2 89.4
MRFeaNet2 101            | 96.6 95.2 89.3 84.2 89.2 85.9 81.6 89.3
SimpleBaseline 152 [6]   | 97.0 95.9 90.0 85.0 89.2 85.3 81.3 89.6
MRHeatNet1 152           | 96.8 96.0 90.1 84.4 88.9 85.3 81.4 89.5
MRHeatNet2 152           | 96.9 95.6 89.9 84.6 88.9 86.0 81.2 89.5
MRFeaNet1 152            | 97.2 95.9 90.2 85.3 89.3 85.4 82.0 89.8
MRFeaNet2 152            | 96.7 95.4 89.9 85.1 88.8 85.7 81.8 89.5
""",
)

TABLES = (COCO_VAL2017, COCO_TEST_DEV, MPII)
