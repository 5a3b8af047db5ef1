"""Batch norm as in the published training: one fused kernel on TensorFlow, equal statistics on all devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import ops

from keras_mrpose.errors import InputError

BN_MOMENTUM = 0.9

# The fused kernel and replicas exist on TensorFlow alone; on any other backend TensorFlow is not imported.
fused_batch_norm = distribute = None
if keras.backend.backend() == "tensorflow":
    from tensorflow import distribute
    from tensorflow.raw_ops import FusedBatchNormV3 as fused_batch_norm


@keras.saving.register_keras_serializable("keras_mrpose")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm over the last axis of (batch, height, width, channels).

    Differs from Keras' own in training mode only. The variance that enters the moving average is the unbiased one
    (divided by n - 1), as in the published code; the batch itself is normalised with the biased one. And TensorFlow
    does it in one fused kernel, in the layer's own compute type with float32 statistics, where Keras' layer takes a
    dozen float32 ops, a third of a training step on CPUs.

    Under `MirroredStrategy` each replica normalises its share of the batch by itself, and the moving averages take the
    mean of the replicas' statistics, so that all replicas keep the same ones (Keras' own layer lets them drift apart,
    and saves those of the first). A ``synchronized`` layer takes the statistics over the whole batch, as one device
    would. JAX always does, whatever ``synchronized`` says.
    """

    def __init__(self, *args, synchronized: bool = False, **kwargs):
        super().__init__(*args, **kwargs)
        self.synchronized = synchronized  # not given to Keras' layer, which refuses it on other backends

    def call(self, inputs, training=None, mask=None):
        """Normalise, and in training mode move the averages."""
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        replica = _replica_context()
        if fused_batch_norm and not (replica and self.synchronized):
            outputs, mean, variance = self._fused(inputs)
            if replica:
                mean, variance = replica.all_reduce("mean", [mean, variance])
        else:
            outputs, mean, variance = self._plain(inputs, replica)
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return outputs

    def _fused(self, inputs):
        """Output, mean and unbiased variance of a batch, in one fused kernel."""
        nothing = ops.zeros((0,), "float32")
        outputs, mean, variance, *_ = fused_batch_norm(
            x=inputs,
            scale=ops.cast(self.gamma, "float32"),
            offset=ops.cast(self.beta, "float32"),
            mean=nothing,
            variance=nothing,
            epsilon=self.epsilon,
            is_training=True,
        )
        return outputs, mean, variance

    def _plain(self, inputs, replica=None):
        """Output, mean and unbiased variance in Keras ops, over the batches of all replicas."""
        inputs = ops.cast(inputs, "float32")
        count = ops.cast(ops.size(inputs) // inputs.shape[-1], "float32")
        total = ops.sum(inputs, axis=(0, 1, 2))
        if replica:
            count, total = replica.all_reduce("sum", [count, total])
        mean = total / count
        squares = ops.sum(ops.square(inputs - mean), axis=(0, 1, 2))  # a mean of squares - mean**2 would lose digits
        if replica:
            squares = replica.all_reduce("sum", squares)
        outputs = ops.batch_normalization(
            inputs, mean, squares / count, axis=-1, offset=self.beta, scale=self.gamma, epsilon=self.epsilon
        )
        return ops.cast(outputs, self.compute_dtype), mean, squares / ops.maximum(count - 1, 1)


def synchronize(model: keras.Model) -> None:
    """Synchronize batch norms: each takes its statistics over the batches of all replicas. Call it before compiling.

    The devices then wait for each other twice per layer; worth it where a device's share of the batch is small.
    """
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.synchronized = True


def match_statistics(
    model: keras.Model,
    images: Iterable[np.ndarray],
    norms: Sequence[keras.layers.BatchNormalization] | None = None,
) -> None:
    """Set batch norm statistics to those of images, without changing what the model computes in inference mode.

    For batch norms whose averages do not fit the weights, as those of a file with folded batch norms: training mode,
    which takes the statistics of the batch, is another function then. Here the averages become mean and variance of
    each norm's inputs over all images, and gamma and beta make up for the change. In inference mode the model is the
    same up to rounding, and in training mode it is now nearly the same, too.

    No channel can blow up: a norm divides by sqrt(variance + epsilon). One that is constant over the images gets
    variance 0 and a gamma of sqrt(epsilon) times its old slope, and is still the same in inference mode.

    Args:
        model: a Functional model.
        images: batches ``(batch, ...)`` as the model takes them, all of one size, read once.
        norms: some of its batch norms, all if None. What the model computes behind the last of them is not run.

    Raises:
        InputError: there are no images, or a norm's inputs are not finite. Nothing has been assigned then.
    """
    if norms is None:
        norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    # A sum of squares less mean**2 would lose digits in float32; moments of each batch can be put together in float64.
    moments = keras.Model(model.input, {norm.name: _moments(norm) for norm in norms})
    counts, of_batches = [], []
    for batch in images:
        batch = np.asarray(batch)
        counts.append(len(batch))
        of_batches.append(moments.predict_on_batch(batch))
    if not counts:
        raise InputError("There are no images to take the statistics of batch norms from.")
    share = np.array(counts) / sum(counts)
    planned = []
    for norm in norms:
        means, variances = np.float64([of_norm[norm.name][0] for of_norm in of_batches]).swapaxes(0, 1)
        new_mean = np.float32(share @ means)
        new_variance = np.float32(share @ (variances + (means - new_mean) ** 2))
        if not (np.isfinite(new_mean).all() and np.isfinite(new_variance).all()):
            raise InputError(f"The inputs of the batch norm {norm.name} are not finite numbers for these images.")
        gamma, beta, mean, variance = (np.float64(values) for values in norm.get_weights())
        slope = gamma / np.sqrt(variance + norm.epsilon)
        new_gamma = slope * np.sqrt(np.float64(new_variance) + norm.epsilon)
        planned.append([new_gamma, beta + slope * (new_mean - mean), new_mean, new_variance])
    for norm, values in zip(norms, planned, strict=True):
        norm.set_weights(values)


def _moments(norm: keras.layers.BatchNormalization):
    """Symbolic mean and biased variance of a norm's inputs: (1, 2, channels)."""
    inputs = ops.cast(norm.input, "float32")
    axes = [axis for axis in range(len(inputs.shape)) if axis != norm.axis % len(inputs.shape)]
    mean = ops.mean(inputs, axis=axes, keepdims=True)
    variance = ops.mean(ops.square(inputs - mean), axis=axes)
    return ops.expand_dims(ops.stack([ops.reshape(mean, (-1,)), variance]), 0)


def _replica_context():
    """TensorFlow's replica context where a step runs on several devices at once, None elsewhere."""
    replica = distribute and distribute.get_replica_context()
    return replica if replica and replica.num_replicas_in_sync > 1 else None
