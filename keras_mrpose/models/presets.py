"""Networks that come with the package: weights by name, float16 on disk.

`build(name, backbone, weights="people")` and `Predictor()` take them from here. A preset is one ``.npz``: a JSON part,
``about``, with how `build` made the network, its joints, its codec and its calibration, and every variable of its
layers. Kernels are float16, which rounds a weight to 2^-11 of itself; batch norms and biases, which are few and can be
small, stay float32.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from keras_mrpose.errors import InputError, lookup

FOLDER = Path(__file__).resolve().parents[1] / "weights"
_ABOUT = "about"


@dataclass(frozen=True)
class Preset:
    """One row.

    Args:
        network: name that `build` takes.
        backbone: likewise.
        file: name of the weights' file in the package.
        data: what it was trained on.
        licence: of the weights and of what they started from.
        card: page of the documentation with numbers, limits and examples.
        crops: name of a file of JPEG crops of people, to calibrate and verify its exports with.
    """

    network: str
    backbone: str
    file: str
    data: str
    licence: str
    card: str
    crops: str


PRESETS = {
    "people": Preset(
        network="mrfeanet1",
        backbone="mobilenetv2",
        file="people.npz",
        data="LSP, LSP extended, COCO and MPII: 9,649 people, joints of COCO with neck and head top (body19)",
        licence="MIT; started from the MobileNetV2 of MoveNet Lightning (Apache-2.0)",
        card="docs/model-card.md",
        crops="people_crops.npz",
    ),
}


def list_presets() -> list[str]:
    """Names that `build(..., weights=...)` takes besides files."""
    return list(PRESETS)


def read_preset(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """What a preset says of itself, and its variables: layer name / index -> float32.

    Raises:
        InputError: there is no such preset, or its file is damaged.
    """
    with _tensors_of(PRESETS[lookup("preset", name, PRESETS)].file) as tensors:
        about = json.loads(tensors.pop(_ABOUT).tobytes())
        return about, {key: value.astype(np.float32) for key, value in tensors.items()}


def read_crops(name: str) -> np.ndarray:
    """Crops ``(n, height, width, 3)`` float32 RGB 0..255 that come with a preset, in which people are.

    Raises:
        InputError: there is no such preset, or its file is damaged.
    """
    with _tensors_of(PRESETS[lookup("preset", name, PRESETS)].crops) as tensors:
        crops = [np.asarray(Image.open(io.BytesIO(file.tobytes()))) for file in tensors.values()]
        return np.stack(crops).astype(np.float32)


@contextlib.contextmanager
def _tensors_of(name: str) -> Iterator[dict[str, np.ndarray]]:
    """Tensors of a file that comes with the package; whatever is wrong with them is one sentence."""
    path = FOLDER / name
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            yield {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged or missing; install the package again.") from error


def write_preset(model: keras.Model, path: str | Path) -> None:
    """Write a network, a `PoseModel`, as a preset's file.

    Raises:
        InputError: a kernel has a value that float16 cannot hold.
    """
    tensors = {}
    for layer in model.layers:
        for index, value in enumerate(layer.get_weights()):
            if value.ndim > 1:
                with np.errstate(over="ignore"):  # an infinite one is an error below
                    value = value.astype(np.float16)
            if not np.isfinite(value).all():
                raise InputError(f"Layer {layer.name} has a weight that float16 cannot hold; leave it in float32.")
            tensors[f"{layer.name}/{index}"] = value
    about = {
        "spec": {**model.spec, "input_shape": list(model.spec["input_shape"])},
        "skeleton": model.skeleton.to_dict(),
        "codec": keras.saving.serialize_keras_object(model.codec),
        "calibration": None if model.calibration is None else model.calibration.to_dict(),
    }
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **{_ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}, **tensors)
