"""Test set-up: two logical CPU devices (so that strategies can be tested), shared data, --run-slow."""

import os
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow; run with --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared():
    """The folder with golden facts and real data; a user's machine has none, then the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("the developers' shared/ folder (golden facts and real data) is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A COCO-format folder of drawn people: 14 to train on, 8 to validate on."""
    from keras_mrpose.data import synthetic

    folder = tmp_path_factory.mktemp("drawn")
    synthetic.write(folder, 8, size=(120, 160))
    return synthetic.write(folder, 4, split="val2017", first_index=8, size=(120, 160))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, drawn):
    """A tiny experiment and its finished run: `.experiment`, `.run` (folder), `.history`, `.people`, `.validation`."""
    from keras_mrpose import Augmentation, Experiment, Recipe, data, train

    experiment = Experiment(
        name="tiny",
        model="mrheatnet1",
        backbone="tiny_v1b",
        input_size=(96, 64),
        sigma=1.5,
        augmentation=Augmentation(scale=0.1, rotation=10.0),
        recipe=Recipe(epochs=2, batch_size=4, learning_rate=3e-3, epsilon=1e-10, schedule="cosine", warmup=0.0),
    )
    people, validation = (data.load(drawn, split) for split in ("train", "val"))
    run = tmp_path_factory.mktemp("runs") / "tiny"
    history = train(experiment, people, validation, run)
    return SimpleNamespace(experiment=experiment, run=run, history=history, people=people, validation=validation)
