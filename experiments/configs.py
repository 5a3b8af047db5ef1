"""The named experiments: one row each, with what is known of the result.

`python experiments/run.py train NAME --data DIR` runs one; options change single values. This file is plain data:
it imports no framework, so that the command line can list the names at once.
"""

from __future__ import annotations

from dataclasses import replace

from keras_mrpose.config import Augmentation, Experiment, Recipe

# The published recipe is Recipe's default. QUICK is what `--quick` makes of any experiment: a schedule for small data
# and pretrained backbones on a CPU, about a tenth of the epochs, with small batches and a rate that rises and falls.
QUICK = Recipe(epochs=20, batch_size=16, learning_rate=5e-4, schedule="cosine", warmup=0.05, precision="mixed_bfloat16")

MPII_LIKE = Augmentation(scale=0.25, rotation=30.0)

DEMO = Experiment(
    name="demo",
    model="mrfeanet2",
    backbone="small_v1b",
    skeleton="coco",
    input_size=(128, 96),
    sigma=1.5,
    augmentation=Augmentation(scale=0.15, rotation=15.0, rotation_probability=0.5),
    recipe=Recipe(epochs=12, batch_size=32, learning_rate=3e-3, schedule="cosine", warmup=0.05),
)

MODELS = ("simplebaseline", "mrheatnet1", "mrheatnet2", "mrfeanet1", "mrfeanet2")


def _family(data: str, **fields) -> dict[str, Experiment]:
    """The five networks on one data set."""
    return {f"{data}-{model}": Experiment(name=f"{data}-{model}", model=model, **fields) for model in MODELS}


EXPERIMENTS: dict[str, Experiment] = {
    "demo": DEMO,
    **_family("lsp", skeleton="lsp", input_size=(128, 128), sigma=1.5, augmentation=MPII_LIKE),
    **_family("coco", skeleton="coco"),
}


def quick(experiment: Experiment) -> Experiment:
    """The same experiment on the short schedule."""
    return replace(experiment, recipe=QUICK)
