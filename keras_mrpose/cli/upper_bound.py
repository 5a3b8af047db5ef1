"""`mrpose upper-bound`: the best number that any network can reach."""

from __future__ import annotations

from keras_mrpose.cli.data_options import add_data, add_skeleton, limit, skeleton_file, split_of
from keras_mrpose.errors import InputError


def register_parser(subparsers) -> None:
    """The options of `upper-bound`."""
    summary = "Compute the best number that any network can reach with each codec and heatmap size."
    sub = subparsers.add_parser("upper-bound", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    add_data(sub)
    add_skeleton(sub)
    sub.add_argument("--noise", type=float, default=0.1, metavar="SD", help="of the noisy heatmaps (default 0.1)")
    sub.add_argument("--protocol", help="as for evaluate")
    sub.add_argument("--people", type=int, metavar="N", help="only the images of the first N people")


def handle(args) -> None:
    """Print a line for each heatmap size and codec."""
    from keras_mrpose import data
    from keras_mrpose.cli import tables
    from keras_mrpose.codecs import CODECS
    from keras_mrpose.data.people import protocol_of
    from keras_mrpose.evaluation import upper_bound
    from keras_mrpose.evaluation.evaluate import PROTOCOLS, check

    if not args.noise >= 0:
        raise InputError(f"--noise is {args.noise}; give a number of at least 0, such as 0.1.")
    people = limit(data.load(args.data, split_of(args), False, skeleton_file(args)), args.people)
    protocol = args.protocol or protocol_of(people)
    check(protocol, people)
    ways = ({}, {"flip_test": True}, {"noise": args.noise}, {"flip_test": True, "noise": args.noise})
    rows = []
    for size in upper_bound.sizes(protocol):
        for name in CODECS:
            codec = upper_bound.codec_for(name, size)
            rows.append(
                (size, name, [upper_bound.upper_bound(people, codec, size, protocol=protocol, **way) for way in ways])
            )
    tables.print_upper_bound(rows, PROTOCOLS[protocol].metric, args.noise, f"{people.source}, {len(people)} people")
