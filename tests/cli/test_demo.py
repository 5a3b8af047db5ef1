"""The demo, whole, on a tenth of its images."""

import json

import pytest

from keras_mrpose.cli import demo
from keras_mrpose.data.images import read_image


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fma avx512_vnni avx512_bf16 amx", "mixed_bfloat16"), ("asimd bf16", "mixed_bfloat16"), ("fma avx2", "float32")],
)
def test_precision_is_what_the_processor_computes(flags, precision, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert demo._precision(tmp_path / "cpuinfo") == precision
    assert demo._precision(tmp_path / "none") == "float32"


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
