"""The modern recipe, as a user starts it: a real network learns drawn people by it."""

import json

import pytest
from commands import call

pytestmark = pytest.mark.slow


def test_the_modern_recipe_trains(run, tmp_path):
    """About 100 people, 12 steps an epoch, 20 epochs; the validation is of the averaged weights."""
    assert call(run, "synthesize", tmp_path / "drawn", "--train", 60, "--val", 20, "--seed", 5) == 0
    size = ("--backbone", "tiny_v1b", "--input-size", 96, 64, "--batch-size", 8, "--epochs", 20)
    options = ("--data", tmp_path / "drawn", "--recipe", "modern", "--run", tmp_path / "run", *size)
    assert call(run, "train", "coco-mrfeanet1", *options) == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert history["loss"][-1] < 0.85 * history["loss"][0]
    assert history["val_loss"][-1] < 0.75 * history["val_loss"][0]
    assert history["val_pck"][-1] > 2 * history["val_pck"][0]
