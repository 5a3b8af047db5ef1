"""How a recipe updates the weights: learning-rate schedule, optimizer, and the moving average of the weights.

The averaged weights are what a training validates, previews and saves; the training itself goes on with the weights.
The average is a variable of the optimizer (`keras_mrpose.optimizers.Adam` with `use_ema`), so it is saved and restored
with it.

The moving statistics of the batch norms belong to the weights of the last steps and do not fit averaged ones. They are
recomputed over training batches for the averaged weights ("precise BN": `PreciseBNHook` in MMEngine, `update_bn` in
PyTorch's SWA). They are not saved: they depend on the average and the batches only, so that a training that goes on
computes the same statistics again.

Measured on Leeds Sports Pose extended (MRFeaNet1 on an ImageNet MobileNetV2, 128x128, AdamW 1e-3, 2,000 people to
train, 400 to validate), an average of constant momentum 0.99 after two of three epochs, PCK (loss x 1e4): with the
statistics of the trained weights 37.4 (25.39), with statistics averaged like the weights 38.8 (24.95), recomputed over
512 augmented crops 38.8 (24.82), over 512 crops without augmentation 38.5 (24.98), over 128 augmented ones 38.7
(24.81). The trained weights themselves had 41.7 (24.14): so early, an average of so many steps lags behind.

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

from keras_mrpose.optimizers import Adam
from keras_mrpose.training.config import Recipe

# A channel's mean over so many crops is off by 1/sqrt(512) = 4 % of what it varies by from crop to crop; an epoch of
# some thousand people takes 5 % longer. The variance of batch means needs several of them.
PRECISE_BN_CROPS, PRECISE_BN_MIN_BATCHES = 512, 8


@keras.saving.register_keras_serializable("keras_mrpose")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up: another schedule, times a factor that rises from 0 to 1 over the first steps.

    Args:
        schedule: the other one.
        steps: of the warm-up, 1 or more.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int):
        self.schedule, self.steps = schedule, steps

    def __call__(self, step):
        """The learning rate at a step, counted from 0."""
        return self.schedule(step) * ops.minimum(1.0, ops.cast(step, "float32") / self.steps)

    def get_config(self) -> dict:
        """The arguments of this schedule."""
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict) -> WarmUp:
        """A schedule from `get_config`."""
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["steps"])


def build_optimizer(recipe: Recipe, steps: int) -> Adam:
    """The optimizer of a recipe, with its learning-rate schedule.

    Args:
        recipe: of the training.
        steps: per epoch.
    """
    return Adam(
        learning_rate_schedule(recipe, steps),
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay or None,
        use_ema=recipe.ema > 0,
        ema_momentum=recipe.ema,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
    )


def learning_rate_schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over all steps of a recipe.

    Args:
        recipe: of the training.
        steps: per epoch.
    """
    total = recipe.epochs * steps
    warmup = math.ceil(recipe.warmup * total)
    if recipe.schedule == "step":
        # Keras steps after a border, the published schedule at an epoch's first step. The last border is never crossed.
        borders = [max(1, round(share * recipe.epochs)) * steps - 1 for share in recipe.milestones] + [total]
        rates = [recipe.learning_rate * 0.1**i for i in range(len(borders) + 1)]
        constant = keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)
        return WarmUp(constant, warmup) if warmup else constant
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, total - warmup),
        alpha=0.01,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


