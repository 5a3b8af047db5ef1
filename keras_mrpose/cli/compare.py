"""`mrpose compare`: two results beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_mrpose.cli.data_options import add_data, split_of
from keras_mrpose.cli.results import result_name, short_value

if TYPE_CHECKING:
    from rich.table import Table

    from keras_mrpose.evaluation.compare import Change
    from keras_mrpose.evaluation.evaluate import Result


def register_parser(subparsers) -> None:
    """The options of `compare`."""
    summary = "Explain why two results differ: list what was done differently, and what each difference costs."
    sub = subparsers.add_parser("compare", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("first", metavar="A.json", help="result file of `evaluate`")
    sub.add_argument("second", metavar="B.json", help="another")
    add_data(sub, required=False)


def handle(args) -> None:
    """Print what two results differ in; with --data, what each difference costs."""
    from rich.console import Console

    from keras_mrpose import data
    from keras_mrpose.cli import tables
    from keras_mrpose.evaluation import compare as comparison
    from keras_mrpose.evaluation.evaluate import Result
    from keras_mrpose.skeletons import Skeleton

    first, second = Result.load(args.first), Result.load(args.second)
    different = comparison.differences(first.protocol, second.protocol)
    lines = [(name, short_value(one), short_value(other)) for name, one, other in different]
    metric = " / ".join(dict.fromkeys((first.metric, second.metric)))
    lines.append((metric, tables.percent(first.value, 2), tables.percent(second.value, 2)))
    console = Console(soft_wrap=True)
    console.print(tables.plain("Differences", ("", result_name(args.first), result_name(args.second)), lines))
    if not different:
        console.print("The two were made in the same way.")
    elif args.data is None:
        console.print("--data DIR, the folder with the annotations, shows what each difference costs.")
    else:
        skeleton = first.protocol["data"].get("skeleton")  # which only one's own has there
        truth = data.load(args.data, split_of(args, args.first), False, skeleton and Skeleton.from_dict(skeleton))
        truth = truth.of_images(first.predictions.images)
        changes = comparison.changes(first, second, truth)
        console.print(_costs(changes, first, second) if changes else "None of it can be evaluated again.")


def _costs(changes: list[Change], first: Result, second: Result) -> Table:
    """A line per change: what the first result becomes with the second's, and the other way round."""
    from keras_mrpose.cli import tables

    lines = []
    for change in changes:
        effects = change.of_first, change.of_second
        cells = ("not kept" if effect is None else f"{100 * effect:+.2f}" for effect in effects)
        lines.append((f"{change.name}: {short_value(change.first)} -> {short_value(change.second)}", *cells))
    gap = 100 * (second.value - first.value)
    title = f"What each difference alone does to the {first.metric} (the second is {gap:+.2f} from the first)"
    return tables.plain(title, ("", "first, as second", "second, as first"), lines)
