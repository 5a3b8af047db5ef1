"""The command line: draw, train, evaluate, predict. `python experiments/run.py --help` tells.

This file alone imports late, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

import options
from options import ROOT, SAVED


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0, 1 if `doctor` finds errors, 2 for a user's mistake, 130 for Ctrl-C, 143 for a training that SIGTERM has stopped.
    """
    arguments = parser().parse_args(argv)
    try:
        _import_quietly()
        from keras_mrpose import InputError
    except ModuleNotFoundError as missing:
        print(f"error: {missing}; install with: pip install -e '{ROOT}'", file=sys.stderr)
        return 2
    try:
        return arguments.run_command(arguments) or 0
    except InputError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as refused:
        print(f"error: {refused.filename}: {refused.strerror}.", file=sys.stderr)  # where results should go
        return 2
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)


class Parser(argparse.ArgumentParser):
    """One whose complaint is one line, as all others are."""

    def error(self, message: str):
        """Say it and exit."""
        self.exit(2, f"error: {message}; see: {self.prog} --help\n")


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(
        prog="run.py",
        description="Multi-resolution human pose estimation in Keras 3. Without a command: demo.",
        epilog="`run.py COMMAND --help` lists a command's options.",
    )
    top.set_defaults(run_command=demo, quick=False, run=SAVED / "demo")
    commands = top.add_subparsers(metavar="COMMAND")
    for function in (
        demo, doctor, train, evaluate, score, compare, results, ceiling, predict, export, import_, draw, list_,
    ):  # fmt: skip
        summary, _, rest = function.__doc__.partition("\n")
        sub = commands.add_parser(function.__name__.rstrip("_"), help=summary, description=summary, epilog=rest)
        sub.set_defaults(run_command=function)
        getattr(options, function.__name__)(sub)
    return top


def _import_quietly() -> None:
    """Import TensorFlow without the lines that its C++ start-up writes past every log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        if os.environ.get("KERAS_BACKEND") == "jax":  # else both reserve all of a GPU's memory
            tensorflow.config.set_visible_devices([], "GPU")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def demo(options) -> None:
    """Draw people, train MRFeaNet2 on them, evaluate it on people it has not seen, write images. Needs no files."""
    import demo as script

    script.main(options.run, options.quick)


def train(options) -> None:
    """Train an experiment on a data set; the run folder gets checkpoints, history and TensorBoard logs."""
    from dataclasses import replace

    import configs
    import sources

    import keras_mrpose
    from keras_mrpose import skeletons
    from keras_mrpose.errors import lookup
    from keras_mrpose.training import hosts

    experiment = configs.EXPERIMENTS[lookup("experiment", options.experiment, configs.EXPERIMENTS)]
    if options.quick:
        experiment = configs.quick(experiment)
    if options.recipe:
        experiment = configs.with_recipe(experiment, options.recipe)
    recipe = _given(
        options,
        "epochs", "batch_size", "accumulate", "optimizer", "learning_rate", "weight_decay", "schedule", "warmup", "ema",
        "ohkm_topk", "frozen_stages", "precision", "sync_batch_norm", "seed",
    )  # fmt: skip
    fields = _given(options, "backbone", "backbone_weights", "weights", "map_joints", "input_size", "codec", "sigma")
    experiment = replace(experiment, recipe=replace(experiment.recipe, **recipe), **fields)
    experiment = replace(experiment, augmentation=_augmentation(experiment.augmentation, options.augment))
    run = options.run or SAVED / experiment.name
    strict = options.on_bad_record == "stop"  # else images may be missing, too
    people, validation, changed = sources.load(options, strict)
    people, validation = (_first(table, options.people) for table in (people, validation))
    experiment = replace(experiment, **changed)
    own = people.skeleton
    if not experiment.sources and own not in skeletons.SKELETONS.values():  # no named experiment can be for it
        experiment = replace(experiment, skeleton=own)
        print(f"skeleton {own.name}: {', '.join(own.joints)}")
    print(f"{experiment.name}: {len(people)} people to train on, {len(validation)} to validate on, run folder {run}")
    with hosts.join(options.hosts, options.host_index) as joined:
        keras_mrpose.train(
            experiment,
            people,
            validation,
            run,
            resume=options.resume,
            overwrite=options.overwrite,
            time_limit=options.time_limit and options.time_limit * 60,
            save_every=options.save_every * 60,
            on_bad_record=options.on_bad_record,
            strategy=options.strategy,
            hosts=joined,
        )
    print(f"curves:   tensorboard --logdir {run}")
    print(f"numbers:  python experiments/run.py evaluate {run} --data {sources.folders(options.data)[0]}")


def doctor(options) -> int:
    """Find everything that is wrong with a data folder; the exit code is 1 if there are errors."""
    import doctor as script

    return script.main(options)


def evaluate(options) -> None:
    """Measure a network by the data set's own protocol: COCO's AP, MPII's PCKh, LSP's PCK; and how it was made."""
    import judge

    judge.evaluate(options)


def score(options) -> None:
    """Judge the predictions in a file, whoever made them, by COCO's or MPII's protocol."""
    import judge

    judge.score(options)


def compare(options) -> None:
    """Explain why two results differ: list the differences, and judge the raw predictions again under each."""
    import report

    report.compare(options)


def results(options) -> None:
    """Print the paper's rows with ours beside them, and what was done otherwise."""
    import report

    report.results(options)


