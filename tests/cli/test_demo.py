"""The demo, whole, on a tenth of its images."""

import json

import pytest

from keras_mrpose.data.images import read_image


@pytest.mark.slow
def test_quick_demo_leaves_numbers_and_images(run, tmp_path, capsys):
    folder = tmp_path / "demo"
    assert run.main(["demo", "--quick", "--run", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "mrpose predict" in told and "mrpose train lsp-mrfeanet2" in told
    result = json.loads((folder / "result.json").read_text())
    assert result["metric"] == "PCK" and result["numbers"]["people"] > 30
    assert 0.0 < result["value"] < 1.0  # one epoch on 600 people: something, not much
    assert read_image(folder / "overlays.png").shape == (3 * 240, 4 * 320, 3)
    assert read_image(folder / "loss_curve.png").shape[1] > 300
    assert not any(part.name.startswith("drawn") for part in folder.iterdir())  # images lie beside, for the next run
