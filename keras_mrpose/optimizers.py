"""Adam as it was published, which the epsilon of Keras' own is not."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_mrpose")
class Adam(keras.optimizers.Adam):
    """Adam whose epsilon is added to the bias-corrected deviation: step = lr * m_hat / (sqrt(v_hat) + epsilon).

    Keras adds it to the uncorrected sqrt(v), so that it acts like epsilon / sqrt(1 - beta_2**t): in the first step 32
    times as strong. The heatmap loss is a mean over all pixels and has gradients of 1e-6 and below, where that counts.

    Source: Kingma and Ba 2015, algorithm 1; PyTorch, with which the published networks were trained.
    """

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable."""
        given = self.epsilon
        step = ops.cast(self.iterations + 1, variable.dtype)
        self.epsilon = given * ops.sqrt(1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        try:
            super().update_step(gradient, variable, learning_rate)
        finally:
            self.epsilon = given
