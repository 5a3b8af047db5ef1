"""Training on several data sets at once: one skeleton, a share of each epoch for each, validation of each by itself.

MMPose calls this a combined data set. Each source is loaded by its own loader; its joints go by name into the target
skeleton (`skeletons.joint_map`), and a joint that a source does not label has weight 0 there. The people of all sources
are one `People` table, whose `source_index` says which source each is from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from keras_mrpose import skeletons
from keras_mrpose.data import load_splits
from keras_mrpose.data.people import People, concatenate
from keras_mrpose.errors import InputError, require, short_message
from keras_mrpose.joint_names import sides_and_rests
from keras_mrpose.skeletons import Skeleton


@dataclass(frozen=True)
class Source:
    """One of several data sets of a training, see `keras_mrpose.data.mixture`.

    Args:
        name: in messages, metrics and logs.
        share: of the crops of an epoch; None: what the others leave, divided by the numbers of people.
        weight: of its metric in the weighted mean that selects the best epoch.
        protocol: of its validation, ``"ap"``, ``"pckh"`` or ``"pck"``; empty if it has none.
    """

    name: str
    share: float | None = None
    weight: float = 1.0
    protocol: str = ""

    def __post_init__(self) -> None:
        require(
            isinstance(self.name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name) is not None,
            "source", "name", self.name, "letters, digits, - and _",
        )  # fmt: skip
        what = f"source {self.name}"
        require(
            self.share is None or _is_number(self.share, 0, 1), what, "share", self.share, "a share above 0, up to 1"
        )
        require(_is_number(self.weight, 0, math.inf), what, "weight", self.weight, "a positive number")


@dataclass(frozen=True)
class SourceFolder:
    """Folder and splits of a source.

    Args:
        data: the data set's folder, see `data.load`.
        train: split to train on, see `data.load`.
        val: split to validate on; None is none.
    """

    data: Path
    train: str = "train"
    val: str | None = "val"


@dataclass(frozen=True)
class Mixture:
    """Several data sets to train on.

    Args:
        folders: where each source is.
        sources: name, share and weight of each.
        skeleton: of the network; None if it is given elsewhere.
        crops_per_epoch: of all sources together; None is as many as there are people.
    """

    folders: tuple[SourceFolder, ...]
    sources: tuple[Source, ...]
    skeleton: Skeleton | None = None
    crops_per_epoch: int | None = None


def read(path: str | Path) -> Mixture:
    """The mixture in a JSON file such as::

        {
          "skeleton": "body19",
          "crops_per_epoch": 16000,
          "sources": {
            "lsp": {"data": "lsp", "train": "train[:-200]", "val": "train[-200:]", "share": 0.2, "weight": 2},
            "coco": {"data": "coco", "share": 0.5},
            "extra": {"data": "lspet", "val": null}
          }
        }

    Args:
        path: of the file. ``data`` is relative to it. ``train``, ``val`` are splits (``"train"``, ``"val"``; null is
            no validation on this source); ``share`` is the source's part of the crops of an epoch, ``weight`` of its
            number in the validation's (1). Sources without a share divide what is left by their numbers of people.
            ``skeleton``, a name or a skeleton file, and ``crops_per_epoch`` may be left out.

    Raises:
        InputError: a file that is missing or no JSON, or a field that is unknown, missing or wrong, named.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is not there; give a mixture file, JSON with sources.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({short_message(error)}); give a mixture file.") from error
    if not isinstance(content, dict) or not isinstance(content.get("sources"), dict) or not content["sources"]:
        raise InputError(f"{path} has no sources; give {{'sources': {{NAME: {{'data': DIR}}, ...}}}}.")
    if unknown := set(content) - {"skeleton", "crops_per_epoch", "sources"}:
        raise InputError(f"{path} has an unknown field {min(unknown)!r}; give skeleton, crops_per_epoch and sources.")
    crops = content.get("crops_per_epoch")
    if not (crops is None or (type(crops) is int and crops > 0)):
        raise InputError(f"{path}: crops_per_epoch is {crops!r:.80}; give a positive whole number, or leave it out.")
    folders, sources = [], []
    for name, row in content["sources"].items():
        try:
            folder, source = _row(name, row)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        folders.append(replace(folder, data=path.parent / folder.data))
        sources.append(source)
    return Mixture(tuple(folders), tuple(sources), _skeleton(content.get("skeleton"), path), crops)


def _row(name: str, row) -> tuple[SourceFolder, Source]:
    if not isinstance(row, dict):
        raise InputError(f"source {name!r} is {row!r:.80}; give its fields, at least data.")
    names = [field.name for kind in (SourceFolder, Source) for field in fields(kind) if field.name != "name"]
    if unknown := set(row) - set(names):
        raise InputError(f"source {name!r} has an unknown field {min(unknown)!r}; give {', '.join(names)}.")
    for field in ("data", "train", "val"):
        if not isinstance(row.get(field, "" if field != "data" else None), str | None if field == "val" else str):
            raise InputError(f"source {name!r}: {field} is {row.get(field)!r:.80}; give a text.")
    where = {field.name: row[field.name] for field in fields(SourceFolder) if field.name in row}
    how = {field.name: row[field.name] for field in fields(Source) if field.name in row}
    return SourceFolder(**{**where, "data": Path(where["data"])}), Source(name, **how)


