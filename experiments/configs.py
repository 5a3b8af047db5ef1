"""The named experiments: one row each.

`python experiments/run.py train NAME --data DIR` runs one; options change single values, `--quick` the recipe.
"""

from __future__ import annotations

from dataclasses import replace

from keras_mrpose.config import Augmentation, Experiment, Recipe
from keras_mrpose.models import list_models

# The published recipes (Adam 1e-3, divided by 10 twice); those of MPII serve LSP, for which none is published.
COCO = Recipe(epochs=170, batch_size=64, milestones=(120 / 170, 150 / 170))
COCO_SIMPLEBASELINE = Recipe(epochs=140, batch_size=128, milestones=(90 / 140, 120 / 140))
MPII = Recipe(epochs=140, batch_size=64, milestones=(90 / 140, 120 / 140))
MPII_AUGMENTATION = Augmentation(scale=0.25, rotation=30.0)

# `--quick`: for a few thousand people, a pretrained backbone and a CPU.
QUICK = Recipe(
    epochs=20, batch_size=8, learning_rate=5e-4, epsilon=1e-10, schedule="cosine", precision="mixed_bfloat16"
)

DEMO = Experiment(
    name="demo",
    model="mrfeanet2",
    backbone="small_v1b",
    input_size=(128, 96),
    augmentation=Augmentation(scale=0.1, rotation=0.0),  # what is drawn varies enough
    recipe=Recipe(epochs=8, batch_size=16, learning_rate=6e-3, epsilon=1e-10, schedule="cosine"),
)


def _experiments() -> dict[str, Experiment]:
    rows = [DEMO]
    for model in list_models():
        rows.append(
            Experiment(
                name=f"lsp-{model}",
                model=model,
                skeleton="lsp",
                input_size=(128, 128),  # people of LSP are about 150 pixels long
                sigma=1.5,
                augmentation=MPII_AUGMENTATION,
                recipe=MPII,
            )
        )
        recipe = COCO_SIMPLEBASELINE if model == "simplebaseline" else COCO
        rows.append(Experiment(name=f"coco-{model}", model=model, recipe=recipe))
    return {row.name: row for row in rows}


EXPERIMENTS = _experiments()


def quick(experiment: Experiment) -> Experiment:
    """The same experiment on the short schedule."""
    return replace(experiment, recipe=QUICK)