def ceiling(options) -> None:
    """Tell the best number that any network can reach with each codec and heatmap size, from annotations alone."""
    import judge

    judge.ceiling(options)


def predict(options) -> None:
    """Find the joints of people in images, draw them, and write them down."""
    import json

    from PIL import Image

    from keras_mrpose import InputError
    from keras_mrpose.data.images import read_image
    from keras_mrpose.predict.predictor import Predictor, check_boxes
    from keras_mrpose.visualization import skeletons

    names = [f"{Path(path).stem}_joints" for path in options.images]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"Two images would both be written to {min(twice)}.png; predict them one by one.")
    images = [(Path(path), read_image(path)) for path in options.images]
    for _, image in images:
        if options.box:
            check_boxes(options.box, image.shape)
    predictor = Predictor(options.model, flip_test=not options.no_flip)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for path, image in images:
        joints = predictor(image, options.box)
        drawing = skeletons.draw_skeleton(image, joints, predictor.skeleton, threshold=options.threshold)
        Image.fromarray(drawing).save(out / f"{path.stem}_joints.png")
        people = [dict(zip(predictor.skeleton.joints, person.round(3).tolist(), strict=True)) for person in joints]
        (out / f"{path.stem}_joints.json").write_text(json.dumps({"image": str(path), "people": people}, indent=2))
        confident = int((joints[..., 2] >= options.threshold).sum())
        print(
            f"{path}: {confident} of {joints[..., 2].size} joints confident -> {out / f'{path.stem}_joints.png'}, .json"
        )


def export(options) -> None:
    """Turn a network into LiteRT files for phones; each is run and judged first, and leaves within its budget only."""
    import shipping

    shipping.main(options)


def import_(options) -> None:
    """Turn a published PyTorch checkpoint into a run folder, without PyTorch; or a run folder into such a file."""
    import convert

    convert.main(options)


def draw(options) -> None:
    """Draw people into a new COCO-format folder: images and exact joints, the same for the same seed."""
    from keras_mrpose import InputError
    from keras_mrpose.synthetic import dataset

    for name in ("train", "val"):  # before the first image is drawn
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; give a number of at least 1.")
    for split, count, first in (("train2017", options.train, 0), ("val2017", options.val, options.train)):
        dataset.write(options.folder, count, seed=options.seed, split=split, first_index=first)
    print(f"{options.train} + {options.val} images of drawn people in {options.folder}")


def list_(options) -> None:
    """List the experiments with the paper's numbers and their training, the networks and the backbones."""
    import listing

    listing.main()


def _given(options, *names) -> dict:
    """The options among `names` that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _augmentation(augmentation, given: list[str]):
    """The augmentation with the values of ``--augment``."""
    from dataclasses import fields, replace

    from keras_mrpose import InputError

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
    from keras_mrpose import InputError

    if count is not None and count < 1:
        raise InputError(f"--people is {count}; give a number of at least 1.")
    return people if count is None else people.take(slice(count))


if __name__ == "__main__":
    sys.exit(main())
