"""Export for phones: a folder that ships, with proof that its files do what the Keras model does.

- `bundle`: a trained model to that folder; `report` is its table of measurements.
- `outputs`: the two networks that are exported, with heatmaps or keypoints as output.
- `litert`, `onnx`: conversion; `litert` also measures what quantization does to each layer.
- `verify`: runs each exported file on the crops that the Keras model saw, and holds it to a tolerance.
- `metadata`: what a `.tflite` file says of itself.
- `decoder`: from box to joints in NumPy; a copy ships beside every exported network, with a reference case.

`keras_mrpose.runtime` runs exported networks.
"""

from keras_mrpose.export.bundle import export_litert
from keras_mrpose.export.report import ExportReport, ToleranceError
from keras_mrpose.export.verify import TOLERANCES, Tolerance

__all__ = ["TOLERANCES", "ExportReport", "Tolerance", "ToleranceError", "export_litert"]
