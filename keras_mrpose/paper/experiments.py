"""The named experiments: one row each.

`mrpose train NAME --data DIR` runs one; options change single values, `--recipe modern` and `--quick` the recipe.

- `coco-*` and `mpii-*` are the paper's: one for each row of its COCO and MPII tables that is one of the five networks,
  named after data, network and, from ResNet-101 on, depth (`coco-mrfeanet2`, `mpii-mrfeanet2-r152`). `tables.TABLES`
  has the published numbers, `tables.COCO_VAL2017.of(experiment)` those of an experiment. Their backbones are the `v1b`
  variant, the ResNet that the paper's networks are made of: stride on the 3x3, no bias. `resnet50` of
  `keras.applications` strides on the first 1x1, which is another network, with other features from the same file.
  The paper starts from torchvision's ImageNet weights. Where these lie is the user's to say, `--backbone-weights FILE`:
  without it an experiment starts from random weights, and the published numbers are out of reach.
- `lsp-*`, for which nothing is published, have the default backbone, for which Keras has ImageNet weights.
- `*-mobile` are for phones, on MobileNetV2: an MRFeaNet and an MRHeatNet for each data set, trained like its others.
  As int8 they have less than 6 MB.
- `demo` is small enough for two CPU cores.
"""

from __future__ import annotations

from dataclasses import replace

from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import lookup
from keras_mrpose.models import list_models
from keras_mrpose.models.hardware import fastest_precision
from keras_mrpose.paper import tables
from keras_mrpose.training.config import Experiment, Recipe

# The published recipes (Adam 1e-3, divided by 10 twice); those of MPII serve LSP, for which none is published.
COCO = Recipe(epochs=170, batch_size=64, milestones=(120 / 170, 150 / 170))
COCO_SIMPLEBASELINE = Recipe(epochs=140, batch_size=128, milestones=(90 / 140, 120 / 140))
MPII = Recipe(epochs=140, batch_size=64, milestones=(90 / 140, 120 / 140))
COCO_AUGMENTATION = Augmentation(scale=0.3, rotation=40.0)
MPII_AUGMENTATION = Augmentation(scale=0.25, rotation=30.0)

# What the name of an experiment ends in: the paper's on each depth, and those for phones.
DEPTHS = {"resnet50_v1b": "", "resnet101_v1b": "-r101", "resnet152_v1b": "-r152"}
MOBILE = "mobilenetv2"
ENDINGS = {**DEPTHS, "resnet50": "", MOBILE: "-mobile"}

# `--quick`: for a few thousand people, a pretrained backbone and a CPU.
QUICK = Recipe(
    epochs=20,
    batch_size=8,
    learning_rate=5e-4,
    epsilon=1e-10,
    schedule="cosine",
    warmup=0.05,
)

# `--recipe`: what a recipe changes in the experiment's own, which is the published one where there is one. Epochs,
# batch, precision, scale, rotation and flip stay. `modern` is what is usual today for networks of this kind; nobody has
# published numbers for it.
RECIPES = {
    "published": {"recipe": {}, "augmentation": {}},
    "modern": {
        "recipe": {
            "optimizer": "adamw",
            "learning_rate": 5e-4,
            "weight_decay": 0.05,
            "schedule": "cosine",
            "warmup": 0.02,
            "ema": 0.9998,
        },
        "augmentation": {
            "half_body_probability": 0.3,
            "shift_probability": 0.3,
            "colour_probability": 0.5,
            "erasing_probability": 0.5,
        },
    },
}

DEMO = Experiment(
    name="demo",
    model="mrfeanet2",
    backbone="small_v1b",
    input_size=(128, 96),
    augmentation=Augmentation(scale=0.1, rotation=0.0),  # what is drawn varies enough
    recipe=Recipe(epochs=8, batch_size=16, learning_rate=6e-3, epsilon=1e-10, schedule="cosine", warmup=0.05),
)


def _coco(model: str, backbone: str) -> Experiment:
    return Experiment(
        name=f"coco-{model}{ENDINGS[backbone]}",
        model=model,
        backbone=backbone,
        skeleton="coco",
        input_size=(256, 192),
        sigma=2.0,
        augmentation=COCO_AUGMENTATION,
        recipe=COCO_SIMPLEBASELINE if model == "simplebaseline" else COCO,
    )


def _mpii(model: str, backbone: str) -> Experiment:
    return Experiment(
        name=f"mpii-{model}{ENDINGS[backbone]}",
        model=model,
        backbone=backbone,
        skeleton="mpii",
        input_size=(256, 256),
        sigma=2.0,
        augmentation=MPII_AUGMENTATION,
        recipe=MPII,
    )


def _lsp(model: str, backbone: str = "resnet50") -> Experiment:
    return Experiment(
        name=f"lsp-{model}{ENDINGS[backbone]}",
        model=model,
        backbone=backbone,
        skeleton="lsp",
        input_size=(128, 128),  # people of LSP are about 150 pixels long
        sigma=1.5,
        augmentation=MPII_AUGMENTATION,
        recipe=MPII,
    )


_ROWS = [
    *(_coco(*row.network) for row in tables.COCO_VAL2017.rows if row.network),
    *(_mpii(*row.network) for row in tables.MPII.rows if row.network),
    *(_lsp(model) for model in list_models()),
    *(make(model, MOBILE) for make in (_coco, _mpii, _lsp) for model in ("mrheatnet1", "mrfeanet1")),
    DEMO,
]
EXPERIMENTS = {row.name: row for row in _ROWS}


def list_experiments() -> list[str]:
    """Names of the experiments, which `get_experiment` and ``mrpose train`` take."""
    return list(EXPERIMENTS)


def list_recipes() -> list[str]:
    """Names of the recipes, which `get_experiment` and ``mrpose train --recipe`` take."""
    return list(RECIPES)


def get_experiment(name: str, recipe: str = "published") -> Experiment:
    """An experiment by its name, for `keras_mrpose.train`; ``dataclasses.replace`` changes single values of it.

    Raises:
        InputError: no such experiment or recipe.
    """
    return with_recipe(EXPERIMENTS[lookup("experiment", name, EXPERIMENTS)], recipe)


def with_recipe(experiment: Experiment, name: str) -> Experiment:
    """The same experiment by a row of `RECIPES`."""
    row = RECIPES[lookup("recipe", name, RECIPES)]
    changed = {part: replace(getattr(experiment, part), **values) for part, values in row.items()}
    return replace(experiment, **changed)


def quick(experiment: Experiment) -> Experiment:
    """The same experiment on the short schedule, in the precision that is fastest on this machine."""
    return replace(experiment, recipe=replace(QUICK, precision=fastest_precision()))
