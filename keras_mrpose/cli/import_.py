"""`mrpose import`: a published checkpoint, or one of MMPose, becomes a run folder; and back."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from keras_mrpose.cli.saved_models import run_folder
from keras_mrpose.errors import InputError


def register_parser(subparsers) -> None:
    """The options of `import`."""
    summary = "Turn a published PyTorch checkpoint into a run folder, or a run folder into such a file."
    sub = subparsers.add_parser("import", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("file", help="checkpoint (.pth, .pth.tar, .npz); or a run folder or .keras file, to write one")
    sub.add_argument("--out", required=True, type=run_folder, metavar="NAME", help="run folder; or file to write")
    sub.add_argument("--model", help="see `mrpose list` (default: what the file is)")
    sub.add_argument("--backbone", help="default: what the file is, resnet50_v1b or such; resnet50 for caffe style")
    sub.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="default: 256 192; 256 256 for MPII")
    sub.add_argument("--sigma", type=float, help="of the heatmaps that it was trained on (default: 2; 3 from 384 on)")
    sub.add_argument("--skeleton", help="coco, mpii or lsp (default: the one with the file's number of joints)")
    sub.add_argument("--map-joints", action="store_true", help="keep those joints of the head that --skeleton has too")
    sub.add_argument(
        "--preprocessing",
        help="what it was trained with: published (BGR; default, unless the file is MMPose's) or torchvision (RGB)",
    )  # fmt: skip
    sub.add_argument("--overwrite", action="store_true", help="replace what is there")


def handle(args) -> None:
    """Read a state dict into a run folder, or write one out of a run folder or `.keras` file."""
    source = Path(args.file)
    if source.is_dir() or source.suffix == ".keras":
        _write(source, Path(args.out), args.overwrite)
    else:
        _read(source, args)


def _read(source: Path, args) -> None:
    """State dict -> run folder with `best.keras`, which evaluate, predict and `train --weights` take, and a report."""
    import keras_mrpose
    from keras_mrpose import skeletons
    from keras_mrpose.checkpoints import state_dicts, tensor_names
    from keras_mrpose.codecs import GaussianCodec

    folder = args.out
    if folder.exists() and not args.overwrite:
        raise InputError(f"{folder} is there; replace it with --overwrite, or give another --out.")
    file = state_dicts.read_state_dict(source)
    network, kind, joints = tensor_names.describe(file.tensors)
    model = args.model or network
    backbone = args.backbone or (kind and state_dicts.torch_style(kind))
    if not model or not backbone:
        has = tensor_names.network_label(network, kind)
        raise InputError(f"{source} is {has}; give --model and --backbone to say which network it is for.")
    preprocessing = args.preprocessing or file.notes.get("preprocessing", "published")
    size = args.input_size or ((256, 256) if joints == 16 else (256, 192))  # as published for MPII and COCO
    built = keras_mrpose.build(
        model,
        backbone,
        (*size, 3),
        skeleton=args.skeleton or skeletons.for_joint_count(joints or 17),
        preprocessing=preprocessing,
        codec=None if args.sigma is None else GaussianCodec(args.sigma),
    )
    report = state_dicts.assign(built, source, file, preprocessing, args.map_joints)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    built.save(part / "best.keras")
    with source.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    facts = {**asdict(report), "sha256": digest, "built": built.spec}
    (part / "import.json").write_text(json.dumps(facts, indent=2) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    print(report)
    print(f"written to {folder}: best.keras, import.json")
    print(f"next:  {args.program} predict {folder} IMAGE --box X Y W H")


def _write(source: Path, out: Path, overwrite: bool) -> None:
    """Run folder or `.keras` file -> state dict."""
    import keras_mrpose

    if out.exists() and not overwrite:
        raise InputError(f"{out} is there; replace it with --overwrite, or give another --out.")
    model = keras_mrpose.Predictor(source).model
    keras_mrpose.save_state_dict(model, out)
    print(f"written to {out}, for pixels as the {model.spec['preprocessing']!r} preprocessing makes them")
