"""keras_mrpose: human pose estimation with multi-resolution heads, in Keras 3, from training to a phone.

Photographs with person boxes go in, named joints in image pixels come out::

    model = keras_mrpose.build("mrfeanet2")           # a Functional keras.Model, RGB 0..255 -> heatmaps
    joints = keras_mrpose.Predictor("saved_models/demo")(image, boxes)   # (people, joints, 3): x, y, score

The conventions, everywhere:

- Sizes are ``(height, width)``, points ``(x, y)``, boxes ``(x, y, w, h)``, pixels unless stated.
- Images are RGB, uint8 or float 0..255, channels last. The network's first layer does the normalisation.
- Pixel i has its centre at coordinate i. Heatmaps have a quarter of the crop's sides; a crop point p is at p / 4 in
  them, with the `udp` codec at p (map side - 1) / (crop side - 1): `codec.scale` says it.
- A joint has x, y, v; v is COCO's 0 unlabelled, 1 labelled but hidden, 2 visible.
- A training target is ``(joints, 4)``: x, y, weight, reference_length, in heatmap pixels.

The package, from the bottom up; a module imports only from layers below its own:

- L0 `errors`, `skeletons` (joint names, pairs, edges), `config` (what an experiment is)
- L1 `geometry` (box -> crop matrix -> points, and back), `heatmaps` (codecs: points <-> heatmaps)
- L2 `data` (loaders, drawn people, `tf.data`), `models` (backbones, heads, the five networks), `losses`, `metrics`,
  `nms`, `optimizers`, `visualize`
- L3 `predictor` (image + boxes -> joints), `training` (`model.fit` and its run folder)
- L4 `evaluation` (exact numbers that say how they were made)
- L5 `export` (files for phones, each proved against the Keras model before it leaves)
"""

from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import Result, evaluate
from keras_mrpose.export import export_litert
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import OKSAP, PCK, PCKh
from keras_mrpose.models import build, list_backbones, list_models, load_state_dict, save_state_dict
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import Skeleton
from keras_mrpose.training.config import Experiment, Recipe
from keras_mrpose.training.train import train

__all__ = [
    "OKSAP",
    "PCK",
    "Augmentation",
    "DarkCodec",
    "Experiment",
    "GaussianCodec",
    "HeatmapMSE",
    "InputError",
    "PCKh",
    "Predictor",
    "Recipe",
    "Result",
    "Skeleton",
    "UDPCodec",
    "build",
    "evaluate",
    "export_litert",
    "list_backbones",
    "list_models",
    "load_state_dict",
    "save_state_dict",
    "train",
]
