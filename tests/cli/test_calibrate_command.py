"""`mrpose calibrate`: a calibration is fitted and checked on others; and which file of `mrpose predict` is a model."""

import errno
import json
from pathlib import Path

import commands
import dotted
import pytest
from PIL import Image

from keras_mrpose.cli.predict import _model_and_sources
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import predictions
from keras_mrpose.models.networks import PoseModel
from keras_mrpose.predict.predictor import Predictor


@pytest.fixture
def network(tmp_path):
    """A network and two folders of people, whose annotations are off by some pixels."""
    dotted.folder(tmp_path / "fit", "val2017", 24, noise=6.0)
    dotted.folder(tmp_path / "other", "val2017", 24, seed=1, noise=6.0)
    model = dotted.network()
    model.save(tmp_path / "dotted.keras")
    return tmp_path / "dotted.keras"


def test_fit_and_check(run, network, tmp_path, capfd):
    report = tmp_path / "new" / "check.json"
    check = ("calibrate", network, "--data", tmp_path / "other", "--check", "--json", report)
    assert commands.call(run, *check) == 2
    assert "has no calibration to check" in capfd.readouterr().err
    assert commands.call(run, "calibrate", network, "--data", tmp_path / "fit") == 0
    printed = capfd.readouterr().out
    assert f"written to {network}" in printed and "expected calibration error" in printed
    calibration = Predictor(network).calibration
    assert calibration.criterion == "OKS of the keypoint at least 0.5"
    before = network.read_bytes()
    assert commands.call(run, *check) == 0
    assert network.read_bytes() == before
    content = json.loads(report.read_text())
    assert content["error"] < 0.1 and content["keypoints"] == 24 * 17 and content["hidden"] is None
    both = ("--data", f"a={tmp_path / 'fit'}", "--data", f"b={tmp_path / 'other'}")
    assert (
        commands.call(run, "calibrate", network, *both, "--check", "--json", report, "--plot", tmp_path / "a.png") == 0
    )
    with Image.open(tmp_path / "a.png") as diagram:
        assert diagram.size == (1008, 504)  # two panels of 4.2 inches
    assert set(json.loads(report.read_text())) == {"a", "b"}


def test_a_file_that_cannot_be_written_is_told_before_the_network_runs(run, network, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(predictions, "_finder", None)
    before = network.read_bytes()
    for option, words in (
        (("--json", tmp_path), f"{tmp_path} cannot be written; give another --json FILE."),
        (("--json", network / "a.json"), "cannot be written; give another --json FILE."),
        (("--plot", tmp_path / "a.txt"), "a.txt; give a file name that ends in .png or .svg or .pdf."),
    ):
        assert commands.call(run, "calibrate", network, "--data", tmp_path / "fit", *option) == 2
        assert words in capfd.readouterr().err
    assert network.read_bytes() == before


def test_a_full_disk_leaves_the_network(run, network, tmp_path, monkeypatch, capfd):
    def full(model, path):
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    before = network.read_bytes()
    monkeypatch.setattr(PoseModel, "save", full)
    assert commands.call(run, "calibrate", network, "--data", tmp_path / "fit") == 2
    assert capfd.readouterr().err.endswith(f"error: {network}: No space left on device.\n")
    assert network.read_bytes() == before and not list(tmp_path.glob("part-*"))


@pytest.mark.slow
def test_a_preset_is_checked(run, tmp_path, monkeypatch, capfd):
    """Also beside a folder of its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people").mkdir()
    dotted.folder(tmp_path / "few", "val2017", 2)
    assert commands.call(run, "calibrate", "people", "--data", "few", "--check") == 0
    assert "expected calibration error" in capfd.readouterr().out


def test_a_preset_is_not_written(run, network, tmp_path, monkeypatch, capfd):
    """Not even where a run has its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "people").mkdir()
    network.rename(tmp_path / "people" / "best.keras")
    for name in ("people", "people/"):
        assert commands.call(run, "calibrate", name, "--data", "fit") == 2
        assert f"{name} cannot be written to; give a run folder or a .keras file" in capfd.readouterr().err


def test_which_of_the_files_is_the_model(tmp_path):
    (tmp_path / "run").mkdir()
    assert _model_and_sources([str(tmp_path / "run"), "b.png"]) == (None, [str(tmp_path / "run"), "b.png"])
    (tmp_path / "run" / "best.keras").touch()
    assert _model_and_sources(["photo.jpg"]) == (None, ["photo.jpg"])
    assert _model_and_sources(["a.jpg", "b.png"]) == (None, ["a.jpg", "b.png"])
    assert _model_and_sources(["n.tflite", "b.png"]) == ("n.tflite", ["b.png"])
    assert _model_and_sources([str(tmp_path / "run"), "b.png"]) == (str(tmp_path / "run"), ["b.png"])
    assert _model_and_sources(["saved_models/typo", "b.png"]) == ("saved_models/typo", ["b.png"])
    with pytest.raises(InputError, match=r"n\.keras is a model; give images after it"):
        _model_and_sources(["n.keras"])
