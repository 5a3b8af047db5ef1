"""`mrpose synthesize`: drawn people as a data set."""

from __future__ import annotations

from keras_mrpose.cli.data_options import require_positive


def register_parser(subparsers) -> None:
    """The options of `synthesize`."""
    summary = "Draw people into a new COCO-format folder: images and exact joints, the same for the same seed."
    sub = subparsers.add_parser("synthesize", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("folder", help="new data set folder")
    sub.add_argument("--train", type=int, default=3000, metavar="N", help="images to train on (default 3000)")
    sub.add_argument("--val", type=int, default=500, metavar="N", help="images to validate on (default 500)")
    sub.add_argument("--seed", type=int, default=0)


def handle(args) -> None:
    """Write both splits; they share no image."""
    from keras_mrpose.synthetic import dataset

    for name in ("train", "val"):  # before the first image is drawn
        require_positive(f"--{name}", getattr(args, name))
    for split, count, first in (("train2017", args.train, 0), ("val2017", args.val, args.train)):
        dataset.write(args.folder, count, seed=args.seed, split=split, first_index=first)
    print(f"{args.train} + {args.val} images of drawn people in {args.folder}")
