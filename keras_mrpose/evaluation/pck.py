"""How good a network is on a data set, as exact numbers that say how they were made."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.predictor import Predictor, crop_matrices, to_image


@dataclass(frozen=True)
class Result:
    """What an evaluation found.

    Attributes:
        protocol: how it was made: data, boxes, flip test, codec, input size, versions.
        pck: per joint name, the share of correct joints (None where no joint was labelled).
        mean: correct joints / labelled joints, over all of them.
        threshold: of the PCK, a share of the torso.
        people: number evaluated.
        skipped: people left out because right hip or left shoulder is not labelled.
        predictions: ``(people, joints, 3)`` x, y in image pixels, score.
    """

    protocol: dict
    pck: dict[str, float | None]
    mean: float
    threshold: float
    people: int
    skipped: int
    predictions: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write everything but the predictions as JSON; the folder is made if it is missing."""
        numbers = {
            f"PCK@{self.threshold:g}": {"mean": self.mean, **self.pck},
            "people": self.people,
            "people_without_torso": self.skipped,
            "protocol": self.protocol,
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(numbers, indent=2) + "\n")


def evaluate(predictor: Predictor, people: People, threshold: float = 0.2) -> Result:
    """PCK of a network on annotated people, each cropped by the annotated box.

    A joint is correct when it is off by at most `threshold` times the distance of the person's right hip and left
    shoulder (Tran et al. 2021), in image pixels and double precision; people without these two are not counted.

    Args:
        predictor: the network.
        people: with the same skeleton.
        threshold: share of the torso.

    Raises:
        InputError: another skeleton, one without a torso, nobody who can be counted, or an unreadable image.
    """
    skeleton = people.skeleton
    if skeleton.joints != predictor.skeleton.joints:
        raise InputError(
            f"{people.source} has {skeleton.num_joints} joints ({skeleton.name}), the network makes "
            f"{predictor.skeleton.num_joints} ({predictor.skeleton.name}); evaluate on data with the same joints."
        )
    if skeleton.torso is None:
        raise InputError(f"Skeleton {skeleton.name} has no right hip and left shoulder, which PCK's torso needs.")
    if not threshold > 0:
        raise InputError(f"The PCK threshold is {threshold}; give a positive share of the torso, such as 0.2.")
    truth, labelled = people.keypoints[..., :2], people.keypoints[..., 2] > 0
    hip, shoulder = skeleton.torso
    torso = np.linalg.norm(truth[:, hip] - truth[:, shoulder], axis=-1) * (labelled[:, hip] & labelled[:, shoulder])
    counted = labelled & (torso > 0)[:, None]
    if not counted.any():
        raise InputError(f"{people.source} has nobody with right hip and left shoulder labelled, PCK's torso.")
    found = predict_people(predictor, people)
    error = np.linalg.norm(found[..., :2] - truth, axis=-1)
    hits = (counted & (error <= threshold * torso[:, None])).sum(axis=0)
    labels = counted.sum(axis=0)
    shares = {name: hits[j] / labels[j] if labels[j] else None for j, name in enumerate(skeleton.joints)}
    return Result(
        protocol=protocol(predictor, people),
        pck=shares,
        mean=float(hits.sum() / labels.sum()),
        threshold=threshold,
        people=len(people),
        skipped=int((torso == 0).sum()),
        predictions=found,
    )


def predict_people(predictor: Predictor, people: People) -> np.ndarray:
    """Joints of annotated people in their boxes: ``(people, joints, 3)`` x, y in image pixels, score."""
    parts = []
    try:
        for images, _ in pipeline.batches(people, predictor.input_size, predictor.batch_size):
            parts.append(predictor.joints(images))
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        raise pipeline.explain_failure(people, error) from error
    points, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    points = to_image(points, crop_matrices(people.boxes, predictor.input_size))
    return np.concatenate([points, scores[..., None]], axis=-1)


def protocol(predictor: Predictor, people: People) -> dict:
    """How a result was made, for whoever compares it with another."""
    annotations = np.concatenate([people.boxes, people.keypoints.reshape(len(people), -1)], axis=1)
    return {
        "data": Path(people.source).parent.name + "/" + Path(people.source).name,
        "data_sha256": hashlib.sha256(annotations.tobytes()).hexdigest(),
        "boxes": "annotated",
        "model": predictor.model.name,
        "input_size": list(predictor.input_size),
        "codec": {"name": type(predictor.codec).__name__, **predictor.codec.get_config()},
        "flip_test": predictor.flip_test,
        "normalizer": "right hip to left shoulder",
        "versions": {name: metadata.version(name) for name in ("keras", "tensorflow", "numpy")}
        | {"python": platform.python_version()},
    }
