"""The command line: draw, train, evaluate, predict. `python experiments/run.py --help` tells.

This file alone imports late, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "saved_models"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    arguments = parser().parse_args(argv)
    try:
        _import_quietly()
        from keras_mrpose import InputError
    except ModuleNotFoundError as missing:
        print(f"error: {missing}; install with: pip install -e '{ROOT}'", file=sys.stderr)
        return 2
    try:
        arguments.run_command(arguments)
    except InputError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except (FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError) as refused:
        print(f"error: {refused.filename}: {refused.strerror}.", file=sys.stderr)  # where results should go
        return 2
    except KeyboardInterrupt:
        print("stopped; finished epochs are saved", file=sys.stderr)
        return 130
    return 0


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

    def command(function, **defaults):
        summary, _, rest = function.__doc__.partition("\n")
        sub = commands.add_parser(function.__name__.rstrip("_"), help=summary, description=summary, epilog=rest)
        sub.set_defaults(run_command=function, **defaults)
        return sub

    sub = command(demo)
    sub.add_argument("--quick", action="store_true", help="a minute instead of five: see that everything works")
    sub.add_argument(
        "--run", type=_run_folder, metavar="NAME", default=SAVED / "demo", help="run folder (default: demo)"
    )

    sub = command(train)
    sub.add_argument("experiment", help="a name from `run.py list`, such as lsp-mrfeanet2")
    sub.add_argument("--data", required=True, metavar="DIR", help="data set folder (LSP, or COCO format)")
    sub.add_argument("--run", type=_run_folder, metavar="NAME", help="run folder (default: the experiment's name)")
    sub.add_argument("--resume", action="store_true", help="go on after the last finished epoch")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")
    sub.add_argument("--quick", action="store_true", help="short schedule for small data on a CPU: 20 epochs, cosine")
    sub.add_argument("--people", type=int, metavar="N", help="use only the first N people")
    sub.add_argument("--time-limit", type=float, metavar="MINUTES", help="the epoch running then is the last")
    change = sub.add_argument_group("changes to the experiment")
    change.add_argument("--backbone", help="another backbone, see `run.py list`")
    change.add_argument("--backbone-weights", metavar="FILE", help=".npz or .h5 file, or imagenet (downloads)")
    change.add_argument("--weights", metavar="FILE", help="start from a whole network: .keras file or checkpoint")
    change.add_argument("--map-joints", action="store_true", help="its joints may be others: keep those known to both")
    change.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="multiples of 32")
    change.add_argument("--codec", help="of the heatmaps: gaussian (published), dark or udp")
    change.add_argument("--sigma", type=float, help="of the target heatmaps, in heatmap pixels")
    change.add_argument("--epochs", type=int)
    change.add_argument("--batch-size", type=int)
    change.add_argument("--learning-rate", type=float)
    change.add_argument("--schedule", help="step or cosine")
    change.add_argument("--precision", help="float32, mixed_bfloat16 or mixed_float16")
    change.add_argument("--seed", type=int)

    sub = command(evaluate)
    sub.add_argument("model", help="run folder or .keras file")
    _data_options(sub)
    sub.add_argument("--boxes", default="gt", metavar="gt|FILE", help="annotated (default), or a detector's, COCO JSON")
    sub.add_argument("--box-threshold", type=float, default=0.0, metavar="S", help="least score of a detector's box")
    sub.add_argument("--images-with-boxes", action="store_true", help="only images for which the file has boxes")
    sub.add_argument("--no-flip", action="store_true", help="without the flip test")
    sub.add_argument("--codec", help="that reads the heatmaps: gaussian, dark or udp (default: the network's)")
    sub.add_argument("--suppression", default="hard", help="COCO: OKS-NMS, hard (default), soft or none")
    sub.add_argument("--oks-threshold", type=float, default=0.9, metavar="T", help="COCO: of the NMS (default 0.9)")
    sub.add_argument("--joint-threshold", type=float, default=0.2, metavar="S", help="COCO: of rescoring (default 0.2)")
    sub.add_argument("--threshold", type=float, default=0.2, metavar="R", help="PCK: share of the torso (default 0.2)")
    sub.add_argument("--protocol", help="ap, pckh or pck (default: the data set's own)")
    sub.add_argument("--people", type=int, metavar="N", help="only the images of the first N people")
    sub.add_argument("--no-diagnosis", action="store_true", help="do not class the errors")
    sub.add_argument("--format-only", action="store_true", help="only write the results file for COCO's server")
    sub.add_argument("--out", metavar="FILE", help="result file (default: result.json in the run folder)")

    sub = command(score)
    sub.add_argument("file", help="COCO results (.json) or MPII predictions (.mat), of any program")
    _data_options(sub, required=False)
    sub.add_argument("--annotations", metavar="FILE", help="instead of --data: a person_keypoints_*.json")

    sub = command(compare)
    sub.add_argument("first", metavar="A.json", help="result file of `evaluate`")
    sub.add_argument("second", metavar="B.json", help="another")
    _data_options(sub, required=False)

    sub = command(results)
    sub.add_argument("results", nargs="*", metavar="result", help="result files (default: those in saved_models)")
    sub.set_defaults(saved=SAVED)

    sub = command(ceiling)
    _data_options(sub)
    sub.add_argument("--noise", type=float, default=0.1, metavar="SD", help="of the noisy heatmaps (default 0.1)")
    sub.add_argument("--protocol", help="as for evaluate")
    sub.add_argument("--people", type=int, metavar="N", help="only the images of the first N people")

    sub = command(predict)
    sub.add_argument("model", help="run folder or .keras file")
    sub.add_argument("pictures", nargs="+", metavar="picture", help="JPEG or PNG files")
    sub.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("X", "Y", "W", "H"),
        help="a person, in pixels; repeat for more people (default: the whole picture is one person's box)",
    )  # fmt: skip
    sub.add_argument("--out", metavar="DIR", default="predictions", help="folder for the drawings and joints")
    sub.add_argument(
        "--threshold", type=float, default=0.3, metavar="S", help="joints below this score count as unsure"
    )
    sub.add_argument("--no-flip", action="store_true", help="without the flip test: half the time")

    sub = command(import_)
    sub.add_argument("file", help="checkpoint (.pth, .pth.tar, .npz); or a run folder or .keras file, to write one")
    sub.add_argument("--out", required=True, type=_run_folder, metavar="NAME", help="run folder; or file to write")
    sub.add_argument("--model", help="see `run.py list` (default: what the file is)")
    sub.add_argument("--backbone", help="default: resnet50_v1b, 101 or 152, as the file is; resnet50 for caffe style")
    sub.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="default: 256 192; 256 256 for MPII")
    sub.add_argument("--sigma", type=float, help="of the heatmaps that it was trained on (default: 2; 3 from 384 on)")
    sub.add_argument("--skeleton", help="coco, mpii or lsp (default: the one with the file's number of joints)")
    sub.add_argument("--map-joints", action="store_true", help="keep those joints of the head that --skeleton has too")
    sub.add_argument(
        "--preprocessing",
        help="what it was trained with: published (BGR pixels; default, if the file has no note) or torchvision (RGB)",
    )  # fmt: skip
    sub.add_argument("--overwrite", action="store_true", help="replace what is there")

    sub = command(draw)
    sub.add_argument("folder", help="new data set folder")
    sub.add_argument("--train", type=int, default=3000, metavar="N", help="pictures to train on (default 3000)")
    sub.add_argument("--val", type=int, default=500, metavar="N", help="pictures to validate on (default 500)")
    sub.add_argument("--seed", type=int, default=0)

    command(list_)
    return top


def _data_options(sub, required: bool = True) -> None:
    sub.add_argument("--data", required=required, metavar="DIR", help="data set folder (LSP, MPII, or COCO format)")
    sub.add_argument("--split", default="val", help="train, val (default), or another name that the folder has")


def _import_quietly() -> None:
    """Import TensorFlow without the lines that its C++ start-up writes past every log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _run_folder(name: str) -> Path:
    """A bare name is a folder of saved_models, a path is itself."""
    return Path(name) if os.sep in name or name in ("", ".", "..") else SAVED / name


