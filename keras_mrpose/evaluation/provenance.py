"""The stamp of a result: everything that somebody who gets another number would ask for."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.codecs import Codec
from keras_mrpose.data.people import People
from keras_mrpose.evaluation.protocols import PROTOCOLS
from keras_mrpose.evaluation.settings import Settings
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime.litert import ExportedModel
from keras_mrpose.skeletons import SKELETONS, joint_map

PACKAGES = ("keras_mrpose", "keras", "tensorflow", "numpy", "pycocotools")
RUNTIME = "ai_edge_litert"  # of exported networks


def provenance(predictor: Predictor, people: People, truth: People, protocol: str, settings: Settings) -> dict:
    """How a result was made, ready for JSON.

    Returns:
        ``evaluation``, ``settings`` (those that change its numbers), ``data``, ``boxes``, ``codec`` (with its
        arguments), ``network``, ``versions``, ``command``, ``time``. A hash of data is of the numbers, a hash of a file
        of its bytes.
    """
    packages = (*PACKAGES, RUNTIME) if isinstance(predictor.model, ExportedModel) else PACKAGES
    chosen = {name: value for name, value in asdict(settings).items() if name in PROTOCOLS[protocol].settings}
    return {
        "evaluation": protocol,
        "settings": chosen,
        "data": of_data(truth) | _unknown(predictor, truth),
        "boxes": of_boxes(people, truth),
        "codec": of_codec(predictor.codec),
        "network": of_network(predictor),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name.replace("_", "-")) for name in packages},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def of_data(truth: People) -> dict:
    """What the annotated people are, and the hash of their boxes, joints and sizes; and the skeleton, if it is new."""
    images = truth.image_ids[truth.image_index]
    return {
        "annotations": _short(truth.source),
        "people": len(truth),
        "images": len(truth.image_ids),
        "sha256": _sha256(truth.boxes, truth.keypoints, truth.reference_length, images, truth.image_ids),
    } | ({} if truth.skeleton in SKELETONS.values() else {"skeleton": json.loads(json.dumps(truth.skeleton.to_dict()))})


def _unknown(predictor: Predictor, truth: People) -> dict:
    """Joints of the data that the network does not find, and that do not count; nothing if there are none."""
    index = joint_map(predictor.skeleton, truth.skeleton)
    unknown = [joint for joint, place in zip(truth.skeleton.joints, index, strict=True) if place < 0]
    return {"joints_not_counted": unknown} if unknown else {}


def of_network(predictor: Predictor) -> dict:
    """The network of a result: what it is, what it eats, and the hash of its weights (of its file, if exported)."""
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
    """A codec by its class and arguments."""
    return {"codec": type(codec).__name__, **codec.get_config()}


def of_boxes(people: People, truth: People) -> dict:
    """Where the crops come from; images without a box lose all their people."""
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
    """The policy that most of a network computes in: in mixed ones some layers stay in float32."""
    policies = {layer.dtype_policy.name for layer in model.layers}
    return min(policies - {"float32"}, default="float32")


def _short(source: str) -> str:
    """A file with its folder: enough to know it by, and the same wherever the data lie."""
    return "/".join(Path(source).parts[-2:])


def _sha256(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array)
    return digest.hexdigest()
