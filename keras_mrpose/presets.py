"""Trained networks by name: those that come with the package, and published ones that are downloaded.

`build(preset=...)`, `PoseModel.from_preset`, `Predictor` and every `weights` take their names (`list_presets`).
One of the package is a folder:

- ``heatmaps_float16.tflite`` and ``model.json``: the network as `export_litert` wrote it. `Predictor()` runs it as it
  is, without TensorFlow.
- ``keras.npz``: what building the trainable network takes besides (`models.preset_weights`).
- ``crops.npz``: JPEG crops of people, to calibrate and verify its exports with.

Those of MMPose are its checkpoints of SimpleBaseline, fetched by `models.downloads` and read without PyTorch. Their
numbers are MMPose's own: AP on COCO val2017 with detector boxes, PCKh on MPII val, with a flip test.
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
        input_size: ``(height, width)`` of the crops that it was trained on.
        skeleton: name of its joints.
        sigma: of the heatmaps that it was trained on, in their pixels.
        data: what it was trained on.
        licence: of the weights and of what they started from.
        source: who trained it.
        card: where its numbers, limits and terms are described.
        metric: what it reaches, as its source measured it; empty if its card has that.
        value: of the metric, in percent.
        address: where it is downloaded from; empty for those that come with the package.
        megabytes: of the file, about.
    """

    network: str
    backbone: str
    input_size: tuple[int, int]
    skeleton: str
    sigma: float
    data: str
    licence: str
    source: str
    card: str
    megabytes: int
    metric: str = ""
    value: float | None = None
    address: str = ""

    @property
    def sha256(self) -> str:
        """The first eight hex digits of the downloaded file's SHA-256: its publisher has them in its name."""
        return self.address.rpartition("-")[2][:8]

    def __str__(self) -> str:
        height, width = self.input_size
        reached = f"{self.metric} {self.value}, " if self.metric else ""
        where = "downloaded from" if self.address else "in the package, by"
        return (
            f"{self.network} on {self.backbone}, {height}x{width}, {self.skeleton}: {reached}trained on {self.data}; "
            f"{self.licence}; {self.megabytes} MB, {where} {self.source}"
        )


class Presets(dict[str, Preset]):
    """Name -> `Preset`; printed, a line for each."""

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {preset}" for name, preset in self.items())


def _mmpose(
    backbone: str, data: str, size: tuple[int, int], value: float, megabytes: int, file: str
) -> tuple[str, Preset]:
    """Name and row of a SimpleBaseline of MMPose."""
    folder = {"coco": "v1/body_2d_keypoint/topdown_heatmap/coco/td-hm_", "mpii": "top_down/"}[data]
    return f"simplebaseline_{backbone.split('_')[0]}_{data}_{size[0]}x{size[1]}", Preset(
        network="simplebaseline",
        backbone=backbone,
        input_size=size,
        skeleton=data,
        sigma=3.0 if size == (384, 288) else 2.0,
        data={"coco": "COCO train2017", "mpii": "MPII"}[data],
        licence="Apache-2.0",
        source="MMPose",
        card="https://github.com/open-mmlab/mmpose",
        megabytes=megabytes,
        metric={"coco": "AP", "mpii": "PCKh"}[data],
        value=value,
        address=f"https://download.openmmlab.com/mmpose/{folder}{file}",
    )


_R50, _R101, _R152, _MOBILE = "resnet50_v1b", "resnet101_v1b", "resnet152_v1b", "mobilenetv2_torch"
_LOW, _HIGH, _SQUARE = (256, 192), (384, 288), (256, 256)

PRESETS = Presets(
    [
        (
            "people",
            Preset(
                network="mrfeanet1",
                backbone="mobilenetv2",
                input_size=_LOW,
                skeleton="body19",
                sigma=2.0,
                data="LSP, LSP extended, COCO and MPII (9,649 people)",
                licence="MIT; backbone from MoveNet Lightning, Apache-2.0",
                source="this project",
                card="docs/model-card.md",
                megabytes=10,
            ),
        ),
        _mmpose(_R50, "coco", _LOW, 71.8, 136, "res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth"),
        _mmpose(_R50, "coco", _HIGH, 73.1, 136, "res50_8xb64-210e_coco-384x288-7b8db90e_20220923.pth"),
        _mmpose(_R101, "coco", _LOW, 72.8, 212, "res101_8xb64-210e_coco-256x192-065d3625_20220926.pth"),
        _mmpose(_R152, "coco", _LOW, 73.6, 275, "res152_8xb32-210e_coco-256x192-0345f330_20220928.pth"),
        _mmpose(_R152, "coco", _HIGH, 75.0, 275, "res152_8xb32-210e_coco-384x288-7fbb906f_20220927.pth"),
        _mmpose(_MOBILE, "coco", _LOW, 64.8, 38, "mobilenetv2_8xb64-210e_coco-256x192-55a04c35_20221016.pth"),
        _mmpose(_MOBILE, "coco", _HIGH, 67.7, 38, "mobilenetv2_8xb64-210e_coco-384x288-d3ab1457_20221013.pth"),
        _mmpose(_R50, "mpii", _SQUARE, 88.2, 136, "resnet/res50_mpii_256x256-418ffc88_20200812.pth"),
        _mmpose(_R101, "mpii", _SQUARE, 88.8, 212, "resnet/res101_mpii_256x256-416f5d71_20200812.pth"),
        _mmpose(_R152, "mpii", _SQUARE, 88.9, 275, "resnet/res152_mpii_256x256-3ecba29d_20200812.pth"),
        _mmpose(_MOBILE, "mpii", _SQUARE, 85.4, 38, "mobilenetv2/mobilenetv2_mpii_256x256-e068afa7_20200812.pth"),
    ]
)


def list_presets() -> dict[str, Preset]:
    """The presets: name -> `Preset` with network, data, result, size, licence and source; printed, a line for each."""
    return Presets(PRESETS)


def exported_file(name: str) -> Path:
    """The `.tflite` file of a preset that comes with the package, which makes heatmaps; its sidecar lies beside it.

    Raises:
        InputError: there is no such preset, or it is one that is downloaded.
    """
    name = lookup("preset", name, PRESETS)
    if PRESETS[name].address:
        inside = ", ".join(key for key, preset in PRESETS.items() if not preset.address)
        raise InputError(f"The preset {name!r} is downloaded; exported networks and crops come with {inside} alone.")
    return FOLDER / name / LITERT


def read_crops(name: str) -> np.ndarray:
    """Crops ``(n, height, width, 3)`` float32 RGB 0..255 that come with a preset, in which people are.

    Raises:
        InputError: there is no such preset, it is one that is downloaded, or its file is damaged.
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
