"""`run.py import`: a published checkpoint becomes a run folder; and back."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import keras_mrpose
from keras_mrpose import InputError, Predictor, skeletons
from keras_mrpose.checkpoints import state_dicts, tensor_names
from keras_mrpose.codecs import GaussianCodec


def main(options) -> None:
    """Which way it goes is told by what is given: a state dict is read, a run folder or `.keras` file is written."""
    source = Path(options.file)
    if source.is_dir() or source.suffix == ".keras":
        _write(source, Path(options.out), options.overwrite)
    else:
        _read(source, options)


def _read(source: Path, options) -> None:
    """State dict -> run folder with `best.keras`, which evaluate, predict and `train --weights` take, and a report."""
    folder = options.out
    if folder.exists() and not options.overwrite:
        raise InputError(f"{folder} is there; replace it with --overwrite, or give another --out.")
    file = state_dicts.read_state_dict(source)
    network, depth, joints = tensor_names.describe(file.tensors)
    model = options.model or network
    backbone = options.backbone or (depth and f"resnet{depth}_v1b")
    if not model or not backbone:
        has = tensor_names.network_label(network, depth)
        raise InputError(f"{source} is {has}; give --model and --backbone to say which network it is for.")
    preprocessing = options.preprocessing or file.notes.get("preprocessing", "published")
    size = options.input_size or ((256, 256) if joints == 16 else (256, 192))  # as published for MPII and COCO
    built = keras_mrpose.build(
        model,
        backbone,
        (*size, 3),
        skeleton=options.skeleton or skeletons.for_joint_count(joints or 17),
        preprocessing=preprocessing,
        codec=None if options.sigma is None else GaussianCodec(options.sigma),
    )
    report = state_dicts.assign(built, source, file, preprocessing, options.map_joints)
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
    print(f"next:  python experiments/run.py predict {folder} PICTURE --box X Y W H")


def _write(source: Path, out: Path, overwrite: bool) -> None:
    """Run folder or `.keras` file -> state dict."""
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there; replace it with --overwrite, or give another --out.")
    model = Predictor(source).model
    keras_mrpose.save_state_dict(model, out)
    print(f"written to {out}, for pixels as the {model.spec['preprocessing']!r} preprocessing makes them")