class AveragedWeights:
    """Swaps the averaged weights into a network, with batch-norm statistics recomputed for them.

    Recomputed are the statistics that training updates: not those of a frozen batch norm, nor of one with momentum 1.
    The mean is the mean of the batches' means, the variance is the one over all batches: the mean of their variances
    plus the variance of their means.

    Args:
        model: compiled, its optimizer built.
        batches: returns the training batches to recompute with, images first, the same at each call.
        broadcast: returns the arrays of the main process, where several processes train together.
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
        """A context in which the network has the averaged weights; afterwards it has its own again, to the bit.

        Without an average nothing changes. The optimizer's variables stay as they are: what is saved within it has the
        averaged weights in the model. Between two steps of the optimizer the statistics are recomputed only once.
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
        """The values of the moving variables for the averaged weights."""
        step = int(self._optimizer.iterations.numpy())
        if self._recomputed is None or self._recomputed[0] != step:
            self._recomputed = step, self.broadcast(self._recompute())
        return self._recomputed[1]

    def _recompute(self) -> list[np.ndarray]:
        if not self._norms:
            return []
        # Every process computes for itself, on one device.
        averages = [_to_tensor(average) for average in self._optimizer._model_variables_moving_average]
        others = [_to_tensor(variable) for variable in self.model.non_trainable_variables]
        channels = [norm.moving_mean.shape[0] for norm in self._norms]
        share = np.repeat([1 - norm.momentum for norm in self._norms], channels)  # that a batch has in a moving value
        mean = variance = spread = 0.0  # of all channels, in float64, by Welford's update
        with np.errstate(invalid="ignore", over="ignore"):  # StopOnNaN reports weights that are not finite
            for count, (images, *_) in enumerate(self.batches(), start=1):
                moved = self._batch_statistics(averages, others, _to_tensor(images))
                batch_mean, batch_variance = (np.float64(ops.convert_to_numpy(value)) / share for value in moved)
                difference = batch_mean - mean
                mean = mean + difference / count
                spread = spread + difference * (batch_mean - mean)
                variance = variance + (batch_variance - variance) / count
            variance = variance + spread / count
            ends = np.cumsum(channels)[:-1]
            return [np.float32(value) for values in (mean, variance) for value in np.split(values, ends)]


class ValidateAveraged(keras.callbacks.Callback):
    """Makes each validation use the averaged weights.

    Args:
        averaged: the averaged weights of the network.
    """

    def __init__(self, averaged: AveragedWeights):
        super().__init__()
        self.averaged = averaged
        self.validation = ExitStack()  # in a `with` around `fit`: a validation that breaks off has no end

    def on_test_begin(self, logs=None):
        """Swap the averaged weights in."""
        self.validation.enter_context(self.averaged.swapped_in())

    def on_test_end(self, logs=None):
        """Swap the own weights back."""
        self.validation.close()


def precise_bn_batches(batch_size: int, steps: int) -> int:
    """The number of batches to recompute statistics with: at most an epoch's `steps`, unless these are very few."""
    return max(PRECISE_BN_MIN_BATCHES, min(math.ceil(PRECISE_BN_CROPS / batch_size), steps))


def _batch_statistics(model: keras.Model, moving: list[keras.Variable]) -> Callable:
    """Compile a function of weights, other variables and images that returns what a training step adds to `moving`.

    Means and variances, each as one array of all channels.
    """
    position = {id(variable): index for index, variable in enumerate(model.non_trainable_variables)}
    positions = [position[id(variable)] for variable in moving]
    half = len(positions) // 2

    def batch_statistics(weights, others, images):
        others = [ops.zeros_like(value) if i in positions else value for i, value in enumerate(others)]
        _, others = model.stateless_call(weights, others, images, training=True)
        moved = [others[i] for i in positions]
        return ops.concatenate(moved[:half]), ops.concatenate(moved[half:])

    if keras.backend.backend() == "jax":
        return importlib.import_module("jax").jit(batch_statistics)
    return tf.function(batch_statistics, autograph=False)


def _to_tensor(variable):
    """A tensor that belongs to no strategy or distribution."""
    return ops.convert_to_tensor(ops.convert_to_numpy(variable))


def _replicas(variable: keras.Variable) -> list:
    """The variable, or under `MirroredStrategy` its copy on each device: those of Keras' own batch norms differ."""
    return getattr(variable.value, "values", None) or [variable]
