"""`experiments/average_networks.py`: the mean of trained networks."""

import runpy
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

import keras_mrpose
from keras_mrpose.codecs import DarkCodec


@pytest.fixture
def call(monkeypatch):
    def called(*arguments):
        monkeypatch.setattr(sys, "argv", ["average_networks.py", *map(str, arguments)])
        runpy.run_path(str(ROOT / "experiments" / "average_networks.py"), run_name="__main__")

    return called


def network(path, seed, name="simplebaseline", size=(64, 64), **more):
    keras.utils.set_random_seed(seed)
    model = keras_mrpose.build(name, backbone="tiny_v1b", input_shape=(*size, 3), codec=DarkCodec(1.0 + seed), **more)
    model.save(path)
    return model.get_weights()


def test_the_mean_is_the_first_one_with_other_weights(call, tmp_path):
    one, other = network(tmp_path / "1.keras", 1), network(tmp_path / "2.keras", 2, size=(96, 64))
    call(tmp_path / "mean.keras", tmp_path / "1.keras", tmp_path / "2.keras", "--parts", 3, 1)
    mean = keras.models.load_model(tmp_path / "mean.keras")
    assert (mean.input_shape, mean.codec) == ((None, 64, 64, 3), DarkCodec(2.0))
    for found, a, b in zip(mean.get_weights(), one, other, strict=True):
        np.testing.assert_allclose(found, 0.75 * a + 0.25 * b, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_others_are_refused(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network("1.keras", 1)
    network("2.keras", 2, "mrheatnet1")
    network("3.keras", 3, skeleton=keras_mrpose.Skeleton("own", tuple(f"joint {n}" for n in range(17))))
    for arguments, words in (
        (["2.keras"], "2.keras is <PoseModel mrheatnet1"),
        (["3.keras"], "3.keras is <PoseModel simplebaseline_tiny_v1b: 64x64, 17 joints (own)"),
        (["1.keras", "--parts", 1], r"--parts are [1.0]; give one"),
    ):
        with pytest.raises(SystemExit, match="2"):
            call("mean.keras", "1.keras", *arguments)
        assert words in capsys.readouterr().err
    assert not (tmp_path / "mean.keras").exists()
