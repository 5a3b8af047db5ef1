"""An exported network with the face of a `PoseModel`, read from its file and the sidecar beside it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from keras_mrpose.codecs import CODECS, Codec
from keras_mrpose.errors import InputError, lookup, short_message
from keras_mrpose.runtime.interpreter import Interpreter
from keras_mrpose.skeletons import Skeleton

SIDECAR, VERSION = "model.json", 1
OUTPUTS = ("heatmaps", "keypoints")


class ExportedModel:
    """A `.tflite` file that predicts and is evaluated like the model that it was made from.

    Args:
        path: the file, as it was exported: the sidecar ``model.json`` in its folder says what it is.

    Attributes:
        name: of the model.
        skeleton: its joints.
        codec: reads its heatmaps, or has read them inside the network.
        twin: "heatmaps", or "keypoints" for joints ``(joints, 3)``: x, y in crop pixels, score.
        input_shape: ``(1, height, width, 3)``.
        spec: name, backbone and preprocessing as of a `PoseModel`; None what the sidecar does not tell.
        precision: "litert" and the form that it was exported in.
        sha256: of the file.

    Raises:
        InputError: no such file; a sidecar that is missing, damaged or does not describe it; another file than the
            one that was exported; or ai-edge-litert is not installed.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        sidecar = path.with_name(SIDECAR)
        self.sha256 = _sha256(path)
        about = _read(sidecar, path)
        try:
            hashed, shapes = self._describe(about, about["files"][path.name])
        except KeyError as missing:
            raise InputError(f"{sidecar} has no entry {missing}, which {path.name} needs; export it again.") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            why = short_message(error).rstrip(".")
            raise InputError(f"{sidecar} does not describe a network ({why}); export it again.") from error
        if hashed != self.sha256:
            raise InputError(
                f"{path} is not the file that {sidecar} describes (its SHA-256 is another): it is damaged, or one of "
                "the two is of another export; export it again."
            )
        self._network = Interpreter(path)
        self.input_shape = self._network.input_shape
        if (made := (self.input_shape, self._network.output_shape)) != shapes:
            raise InputError(
                f"{path} makes {made[1]} of {made[0]}, but {sidecar} describes a network that makes {shapes[1]} of "
                f"{shapes[0]}; export it again."
            )

    def _describe(self, about: dict, entry: dict) -> tuple[str, tuple]:
        """Take over what the sidecar says; returns the file's hash and the shapes of input and output by it."""
        codec = dict(about["codec"])
        kind = CODECS[lookup("codec", codec.pop("name"), CODECS)]
        codec.pop("scale", None)  # for readers that have no codecs
        self.name: str = about["name"]
        self.skeleton = Skeleton.from_dict(about["skeleton"])
        self.codec: Codec = kind.from_config(codec)
        self.output = lookup("output", entry["output"], OUTPUTS)
        self.precision = f"litert {entry['form']}"
        preprocessing = about["made_from"].get("preprocessing")
        self.spec = {"name": about["model"], "backbone": about["backbone"], "preprocessing": preprocessing}
        joints = self.skeleton.num_joints
        made = (*about["heatmaps"]["size"], joints) if self.output == "heatmaps" else (joints, 3)
        return entry["sha256"], ((1, *about["input"]["size"], 3), (1, *made))

    def predict_on_batch(self, crops: np.ndarray) -> np.ndarray:
        """Float32 heatmaps ``(n, height / 4, width / 4, joints)``, or joints ``(n, joints, 3)``, one crop at a time.

        Args:
            crops: ``(n, height, width, 3)``, RGB 0..255.
        """
        return self._network(crops)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"The network {path} cannot be read: {error.strerror}.") from None


def _read(sidecar: Path, path: Path) -> dict:
    """The sidecar of a network, of this version and with an entry for it."""
    try:
        about = json.loads(sidecar.read_text())
        version = about["version"]
        files = list(about["files"])
    except FileNotFoundError:
        raise InputError(f"{sidecar} is not there: it tells what {path.name} is; keep the two together.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{sidecar} is damaged or not of an export ({short_message(error)}); export {path.name} again."
        ) from error
    if version != VERSION:
        raise InputError(f"{sidecar} is of version {version}, this library reads {VERSION}; export {path.name} again.")
    if path.name not in files:
        raise InputError(
            f"{sidecar} knows no {path.name}, only {', '.join(map(str, files))}; keep the names of an export."
        )
    return about
