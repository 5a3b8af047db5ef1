"""The two networks that are exported: one ends in heatmaps, the other in joints."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_mrpose.codecs import Codec
from keras_mrpose.errors import InputError
from keras_mrpose.models.fuse import fuse_for_inference
from keras_mrpose.models.networks import PoseModel


class Decoder(keras.layers.Layer):
    """Heatmaps ``(n, height / 4, width / 4, joints)`` to joints ``(n, joints, 3)``: x, y in crop pixels, and score.

    Args:
        codec: reads the heatmaps.
        input_size: ``(height, width)`` of the crops.
    """

    def __init__(self, codec: Codec, input_size: tuple[int, int], **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.codec, self.input_size = codec, input_size

    def call(self, heatmaps):
        """The joints.

        They are put together by sums: a concatenation would give scores and positions, and by way of the scores the
        heatmaps, one common quantization.
        """
        points, scores = self.codec.decode(heatmaps)
        to_pixels = np.diag([*(1 / self.codec.scale(self.input_size)), 1]).astype(np.float32)
        return points[..., :1] * to_pixels[0] + points[..., 1:] * to_pixels[1] + scores[..., None] * to_pixels[2]


class FlipTest(keras.layers.Layer):
    """Merges the heatmaps of an image and those of its mirror image, which lie behind each other in one batch.

    Args:
        codec: whose rule it is.
        mirrored: `Skeleton.flip_indices`.
    """

    def __init__(self, codec: Codec, mirrored, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.codec, self.mirrored = codec, mirrored

    def call(self, heatmaps):
        """``(2 n, height, width, joints)`` to ``(n, height, width, joints)``."""
        half = heatmaps.shape[0] // 2
        return self.codec.merge_flipped(heatmaps[:half], heatmaps[half:], self.mirrored)


def heatmaps(model: PoseModel, deconvolution: str = "depth_to_space", batch: int = 1) -> keras.Model:
    """The network as it is exported, of a static batch: the same function, with its batch norms folded.

    Args:
        model: made by `keras_mrpose.build`.
        deconvolution: how transposed convolutions are computed: `keras_mrpose.models.fuse.rewritten`.
        batch: crops at once; a phone has one.

    Returns:
        A Functional model from ``image`` ``(batch, H, W, 3)``, RGB 0..255, to heatmaps ``(batch, H/4, W/4, joints)``.

    Raises:
        InputError: the model was built without its preprocessing, or `deconvolution` is unknown.
    """
    image = keras.Input(batch_shape=(batch, *model.input_shape[1:]), name="image")
    return keras.Model(image, _network(model, deconvolution)(image), name=model.name)


def keypoints(
    model: PoseModel, deconvolution: str = "depth_to_space", flip: bool = False, batch: int = 1
) -> keras.Model:
    """`heatmaps`, decoded inside by the model's own codec.

    Args:
        model: made by `keras_mrpose.build`.
        deconvolution: as for `heatmaps`.
        flip: also look at the mirror image and average (twice the work).
        batch: as for `heatmaps`.

    Returns:
        A Functional model from ``image`` ``(batch, H, W, 3)``, RGB 0..255, to joints ``(batch, joints, 3)``: x, y in
        crop pixels, and the height of the heatmap's peak.
    """
    image = x = keras.Input(batch_shape=(batch, *model.input_shape[1:]), name="image")
    if flip:
        x = ops.concatenate([image, ops.flip(image, axis=2)], axis=0)
    maps = _network(model, deconvolution)(x)
    if flip:
        maps = FlipTest(model.codec, model.skeleton.flip_indices, name="flip_test")(maps)
    joints = Decoder(model.codec, tuple(model.input_shape[1:3]), name="joints")(maps)
    return keras.Model(image, joints, name=model.name)


def _network(model: PoseModel, deconvolution: str) -> keras.Model:
    if not model.spec.get("include_preprocessing", True):
        raise InputError(
            f"{model.name} was built with include_preprocessing=False and does not take RGB 0..255; build it with its "
            "preprocessing to export it."
        )
    return fuse_for_inference(model, deconvolution=deconvolution)
