"""Keras models to ONNX, by Keras' own exporter, and what runs the result."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.export.litert import Conversion
from keras_mrpose.runtime.quiet import silence_native_logs

try:  # an extra: only who exports to ONNX needs it
    import onnxruntime
    import tf2onnx
except ImportError:
    onnxruntime = tf2onnx = None

PRECISION = "onnx"


def convert(model: keras.Model) -> Conversion:
    """An ONNX file of a model, float32, of any number of images; nothing is written to stdout or stderr.

    Args:
        model: Functional, from images ``(batch, H, W, 3)``, RGB 0..255; `twins` makes them.

    Raises:
        InputError: the extra is not installed.
    """
    check_installed()
    with tempfile.TemporaryDirectory() as folder, silence_native_logs():
        file = Path(folder) / "model.onnx"
        model(np.zeros((model.input_shape[0] or 1, *model.input_shape[1:]), np.float32))  # Keras asks for a call first
        model.export(file, format="onnx", verbose=False)
        content = file.read_bytes()
    return Conversion(content, PRECISION, "float32", "float32", ())


def check_installed() -> None:
    """An `InputError` that says what to install, if something is missing."""
    if onnxruntime is None or tf2onnx is None:
        raise InputError("Exporting to ONNX takes tf2onnx and onnxruntime: pip install 'keras_mrpose[onnx]'.")


class OnnxModel:
    """An ONNX network, ready to run, with the face of `models.exported.interpreter.Network`.

    Args:
        content: of the file.

    Attributes:
        input_shape: ``(1, height, width, 3)``.
    """

    def __init__(self, content: bytes):
        check_installed()
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()
        self.input_shape = (1, *self._input.shape[1:])

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Float32 outputs ``(n, ...)`` of crops ``(n, H, W, 3)``, RGB 0..255."""
        crops = np.asarray(crops, np.float32)
        parts = [self._session.run(None, {self._input.name: crop[None]})[0] for crop in crops]
        return np.concatenate(parts)
