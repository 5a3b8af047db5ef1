"""Conversion of Keras models to ONNX, by Keras' own exporter."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.errors import InputError, install_command
from keras_mrpose.export.litert import Conversion
from keras_mrpose.runtime.litert import silence_native_logs
from keras_mrpose.runtime.onnx import onnxruntime

try:  # an extra: only who exports to ONNX needs it
    import tf2onnx
except ImportError:
    tf2onnx = None

FORMAT = "onnx"


def convert(model: keras.Model) -> Conversion:
    """Convert a model to an ONNX file, float32, of any batch size; nothing is written to stdout or stderr.

    Args:
        model: Functional, from images ``(batch, H, W, 3)``, RGB 0..255, as `outputs` makes it.

    Raises:
        InputError: the extra is not installed.
    """
    check_installed()
    with tempfile.TemporaryDirectory() as folder, silence_native_logs():
        file = Path(folder) / "model.onnx"
        model(np.zeros((model.input_shape[0] or 1, *model.input_shape[1:]), np.float32))  # Keras asks for a call first
        model.export(file, format="onnx", verbose=False)
        content = file.read_bytes()
    return Conversion(content, FORMAT, "float32", "float32", ())


def check_installed() -> None:
    """Raise an `InputError` that says what to install if something is missing."""
    if onnxruntime is None or tf2onnx is None:
        raise InputError(f"Exporting to ONNX takes tf2onnx and onnxruntime: {install_command('onnx')}.")
