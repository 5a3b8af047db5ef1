"""What has to agree where a network meets its loss, its metrics and its data; else one sentence names both.

Seen is what an object says of itself. A data set made by `data.pipeline.batches` says its codec, its reference length
and its steps per epoch; after `map`, `prefetch` and the like it is another data set, which says nothing but its shapes
and whether it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_mrpose.codecs import Codec
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import METRIC_NAMES, metric
from keras_mrpose.skeletons import Skeleton

LOSS_NAMES = {"heatmap_mse": HeatmapMSE}
_INFINITE = -1  # `tf.data.INFINITE_CARDINALITY`


def own_metrics(skeleton: Skeleton) -> list[keras.metrics.Metric]:
    """Metrics of a network that nobody chose any for: PCK, or OKS-AP where the skeleton has no torso."""
    return [metric("pck" if skeleton.torso else "oks_ap", skeleton)]


def named(parts: Any, skeleton: Skeleton) -> Any:
    """Losses and metrics as `compile` takes them, those of this package in the place of their names."""
    if isinstance(parts, dict):
        return {key: named(part, skeleton) for key, part in parts.items()}
    if isinstance(parts, list | tuple):
        return [named(part, skeleton) for part in parts]
    if parts in METRIC_NAMES:
        return metric(parts, skeleton)
    return LOSS_NAMES[parts]() if parts in tuple(LOSS_NAMES) else parts


def give_codec(codec: Codec, parts: Any) -> None:
    """Give the network's codec to the losses and metrics that have none.

    Args:
        codec: the network's.
        parts: losses and metrics as `compile` takes them, nested or None.

    Raises:
        InputError: one has another codec.
    """
    for part in keras.tree.flatten(parts):
        own = getattr(part, "codec", None)
        if not isinstance(own, Codec):
            continue
        if getattr(part, "codec_given", True) and own != codec:
            raise InputError(
                f"{type(part).__name__} {part.name!r} has the codec {own!r} and the network {codec!r}; leave the "
                f"codec of {type(part).__name__} out, or build the network with that one (codec=...)."
            )
        part.codec, part.codec_given = codec, True


def lengths_of(metrics: Any) -> dict[str, str]:
    """What the target's fourth column has to be, for each metric (by its name) that cares."""
    named = ((part, getattr(part, "divides_by", "")) for part in keras.tree.flatten(metrics))
    return {part.name: length for part, length in named if length}


def check_data(model: keras.Model, codec: Codec, lengths: dict[str, str], data: Any, target: Any = None) -> None:
    """Raise an `InputError` if images or targets are not what the network, its loss and its metrics take.

    Args:
        model: takes images ``(batch, height, width, 3)``.
        codec: the network's.
        lengths: see `lengths_of`.
        data: a data set of images and targets, or the images.
        target: the targets, if they do not come with the images.
    """
    spec = getattr(data, "element_spec", None)
    images, target = spec[:2] if isinstance(spec, tuple) and len(spec) > 1 else (data, target)
    (_, *size, _), (*_, joints) = model.input_shape, model.output_shape
    found = _shape(images, 4)[1:3]
    if _differ(found, size):
        raise InputError(
            f"The images are {found[0]}x{found[1]} (height x width), but the network takes {size[0]}x{size[1]}; make "
            f"batches with input_size=({size[0]}, {size[1]}), or build the network for them."
        )
    found = _shape(target, 3)[1:2]
    if _differ(found, (joints,)):
        raise InputError(
            f"The targets have {found[0]} joints, but the network {joints}; build it with the skeleton of the people."
        )
    own = getattr(data, "codec", None)
    if isinstance(own, Codec) and not np.array_equal(own.scale(tuple(size)), codec.scale(tuple(size))):
        raise InputError(
            f"The targets are made for the codec {own!r}, which puts joints elsewhere in the heatmaps than the "
            f"network's {codec!r}; make batches with codec=model.codec."
        )
    own = getattr(data, "reference_length", "")
    for name, length in lengths.items():
        if own and own != length:
            raise InputError(
                f"The metric {name!r} divides by the {length}, but the reference length of these people is the {own}; "
                "take the metric of their data set: OKSAP (COCO), PCKh (MPII), or PCK with torso=skeleton.torso."
            )


def steps_of(data: Any, argument: str) -> int | None:
    """The length of an epoch of data without end; None for data that end.

    Args:
        data: for `fit` or `evaluate`.
        argument: the argument that says the length, for the message.

    Raises:
        InputError: the data do not end, and do not say how long an epoch is.
    """
    cardinality = getattr(data, "cardinality", None)
    cardinality = cardinality() if callable(cardinality) else cardinality
    if cardinality is None or int(cardinality) != _INFINITE:
        return None
    steps = getattr(data, "steps_per_epoch", None)
    if steps is None:
        raise InputError(
            f"The data have no end and do not say how long an epoch is; give {argument}, such as len(people) // "
            "batch_size."
        )
    return steps


def _shape(values: Any, rank: int) -> tuple[int | None, ...]:
    """The shape of a tensor or of its spec if it has this rank, else nothing."""
    shape = getattr(values, "shape", None)
    if shape is None or getattr(shape, "rank", rank) is None or len(shape) != rank:
        return ()
    return tuple(shape)


def _differ(found: Iterable[int | None], wanted: Iterable[int]) -> bool:
    """Whether a known number is another than the wanted one."""
    return any(one not in (None, other) for one, other in zip(found, wanted, strict=False))
