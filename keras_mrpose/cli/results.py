"""`mrpose results`: the paper's numbers and ours."""

from __future__ import annotations

import string
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.saved_models import SAVED
from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from keras_mrpose.paper.tables import PaperTable

# How the numbers of the paper's table of each skeleton were made, in the words of `evaluation.provenance`.
READING = {"settings.codec": "gaussian", "settings.flip_test": True, "settings.flip_shift": True}
PUBLISHED = {
    "coco": READING
    | {
        "evaluation": "ap",
        "settings.suppression": "hard",
        "settings.oks_threshold": 0.9,
        "settings.joint_threshold": 0.2,
        "data.images": 5000,
        "data.people": 6352,
        "boxes.file": "person_detection_results/COCO_val2017_detections_AP_H_56_person.json",
        "network.input_size": [256, 192],
    },
    "mpii": READING
    | {"evaluation": "pckh", "data.people": 2958, "boxes.kind": "annotated", "network.input_size": [256, 256]},
}
# Where the columns of a table are in the numbers of a result, if they have other names there.
COLUMNS = {"mpii": ("Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "mean")}


def register_parser(subparsers) -> None:
    """The options of `results`."""
    summary = "Print the paper's rows with ours beside them, and what was done otherwise."
    sub = subparsers.add_parser("results", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("results", nargs="*", metavar="result", help="result files (default: those in saved_models)")


def handle(args) -> None:
    """Print the tables."""
    from rich.console import Console

    from keras_mrpose.cli import tables
    from keras_mrpose.evaluation.evaluate import read_numbers
    from keras_mrpose.paper import tables as paper

    files = [Path(file) for file in args.results] or sorted(SAVED.glob("*/result*.json"))
    found = {}
    for file in files:
        try:
            found[file] = read_numbers(file)
        except InputError as error:
            if args.results:
                raise
            print(f"left out: {error}", file=sys.stderr)
    console, shown = Console(soft_wrap=True), set()
    for table in (paper.COCO_VAL2017, paper.MPII):
        notes: dict[str, str] = {}
        lines = list(_lines(table, found, notes, shown))
        headings = "", *table.metrics, ""
        console.print(tables.plain(f"{table.title}: published, and ours", headings, lines, folds=len(headings) - 1))
        for note, letter in notes.items():
            console.print(f"{letter}: {note}")
    lines = []
    for file in found.keys() - shown:
        result = found[file]
        network = result["protocol"]["network"]
        names = network["model"], network["backbone"] or "-", short_value(network["input_size"])
        data_name = result["protocol"]["data"]["annotations"]
        lines.append((result_name(file), result["metric"], tables.percent(result["value"]), data_name, *names))
    if lines:
        console.print(
            tables.plain("Without a row in the paper", ("", "", "", "data", "network", "", ""), sorted(lines))
        )


def _lines(table: PaperTable, found: dict[Path, dict], notes: dict[str, str], shown: set[Path]):
    """The networks' rows of a table, each with our results of it below, and letters for what was done otherwise."""
    from keras_mrpose.cli import tables
    from keras_mrpose.paper.experiments import EXPERIMENTS

    columns, width = COLUMNS.get(table.skeleton, table.metrics), max(map(len, EXPERIMENTS))
    for experiment in EXPERIMENTS.values():
        row = table.of(experiment)
        if row is None:
            continue
        yield experiment.name, *("-" if number is None else f"{number:.1f}" for number in row.numbers.values()), ""
        expected = PUBLISHED[table.skeleton] | {"network.backbone": experiment.backbone}
        for file, result in found.items():
            network = result["protocol"]["network"]
            same = (network["model"], _depth(network["backbone"])) == (experiment.model, _depth(experiment.backbone))
            if not same or result["protocol"]["evaluation"] != expected["evaluation"]:
                continue
            shown.add(file)
            letters = [notes.setdefault(note, _letter(len(notes))) for note in deviations(result, expected)]
            ours = (tables.percent(_number(result["numbers"], name)) for name in columns)
            name = textwrap.fill(result_name(file), width, initial_indent=" ", subsequent_indent=" ")
            yield name, *ours, "".join(letters)


def deviations(result: dict, expected: dict) -> list[str]:
    """In what a result was made otherwise than the published numbers, a sentence each."""
    from keras_mrpose.evaluation import compare as comparison

    flat = comparison.flat(result["protocol"])
    return [
        f"{name} is {short_value(flat.get(name, 'not given'))}, published: {short_value(value)}"
        for name, value in expected.items()
        if flat.get(name) != value
    ]


def _letter(place: int) -> str:
    """a, b ... Z, and numbers in brackets after these."""
    return string.ascii_letters[place : place + 1] or f"({place + 1})"


def _number(numbers: dict, name: str) -> float | None:
    """A number of a result, wherever in it."""
    return numbers[name] if name in numbers else numbers["groups"][name]


def _depth(backbone: str | None) -> str | None:
    """A backbone without its variant: `resnet50` and `resnet50_v1b` are one row."""
    return backbone and backbone.removesuffix("_v1b").removesuffix("_torch")


def result_name(file: str | Path) -> str:
    """A result by its run folder."""
    file = Path(file).absolute()
    return file.parent.name if file.name == "result.json" else f"{file.parent.name}/{file.name}"


def short_value(value) -> str:
    """A value for a cell: a hash by its beginning, a size as 256x192."""
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "-" if value is None else str(value)
