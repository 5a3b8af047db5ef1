"""Exported files that run as networks, without TensorFlow.

- `litert`: `.tflite` files; one with its sidecar has the interface of a `PoseModel`.
- `onnx`: ONNX files.
"""
