"""`mrpose export`: a folder of LiteRT files, and the table that says what each of them costs."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.data_options import add_data, require_positive, split_of
from keras_mrpose.cli.saved_models import SAVED
from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from keras_mrpose.export import ExportReport, Tolerance
    from keras_mrpose.predict.predictor import Predictor


def register_parser(subparsers) -> None:
    """The options of `export`."""
    summary = "Turn a network into LiteRT files for phones; those that differ too much from it are refused."
    sub = subparsers.add_parser("export", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("model", help="run folder, .keras file, or the name of a network of the package (people)")
    add_data(sub, required=False)
    sub.add_argument(
        "--images", nargs="+", metavar="FILE",
        help="instead of --data: photos or folders of photos without labels; int8's ranges come from half of them "
        "(from all, if they are few), and files and network are compared on the others, without a metric",
    )  # fmt: skip
    sub.add_argument(
        "--formats", default="float32,float16,int8", metavar="F,F",
        help="float32,float16,int8 (default), dynamic, onnx; with heatmaps_ or keypoints_ before it what comes out, "
        "such as keypoints_int8",
    )  # fmt: skip
    sub.add_argument("--outputs", default="heatmaps", metavar="T,T", help="of formats that say nothing else")
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
    from keras_mrpose.export import ToleranceError

    model = Path(args.model)
    beside = model if model.is_dir() else model.parent if model.suffix else SAVED / model  # one of the package
    out = Path(args.out or beside / "export")
    formats, tolerances = _names(args.formats), _tolerances(args.tolerance)
    require_positive("--people", args.people)
    predictor = keras_mrpose.Predictor(args.model, flip_test=False)
    people, calibration = _subjects(args, predictor, any(name.endswith("int8") for name in formats))
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
    print(f"written to {out}; what the columns mean: {out / 'report.md'}; in a browser: {args.program} web {out}")
    if not report.skipped:
        return 0
    print("int8 is calibrated without these images:", *report.unreadable(), sep="\n  ", file=sys.stderr)
    return 1


def _subjects(args, predictor: Predictor, with_int8: bool) -> tuple:
    """What the files are verified on and, for int8, calibrated with: labelled people, or crops of photos."""
    from keras_mrpose import data
    from keras_mrpose.export.litert import MIN_CROPS

    if args.data and args.images:
        raise InputError(
            "Give --data DIR (labelled people: the table has their metric) or --images (photos), not both."
        )
    if not args.data:
        crops = _crops(args.images, predictor) if args.images else _crops_of_preset(args.model)
        return (crops, crops) if not with_int8 or len(crops) < 2 * MIN_CROPS else (crops[1::2], crops[::2])
    people = data.load(args.data, split_of(args, Path(args.model)), skeleton=predictor.skeleton, strict=False)
    people = people.limit(args.people)
    calibration = None
    if with_int8:
        calibration = data.load(args.data, args.calibration, False, predictor.skeleton, strict=False)
    return people, calibration


def _crops_of_preset(name: str) -> np.ndarray:
    """The crops that come with a network of the package."""
    from keras_mrpose import presets

    if name not in presets.PRESETS or presets.PRESETS[name].address:
        raise InputError(
            f"{name} brings no crops of people; give --data DIR (labelled people: the table has their metric) or "
            "--images (photos)."
        )
    print(f"{name}: calibrated and compared on the crops that come with it; --data measures on labelled people")
    return presets.read_crops(name)


def _crops(given: list[str], predictor: Predictor) -> np.ndarray:
    """Crops ``(n, height, width, 3)`` of the person in each photo, of all of it where nobody is found."""
    import numpy as np

    from keras_mrpose.geometry import crop_matrices
    from keras_mrpose.predict.predictor import crop
    from keras_mrpose.predict.sources import ahead, expand, is_video, read_source

    crops = []
    for _, image in ahead(read_source, (name for name in expand(given) if not is_video(name))):
        if isinstance(image, InputError):
            print(f"left out: {image}", file=sys.stderr)
            continue
        pose = predictor(image)
        box = pose.boxes[:1] if len(pose) else np.array([[0, 0, image.shape[1], image.shape[0]]], float)
        crops.append(crop(image, crop_matrices(box, predictor.input_size)[0], predictor.input_size))
    if len(crops) < 2:
        raise InputError(f"{', '.join(given)}: {len(crops)} photos can be read; give more.")
    return np.stack(crops)


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
