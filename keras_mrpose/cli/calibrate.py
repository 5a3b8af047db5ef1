"""`mrpose calibrate`: scores that are probabilities."""

from __future__ import annotations

import json
from pathlib import Path

from keras_mrpose.cli import data_options
from keras_mrpose.errors import InputError


def register_parser(subparsers) -> None:
    """The options of `calibrate`."""
    summary = "Fit a network's confidence on people that it was not trained on, or check it on others (--check)."
    sub = subparsers.add_parser("calibrate", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("model", help="run folder or .keras file, which gets the calibration; with --check any network")
    sub.add_argument(
        "--data", required=True, action="append", metavar="DIR",
        help="data set folder (val split), or of several data sets NAME=DIR for each or a mixture.json (their val)",
    )  # fmt: skip
    sub.add_argument("--split", help="of a single data set: what the run was validated on (default), or val[:200]")
    sub.add_argument("--check", action="store_true", help="print how well it fits these people; write nothing")
    sub.add_argument("--json", metavar="FILE", help="write the check here, too")
    sub.add_argument("--plot", metavar="FILE", help="draw the check as a reliability diagram: PNG, SVG or PDF")
    sub.add_argument("--flip", action="store_true", help="with the flip test (default: without, as phones do)")


def handle(args) -> None:
    """Print the expected calibration error, and what hidden joints get."""
    from rich.console import Console

    from keras_mrpose.cli import tables
    from keras_mrpose.evaluation import confidence
    from keras_mrpose.predict.predictor import CHECKPOINTS, Predictor
    from keras_mrpose.presets import PRESETS
    from keras_mrpose.training.checkpointing import atomic_write, commit
    from keras_mrpose.visualization import curves

    if args.json:
        data_options.require_writable("--json", args.json)
    if args.plot:
        data_options.require_writable("--plot", args.plot, ".png", ".svg", ".pdf")
    predictor = Predictor(args.model, flip_test=args.flip)
    if args.check and predictor.calibration is None:
        raise InputError(f"{args.model} has no calibration to check; fit it first, without --check.")
    given = Path(args.model)
    path = next((given / name for name in CHECKPOINTS if (given / name).exists()), given)
    if not args.check and (path.suffix != ".keras" or str(given) in PRESETS):
        raise InputError(f"{args.model} cannot be written to; give a run folder or a .keras file.")
    labelled = {name: confidence.find_labelled(predictor, people) for name, people in _tables(args).items()}
    calibration = predictor.calibration if args.check else confidence.fit_calibration(list(labelled.values()))
    if not args.check:
        predictor.model.calibration = calibration
        with atomic_write(path) as part:
            predictor.model.save(part)
            commit(part, path)
    console, reports = Console(), {}
    for name, found in labelled.items():
        report = confidence.check_calibration(found, calibration)
        reports[name] = report
        lines = [(f"{one['confidence']:.2f}", f"{one['right']:.2f}", str(one["count"])) for one in report["bins"]]
        title = f"{name}: probability of {report['criterion']}"
        console.print(tables.plain(title, ("predicted", "right", "keypoints"), lines))
        kinds = [
            f"{kind}: {part['keypoints']} keypoints, predicted {part['confidence']:.2f}, right {part['right']:.2f}"
            for kind in ("visible", "hidden")
            if (part := report[kind])
        ]
        print(f"expected calibration error {report['error']:.3f}; {'; '.join(kinds)}")
        if report["person"]:
            shares = [f"{part['called a person']} of {part['boxes']} {kind}" for kind, part in report["person"].items()]
            print(f"boxes called a person: {', '.join(shares)}")
    if args.json:
        content = next(iter(reports.values())) if len(reports) == 1 else reports
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(content, indent=1) + "\n")
    if args.plot:
        curves.reliability_diagram(reports, args.plot)
    if not args.check:
        print(f"written to {path}")


def _tables(args) -> dict:
    """Name -> people."""
    from keras_mrpose import data

    mixture = data_options.mixture_of(args.data)
    if mixture is None:
        return {str(args.data[0]): data.load(args.data[0], data_options.split_of(args, args.model))}
    places = zip(mixture.sources, mixture.folders, strict=True)
    found = {source.name: data.load(folder.data, folder.val) for source, folder in places if folder.val is not None}
    if not found:
        raise InputError("None of these data sets has a split to validate on; give one a val split.")
    return found
