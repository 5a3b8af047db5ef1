"""How good a network is on a data set, each by its own protocol, as exact numbers that say how they were made.

`pck` for LSP (and any people with a torso), `mpii` for MPII's PCKh, `coco` for the ten numbers of COCO.
"""

from keras_mrpose.evaluation.pck import Result, evaluate

__all__ = ["Result", "evaluate"]
