"""keras_mrpose: human pose estimation with multi-resolution heads, in Keras 3, from training to a phone.

Photographs with person boxes go in, named joints in image pixels come out::

    model = keras_mrpose.build("mrfeanet2")           # a Functional keras.Model, RGB 0..255 -> heatmaps
    people = keras_mrpose.data.load("folder", "train")                   # a table of annotated people
    model.fit(keras_mrpose.dataset(people, model, augment=True))         # after model.compile()
    joints = keras_mrpose.Predictor(model)(image, boxes)                 # (people, joints, 3): x, y, score

The conventions, everywhere:

- Sizes are ``(height, width)``, points ``(x, y)``, boxes ``(x, y, w, h)``, pixels unless stated.
- Images are RGB, uint8 or float 0..255, channels last. The network's first layer does the normalisation.
- Pixel i has its centre at coordinate i. Heatmaps have a quarter of the crop's sides; a crop point p is at p / 4 in
  them, with the `udp` codec at p (map side - 1) / (crop side - 1): `codec.scale` says it.
- A joint has x, y, v; v is COCO's 0 unlabelled, 1 labelled but hidden, 2 visible.
- A training target is ``(joints, 4)``: x, y, weight, reference_length, in heatmap pixels.

The package, from the bottom up; a module imports only from layers below its own:

- L0 `errors`, `joint_names` (left and right in them), `skeletons` (joints, pairs, edges)
- L1 `geometry` (box -> crop matrix -> points, and back), `codecs` (points <-> heatmaps), `checkpoints` (other
  people's files); on the codecs `losses`, `metrics`, `optimizers`, with which a network compiles itself
- L2 `data` (loaders, augmentation, `tf.data`), `synthetic` (drawn people), `models` (backbones, heads, the five
  networks), `nms`, `runtime` (exported files as networks), `visualization`
- L3 `predict` (image + boxes -> joints), `training` (`model.fit` and its run folder)
- L4 `evaluation` (exact numbers that say how they were made), `paper` (its tables and experiments)
- L5 `export` (files for phones, each verified against the Keras model), `web` (a page that runs them in a browser),
  `doctor` (checks a data folder)
- L6 `study` (networks trained alike, compared with error bars)
- `cli` (the commands of `mrpose`)

Importing the package imports no TensorFlow: the first use of a public name that needs it does (`Predictor` with an
exported network never does). Keras loads a saved model only if the classes in it are imported, so the package imports
all of them as soon as Keras is imported, before or after it, or at that first use: `keras.models.load_model` knows them
in any order of the two imports.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from typing import TYPE_CHECKING

from keras_mrpose.keras_import import OnKerasImport

if TYPE_CHECKING:
    from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
    from keras_mrpose.data.augmentation import Augmentation
    from keras_mrpose.data.images import read_image
    from keras_mrpose.data.people import People
    from keras_mrpose.data.pipeline import dataset
    from keras_mrpose.errors import InputError
    from keras_mrpose.evaluation.evaluate import Result, evaluate
    from keras_mrpose.export import export_litert
    from keras_mrpose.losses import HeatmapMSE
    from keras_mrpose.metrics import OKSAP, PCK, PCKh
    from keras_mrpose.models import (
        PoseModel,
        build,
        list_backbones,
        list_models,
        load_state_dict,
        save_state_dict,
    )
    from keras_mrpose.paper.experiments import get_experiment, list_experiments, list_recipes
    from keras_mrpose.predict.predictor import Predictor
    from keras_mrpose.presets import list_presets
    from keras_mrpose.skeletons import Skeleton, list_skeletons
    from keras_mrpose.training.config import Experiment, Recipe
    from keras_mrpose.training.train import train
    from keras_mrpose.visualization.skeletons import draw

    __version__: str

# Public name -> the module that it is made in.
_HOMES = {
    "DarkCodec": "codecs",
    "GaussianCodec": "codecs",
    "UDPCodec": "codecs",
    "Augmentation": "data.augmentation",
    "read_image": "data.images",
    "People": "data.people",
    "dataset": "data.pipeline",
    "InputError": "errors",
    "Result": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "export_litert": "export",
    "HeatmapMSE": "losses",
    "OKSAP": "metrics",
    "PCK": "metrics",
    "PCKh": "metrics",
    "PoseModel": "models",
    "build": "models",
    "list_backbones": "models",
    "list_models": "models",
    "list_presets": "presets",
    "load_state_dict": "models",
    "save_state_dict": "models",
    "get_experiment": "paper.experiments",
    "list_experiments": "paper.experiments",
    "list_recipes": "paper.experiments",
    "Predictor": "predict.predictor",
    "Skeleton": "skeletons",
    "list_skeletons": "skeletons",
    "Experiment": "training.config",
    "Recipe": "training.config",
    "train": "training.train",
    "draw": "visualization.skeletons",
}

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
    "People",
    "PoseModel",
    "Predictor",
    "Recipe",
    "Result",
    "Skeleton",
    "UDPCodec",
    "build",
    "dataset",
    "draw",
    "evaluate",
    "export_litert",
    "get_experiment",
    "list_backbones",
    "list_experiments",
    "list_models",
    "list_presets",
    "list_recipes",
    "list_skeletons",
    "load_state_dict",
    "read_image",
    "save_state_dict",
    "train",
]


def _import_everything() -> None:
    """Bind every public name here; importing their modules registers the classes with Keras."""
    for name, module in _HOMES.items():
        globals().setdefault(name, getattr(importlib.import_module(f"{__name__}.{module}"), name))


def _find_version() -> str:
    """Version of the installed distribution; of a checkout that is not installed, "0+unknown"."""
    from importlib import metadata

    try:
        return metadata.version("keras-mrpose")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def __getattr__(name: str):
    """A public name, a submodule, or the version, at its first use (PEP 562)."""
    if name in _HOMES:
        globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        if "keras" in sys.modules:
            _import_everything()
        return globals()[name]
    if name == "__version__":
        return globals().setdefault(name, _find_version())
    if not name.startswith("_"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as missing:
            if missing.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


if platform.machine().lower() in ("x86_64", "amd64"):
    # TensorFlow turns its oneDNN kernels on by itself only where a CPU has AVX-512 VNNI; with AVX2 they pay as well:
    # MobileNetV2 trains 1.8 times as fast. It reads this when it is imported; set it to 0 to keep them off.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if "keras" in sys.modules:
    _import_everything()
else:
    sys.meta_path.insert(0, OnKerasImport(_import_everything))
