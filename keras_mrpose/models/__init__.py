"""The networks.

- `networks`: the five, and `build`; `heads` and `backbones` are their two halves.
- `normalization`: batch norm as in the published training.
- `pretrained`: weights files into a backbone or a whole network; `preset_weights`: those that come with the package;
  `downloads`: those that are fetched.
- `distillation`: learning from another network, too.
- `fuse`: a trained network rewritten for fast prediction; `macs`: how many multiplications a network takes.
"""

from keras_mrpose.checkpoints.state_dicts import load_state_dict, save_state_dict
from keras_mrpose.models.backbones import list_backbones
from keras_mrpose.models.networks import PoseModel, build, list_models

__all__ = ["PoseModel", "build", "list_backbones", "list_models", "load_state_dict", "save_state_dict"]
