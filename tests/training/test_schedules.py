"""The warm-up of a recipe and its optimizer; the schedules themselves are in test_training.py."""

import dataclasses
import math

import keras
import pytest

from keras_mrpose.optimizers import Adam
from keras_mrpose.training.config import Recipe
from keras_mrpose.training.optimization import WarmUp, build_optimizer, learning_rate_schedule

STEPS = 7


def test_the_published_schedule_has_no_warm_up():
    """Not a schedule that does nothing: the very one of before."""
    assert type(learning_rate_schedule(Recipe(), STEPS)) is keras.optimizers.schedules.PiecewiseConstantDecay


@pytest.mark.parametrize("warmup", [1e-9, 0.05, 0.8])
def test_steps_warm_up(warmup):
    """From zero in a line, times what the published one has there, steps included; float32 of two operations."""
    recipe = Recipe(epochs=17, warmup=warmup)
    warm, plain = (
        learning_rate_schedule(recipe, STEPS),
        learning_rate_schedule(dataclasses.replace(recipe, warmup=0.0), STEPS),
    )
    rises = math.ceil(warmup * 17 * STEPS)
    for step in range(17 * STEPS):
        assert float(warm(step)) == pytest.approx(min(1, step / rises) * float(plain(step)), rel=1e-6), step
    assert float(warm(rises)) == float(plain(rises))


def test_a_schedule_is_saved_with_its_optimizer():
    recipe = Recipe(epochs=17, warmup=0.1)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(build_optimizer(recipe, STEPS)))._learning_rate
    assert isinstance(again, WarmUp)
    assert [float(again(step)) for step in range(40)] == [
        float(learning_rate_schedule(recipe, STEPS)(step)) for step in range(40)
    ]


def test_the_optimizer_of_a_recipe():
    """Each field has arrived; the published one neither decays nor averages nor gathers."""
    published = build_optimizer(Recipe(), STEPS).get_config()
    assert (
        published["weight_decay"] is None and not published["use_ema"] and published["gradient_accumulation_steps"] == 1
    )
    modern = Recipe(gradient_accumulation_steps=3, optimizer="adamw", weight_decay=0.1, epsilon=1e-9, ema=0.99)
    config = build_optimizer(modern, STEPS).get_config()
    assert (config["gradient_accumulation_steps"], config["weight_decay"], config["epsilon"]) == (3, 0.1, 1e-9)
    assert config["use_ema"] and config["ema_momentum"] == 0.99
    assert type(build_optimizer(modern, STEPS)) is Adam
