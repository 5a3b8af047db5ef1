"""ONNX by Keras' own exporter: the same numbers in onnxruntime, through the same verification."""

import json

import dotted
import numpy as np
import pytest
import small_networks

from keras_mrpose import InputError
from keras_mrpose.codecs import CODECS
from keras_mrpose.export import export_litert, onnx, outputs
from keras_mrpose.runtime.onnx import OnnxModel

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install -e '.[onnx]')")
pytest.importorskip("tf2onnx", reason="tf2onnx is not installed (pip install -e '.[onnx]')")


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_numbers_are_those_of_keras(name, capfd):
    """float32 sums in another order: 1e-5 of the largest value; a peak among near ones may then move by 0.01 pixels."""
    model, crops = small_networks.trained(codec=CODECS[name](1.5)), small_networks.crops(3)
    heatmaps, keypoints = outputs.heatmaps(model), outputs.keypoints(model)
    conversion = onnx.convert(heatmaps)
    assert (conversion.precision, conversion.input_type, conversion.float_layers) == ("onnx", "float32", ())
    found, wanted = OnnxModel(conversion.content)(crops), small_networks.each(heatmaps, crops)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    found, wanted = OnnxModel(onnx.convert(keypoints).content)(crops), small_networks.each(keypoints, crops)
    assert found.shape == (3, 17, 3)
    np.testing.assert_allclose(found[..., :2], wanted[..., :2], rtol=0, atol=1e-2)
    np.testing.assert_allclose(found[..., 2], wanted[..., 2], rtol=1e-4)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.slow
def test_through_verification(tmp_path):
    people = dotted.folder(tmp_path, "val2017", 10)
    report = export_litert(dotted.network(), tmp_path / "out", "onnx", people=people, outputs=("heatmaps", "keypoints"))
    assert report.passed and list(report.files) == ["heatmaps.onnx", "keypoints.onnx"]
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["files"]["heatmaps.onnx"]["precision"] == "onnx"
    crops = np.full((1, 96, 64, 3), 100, np.float32)
    assert OnnxModel((tmp_path / "out" / "heatmaps.onnx").read_bytes())(crops).shape == (1, 24, 16, 17)
    assert report.files["heatmaps.onnx"].value == pytest.approx(report.before)


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "tf2onnx", None)
    with pytest.raises(InputError, match=r"takes tf2onnx and onnxruntime: pip install .*\[onnx\]'"):
        export_litert(dotted.network(), tmp_path / "out", "onnx", people=np.full((2, 96, 64, 3), 90, np.float32))
    assert not list(tmp_path.iterdir())
