"""Networks for phones: a folder that ships, and what it takes to trust it.

- `shipping`: from a trained model to that folder; `report` says what the gate found, `folders` writes.
- `twins`: the two networks that are exported; one ends in heatmaps, the other in joints.
- `litert`: Keras to LiteRT in four forms, and what quantization does to each layer.
- `origins`: which layers the operations of a converted network come from.
- `gate`: runs each export on the crops that the Keras model saw, and judges it against a budget.
- `parity`: how near an exported network is to its original.
- `decoder`: the way from box to joints in NumPy, which lies beside every exported network, with its `golden` case.

What runs an exported network is `keras_mrpose.runtime`.
"""

from keras_mrpose.export.bundle import export_litert
from keras_mrpose.export.report import ExportReport, ToleranceError
from keras_mrpose.export.verify import TOLERANCES, Tolerance

__all__ = ["TOLERANCES", "ExportReport", "Tolerance", "ToleranceError", "export_litert"]
