"""The training loss: mean squared error of the heatmaps over labelled joints."""

from __future__ import annotations

import keras
from keras import ops

from keras_mrpose.codecs import Codec, GaussianCodec
from keras_mrpose.errors import InputError


@keras.saving.register_keras_serializable("keras_mrpose")
class HeatmapMSE(keras.losses.Loss):
    """``0.5 * mean over joints and pixels of (weight * (predicted - target))**2``, one value per sample.

    The target heatmaps are made here, on the device, from the joints. The weight enters squared and the mean is over
    all joints, labelled or not, as in the published code; per sample, because Keras and `MirroredStrategy` average
    over samples themselves.

    With `ohkm_topk` (online hard keypoint mining) the mean is over those joints of each person whose ``mean over
    pixels of (weight * difference)**2`` is highest. A joint without a label has 0: it is among them only if there are
    fewer labels, and then counts as 0. `ohkm_topk` equal to the number of joints gives the plain loss.

    Args:
        codec: encodes the target heatmaps, as the network's codec decodes them; None takes that of the network that
            the loss is compiled with (`PoseModel.compile`), and `GaussianCodec()` without one.
        ohkm_topk: how many joints of each person; 0 is all.

    Call arguments:
        target: ``(batch, joints, 4)``: x, y (heatmap pixels), weight, reference_length (not used here).
        heatmaps: ``(batch, height, width, joints)``, the network's output.

    Source: the published code; hard keypoint mining is from Chen et al., "Cascaded Pyramid Network for Multi-Person
    Pose Estimation", CVPR 2018, section 3.2 (8 of COCO's 17).
    """

    def __init__(self, codec: Codec | None = None, ohkm_topk: int = 0, name: str = "heatmap_mse", **kwargs):
        super().__init__(name=name, **kwargs)
        self.codec_given = codec is not None
        self.codec = codec or GaussianCodec()
        self.ohkm_topk = ohkm_topk

    def call(self, y_true, y_pred):
        """Loss of each sample, ``(batch,)``."""
        if len(y_true.shape) != 3 or len(y_pred.shape) != 4 or y_true.shape[1] not in (None, y_pred.shape[-1]):
            raise InputError(
                f"The loss {self.name!r} got a target of shape {tuple(y_true.shape)} and heatmaps of shape "
                f"{tuple(y_pred.shape)}; give (batch, joints, 4) and (batch, height, width, joints), with the "
                "network's joints in the target."
            )
        target, weights = self.codec.encode(y_true[..., :2], y_true[..., 2], tuple(y_pred.shape[1:3]))
        error = ops.square(weights[:, None, None, :] * (y_pred - target))
        if not self.ohkm_topk:
            return 0.5 * ops.mean(error, axis=(1, 2, 3))
        joints, _ = ops.top_k(ops.mean(error, axis=(1, 2)), self.ohkm_topk)
        return 0.5 * ops.mean(joints, axis=1)

    def get_config(self) -> dict:
        """The arguments of this loss."""
        codec = keras.saving.serialize_keras_object(self.codec) if self.codec_given else None
        return {**super().get_config(), "codec": codec, "ohkm_topk": self.ohkm_topk}

    @classmethod
    def from_config(cls, config: dict) -> HeatmapMSE:
        """A loss from `get_config`."""
        return cls(**{**config, "codec": keras.saving.deserialize_keras_object(config["codec"])})
