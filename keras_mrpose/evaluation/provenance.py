"""Provenance of a result: settings, hashes, versions."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.codecs import CODECS, Codec
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.suppression import SUPPRESSIONS
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime.litert import ExportedModel
from keras_mrpose.skeletons import SKELETONS, joint_map

PACKAGES = ("keras_mrpose", "keras", "tensorflow", "numpy", "pycocotools")
RUNTIME = "ai_edge_litert"  # of exported networks


@dataclass(frozen=True)
class Settings:
    """Choices left after a network has run: decoding, flip merge, selection. Defaults are the published ones.

    Args:
        codec: that decodes the heatmaps, a key of `codecs.CODECS`.
        flip_test: whether the heatmaps of the mirrored crop are averaged in.
        flip_shift: whether these are moved to where the codec says that they belong.
        suppression: COCO; ``"hard"``, ``"soft"`` or ``"none"``, see `suppression.rescore_and_nms`.
        oks_threshold: COCO; of the suppression.
        joint_threshold: COCO; joints above this score make a person's score.
        threshold: PCK; share of the torso that a joint may be off. (PCKh's is 0.5 of the head size.)
    """

    codec: str = "gaussian"
    flip_test: bool = True
    flip_shift: bool = True
    suppression: str = "hard"
    oks_threshold: float = 0.9
    joint_threshold: float = 0.2
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.suppression not in SUPPRESSIONS:
            raise InputError(f"Unknown suppression {self.suppression!r}; give one of {', '.join(SUPPRESSIONS)}.")
        if not self.oks_threshold > 0:
            raise InputError(f"The OKS threshold is {self.oks_threshold}; give a positive number, such as 0.9.")
        if not self.threshold > 0:
            raise InputError(f"The PCK threshold is {self.threshold}; give a positive share of the torso, such as 0.2.")

    @property
    def decoding(self) -> str:
        """Key of `Predictions.keypoints` for these settings, such as ``"gaussian/flip+shift"``."""
        flip = "flip+shift" if self.flip_shift else "flip"
        return f"{self.codec}/{flip if self.flip_test else 'single'}"


def decode_variants(codec: Codec, flip_test: bool) -> dict[str, tuple[Codec, bool]]:
    """All ways to decode a network's heatmaps: `Settings.decoding` -> codec, and whether it merges a flip test.

    Args:
        codec: one that can decode them; all others with the same scale can too, and get its sigma.
        flip_test: whether there are heatmaps of mirrored crops.
    """
    found = {}
    for name, kind in CODECS.items():
        decoder = codec if type(codec) is kind else kind(codec.sigma)
        if not np.array_equal(decoder.scale((96, 64)), codec.scale((96, 64))):
            continue
        found[f"{name}/single"] = decoder, False
        config = decoder.get_config()
        shifts = (False, True) if "flip_shift" in config else (None,)
        for shift in shifts if flip_test else ():
            merging = decoder if shift is None else kind.from_config({**config, "flip_shift": shift})
            found[f"{name}/flip+shift" if shift else f"{name}/flip"] = merging, True
    return found


def provenance(
    predictor: Predictor, people: People, truth: People, protocol: str, settings: dict, command: str | None = None
) -> dict:
    """How a result was made, ready for JSON.

    Args:
        predictor: the network.
        people: whose boxes were cropped.
        truth: the annotated people.
        protocol: key of `evaluate.PROTOCOLS`.
        settings: fields of `Settings` that change its numbers, and their values.
        command: command line that asked for it, if there was one.

    Returns:
        ``evaluation``, ``settings``, ``data``, ``boxes``, ``codec`` (with its arguments), ``network``, ``versions``,
        ``command``, ``time``. A hash of data is of the numbers, a hash of a file of its bytes.
    """
    packages = (*PACKAGES, RUNTIME) if isinstance(predictor.model, ExportedModel) else PACKAGES
    return {
        "evaluation": protocol,
        "settings": settings,
        "data": of_data(truth) | _unknown(predictor, truth),
        "boxes": of_boxes(people, truth),
        "codec": of_codec(predictor.codec),
        "network": of_network(predictor),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name.replace("_", "-")) for name in packages},
        "command": command,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def of_data(truth: People) -> dict:
    """Source, counts, who is left out and why, hash of the annotated people, and their skeleton unless built in.

    The hash is of boxes, joints and sizes.
    """
    images = truth.image_ids[truth.image_index]
    return {
        "annotations": _short(truth.source),
        "people": len(truth),
        "images": len(truth.image_ids),
        "left_out": dict(truth.left_out),
        "remarks": [remark.replace(truth.source, _short(truth.source)) for remark in truth.remarks],
        "sha256": _sha256(truth.boxes, truth.keypoints, truth.reference_length, images, truth.image_ids),
    } | ({} if truth.skeleton in SKELETONS.values() else {"skeleton": json.loads(json.dumps(truth.skeleton.to_dict()))})


def _unknown(predictor: Predictor, truth: People) -> dict:
    """Joints of the data that the network does not find, so that they do not count; empty if it finds all."""
    index = joint_map(predictor.skeleton, truth.skeleton)
    unknown = [joint for joint, place in zip(truth.skeleton.joints, index, strict=True) if place < 0]
    return {"joints_not_counted": unknown} if unknown else {}


def of_network(predictor: Predictor) -> dict:
    """Architecture, input and weight hash of the network (for an exported one, the hash of its file)."""
    model, spec = predictor.model, predictor.model.spec
    exported = isinstance(model, ExportedModel)
    return {
        "model": spec.get("name") or model.name,
        "backbone": spec.get("backbone"),
        "colour": f"RGB, {spec.get('preprocessing') or 'no'} preprocessing",
        "input_size": list(predictor.input_size),
        "precision": model.precision if exported else _precision(model),
        "trained_with": of_codec(model.codec),
        "weights_sha256": model.sha256 if exported else _sha256(*model.get_weights()),
    }


def of_codec(codec: Codec) -> dict:
    """Class and arguments of a codec."""
    return {"codec": type(codec).__name__, **codec.get_config()}


def of_boxes(people: People, truth: People) -> dict:
    """Origin of the boxes: annotated or detected, with the number of images whose people have no box at all."""
    if people is truth:
        return {"kind": "annotated"}
    without = np.isin(truth.image_ids, people.image_ids[people.image_index], invert=True)
    with_people = np.isin(truth.image_ids, truth.image_ids[truth.image_index])
    return {
        "kind": "detected",
        "file": _short(people.source),
        "file_sha256": hashlib.sha256(Path(people.source).read_bytes()).hexdigest(),
        "count": len(people),
        "lowest_score": float(people.scores.min()),
        "images_of_people_without_boxes": int((without & with_people).sum()),
    }


def _precision(model: keras.Model) -> str:
    """Name of the dtype policy that most layers have: under a mixed one some stay in float32."""
    policies = {layer.dtype_policy.name for layer in model.layers}
    return min(policies - {"float32"}, default="float32")


def _short(source: str) -> str:
    """File name with its folder: the same wherever the data lie."""
    return "/".join(Path(source).parts[-2:])


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array)
    return digest.hexdigest()
