"""`run.py compare` and `run.py results`: results beside each other, and beside the paper's."""

from __future__ import annotations

import string
import sys
import textwrap
from pathlib import Path

import configs
import paper
import tables
from rich.console import Console
from rich.table import Table

from keras_mrpose import InputError, Result, Skeleton, data
from keras_mrpose.evaluation import compare as comparison
from keras_mrpose.evaluation.evaluate import read_numbers

# How the numbers of a table of the paper were made, in the words of `evaluation.stamp`.
READING = {"settings.codec": "gaussian", "settings.flip_test": True, "settings.flip_shift": True}
PUBLISHED = {
    paper.COCO_VAL2017.title: READING
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
    paper.MPII.title: READING
    | {"evaluation": "pckh", "data.people": 2958, "boxes.kind": "annotated", "network.input_size": [256, 256]},
}
# Where the columns of a table are in the numbers of a result.
COLUMNS = {
    paper.COCO_VAL2017.title: paper.COCO_VAL2017.metrics,
    paper.MPII.title: ("Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "mean"),
}


def compare(options) -> None:
    """What two results differ in; with --data, what each difference costs."""
    first, second = Result.load(options.first), Result.load(options.second)
    different = comparison.differences(first.protocol, second.protocol)
    lines = [(name, _short(one), _short(other)) for name, one, other in different]
    metric = " / ".join(dict.fromkeys((first.metric, second.metric)))
    lines.append((metric, tables.percent(first.value, 2), tables.percent(second.value, 2)))
    console = Console(soft_wrap=True)
    console.print(tables.plain("Differences", ("", _name(options.first), _name(options.second)), lines))
    if not different:
        console.print("The two were made in the same way.")
    elif options.data is None:
        console.print("What each difference costs is told by --data DIR, the folder with the annotations.")
    else:
        skeleton = first.protocol["data"].get("skeleton")  # which only one's own has there
        truth = data.load(options.data, options.split, False, skeleton and Skeleton.from_dict(skeleton))
        truth = truth.of_images(first.predictions.images)
        changes = comparison.changes(first, second, truth)
        console.print(_costs(changes, first, second) if changes else "None of it can be judged again.")


def _costs(changes: list[comparison.Change], first: Result, second: Result) -> Table:
    """A line per change: what the first result becomes with the second's, and the other way round."""
    lines = []
    for change in changes:
        effects = change.of_first, change.of_second
        cells = ("not kept" if effect is None else f"{100 * effect:+.2f}" for effect in effects)
        lines.append((f"{change.name}: {_short(change.first)} -> {_short(change.second)}", *cells))
    gap = 100 * (second.value - first.value)
    title = f"What each difference alone does to the {first.metric} (the second is {gap:+.2f} from the first)"
    return tables.plain(title, ("", "first, as second", "second, as first"), lines)


def results(options) -> None:
    """The paper's rows with ours beside them."""
    files = [Path(file) for file in options.results] or sorted(options.saved.glob("*/result*.json"))
    found = {}
    for file in files:
        try:
            found[file] = read_numbers(file)
        except InputError as error:
            if options.results:
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
        names = network["model"], network["backbone"] or "-", _short(network["input_size"])
        data_name = result["protocol"]["data"]["annotations"]
        lines.append((_name(file), result["metric"], tables.percent(result["value"]), data_name, *names))
    if lines:
        console.print(
            tables.plain("Without a row in the paper", ("", "", "", "data", "network", "", ""), sorted(lines))
        )


def _lines(table: paper.Table, found: dict[Path, dict], notes: dict[str, str], shown: set[Path]):
    """The networks' rows of a table, each with our results of it below, and letters for what was done otherwise."""
    columns, width = COLUMNS[table.title], max(map(len, configs.EXPERIMENTS))
    for experiment in configs.EXPERIMENTS.values():
        row = table.of(experiment)
        if row is None:
            continue
        yield experiment.name, *("-" if number is None else f"{number:.1f}" for number in row.numbers.values()), ""
        expected = PUBLISHED[table.title] | {"network.backbone": experiment.backbone}
        for file, result in found.items():
            network = result["protocol"]["network"]
            same = (network["model"], _depth(network["backbone"])) == (experiment.model, _depth(experiment.backbone))
            if not same or result["protocol"]["evaluation"] != expected["evaluation"]:
                continue
            shown.add(file)
            letters = [notes.setdefault(note, _letter(len(notes))) for note in deviations(result, expected)]
            ours = (tables.percent(_number(result["numbers"], name)) for name in columns)
            name = textwrap.fill(_name(file), width, initial_indent=" ", subsequent_indent=" ")
            yield name, *ours, "".join(letters)


def deviations(result: dict, expected: dict) -> list[str]:
    """In what a result was made otherwise than the published numbers, a sentence each."""
    flat = comparison.flat(result["protocol"])
    return [
        f"{name} is {_short(flat.get(name, 'not given'))}, published: {_short(value)}"
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
    return backbone and backbone.removesuffix("_v1b")


def _name(file: str | Path) -> str:
    """A result by its run folder."""
    file = Path(file).absolute()
    return file.parent.name if file.name == "result.json" else f"{file.parent.name}/{file.name}"


def _short(value) -> str:
    """A value for a cell: a hash by its beginning, a size as 256x192."""
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "-" if value is None else str(value)
