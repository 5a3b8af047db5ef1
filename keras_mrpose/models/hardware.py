"""What this machine computes on, and in which types fast: networks train and predict by it."""

from __future__ import annotations

from pathlib import Path

import keras

if keras.backend.backend() == "tensorflow":  # on any other it is not imported
    import tensorflow as tf
elif keras.backend.backend() == "jax":
    import jax

CPU_FACTS = Path("/proc/cpuinfo")  # on Linux
BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # words in it, of Intel and AMD, and of Arm


def on_cpu() -> bool:
    """Whether networks run in TensorFlow on a CPU."""
    return keras.backend.backend() == "tensorflow" and not _accelerated()


def _accelerated() -> bool:
    """Whether networks run on a GPU or on something alike."""
    if keras.backend.backend() == "jax":
        return jax.default_backend() != "cpu"
    return keras.backend.backend() == "tensorflow" and bool(tf.config.list_physical_devices("GPU"))


def is_fast(dtype: str) -> bool:
    """Whether networks compute in this type at least as fast as in float32.

    On a CPU float16 never is, and bfloat16 only where it is known to have instructions for it: TensorFlow computes it
    without, too, measured six times as slow as float32.
    """
    if dtype not in ("float16", "bfloat16") or _accelerated():
        return True
    words = set(CPU_FACTS.read_text().split()) if CPU_FACTS.is_file() else set()
    return dtype == "bfloat16" and bool(BFLOAT16 & words)


def fastest_precision() -> str:
    """Policy of Keras to train with: ``mixed_bfloat16`` where bfloat16 is fast, else ``float32``."""
    return "mixed_bfloat16" if is_fast("bfloat16") else "float32"
