"""`mrpose study`: several networks trained alike and compared on the same people, with error bars."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.data_options import require_positive
from keras_mrpose.cli.saved_models import SAVED, run_folder
from keras_mrpose.cli.train import add_training, load
from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from keras_mrpose.data.people import People
    from keras_mrpose.skeletons import Skeleton
    from keras_mrpose.study.trainings import Study

NETWORKS = "simplebaseline,mrheatnet1,mrheatnet2,mrfeanet1,mrfeanet2"
CROPS = 64  # that calibrate the int8 networks that are timed


def register_parser(subparsers) -> None:
    """The options of `study`."""
    summary = (
        "Train several networks alike with several seeds, and compare them on the same people with error bars; the "
        "same command goes on where it was stopped."
    )
    sub = subparsers.add_parser("study", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument(
        "--test", required=True, action="append", metavar="[NAME=]DIR[:SPLIT]",
        help="people to measure on, nobody of the training; several if repeated (split: val, or train[-200:] ...)",
    )  # fmt: skip
    sub.add_argument("--networks", default=NETWORKS, metavar="A,B", help="the first is the baseline (default: all)")
    sub.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each network (default 3)")
    sub.add_argument("--out", type=run_folder, default=SAVED / "study", metavar="NAME", help="folder (default study)")
    sub.add_argument("--no-flip", action="store_true", help="measure without the flip test")
    sub.add_argument("--protocol", help="ap, pckh or pck (default: the data set's own)")
    sub.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="draws for the intervals (default 2000)")
    sub.add_argument("--no-timing", action="store_true", help="no milliseconds but those that study.json has")
    sub.add_argument("--threads", type=int, default=1, metavar="N", help="of LiteRT, for the milliseconds (default 1)")
    add_training(sub)


def handle(args) -> None:
    """Train what is missing, measure, and write the study after each seed."""
    from keras_mrpose.runtime import litert
    from keras_mrpose.study import report, trainings
    from keras_mrpose.training import run_dir

    require_positive("--bootstrap", args.bootstrap)
    require_positive("--threads", args.threads)
    if not args.no_timing:
        litert.check_installed()  # now, not after the trainings
    experiment, people, validation = load(args)
    networks = tuple(name.strip() for name in args.networks.split(",") if name.strip())
    study = trainings.Study(experiment, networks, args.seeds, args.out)
    tests = _tests(args.test, people.skeleton)
    options = {"save_every": args.save_every * 60, "on_bad_record": args.on_bad_record, "strategy": args.strategy}
    measured = {"protocol": args.protocol, "flip_test": not args.no_flip}
    facts = {"command": args.command_line, "data": run_dir.data_hash(people, validation)}
    print(
        f"{len(networks)} networks, {args.seeds} seeds each, {len(people)} people to train on, to measure on "
        f"{', '.join(f'{name} {len(table)}' for name, table in tests.items())}; folder {study.folder}"
    )
    earlier = report.read(study.folder / "study.json") if (study.folder / "study.json").exists() else {}
    for seeds in trainings.run_study(study, people, validation, tests, **measured, **options):
        report.write(
            report.summarize(study, tests, seeds, args.bootstrap, **facts, **_kept(study, earlier)), study.folder
        )
    costs = _kept(study, earlier) if args.no_timing else _timed(study, people, args.threads)
    report.write(report.summarize(study, tests, args.seeds, args.bootstrap, **facts, **costs), study.folder)
    print((study.folder / "study.md").read_text())
    print(f"written to {study.folder}: study.json, study.md and study.png")


def _tests(given: list[str], skeleton: Skeleton) -> dict[str, People]:
    """The people of ``--test``, by name."""
    from keras_mrpose import data
    from keras_mrpose.study.report import POOLED

    tests = {}
    for text in given:
        name, folder, split = _parts(text)
        if name in tests or name == POOLED:
            raise InputError(f"--test has the name {name!r} twice or it is taken; give NAME=DIR:SPLIT.")
        tests[name] = data.load(folder, split, skeleton=skeleton, strict=False)
    return tests


def _parts(text: str) -> tuple[str, str, str]:
    """Name, folder and split of ``[NAME=]DIR[:SPLIT]``; a slice in brackets has colons of its own."""
    part = r"[^:/\\\[\]+]+(?:\[[^\]]*\])?"
    found = re.fullmatch(rf"(?:([A-Za-z0-9][A-Za-z0-9_-]*)=)?(.+?)(?::({part}(?:\+{part})*))?", text)
    if found is None:
        raise InputError(f"--test is {text!r}; give DIR, DIR:SPLIT or NAME=DIR:SPLIT.")
    name, folder, split = found.groups()
    name = name or re.sub(r"[^A-Za-z0-9_-]", "-", Path(folder).resolve().name) or "test"
    return name, folder, split or "val"


def _kept(study: Study, earlier: dict) -> dict:
    """Costs of these networks in an earlier ``study.json``; their sizes alone, if there are none."""
    from keras_mrpose.study import costs

    known = earlier.get("costs", {})
    if set(study.networks) <= set(known):
        kept = {"timing": earlier["timing"]} if "timing" in earlier else {}
        return {"costs": {name: known[name] for name in study.networks}, **kept}
    return {"costs": costs.costs(_first_runs(study))}


def _timed(study: Study, people: People, threads: int) -> dict:
    """Sizes and milliseconds of each network, as it is after its first training."""
    from keras_mrpose.data.augmentation import Augmentation
    from keras_mrpose.export import verify
    from keras_mrpose.study import costs

    runs, size = _first_runs(study), study.experiment.input_size
    crops = verify.cropped(people, size, CROPS, augmentation=Augmentation(), seed=0)
    times, machine = costs.milliseconds(runs, crops, threads), costs.machine()
    found = {name: {**sizes, "milliseconds": times[name]} for name, sizes in costs.costs(runs).items()}
    return {"costs": found, "timing": {**machine, "threads": threads, "repetitions": costs.REPETITIONS}}


def _first_runs(study: Study) -> dict[str, Path]:
    from keras_mrpose.training.run_dir import LAST

    return {name: study.run(name, 0) / LAST for name in study.networks}
