"""`mrpose list`: the experiments, what the paper reaches with each, and how they are trained; 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_mrpose.training.config import Experiment

SHOWN = "coco-mrfeanet2"
RECIPE = ("optimizer", "rate", "decay", "schedule", "warmup", "EMA", "half", "shift", "colour", "erase")
TRAINING = ("input", "sigma", "scale", "rotation", "flip", "rate", "epsilon", "schedule", "epochs", "batch")


def register_parser(subparsers) -> None:
    """The options of `list`."""
    summary = "List the experiments with the paper's numbers and their training, the trained networks and the parts."
    sub = subparsers.add_parser("list", help=summary, description=summary)
    sub.set_defaults(handle=handle)


def handle(args) -> None:
    """Print the tables."""
    from rich.console import Console

    import keras_mrpose
    from keras_mrpose.cli import tables
    from keras_mrpose.paper import experiments
    from keras_mrpose.paper import tables as paper

    console = Console()
    rows = experiments.EXPERIMENTS.values()
    trainings = list(dict.fromkeys(_training(row) for row in rows))
    number = {row.name: str(1 + trainings.index(_training(row))) for row in rows}

    for table in paper.TABLES:
        lines = [
            (row.name, number[row.name], *map(str, published.numbers.values()))
            for row in rows
            if (published := table.of(row))
        ]
        console.print(tables.plain(f"{table.title}, as published", ("experiment", "#", *table.metrics), lines))
    others = [row for row in rows if not any(table.of(row) for table in paper.TABLES)]
    lines = [(row.name, number[row.name], row.model, row.backbone) for row in others]
    console.print(tables.plain("Without published numbers", ("experiment", "#", "model", "backbone"), lines))
    lines = [(str(i), *cells) for i, cells in enumerate(trainings, 1)]
    console.print(tables.plain("How # is trained, with Adam", ("#", *TRAINING), lines))

    lines = [
        (name, *_recipe(experiments.with_recipe(experiments.EXPERIMENTS[SHOWN], name))) for name in experiments.RECIPES
    ]
    console.print(tables.plain(f"What --recipe changes, in {SHOWN}", ("recipe", *RECIPE), lines))

    lines = [
        (name, f"{preset.metric} {preset.value or ''}".strip(), str(preset.megabytes), preset.source, preset.licence)
        for name, preset in keras_mrpose.list_presets().items()
    ]
    console.print(
        tables.plain("Trained networks (presets)", ("preset", "result", "MB", "from", "licence"), lines, folds=4)
    )

    depths = ", ".join(
        f"{backbone} (*{ending})" if ending else backbone for backbone, ending in experiments.DEPTHS.items()
    )
    console.print(f"\nThe paper's backbones are {depths}, from ImageNet weights: --backbone-weights FILE.")
    console.print(f"models: {', '.join(keras_mrpose.list_models())}")
    console.print(f"backbones: {', '.join(keras_mrpose.list_backbones())}")


def _recipe(experiment: Experiment) -> tuple[str, ...]:
    """What `RECIPES` change: a cell for each column of `RECIPE`; the last four are probabilities."""
    recipe, augmentation = experiment.recipe, experiment.augmentation
    numbers = (
        *(recipe.warmup, recipe.ema, augmentation.half_body_probability, augmentation.shift_probability),
        *(augmentation.colour_probability, augmentation.erasing_probability),
    )
    return (
        recipe.optimizer,
        f"{recipe.learning_rate:g}",
        f"{recipe.weight_decay:g}",
        recipe.schedule,
        *(f"{number:g}" for number in numbers),
    )


def _training(experiment: Experiment) -> tuple[str, ...]:
    """How an experiment is trained, whatever its network: a cell for each column of `TRAINING`."""
    recipe, augmentation = experiment.recipe, experiment.augmentation
    steps = ", ".join(f"{share * recipe.epochs:.0f}" for share in recipe.milestones)
    return (
        "{}x{}".format(*experiment.input_size),
        f"{experiment.sigma:g}",
        f"{augmentation.scale:g}",
        f"{augmentation.rotation:g} p {augmentation.rotation_probability:g}",
        f"p {augmentation.flip_probability:g}",
        f"{recipe.learning_rate:g}",
        f"{recipe.epsilon:g}",
        f"x0.1 at {steps}" if recipe.schedule == "step" else recipe.schedule,
        str(recipe.epochs),
        str(recipe.batch_size),
    )
