"""The training loss: squared error of the heatmaps, joints without a label left out."""

from __future__ import annotations

import keras
from keras import ops

from keras_mrpose.heatmaps import Codec, GaussianCodec


@keras.saving.register_keras_serializable("keras_mrpose")
class HeatmapMSE(keras.losses.Loss):
    """``0.5 * mean over joints and pixels of (weight * (predicted - target))**2``, one value per sample.

    The target heatmaps are made here, on the device, from the joints. The weight enters squared and the mean is over
    all joints, labelled or not, as in the published code; per sample, because Keras and `MirroredStrategy` average
    over samples themselves.

    Args:
        codec: makes the target heatmaps; the same object that decodes the network's output.

    Call arguments:
        target: ``(batch, joints, 4)``: x, y (heatmap pixels), weight, normalizer (not used here).
        heatmaps: ``(batch, height, width, joints)``, the network's output.
    """

    def __init__(self, codec: Codec | None = None, name: str = "heatmap_mse", **kwargs):
        super().__init__(name=name, **kwargs)
        self.codec = codec or GaussianCodec()

    def call(self, y_true, y_pred):
        """Loss of each sample, ``(batch,)``."""
        target, weights = self.codec.encode(y_true[..., :2], y_true[..., 2], tuple(y_pred.shape[1:3]))
        error = ops.square(weights[:, None, None, :] * (y_pred - target))
        return 0.5 * ops.mean(error, axis=(1, 2, 3))

    def get_config(self) -> dict:
        """The arguments that make this loss again."""
        return {**super().get_config(), "codec": keras.saving.serialize_keras_object(self.codec)}

    @classmethod
    def from_config(cls, config: dict) -> HeatmapMSE:
        """The inverse of `get_config`."""
        return cls(**{**config, "codec": keras.saving.deserialize_keras_object(config["codec"])})
