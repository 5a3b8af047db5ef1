"""Test set-up: two logical CPU devices (so that strategies can be tested), shared data, --run-slow."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from keras_mrpose.cli import main as command_line

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
GOLDEN = Path(__file__).resolve().parent / "golden"


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config):
    if config.getoption("numprocesses", default=None):
        return  # this process only hands tests out to others; without TensorFlow it starts at once, and quietly
    import tensorflow as tf

    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow; run with --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def run():
    """The command line: what `mrpose` and `experiments/run.py` call."""
    return command_line


@pytest.fixture(scope="session")
def golden_dir():
    """The folder with the published implementation's numbers; `README.md` in it says what each file is."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared():
    """The folder with real data and the facts about them; a user's machine has none, then the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("needs other people's photographs and annotations (the developers' shared/ folder)")
    return SHARED
