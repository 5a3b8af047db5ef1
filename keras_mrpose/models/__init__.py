"""The networks: `backbones` make feature maps, `heads` make heatmaps of them, `zoo` puts both together,
`weights` reads and writes files, `inference` makes them faster, `exported` runs those that have left Keras.
"""

from keras_mrpose.checkpoints.state_dicts import load_state_dict, save_state_dict
from keras_mrpose.models.backbones import list_backbones
from keras_mrpose.models.networks import PoseModel, build, list_models

__all__ = ["PoseModel", "build", "list_backbones", "list_models", "load_state_dict", "save_state_dict"]
