"""The two networks that are exported: one outputs heatmaps, the other keypoints."""

from __future__ import annotations

import keras
import numpy as np

from keras_mrpose.codecs import Codec
from keras_mrpose.errors import InputError
from keras_mrpose.models.fuse import fuse_for_inference
from keras_mrpose.models.networks import PoseModel


class Decoder(keras.layers.Layer):
    """Heatmaps ``(n, height / 4, width / 4, joints)`` to joints ``(n, joints, 3)``: x, y in crop pixels, and score.

    Args:
        codec: decodes the heatmaps.
        input_size: ``(height, width)`` of the crops.
    """

    def __init__(self, codec: Codec, input_size: tuple[int, int], **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.codec, self.input_size = codec, input_size

    def call(self, heatmaps):
        """The joints.

        Avoids `concatenate`, which would force one int8 scale on scores and coordinates, and by way of the scores on
        the heatmaps: x, y and score are added into their columns instead.
        """
        points, scores = self.codec.decode(heatmaps)
        to_pixels = np.diag([*(1 / self.codec.scale(self.input_size)), 1]).astype(np.float32)
        return points[..., :1] * to_pixels[0] + points[..., 1:] * to_pixels[1] + scores[..., None] * to_pixels[2]


def heatmaps(model: PoseModel, deconvolution: str = "depth_to_space", batch: int = 1) -> keras.Model:
    """The network as it is exported: static batch, batch norms folded, otherwise the same function.

    Args:
        model: made by `keras_mrpose.build`.
        deconvolution: how transposed convolutions are computed, see `keras_mrpose.models.fuse.fuse_for_inference`.
        batch: crops per call; a phone has one.

    Returns:
        A Functional model from ``image`` ``(batch, H, W, 3)``, RGB 0..255, to heatmaps ``(batch, H/4, W/4, joints)``.

    Raises:
        InputError: the model was built without its preprocessing, or `deconvolution` is unknown.
    """
    image = keras.Input(batch_shape=(batch, *model.input_shape[1:]), name="image")
    return keras.Model(image, _fused(model, deconvolution)(image), name=model.name)


def keypoints(model: PoseModel, deconvolution: str = "depth_to_space", batch: int = 1) -> keras.Model:
    """The network as it is exported, with its heatmaps decoded inside by its own codec.

    Args and Raises: as for `heatmaps`.

    Returns:
        A Functional model from ``image`` ``(batch, H, W, 3)``, RGB 0..255, to joints ``(batch, joints, 3)``: x, y in
        crop pixels, and the height of the heatmap's peak.
    """
    image = keras.Input(batch_shape=(batch, *model.input_shape[1:]), name="image")
    maps = _fused(model, deconvolution)(image)
    joints = Decoder(model.codec, tuple(model.input_shape[1:3]), name="joints")(maps)
    return keras.Model(image, joints, name=model.name)


def _fused(model: PoseModel, deconvolution: str) -> keras.Model:
    if not model.spec.get("include_preprocessing", True):
        raise InputError(
            f"{model.name} was built with include_preprocessing=False and does not take RGB 0..255; build it with its "
            "preprocessing to export it."
        )
    return fuse_for_inference(model, deconvolution=deconvolution)
