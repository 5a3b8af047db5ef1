"""The moving average of the weights, with batch-norm statistics of its own, swapped in for the weights for a while.

It is what a training validates, shows and saves; the training itself goes on with the weights. The average is a
variable of the optimizer (`keras_mrpose.optimizers.Adam` with `use_ema`), so it is saved and restored with it.

The moving statistics of the batch norms belong to the weights of the last steps and do not fit averaged ones. They are
recomputed over training batches for the averaged weights ("precise BN": `PreciseBNHook` in MMEngine, `update_bn` in
PyTorch's SWA). Nothing of that is saved: it depends on the average and the batches only, so that a training that goes
on makes the same statistics again.

Keras' `SwapEMAWeights` swaps by additions and subtractions under TensorFlow, which rounds the weights.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import keras
import numpy as np
import tensorflow as tf
from keras import ops

# A channel's mean over so many crops is off by 1/sqrt(512) = 4 % of what it varies by from crop to crop; an epoch of
# some thousand people takes 5 % longer. The variance of batch means needs several of them.
PRECISE_BN_CROPS, PRECISE_BN_MIN_BATCHES = 512, 8


class AveragedWeights:
    """Swaps the averaged weights into a network, with batch-norm statistics recomputed for them.

    Recomputed is what training mode moves: not a frozen batch norm, nor one of momentum 1. Its mean is the mean of the
    batches' means, its variance that over all batches: the mean of their variances plus the variance of their means.

    Args:
        model: compiled, its optimizer built.
        batches: gives the training batches to recompute with, images first, the same at each call.
        broadcast: gives all processes the arrays of one, where several train together.
    """

    def __init__(
        self,
        model: keras.Model,
        batches: Callable[[], Iterable],
        broadcast: Callable[[list[np.ndarray]], list[np.ndarray]] = lambda arrays: arrays,
    ):
        self.model, self.batches, self.broadcast = model, batches, broadcast
        self._norms = [
            layer
            for layer in model._flatten_layers()  # also of networks that are layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable and layer.momentum < 1
        ]
        self._moving = [norm.moving_mean for norm in self._norms] + [norm.moving_variance for norm in self._norms]
        self._batch_statistics = _batch_statistics(model, self._moving)
        self._recomputed: tuple[int, list[np.ndarray]] | None = None

    @property
    def _optimizer(self) -> keras.Optimizer:
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer)  # float16's loss scale wraps it

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within it the network is the averaged one, after it as before, to the bit; without an average no change.

        The optimizer's variables stay as they are: what is saved within it has the averaged weights in the model.
        Between two steps of the optimizer the statistics are recomputed once.
        """
        if not self._optimizer.use_ema:
            yield
            return
        statistics = self._statistics()
        variables = [*self.model.trainable_variables, *self._moving]
        own = [(replica, ops.copy(replica)) for variable in variables for replica in _replicas(variable)]
        try:
            # Copies: under JAX two variables would share an array, which `fit` gives away.
            averages = [ops.copy(average) for average in self._optimizer._model_variables_moving_average]
            for variable, value in zip(variables, averages + [np.array(value) for value in statistics], strict=True):
                variable.assign(value)
            yield
        finally:
            for replica, value in own:
                replica.assign(value)

    def _statistics(self) -> list[np.ndarray]:
        """The moving variables' values for the averaged weights."""
        step = int(self._optimizer.iterations.numpy())
        if self._recomputed is None or self._recomputed[0] != step:
            self._recomputed = step, self.broadcast(self._recompute())
        return self._recomputed[1]

    def _recompute(self) -> list[np.ndarray]:
        if not self._norms:
            return []
        # Every process computes for itself, on one device: plain arrays are of no strategy or distribution.
        averages = [_plain(average) for average in self._optimizer._model_variables_moving_average]
        others = [_plain(variable) for variable in self.model.non_trainable_variables]
        channels = [norm.moving_mean.shape[0] for norm in self._norms]
        share = np.repeat([1 - norm.momentum for norm in self._norms], channels)  # that a batch has in a moving value
        mean = variance = spread = 0.0  # of all channels, in float64, by Welford's update
        with np.errstate(invalid="ignore", over="ignore"):  # weights that are not finite are StopOnNaN's to tell
            for count, (images, *_) in enumerate(self.batches(), start=1):
                moved = self._batch_statistics(averages, others, _plain(images))
                batch_mean, batch_variance = (np.float64(ops.convert_to_numpy(value)) / share for value in moved)
                difference = batch_mean - mean
                mean = mean + difference / count
                spread = spread + difference * (batch_mean - mean)
                variance = variance + (batch_variance - variance) / count
            variance = variance + spread / count
            ends = np.cumsum(channels)[:-1]
            return [np.float32(value) for values in (mean, variance) for value in np.split(values, ends)]


class ValidateAveraged(keras.callbacks.Callback):
    """Has each validation judge the averaged weights.

    Args:
        averaged: of the network.
    """

    def __init__(self, averaged: AveragedWeights):
        super().__init__()
        self.averaged = averaged
        self.validation = ExitStack()  # in a `with` around `fit`: a validation that breaks off has no end

    def on_test_begin(self, logs=None):
        """The average comes in."""
        self.validation.enter_context(self.averaged.swapped_in())

    def on_test_end(self, logs=None):
        """The weights come back."""
        self.validation.close()


def precise_bn_batches(batch_size: int, steps: int) -> int:
    """How many batches to recompute statistics with, where an epoch has `steps`: a small data set is not read twice."""
    return max(PRECISE_BN_MIN_BATCHES, min(math.ceil(PRECISE_BN_CROPS / batch_size), steps))


def _batch_statistics(model: keras.Model, moving: list[keras.Variable]) -> Callable:
    """A compiled function of weights, other variables and images: where a training step moves `moving` to, from 0.

    Means and variances, each as one array of all channels.
    """
    place = {id(variable): index for index, variable in enumerate(model.non_trainable_variables)}
    places = [place[id(variable)] for variable in moving]
    half = len(places) // 2

    def batch_statistics(weights, others, images):
        others = [ops.zeros_like(value) if i in places else value for i, value in enumerate(others)]
        _, others = model.stateless_call(weights, others, images, training=True)
        moved = [others[i] for i in places]
        return ops.concatenate(moved[:half]), ops.concatenate(moved[half:])

    if keras.backend.backend() == "jax":
        return importlib.import_module("jax").jit(batch_statistics)
    return tf.function(batch_statistics, autograph=False)


def _plain(variable):
    return ops.convert_to_tensor(ops.convert_to_numpy(variable))


def _replicas(variable: keras.Variable) -> list:
    """The variable, or under `MirroredStrategy` that of each device: Keras' own batch norms differ there."""
    return getattr(variable.value, "values", None) or [variable]
