"""The learning rate over a training, and the optimizer that follows it."""

from __future__ import annotations

import math

import keras
from keras import ops

from keras_mrpose.optimizers import Adam
from keras_mrpose.training.config import Recipe


@keras.saving.register_keras_serializable("keras_mrpose")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule, times a share that rises in a line from 0 to 1 over the first steps.

    Args:
        schedule: the other one.
        steps: from this step on it is alone, 1 or more.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int):
        self.schedule, self.steps = schedule, steps

    def __call__(self, step):
        """The learning rate at a step, counted from 0."""
        return self.schedule(step) * ops.minimum(1.0, ops.cast(step, "float32") / self.steps)

    def get_config(self) -> dict:
        """The arguments that make this schedule again."""
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict) -> WarmUp:
        """The inverse of `get_config`."""
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["steps"])


def optimizer(recipe: Recipe, steps: int) -> Adam:
    """The optimizer of a recipe, with its schedule over `steps` per epoch."""
    return Adam(
        schedule(recipe, steps),
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay or None,
        use_ema=recipe.ema > 0,
        ema_momentum=recipe.ema,
        accumulate=recipe.accumulate,
    )


def schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over all steps of a recipe, `steps` per epoch."""
    total = recipe.epochs * steps
    warmup = math.ceil(recipe.warmup * total)
    if recipe.schedule == "step":
        # Keras steps after a border, the published schedule at an epoch's first step. The last border is never crossed.
        borders = [max(1, round(share * recipe.epochs)) * steps - 1 for share in recipe.milestones] + [total]
        rates = [recipe.learning_rate * 0.1**i for i in range(len(borders) + 1)]
        constant = keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)
        return WarmUp(constant, warmup) if warmup else constant
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, total - warmup),
        alpha=0.01,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
