"""`run.py export`: a network to a folder of LiteRT files, and the table that says what each of them costs."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import tables
from rich.console import Console

import keras_mrpose
from keras_mrpose import InputError, data
from keras_mrpose.export import TOLERANCES, ExportReport, Tolerance, ToleranceError
from keras_mrpose.export.report import WORST


def main(options) -> None:
    """Export, print the table, also that of a refusal."""
    model = Path(options.model)
    out = Path(options.out or (model if model.is_dir() else model.parent) / "export")
    formats, budgets = _names(options.formats), _budgets(options.budget)
    if options.people < 1:
        raise InputError(f"--people is {options.people}; give a number of at least 1.")
    skeleton = keras_mrpose.Predictor(model, flip_test=False).skeleton
    people = data.load(options.data, options.split, skeleton=skeleton, strict=False)
    people = people.limit(options.people)
    calibration = None
    if "int8" in formats:
        calibration = data.load(options.data, options.calibration, skeleton=skeleton, strict=False)
    try:
        report = keras_mrpose.export_litert(
            model,
            out,
            formats,
            people=people,
            calibration=calibration,
            outputs=_names(options.outputs),
            input_type=options.input_type,
            output_type=options.output_type,
            deconvolution=options.deconv,
            float_layers=options.float_layers,
            budgets=budgets,
            overwrite=options.overwrite,
        )
    except ToleranceError as refused:
        _print(refused.report)
        raise
    _print(report)
    print(f"written to {out}; what the columns mean: {out / 'report.md'}")


def _print(report: ExportReport) -> None:
    console = Console()
    console.print(tables.plain(f"{report.model} on {report.crops} crops", report.headings(), report.lines(), folds=0))
    if report.worst:
        console.print(tables.plain(f"worst by int8, {report.calibration} crops", WORST, report.worst_lines(), folds=0))


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _budgets(given: list[str]) -> dict[str, Tolerance]:
    """From texts such as int8.points=2."""
    budgets, names = {}, [field.name for field in fields(Tolerance)]
    for text in given:
        form, _, rest = text.partition(".")
        name, _, value = rest.partition("=")
        try:
            if form not in TOLERANCES or name not in names:
                raise ValueError
            budgets[form] = replace(budgets.get(form, TOLERANCES[form]), **{name: float(value)})
        except InputError:
            raise
        except ValueError:
            raise InputError(
                f"--tolerance is {text!r}; give FORM.WHAT=NUMBER such as int8.points=2, the form one of "
                f"{', '.join(TOLERANCES)}, the other {', '.join(names)}."
            ) from None
    return budgets
