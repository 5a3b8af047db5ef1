"""The learning rate over a training."""

from __future__ import annotations

import math

import keras

from keras_mrpose.config import Recipe


def schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over all steps of a recipe, `steps` per epoch."""
    total = recipe.epochs * steps
    if recipe.schedule == "step":
        # Keras steps after a border, the published schedule at an epoch's first step. The last border is never crossed.
        borders = [max(1, round(share * recipe.epochs)) * steps - 1 for share in recipe.milestones] + [total]
        rates = [recipe.learning_rate * 0.1**i for i in range(len(borders) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)
    warmup = math.ceil(recipe.warmup * total)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, total - warmup),
        alpha=0.01,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
