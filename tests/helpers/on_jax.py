"""Tests once more, in a process of their own whose Keras computes with JAX."""

import importlib.util
import os
import subprocess
import sys

import keras
import pytest


def passed(file, chosen, count):
    """So many tests of a file, of those whose names fit ``-k``, pass; skips where JAX is missing."""
    if keras.backend.backend() == "jax":
        pytest.skip("this is the JAX run")
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed; pip install -e '.[test]' brings it")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "--run-slow", file, "-k", chosen],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{count} passed" in done.stdout