def _skeleton(value, path: Path) -> Skeleton | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{path}: skeleton is {value!r:.80}; give a name or a skeleton file.")
    return skeletons.load(path.parent / value) if value.endswith(".json") else skeletons.get(value)


@dataclass(frozen=True)
class JoinedSources:
    """The people of all sources of a mixture.

    Args:
        people: to train on.
        validation: to validate on.
        sources: of the mixture, with the protocol that each is validated by.
        joints: of each source, a sentence on which joints of the skeleton it labels.
    """

    people: People
    validation: People
    sources: tuple[Source, ...]
    joints: tuple[str, ...]


def join(mixture: Mixture, skeleton: Skeleton, require_images: bool = True) -> JoinedSources:
    """Load all sources, with the joints of one skeleton.

    Raises:
        InputError: what a loader finds wrong; a source without a joint of the skeleton; nobody to validate on.
    """
    train, val, sources, joints = [], [], [], []
    for folder, source in zip(mixture.folders, mixture.sources, strict=True):
        try:
            splits = [folder.train] if folder.val is None else [folder.train, folder.val]
            table, *others = load_splits(folder.data, splits, require_images)
            val_people = others[0] if others else table.take(slice(0))
            train.append(table.with_skeleton(skeleton))
            val.append(val_people.with_skeleton(skeleton))
        except InputError as error:
            raise InputError(f"Source {source.name!r}: {error}") from None
        sources.append(replace(source, protocol=val_people.protocol if len(val_people) else ""))
        joints.append(_on_joints(source.name, table.skeleton, skeleton))
    if not any(map(len, val)):
        raise InputError("No source has a split to validate on; give one of them a val split.")
    return JoinedSources(concatenate(train), concatenate(val), tuple(sources), tuple(joints))


def _on_joints(name: str, own: Skeleton, target: Skeleton) -> str:
    """A sentence: the joints of the target skeleton that a source labels, its own that have no place there, and why."""
    to_target, to_own = skeletons.joint_map(own, target), skeletons.joint_map(target, own)
    without = [joint for joint, index in zip(target.joints, to_target, strict=True) if index < 0]
    unused = {
        joint: rest
        for joint, (_, rest), index in zip(own.joints, sides_and_rests(own.joints), to_own, strict=True)
        if index < 0
    }
    sentence = f"{name}: labels {target.num_joints - len(without)} of {target.num_joints} joints"
    if without:
        sentence += f", not {', '.join(without)}"
    if unused:
        sentence += f"; its {', '.join(unused)} are not used"
        reasons = dict.fromkeys(
            skeletons.NOT_THE_SAME[rest] for rest in unused.values() if rest in skeletons.NOT_THE_SAME
        )
        sentence += f" ({'; '.join(reasons)})" if reasons else ""
    return sentence


def crops_of_epoch(sources: Sequence[Source], people: People, batch_size: int, total: int | None) -> tuple[int, ...]:
    """Number of crops of each source in an epoch: whole batches in all, divided by the sources' shares.

    Args:
        sources: with a share or without; those without divide what is left by their numbers of people.
        people: of all sources.
        batch_size: of the training.
        total: crops of an epoch, rounded down to whole batches; None is the number of people.

    Raises:
        InputError: shares that are more than 1 together, or leave nothing for the sources without one; less than a
            batch in all.
    """
    counts = np.bincount(people.source_index, minlength=len(sources)).astype(np.float64)
    for source, count in zip(sources, counts, strict=True):
        if not count:
            raise InputError(f"Source {source.name!r} has nobody to train on; leave it out.")
    total = (len(people) if total is None else total) // batch_size * batch_size
    if not total:
        raise InputError(f"An epoch has less crops than one batch of {batch_size}; make batches smaller.")
    given = np.array([source.share or 0.0 for source in sources])
    left = 1 - given.sum()
    open_ = given == 0
    if left < -1e-9 or (left <= 1e-9 and open_.any()) or (left > 1e-9 and not open_.any()):
        raise InputError(
            f"The shares {', '.join(f'{source.name}={source.share}' for source in sources)} make {given.sum():g}; give "
            "shares that make 1 together, or less with sources that have none and divide the rest."
        )
    if open_.any():
        given = np.where(open_, left * counts / counts[open_].sum(), given)
    exact = given * total
    crops = np.floor(exact).astype(int)
    for index in np.argsort(crops - exact, kind="stable")[: total - crops.sum()]:  # largest remainders
        crops[index] += 1
    return tuple(crops.tolist())


def _is_number(value, above: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value <= most and value < math.inf
