"""The networks: `backbones` make feature maps, `heads` make heatmaps of them, `zoo` puts both together, `checkpoints`
reads weights files.
"""

from keras_mrpose.models.backbones import list_backbones
from keras_mrpose.models.zoo import PoseModel, build, list_models

__all__ = ["PoseModel", "build", "list_backbones", "list_models"]
