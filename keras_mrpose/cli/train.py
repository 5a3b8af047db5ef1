"""`mrpose train`: an experiment on a data set."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from keras_mrpose.cli import data_options
from keras_mrpose.cli.data_options import require_positive
from keras_mrpose.cli.saved_models import SAVED, run_folder
from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from keras_mrpose.data.people import People
    from keras_mrpose.training.config import Experiment


def register_parser(subparsers) -> None:
    """The options of `train`."""
    summary = "Train an experiment on a data set; the run folder gets checkpoints, history and TensorBoard logs."
    sub = subparsers.add_parser("train", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("--run", type=run_folder, metavar="NAME", help="run folder (default: the experiment's name)")
    sub.add_argument("--resume", action="store_true", help="go on where the run was left, or start it")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")
    sub.add_argument("--time-limit", type=float, metavar="MINUTES", help="the epoch running then is the last")
    machines = sub.add_argument_group("several machines (with KERAS_BACKEND=jax; see README)")
    machines.add_argument("--hosts", metavar="A:PORT,B:PORT", help="all, the same on each, as all other options")
    machines.add_argument("--host-index", type=int, metavar="I", help="which of them this is, from 0")
    add_training(sub).add_argument("--seed", type=int)


def add_training(sub: ArgumentParser):
    """What is trained, on whom and how: the options that `study` has, too; returns the group of changes."""
    sub.add_argument("experiment", help="a name from `mrpose list`, such as lsp-mrfeanet2")
    sub.add_argument(
        "--data", required=True, action="append", metavar="DIR",
        help="data set folder (LSP, MPII, COCO format); of several data sets: NAME=DIR for each, or a mixture.json",
    )  # fmt: skip
    sub.add_argument(
        "--skeleton", metavar="FILE|NAME",
        help="of a COCO-format folder with joints of its own (.json); of several data sets: the network's (body19)",
    )  # fmt: skip
    sub.add_argument(
        "--share", action="append", default=[], metavar="NAME=X",
        help="of several data sets: this one's part of the crops of an epoch, 0..1 (default: by numbers of people)",
    )  # fmt: skip
    sub.add_argument("--train-split", metavar="NAME", help="train (default), or another split of the folder")
    sub.add_argument("--val-split", metavar="NAME", help="val (default), or another split of the folder")
    sub.add_argument(
        "--val-share", type=float, metavar="X",
        help="hold out this share of the training images for validation, such as 0.1, drawn by --val-seed",
    )  # fmt: skip
    sub.add_argument("--val-seed", type=int, default=0, metavar="N", help="draw others (default 0)")
    sub.add_argument("--crops-per-epoch", type=int, metavar="N", help="of several data sets (default: all people)")
    recipe = sub.add_mutually_exclusive_group()
    recipe.add_argument("--recipe", help="published (default: the experiment's own) or modern, see `mrpose list`")
    recipe.add_argument("--quick", action="store_true", help="a short one for small data on a CPU: 20 epochs, cosine")
    sub.add_argument("--people", type=int, metavar="N", help="use only the first N people")
    sub.add_argument(
        "--save-every", type=float, metavar="MINUTES", default=10.0,
        help="save the state so often within an epoch, too (default 10)",
    )  # fmt: skip
    sub.add_argument(
        "--on-bad-record", choices=("stop", "skip"), default="stop", help="where an image cannot be read (stop)"
    )
    sub.add_argument("--strategy", default="auto", help="none, mirrored (all GPUs) or auto (default)")
    change = sub.add_argument_group("changes to the experiment")
    change.add_argument("--backbone", help="another backbone, see `mrpose list`")
    change.add_argument(
        "--backbone-weights", metavar="FILE",
        help=".npz (batch norms may be folded), PyTorch or .h5 file, or imagenet (downloads)",
    )  # fmt: skip
    change.add_argument("--weights", metavar="FILE", help="start from a whole network: .keras file or checkpoint")
    change.add_argument("--map-joints", action="store_true", help="its joints may be others: keep those known to both")
    change.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="multiples of 32")
    change.add_argument("--codec", help="of the heatmaps: gaussian (published), dark or udp")
    change.add_argument("--sigma", type=float, help="of the target heatmaps, in heatmap pixels")
    change.add_argument("--epochs", type=int)
    change.add_argument("--batch-size", type=int)
    change.add_argument(
        "--gradient-accumulation-steps", type=int, metavar="STEPS", help="average their gradients for one update"
    )
    change.add_argument("--optimizer", help="adam (published) or adamw")
    change.add_argument("--learning-rate", type=float)
    change.add_argument(
        "--augment", action="append", default=[], metavar="FIELD=X",
        help="of the augmentation, such as rotation=30 or half_body_probability=0.3",
    )  # fmt: skip
    change.add_argument("--weight-decay", type=float, help="of adamw")
    change.add_argument("--schedule", help="step or cosine")
    change.add_argument("--warmup", type=float, metavar="SHARE", help="of the steps, in which the learning rate rises")
    change.add_argument("--ema", type=float, metavar="MOMENTUM", help="average the weights, such as 0.9998; 0 is off")
    change.add_argument(
        "--ohkm", type=int, dest="ohkm_topk", metavar="K", help="train each person's K worst joints; 0 is all"
    )
    change.add_argument("--frozen-stages", type=int, metavar="N", help="of the backbone, 1 (C2) to 4; 0 trains all")
    change.add_argument("--teacher", metavar="FILE|PRESET", help="learn from this network's heatmaps, too (.keras)")
    change.add_argument("--teacher-share", type=float, metavar="X", help="its share of the loss (default 0.5)")
    change.add_argument("--precision", help="float32, mixed_bfloat16 or mixed_float16")
    change.add_argument(
        "--sync-batch-norm", action="store_true", default=None, help="statistics over the people of all devices"
    )
    return change


def load(args) -> tuple[Experiment, People, People]:
    """What the options of `add_training` say: the experiment, the people to train on and those to validate on."""
    from keras_mrpose import skeletons
    from keras_mrpose.data.people import protocol_of
    from keras_mrpose.evaluation import evaluate
    from keras_mrpose.paper import experiments

    experiment = experiments.get_experiment(args.experiment)
    if args.quick:
        experiment = experiments.quick(experiment)
    if args.recipe:
        experiment = experiments.with_recipe(experiment, args.recipe)
    recipe = _given(
        args,
        "epochs", "batch_size", "gradient_accumulation_steps", "optimizer", "learning_rate", "weight_decay", "schedule",
        "warmup", "ema", "ohkm_topk", "frozen_stages", "precision", "sync_batch_norm", "teacher", "teacher_share",
        "seed",
    )  # fmt: skip
    others = _given(args, "backbone", "backbone_weights", "weights", "map_joints", "input_size", "codec", "sigma")
    experiment = replace(experiment, recipe=replace(experiment.recipe, **recipe), **others)
    experiment = replace(experiment, augmentation=_augmentation(experiment.augmentation, args.augment))
    strict = args.on_bad_record == "stop"  # else images may be missing, too
    people, validation, changed = data_options.load(args, strict)
    people, validation = (_first(table, args.people) for table in (people, validation))
    experiment = replace(experiment, **changed)
    if not experiment.sources:
        evaluate.check(protocol_of(validation), validation)  # what it refuses after hours, it refuses now
    own = people.skeleton
    if not experiment.sources and own not in skeletons.SKELETONS.values():  # no named experiment can be for it
        experiment = replace(experiment, skeleton=own)
        print(f"skeleton {own.name}: {', '.join(own.joints)}")
    return experiment, people, validation


def handle(args) -> None:
    """Train, and say where the curves are and how to get numbers."""
    import keras_mrpose
    from keras_mrpose.training import distributed

    experiment, people, validation = load(args)
    run = args.run or SAVED / experiment.name
    print(f"{experiment.name}: {len(people)} people to train on, {len(validation)} to validate on, run folder {run}")
    with distributed.join(args.hosts, args.host_index) as process_group:
        keras_mrpose.train(
            experiment,
            people,
            validation,
            run,
            resume=args.resume,
            overwrite=args.overwrite,
            time_limit=args.time_limit and args.time_limit * 60,
            save_every=args.save_every * 60,
            on_bad_record=args.on_bad_record,
            strategy=args.strategy,
            process_group=process_group,
        )
    print(f"curves:   tensorboard --logdir {run}")
    print(f"numbers:  {args.program} evaluate {run} --data {data_options.folders(args.data)[0]}")
    print(f"scores that are probabilities: {args.program} calibrate {run} --data {data_options.folders(args.data)[0]}")


def _given(args, *names) -> dict:
    """The options among `names` that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def _augmentation(augmentation, given: list[str]):
    """The augmentation with the values of ``--augment``."""
    names = [field.name for field in fields(augmentation)]
    for text in given:
        name, _, value = text.partition("=")
        try:
            number = int(value) if name == "erasing_rectangles" else float(value)
        except ValueError:
            number = None
        if name not in names or number is None:
            raise InputError(f"--augment is {text!r}; give FIELD=NUMBER, the field one of {', '.join(names)}.")
        augmentation = replace(augmentation, **{name: number})
    return augmentation


def _first(people, count: int | None):
    """The first `count` people, or all."""
    if count is not None:
        require_positive("--people", count)
    return people if count is None else people.take(slice(count))
