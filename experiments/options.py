"""What each command of `run.py` takes: a function for each. Imports next to nothing: `--help` answers at once."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "saved_models"


def run_folder(name: str) -> Path:
    """A bare name is a folder of saved_models, a path is itself."""
    return Path(name) if os.sep in name or name in ("", ".", "..") else SAVED / name


def demo(sub: ArgumentParser) -> None:
    """Options of `demo`."""
    sub.add_argument("--quick", action="store_true", help="a minute instead of five: see that everything works")
    sub.add_argument(
        "--run", type=run_folder, metavar="NAME", default=SAVED / "demo", help="run folder (default: demo)"
    )


def train(sub: ArgumentParser) -> None:
    """Options of `train`."""
    sub.add_argument("experiment", help="a name from `run.py list`, such as lsp-mrfeanet2")
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
    sub.add_argument("--crops-per-epoch", type=int, metavar="N", help="of several data sets (default: all people)")
    sub.add_argument("--run", type=run_folder, metavar="NAME", help="run folder (default: the experiment's name)")
    sub.add_argument("--resume", action="store_true", help="go on where the run was left, or start it")
    sub.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")
    recipe = sub.add_mutually_exclusive_group()
    recipe.add_argument("--recipe", help="published (default: the experiment's own) or modern, see `run.py list`")
    recipe.add_argument("--quick", action="store_true", help="a short one for small data on a CPU: 20 epochs, cosine")
    sub.add_argument("--people", type=int, metavar="N", help="use only the first N people")
    sub.add_argument("--time-limit", type=float, metavar="MINUTES", help="the epoch running then is the last")
    sub.add_argument(
        "--save-every", type=float, metavar="MINUTES", default=10.0,
        help="save the state so often within an epoch, too (default 10)",
    )  # fmt: skip
    sub.add_argument(
        "--on-bad-record", choices=("stop", "skip"), default="stop", help="where an image cannot be read (stop)"
    )
    machines = sub.add_argument_group("several machines (with KERAS_BACKEND=jax; see README)")
    machines.add_argument("--hosts", metavar="A:PORT,B:PORT", help="all, the same on each, as all other options")
    machines.add_argument("--host-index", type=int, metavar="I", help="which of them this is, from 0")
    sub.add_argument("--strategy", default="auto", help="none, mirrored (all GPUs) or auto (default)")
    change = sub.add_argument_group("changes to the experiment")
    change.add_argument("--backbone", help="another backbone, see `run.py list`")
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
    change.add_argument("--accumulate", type=int, metavar="STEPS", help="average their gradients for one update")
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
    change.add_argument("--precision", help="float32, mixed_bfloat16 or mixed_float16")
    change.add_argument(
        "--sync-batch-norm", action="store_true", default=None, help="statistics over the people of all devices"
    )
    change.add_argument("--seed", type=int)


def evaluate(sub: ArgumentParser) -> None:
    """Options of `evaluate`."""
    sub.add_argument("model", help="run folder, .keras file, or exported .tflite file")
    _data(sub)
    sub.add_argument("--boxes", default="gt", metavar="gt|FILE", help="annotated (default), or a detector's, COCO JSON")
    sub.add_argument("--box-threshold", type=float, metavar="S", help="least score of a detector's box")
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
    sub.add_argument("--out", metavar="FILE", help="result file (default: result.json beside the network)")


def score(sub: ArgumentParser) -> None:
    """Options of `score`."""
    sub.add_argument("file", help="COCO results (.json) or MPII predictions (.mat), of any program")
    _data(sub, required=False)
    sub.add_argument("--annotations", metavar="FILE", help="instead of --data: a person_keypoints_*.json")
    _skeleton(sub)


def compare(sub: ArgumentParser) -> None:
    """Options of `compare`."""
    sub.add_argument("first", metavar="A.json", help="result file of `evaluate`")
    sub.add_argument("second", metavar="B.json", help="another")
    _data(sub, required=False)


def results(sub: ArgumentParser) -> None:
    """Options of `results`."""
    sub.add_argument("results", nargs="*", metavar="result", help="result files (default: those in saved_models)")
    sub.set_defaults(saved=SAVED)


def ceiling(sub: ArgumentParser) -> None:
    """Options of `ceiling`."""
    _data(sub)
    _skeleton(sub)
    sub.add_argument("--noise", type=float, default=0.1, metavar="SD", help="of the noisy heatmaps (default 0.1)")
    sub.add_argument("--protocol", help="as for evaluate")
    sub.add_argument("--people", type=int, metavar="N", help="only the images of the first N people")


def predict(sub: ArgumentParser) -> None:
    """Options of `predict`."""
    sub.add_argument("model", help="run folder, .keras file, or exported .tflite file")
    sub.add_argument("images", nargs="+", metavar="image", help="JPEG or PNG files")
    sub.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("X", "Y", "W", "H"),
        help="a person, in pixels; repeat for more people (default: the whole image is one person's box)",
    )  # fmt: skip
    sub.add_argument("--out", metavar="DIR", default="predictions", help="folder for the drawings and joints")
    sub.add_argument(
        "--threshold", type=float, default=0.3, metavar="S", help="joints below this score count as uncertain"
    )
    sub.add_argument("--no-flip", action="store_true", help="without the flip test: half the time")


def doctor(sub: ArgumentParser) -> None:
    """Options of `doctor`."""
    sub.add_argument(
        "--data", required=True, action="append", metavar="DIR",
        help="data set folder (LSP, MPII, or COCO format); of several NAME=DIR for each, or a mixture.json",
    )  # fmt: skip
    sub.add_argument("--skeleton", metavar="FILE", help="of a COCO-format folder with joints of its own; checked too")
    sub.add_argument("--no-images", action="store_true", help="annotations only: seconds instead of minutes")
    sub.add_argument("--json", metavar="FILE", help="write the report here, too")


def export(sub: ArgumentParser) -> None:
    """Options of `export`."""
    sub.add_argument("model", help="run folder or .keras file")
    _data(sub)
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


def import_(sub: ArgumentParser) -> None:
    """Options of `import`."""
    sub.add_argument("file", help="checkpoint (.pth, .pth.tar, .npz); or a run folder or .keras file, to write one")
    sub.add_argument("--out", required=True, type=run_folder, metavar="NAME", help="run folder; or file to write")
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


def draw(sub: ArgumentParser) -> None:
    """Options of `draw`."""
    sub.add_argument("folder", help="new data set folder")
    sub.add_argument("--train", type=int, default=3000, metavar="N", help="images to train on (default 3000)")
    sub.add_argument("--val", type=int, default=500, metavar="N", help="images to validate on (default 500)")
    sub.add_argument("--seed", type=int, default=0)


def list_(sub: ArgumentParser) -> None:
    """`list` has no options."""


def _skeleton(sub: ArgumentParser) -> None:
    sub.add_argument("--skeleton", metavar="FILE", help="of a COCO-format folder with joints of its own (.json)")


def _data(sub: ArgumentParser, required: bool = True) -> None:
    sub.add_argument("--data", required=required, metavar="DIR", help="data set folder (LSP, MPII, or COCO format)")
    sub.add_argument("--split", default="val", help="train, val (default), or another name that the folder has")
