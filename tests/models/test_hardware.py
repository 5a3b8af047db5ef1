"""In which types a machine computes fast, and what networks predict in there."""

import numpy as np
import pytest
import tensorflow as tf

import keras_mrpose
from keras_mrpose.models import fuse, hardware, networks

FLAGS = {
    "fma avx512_vnni avx512_bf16 amx": True,
    "asimd bf16": True,
    "fma avx2": False,
    "avx512_fp16 avx2": False,
    None: False,  # no such file, as on macOS
}


@pytest.fixture
def cpu(tmp_path, monkeypatch):
    """Function that makes this a CPU of these instructions."""

    def made(flags):
        monkeypatch.setattr(hardware, "CPU_FACTS", tmp_path / "cpuinfo")
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")

    return made


@pytest.mark.parametrize("flags", FLAGS)
def test_fast_is_what_the_processor_has_instructions_for(flags, cpu, monkeypatch):
    cpu(flags)
    fast = FLAGS[flags]
    found = {name: hardware.is_fast(name) for name in ("float32", "float64", "bfloat16", "float16")}
    assert found == {"float32": True, "float64": True, "bfloat16": fast, "float16": False}
    assert hardware.fastest_precision() == ("mixed_bfloat16" if fast else "float32")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU"])
    assert hardware.is_fast("float16") and hardware.fastest_precision() == "mixed_bfloat16"


@pytest.mark.parametrize(
    ("policy", "flags", "wanted"),
    [
        ("mixed_bfloat16", "avx512_bf16", {"bfloat16", "float32"}),  # the heatmaps are in float32
        ("mixed_bfloat16", "avx2", {"float32"}),
        ("mixed_float16", "avx512_bf16", {"float32"}),
        ("float32", "avx2", {"float32"}),
    ],
)
def test_a_network_predicts_in_its_own_precision_where_that_is_fast(policy, flags, wanted, cpu, monkeypatch):
    """Otherwise in float32, which is nearer to its weights."""
    cpu(flags)
    made, fused = [], fuse._fused
    monkeypatch.setattr(fuse, "_fused", lambda *how, **more: made.append(fused(*how, **more)) or made[-1])
    with networks.precision(policy):
        model = keras_mrpose.build("simplebaseline", backbone="tiny_v1b", input_shape=(64, 64, 3))
    fuse.inference_function(model)(np.zeros((1, 64, 64, 3), np.float32))
    assert {layer.compute_dtype for layer in made[0].layers[1:]} == wanted  # the input has a type only
