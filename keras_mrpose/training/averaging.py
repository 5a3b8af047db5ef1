"""The moving average of the weights, put in the place of the weights for a while.

It is what a training validates, shows and saves; the training itself goes on with the weights. The average is a
variable of the optimizer (`keras_mrpose.optimizers.Adam` with `use_ema`), so it is saved and restored with it. What
batch norms count is not averaged: it is a moving average already, of activations under the weights of the last steps.

Keras' `SwapEMAWeights` swaps by additions and subtractions under TensorFlow, which rounds the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import keras
import numpy as np


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Within it the model has its averaged weights, after it its own again, to the bit; without an average no change.

    The optimizer's variables stay as they are: what is saved within it has the averaged weights in the model.

    Args:
        model: compiled, its optimizer built.
    """
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16's loss scale wraps it
    if not optimizer.use_ema:
        yield
        return
    own = _copied(model.trainable_variables)
    _assign(model, _copied(optimizer._model_variables_moving_average))
    try:
        yield
    finally:
        _assign(model, own)


class ValidateAveraged(keras.callbacks.Callback):
    """Has each validation judge the averaged weights."""

    def on_test_begin(self, logs=None):
        """The average comes in."""
        self.validation = ExitStack()
        self.validation.enter_context(averaged(self.model))

    def on_test_end(self, logs=None):
        """The weights come back."""
        self.validation.close()


def _copied(variables: list[keras.Variable]) -> list[np.ndarray]:
    """A variable that is given another one's value itself would share its memory under JAX, which `fit` gives away."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(model: keras.Model, values: list[np.ndarray]) -> None:
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)
