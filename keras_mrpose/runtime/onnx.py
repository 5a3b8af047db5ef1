"""Exported ONNX files that run as networks; needs the extra `onnx`."""

from __future__ import annotations

import numpy as np

from keras_mrpose.errors import InputError, install_command

try:  # an extra: only who exports to ONNX needs it
    import onnxruntime
except ImportError:
    onnxruntime = None


class OnnxModel:
    """An ONNX network that runs on crops, with the call of `runtime.litert.LiteRTModel`.

    Args:
        content: bytes of the file.

    Attributes:
        input_shape: ``(1, height, width, 3)``.

    Raises:
        InputError: onnxruntime is not installed.
    """

    def __init__(self, content: bytes):
        if onnxruntime is None:
            raise InputError(f"Running ONNX files takes onnxruntime: {install_command('onnx')}.")
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (self._input,) = self._session.get_inputs()
        self.input_shape = (1, *self._input.shape[1:])

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Float32 outputs ``(n, ...)`` for crops ``(n, H, W, 3)``, RGB 0..255."""
        crops = np.asarray(crops, np.float32)
        parts = [self._session.run(None, {self._input.name: crop[None]})[0] for crop in crops]
        return np.concatenate(parts)
