"""The average is what is validated, shown and saved; the weights come back to the bit and are what trains on."""

import contextlib
import dataclasses
from types import SimpleNamespace

import keras
import numpy as np
import on_jax
import pytest
from micro import EXPERIMENT, STEPS, draw, micro, people_of

from keras_mrpose import training
from keras_mrpose.skeletons import COCO
from keras_mrpose.training import fit
from keras_mrpose.training.averaging import averaged
from keras_mrpose.training.strategy import devices

RECIPE = dataclasses.replace(EXPERIMENT.recipe, optimizer="adamw", weight_decay=0.05, ema=0.9)
AVERAGING = dataclasses.replace(EXPERIMENT, recipe=RECIPE)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """People to train on, and to validate on."""
    return people_of(draw(tmp_path_factory.mktemp("drawn")))


@pytest.fixture(autouse=True)
def micro_networks(monkeypatch):
    monkeypatch.setattr(fit.zoo, "build", micro)


def values(variables):
    return [variable.numpy() for variable in variables]


def averages(model):
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [variable for variable in optimizer.variables if variable.path.endswith("_average")]


def same(some, others):
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def built(recipe, seed=0):
    """A network whose weights and average are both odd numbers."""
    experiment = dataclasses.replace(EXPERIMENT, recipe=recipe)
    model = training.build(experiment, SimpleNamespace(skeleton=COCO), STEPS)
    rng = np.random.default_rng(seed)
    for variable in (*model.trainable_variables, *averages(model)):
        variable.assign(rng.normal(size=variable.shape) * 10.0 ** rng.integers(-20, 20, variable.shape))
    return model


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_within_it_the_average_after_it_the_weights(precision):
    """Numbers of all sizes: what swaps by sums rounds them. Whatever happens within."""
    model = built(dataclasses.replace(RECIPE, precision=precision))
    own, average, others = (
        values(part) for part in (model.trainable_variables, averages(model), model.optimizer.variables)
    )
    assert len(average) == len(own) and not same(own, average)
    for mistake in (contextlib.nullcontext(), pytest.raises(KeyboardInterrupt)):
        with mistake, averaged(model):
            assert same(values(model.trainable_variables), average)
            assert same(values(model.optimizer.variables), others)
            if not isinstance(mistake, contextlib.nullcontext):
                raise KeyboardInterrupt
        assert same(values(model.trainable_variables), own)
        assert same(values(model.optimizer.variables), others)


def test_without_an_average_nothing_changes():
    model = built(dataclasses.replace(RECIPE, ema=0.0))
    own = values(model.trainable_variables)
    with averaged(model):
        assert same(values(model.trainable_variables), own)
    assert same(values(model.trainable_variables), own)


def test_on_each_device():
    with devices("mirrored", RECIPE.batch_size).scope():
        model = built(RECIPE)
    own, average = values(model.trainable_variables), values(averages(model))
    with averaged(model):
        for device in range(2):
            assert same([variable.value.values[device] for variable in model.trainable_variables], average)
    for device in range(2):
        assert same([variable.value.values[device] for variable in model.trainable_variables], own)


@pytest.mark.slow
def test_a_training_judges_shows_and_saves_the_average(tables, tmp_path, monkeypatch):
    """And trains on with the weights: they are those of the same training without an average."""
    models, shown = [], []
    build, predict = fit.build, keras.Model.predict_on_batch
    monkeypatch.setattr(fit, "build", lambda *some: models.append(build(*some)) or models[-1])
    monkeypatch.setattr(
        keras.Model,
        "predict_on_batch",
        lambda model, images: shown.append(values(model.trainable_variables)) or predict(model, images),
    )
    history = training.train(AVERAGING, *tables, tmp_path / "averaging")
    without = dataclasses.replace(RECIPE, ema=0.0)
    training.train(dataclasses.replace(EXPERIMENT, recipe=without), *tables, tmp_path / "plain")

    assert history["loss"][1] < history["loss"][0]
    model, plain = models
    for ours, theirs in zip(model.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=ours.path)
    average = values(averages(model))
    assert not same(average, values(model.trainable_variables))
    assert same(shown[1], average)  # of two epochs' pictures, the second
    saved = keras.models.load_model(tmp_path / "averaging" / "last.keras")
    assert same(values(saved.trainable_variables), average)
    assert same(values(saved.optimizer.variables), values(model.optimizer.variables))
    batches = fit.pipeline.batches(tables[1], EXPERIMENT.input_size, RECIPE.batch_size)
    assert saved.evaluate(batches, verbose=0)[0] == pytest.approx(history["val_loss"][-1], rel=1e-5)
    assert model.evaluate(batches, verbose=0)[0] != pytest.approx(history["val_loss"][-1], rel=1e-3)


@pytest.mark.slow
def test_on_jax():
    on_jax.passed(__file__, "within_it or judges", 3, "--run-slow")


def test_more_hard_keypoints_than_joints_are_refused(tables, tmp_path):
    recipe = dataclasses.replace(RECIPE, hard_keypoints=18)
    with pytest.raises(training.fit.InputError, match="hard_keypoints is 18, but coco has 17 joints; give fewer"):
        training.train(dataclasses.replace(EXPERIMENT, recipe=recipe), *tables, tmp_path / "run")
    assert not list(tmp_path.iterdir())
