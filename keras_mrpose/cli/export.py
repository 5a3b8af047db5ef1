"""`mrpose export`: a folder of LiteRT files, and the table that says what each of them costs."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.data_options import add_data, require_positive
from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from keras_mrpose.export import ExportReport, Tolerance


def register_parser(subparsers) -> None:
    """The options of `export`."""
    summary = "Turn a network into LiteRT files for phones; those that differ too much from it are refused."
    sub = subparsers.add_parser("export", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("model", help="run folder or .keras file")
    add_data(sub)
    sub.add_argument("--formats", default="float32,float16,int8", metavar="F,F", help="or dynamic, onnx")
    sub.add_argument("--outputs", default="heatmaps", metavar="T,T", help="heatmaps (default), keypoints")
    sub.add_argument("--people", type=int, default=1000, metavar="N", help="check on the images of the first N (1000)")
    sub.add_argument(
        "--calibration", default="train", metavar="SPLIT", help="int8: whose people set the ranges (train)"
    )
    sub.add_argument("--input-type", default="float32", help="of the images: float32 (default) or uint8")
    sub.add_argument("--output-type", default="float32", help="of int8's heatmaps: float32 (default), uint8 or int8")
    sub.add_argument("--deconv", default="depth_to_space", help="depth_to_space (default, faster) or transpose")
    sub.add_argument("--float-layers", nargs="+", default=[], metavar="LAYER", help="int8: layers that stay in float")
    sub.add_argument(
        "--tolerance", action="append", default=[], metavar="PRECISION.WHAT=X",
        help="instead of the default: int8.points=2 (of the metric), int8.correlation=0.9, int8.shift=5 (pixels)",
    )  # fmt: skip
    sub.add_argument("--out", metavar="DIR", help="new folder (default: export in the run folder)")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier export")


def handle(args) -> int:
    """Export, and print the table, also that of a refused export; 1 if int8 was calibrated without some images."""
    import keras_mrpose
    from keras_mrpose import data
    from keras_mrpose.export import ToleranceError

    model = Path(args.model)
    out = Path(args.out or (model if model.is_dir() else model.parent) / "export")
    formats, tolerances = _names(args.formats), _tolerances(args.tolerance)
    require_positive("--people", args.people)
    skeleton = keras_mrpose.Predictor(model, flip_test=False).skeleton
    people = data.load(args.data, args.split, skeleton=skeleton, strict=False)
    people = people.limit(args.people)
    calibration = None
    if "int8" in formats:
        calibration = data.load(args.data, args.calibration, False, skeleton, strict=False)
    try:
        report = keras_mrpose.export_litert(
            model,
            out,
            formats,
            people=people,
            calibration=calibration,
            outputs=_names(args.outputs),
            input_type=args.input_type,
            output_type=args.output_type,
            deconvolution=args.deconv,
            float_layers=args.float_layers,
            tolerances=tolerances,
            overwrite=args.overwrite,
        )
    except ToleranceError as refused:
        _print(refused.report)
        raise
    _print(report)
    print(f"written to {out}; what the columns mean: {out / 'report.md'}")
    if not report.skipped:
        return 0
    print("int8 is calibrated without these images:", *report.unreadable(), sep="\n  ", file=sys.stderr)
    return 1


def _print(report: ExportReport) -> None:
    from rich.console import Console

    from keras_mrpose.cli import tables
    from keras_mrpose.export.report import WORST

    console = Console()
    console.print(tables.plain(f"{report.model} on {report.crops} crops", report.headings(), report.lines(), folds=0))
    if report.worst:
        console.print(tables.plain(f"worst by int8, {report.calibration} crops", WORST, report.worst_lines(), folds=0))


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _tolerances(given: list[str]) -> dict[str, Tolerance]:
    """From texts such as int8.points=2."""
    from keras_mrpose.export import TOLERANCES, Tolerance

    tolerances, names = {}, [field.name for field in fields(Tolerance)]
    for text in given:
        precision, _, rest = text.partition(".")
        name, _, value = rest.partition("=")
        try:
            if precision not in TOLERANCES or name not in names:
                raise ValueError
            start = tolerances.get(precision, TOLERANCES[precision])
            tolerances[precision] = replace(start, **{name: float(value)})
        except InputError:
            raise
        except ValueError:
            raise InputError(
                f"--tolerance is {text!r}; give PRECISION.WHAT=NUMBER such as int8.points=2, the precision one of "
                f"{', '.join(TOLERANCES)}, the other {', '.join(names)}."
            ) from None
    return tolerances
