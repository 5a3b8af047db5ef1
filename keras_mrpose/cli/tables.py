"""How results look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Column, Table

from keras_mrpose.evaluation.coco import NUMBERS
from keras_mrpose.evaluation.diagnosis import CLASSES
from keras_mrpose.evaluation.evaluate import Result


def plain(title: str, headings: Iterable[str], lines: Iterable[tuple[str, ...]], folds: int | None = None) -> Table:
    """Columns one blank apart, under a title; what does not fit goes on in the next line, first in column `folds`."""
    table = Table(title=f"\n{title}", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for column, heading in enumerate(headings):
        table.add_column(heading, overflow="fold", no_wrap=folds not in (None, column))
    for line in lines:
        table.add_row(*line)
    return table


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0..1 in percent; "-" where there was nothing to count."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def print_result(result: Result, title: str) -> None:
    """The numbers of a result, how it was made, and its errors."""
    console, protocol, numbers = Console(), result.protocol, result.numbers
    kind = protocol["evaluation"]
    {"ap": _ap, "pckh": _pckh, "pck": _pck}[kind](console, result, title)
    settings = protocol["settings"]
    shift = " and shift" if settings["flip_shift"] else ""
    flip = f"flip test{shift}" if settings["flip_test"] else "no flip test"
    boxes = protocol["boxes"]
    if boxes["kind"] == "annotated":
        console.print(f"annotated boxes, {flip}, codec {settings['codec']}")
    else:
        console.print(f"{boxes['count']} boxes of {boxes['file']}, {flip}, codec {settings['codec']}")
        if missing := boxes["images_of_people_without_boxes"]:
            console.print(
                f"note: {missing} of the {numbers['images']} images have annotated people but no box in this file: "
                "these people count as missed (--images-with-boxes leaves such images out)"
            )
    if interval := numbers.get("interval_95"):
        low, high = (percent(value) for value in interval)
        console.print(f"{result.metric} {percent(result.value)}, 95 % interval {low} to {high} (bootstrap)")
    if unknown := protocol["data"].get("joints_not_counted"):
        console.print(f"note: the network does not have {', '.join(unknown)}: these joints do not count")
    if result.diagnosis:
        console.print(diagnosis_table(result.diagnosis, result.metric))


def print_ten(ten: dict, title: str) -> None:
    """COCO's ten numbers."""
    _ten(Console(), {name: None if number == -1 else number for name, number in ten.items()}, title)


def print_coco(ten: dict, joints: dict, found: int, people: int, title: str) -> None:
    """COCO's ten numbers and the similarity of each joint."""
    print_ten(ten, title)
    _joints(Console(), joints, f"OKS in the {found} of {people} people found")


def print_upper_bound(rows, metric: str, noise: float, title: str) -> None:
    """A line per heatmap size and codec."""
    table = Table(
        "crop", "heatmap", "codec", metric, "flip test", f"noise {noise:g}", "both", title=f"Upper bound: {title}"
    )
    for place, ((height, width), codec, values) in enumerate(rows):
        if place and rows[place - 1][0] != (height, width):
            table.add_section()
        cells = (percent(value, 2) for value in values)
        table.add_row(f"{height}x{width}", f"{height // 4}x{width // 4}", codec, *cells)
    Console().print(table)


def _ap(console: Console, result: Result, title: str) -> None:
    numbers = result.numbers
    _ten(console, numbers, title)
    _joints(console, numbers["joint_oks"], f"OKS in the {numbers['people_found']} of {numbers['people']} people found")
    settings = result.protocol["settings"]
    console.print(
        f"{numbers['boxes']} boxes, {numbers['results']} after {settings['suppression']} OKS-NMS "
        f"{settings['oks_threshold']:g}; {numbers['people']} people in {numbers['images']} images"
    )


def _ten(console: Console, numbers: dict, title: str) -> None:
    table = Table(*NUMBERS, title=title)
    table.add_row(*(percent(numbers[name]) for name in NUMBERS))
    console.print(table)


def _pckh(console: Console, result: Result, title: str) -> None:
    console.print(pckh_table(result.numbers, f"PCKh@0.5: {title}"))


def _pck(console: Console, result: Result, title: str) -> None:
    numbers = result.numbers
    threshold = result.protocol["settings"]["threshold"]
    console.print(title, soft_wrap=True)  # wider than the table
    _joints(console, numbers["joints"] | {"mean": numbers["mean"]}, f"PCK@{threshold:g}")
    without = numbers["people_without_torso"]
    left_out = f", {without} without a torso left out" if without else ""
    console.print(
        f"{numbers['people']} people{left_out}; area under the curve 0..{threshold:g}: {percent(numbers['area'])}"
    )


def _joints(console: Console, shares: dict, heading: str) -> None:
    table = Table("joint", heading)
    for name, share in shares.items():
        if name == "mean":
            table.add_section()
        table.add_row(name, percent(share))
    console.print(table)


def pckh_table(numbers: dict, title: str = "PCKh@0.5, percent") -> Table:
    """PCKh as published, one row with two decimals; the caption says what Mean@0.1 is, and has the area.

    Args:
        numbers: of `PCKhResult.to_dict`. Mean@0.1 is the published reading, the mean at 0.11.
        title: above the table.
    """
    row = {**numbers["groups"], "Mean": numbers["mean"], "Mean@0.1": numbers["mean_at_0.11"]}
    caption = (
        f"Mean@0.1 is the mean at 0.11, as published; at 0.10 it is {100 * numbers['mean_at_0.10']:.2f}. "
        f"Area under the curve up to 0.5: {100 * numbers['area']:.2f}."
    )
    drawn = Table(title=title, caption=caption)
    for name in row:
        drawn.add_column(name, justify="right")
    drawn.add_row(*("-" if share is None else f"{100 * share:.2f}" for share in row.values()))
    return drawn


def diagnosis_table(report: dict, metric_name: str) -> Table:
    """Shares of the error classes in percent, by joint, by size and of all.

    Args:
        report: of `Diagnosis.to_dict`.
        metric_name: what the gains are points of, for example ``"AP"``.
    """
    title = f"{report['all']['count']} joints of {report['people']} people, percent"
    drawn = Table(Column("joint", no_wrap=True), title=title)
    for heading in (*CLASSES, "count"):
        drawn.add_column(heading, justify="right")
    for part in (report["joints"], report["sizes"], {"all": report["all"]}):
        for name, shares in part.items():
            percent = ("-" if shares[c] is None else f"{100 * shares[c]:.1f}" for c in CLASSES)
            drawn.add_row(name.replace("_", " "), *percent, str(shares["count"]))
        drawn.add_section()
    if report["gains"]:
        gains = (report["gains"].get(name) for name in CLASSES)
        drawn.add_row(f"{metric_name} if fixed", *("" if gain is None else f"{gain:+.1f}" for gain in gains), "")
    return drawn
