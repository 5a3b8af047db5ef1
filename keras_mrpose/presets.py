"""Networks that come with the package, by name.

`build(name, backbone, weights="people")` and `Predictor()` take them from here. A preset is a folder:

- ``heatmaps_float16.tflite`` and ``model.json``: the network as `export_litert` wrote it. `Predictor()` runs it as it
  is, without TensorFlow.
- ``keras.npz``: what building the trainable network takes besides (`models.preset_weights`).
- ``crops.npz``: JPEG crops of people, to calibrate and verify its exports with.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_mrpose.errors import InputError, lookup

FOLDER = Path(__file__).resolve().parent / "weights"
LITERT, CROPS = "heatmaps_float16.tflite", "crops.npz"


@dataclass(frozen=True)
class Preset:
    """One row.

    Args:
        network: name that `build` takes.
        backbone: likewise.
        data: what it was trained on.
        licence: of the weights and of what they started from.
        card: page of the documentation with numbers, limits and examples.
    """

    network: str
    backbone: str
    data: str
    licence: str
    card: str


PRESETS = {
    "people": Preset(
        network="mrfeanet1",
        backbone="mobilenetv2",
        data="LSP, LSP extended, COCO and MPII: 9,649 people, joints of COCO with neck and head top (body19)",
        licence="MIT; started from the MobileNetV2 of MoveNet Lightning (Apache-2.0)",
        card="docs/model-card.md",
    ),
}


def list_presets() -> list[str]:
    """Names that `build(..., weights=...)` takes besides files."""
    return list(PRESETS)


def exported_file(name: str) -> Path:
    """The `.tflite` file of a preset, which makes heatmaps; its sidecar lies beside it.

    Raises:
        InputError: there is no such preset.
    """
    return FOLDER / lookup("preset", name, PRESETS) / LITERT


def read_crops(name: str) -> np.ndarray:
    """Crops ``(n, height, width, 3)`` float32 RGB 0..255 that come with a preset, in which people are.

    Raises:
        InputError: there is no such preset, or its file is damaged.
    """
    with tensors_of(exported_file(name).with_name(CROPS)) as tensors:
        crops = [np.asarray(Image.open(io.BytesIO(file.tobytes()))) for file in tensors.values()]
        return np.stack(crops).astype(np.float32)


@contextlib.contextmanager
def tensors_of(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """Tensors of a file that comes with the package; whatever is wrong with them inside is one sentence.

    Raises:
        InputError: the file is missing, or reading it or working with its tensors failed.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            yield {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged or missing; install the package again.") from error