def demo(options) -> None:
    """Draw people, train MRFeaNet2 on them, evaluate it on people it has not seen, write pictures. Needs no files."""
    import demo as script

    script.main(options.run, options.quick)


def train(options) -> None:
    """Train an experiment on a data set; the run folder gets checkpoints, history and TensorBoard logs."""
    from dataclasses import replace

    import configs

    import keras_mrpose
    from keras_mrpose import data
    from keras_mrpose.models.backbones import pick

    experiment = configs.EXPERIMENTS[pick("experiment", options.experiment, configs.EXPERIMENTS)]
    if options.quick:
        experiment = configs.quick(experiment)
    recipe = _given(options, "epochs", "batch_size", "learning_rate", "schedule", "precision", "seed")
    fields = _given(options, "backbone", "backbone_weights", "weights", "map_joints", "input_size", "codec", "sigma")
    experiment = replace(experiment, recipe=replace(experiment.recipe, **recipe), **fields)
    run = options.run or SAVED / experiment.name
    people, validation = (_first(data.load(options.data, split), options.people) for split in ("train", "val"))
    print(f"{experiment.name}: {len(people)} people to train on, {len(validation)} to validate on, run folder {run}")
    keras_mrpose.train(
        experiment,
        people,
        validation,
        run,
        resume=options.resume,
        overwrite=options.overwrite,
        time_limit=options.time_limit and options.time_limit * 60,
    )
    print(f"curves:   tensorboard --logdir {run}")
    print(f"numbers:  python experiments/run.py evaluate {run} --data {options.data}")


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
    """Find the joints of people in pictures, draw them, and write them down."""
    import json

    from PIL import Image

    from keras_mrpose import InputError, visualize
    from keras_mrpose.predictor import Predictor, check_boxes, read_picture

    names = [f"{Path(path).stem}_joints" for path in options.pictures]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"Two pictures would both be written to {min(twice)}.png; predict them one by one.")
    pictures = [(Path(path), read_picture(path)) for path in options.pictures]
    for _, image in pictures:
        if options.box:
            check_boxes(options.box, image.shape)
    predictor = Predictor(options.model, flip_test=not options.no_flip)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for path, image in pictures:
        joints = predictor(image, options.box)
        drawing = visualize.draw_skeleton(image, joints, predictor.skeleton, threshold=options.threshold)
        Image.fromarray(drawing).save(out / f"{path.stem}_joints.png")
        people = [dict(zip(predictor.skeleton.joints, person.round(3).tolist(), strict=True)) for person in joints]
        (out / f"{path.stem}_joints.json").write_text(json.dumps({"image": str(path), "people": people}, indent=2))
        sure = int((joints[..., 2] >= options.threshold).sum())
        print(f"{path}: {sure} of {joints[..., 2].size} joints sure -> {out / f'{path.stem}_joints.png'}, .json")


def import_(options) -> None:
    """Turn a published PyTorch checkpoint into a run folder, without PyTorch; or a run folder into such a file."""
    import convert

    convert.main(options)


def draw(options) -> None:
    """Draw people into a new COCO-format folder: pictures and exact joints, the same for the same seed."""
    from keras_mrpose import InputError
    from keras_mrpose.data import synthetic

    for name in ("train", "val"):  # before the first picture is drawn
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}; give a number of at least 1.")
    for split, count, first in (("train2017", options.train, 0), ("val2017", options.val, options.train)):
        synthetic.write(options.folder, count, seed=options.seed, split=split, first_index=first)
    print(f"{options.train} + {options.val} pictures of drawn people in {options.folder}")


def list_(options) -> None:
    """List the experiments with the paper's numbers and their training, the networks and the backbones."""
    import listing

    listing.main()


def _given(options, *names) -> dict:
    """The options among `names` that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _first(people, count: int | None):
    """The first `count` people, or all."""
    from keras_mrpose import InputError

    if count is not None and count < 1:
        raise InputError(f"--people is {count}; give a number of at least 1.")
    return people if count is None else people.take(slice(count))


if __name__ == "__main__":
    sys.exit(main())
