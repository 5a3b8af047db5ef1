"""Data options that commands share; `--data` of `train` and `doctor` is a folder, several with names, or a mixture."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from keras_mrpose.data.mixture import Mixture
    from keras_mrpose.data.people import People
    from keras_mrpose.skeletons import Skeleton

SPLIT_FIELDS = ("train_split", "val_split")  # of an `Experiment`
SKELETON = "body19"  # of a network for several data sets, if nobody says another


def add_data(parser: ArgumentParser, required: bool = True) -> None:
    """`--data` of one data set, and `--split`."""
    parser.add_argument("--data", required=required, metavar="DIR", help="data set folder (LSP, MPII, or COCO format)")
    parser.add_argument(
        "--split", metavar="NAME",
        help="train, val or another split of the folder (default: what a run was validated on, else val)",
    )  # fmt: skip


def split_of(args, network: str | Path | None = None) -> str:
    """The split of ``--split``; without it what the run of a network was validated on (its config says), else val."""
    from keras_mrpose.training.config import Experiment
    from keras_mrpose.training.run_dir import CONFIG

    if args.split or network is None:
        return args.split or "val"
    folder = Path(network) if Path(network).is_dir() else Path(network).parent
    if not (folder / CONFIG).is_file():
        return "val"
    split = Experiment.load(folder / CONFIG).val_split
    if split != "val":
        print(f"split {split}, as {folder / CONFIG} says")
    return split


def add_skeleton(parser: ArgumentParser) -> None:
    """`--skeleton` of one data set."""
    parser.add_argument("--skeleton", metavar="FILE", help="of a COCO-format folder with joints of its own (.json)")


def require_positive(option: str, number: int) -> None:
    """Refuse a count below 1."""
    if number < 1:
        raise InputError(f"{option} is {number}; give a number of at least 1.")


def require_writable(option: str, file: str | Path, *endings: str) -> None:
    """Before the work of an hour: that its result can be written to this file; folders above it are made then."""
    file = Path(file)
    if endings and file.suffix not in endings:
        raise InputError(f"{option} is {file}; give a file name that ends in {' or '.join(endings)}.")
    there = next(folder for folder in file.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)) or file.is_dir():
        raise InputError(f"{file} cannot be written; give another {option} FILE.")


def skeleton_file(args) -> Skeleton | None:
    """The skeleton of ``--skeleton FILE``, None without."""
    from keras_mrpose import skeletons

    return skeletons.load(args.skeleton) if args.skeleton else None


def limit(people: People, count: int | None) -> People:
    """Everybody in the images of the first `count` people (``--people``), or all."""
    if count is None:
        return people
    require_positive("--people", count)
    return people.limit(count)


def load(args, require_images: bool) -> tuple[People, People, dict]:
    """The people to train and to validate on, and what the data change in the experiment."""
    from keras_mrpose import data
    from keras_mrpose.data import mixture

    mixed = mixture_of(args.data)
    if mixed is None:
        if args.share or args.crops_per_epoch is not None:
            raise InputError("--share and --crops-per-epoch are for several data sets; give --data NAME=DIR for each.")
        given = _skeleton(args.skeleton)
        splits = splits_of(args) or ("train", "val")
        tables = data.load_splits(args.data[0], splits, require_images, given)
        return *tables, ({"skeleton": given} if given else {}) | dict(zip(SPLIT_FIELDS, splits, strict=True))
    mixed = _with_options(mixed, args)
    joined = mixture.join(mixed, mixed.skeleton, require_images)
    for sentence in joined.joints:
        print(sentence)
    changed = {"skeleton": mixed.skeleton, "sources": joined.sources, "crops_per_epoch": mixed.crops_per_epoch}
    changed |= dict(zip(SPLIT_FIELDS, splits_of(args) or (), strict=False))
    return joined.people, joined.validation, changed


def splits_of(args) -> tuple[str, str] | None:
    """The splits to train and to validate on that the options name; None if they name none."""
    from keras_mrpose import data

    if args.val_share is not None and args.val_split:
        raise InputError("--val-share holds out a share of the training images; leave --val-split out, or --val-share.")
    if args.val_share is None and args.val_seed:
        raise InputError("--val-seed draws the images that --val-share holds out; give --val-share, such as 0.1.")
    if args.val_share is not None:
        return data.held_out(args.train_split or "train", args.val_share, args.val_seed)
    return (args.train_split or "train", args.val_split or "val") if args.train_split or args.val_split else None


def mixture_of(given: list[str]) -> Mixture | None:
    """What several ``--data`` say together; None for the folder of one data set."""
    from keras_mrpose.data import mixture
    from keras_mrpose.data.mixture import Mixture, Source, SourceFolder

    if len(given) == 1 and given[0].endswith(".json"):
        return mixture.read(given[0])
    named = [re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)", value) for value in given]
    if len(given) == 1 and (named[0] is None or Path(given[0]).exists()):
        return None
    if not all(named):
        wrong = given[named.index(None)]
        raise InputError(f"--data is {wrong!r} beside others; of several data sets give NAME=DIR for each.")
    names = [match[1] for match in named]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"--data has the name {min(twice)!r} twice; give each data set its own.")
    return Mixture(tuple(SourceFolder(Path(match[2])) for match in named), tuple(map(Source, names)))


def folders(given: list[str]) -> list[Path]:
    """The folders of all data sets."""
    mixed = mixture_of(given)
    return [Path(given[0])] if mixed is None else [folder.data for folder in mixed.folders]


def _with_options(mixed: Mixture, args) -> Mixture:
    """The mixture with what the other options say."""
    from keras_mrpose import skeletons

    shares = {}
    for text in args.share:
        name, _, value = text.partition("=")
        try:
            shares[name] = float(value)
        except ValueError:
            raise InputError(f"--share is {text!r}; give NAME=X, such as coco=0.3.") from None
    if unknown := set(shares) - {source.name for source in mixed.sources}:
        raise InputError(f"--share names {min(unknown)!r}, which is none of the data sets.")
    folders, splits = mixed.folders, splits_of(args)
    if splits and args.data[0].endswith(".json") and len(args.data) == 1:
        raise InputError(
            f"{args.data[0]} names the splits; change train and val there, as in {splits[0]}, {splits[1]}."
        )
    if splits:
        folders = tuple(replace(folder, train=splits[0], val=splits[1]) for folder in folders)
    sources = tuple(replace(source, share=shares.get(source.name, source.share)) for source in mixed.sources)
    return replace(
        mixed,
        folders=folders,
        sources=sources,
        skeleton=_skeleton(args.skeleton) or mixed.skeleton or skeletons.get(SKELETON),
        crops_per_epoch=mixed.crops_per_epoch if args.crops_per_epoch is None else args.crops_per_epoch,
    )


def _skeleton(given: str | None) -> Skeleton | None:
    """A skeleton file, or the name of one that is built in."""
    from keras_mrpose import skeletons

    if given is None:
        return None
    return skeletons.get(given) if given.lower() in skeletons.SKELETONS else skeletons.load(given)
