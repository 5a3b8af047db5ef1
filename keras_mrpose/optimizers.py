"""Adam and AdamW as published, with gradient accumulation and a moving average of the weights."""

from __future__ import annotations

import keras
from keras import ops

# One kernel for all of an update, on TensorFlow alone; on any other backend it is not imported.
apply_adam = distribute = None
if keras.backend.backend() == "tensorflow":
    from tensorflow import distribute
    from tensorflow.raw_ops import ResourceApplyAdam as apply_adam


@keras.saving.register_keras_serializable("keras_mrpose")
class Adam(keras.optimizers.Adam):
    """Keras' Adam with five differences. With `weight_decay` it is AdamW.

    - Epsilon is added to the bias-corrected deviation: step = lr * m_hat / (sqrt(v_hat) + epsilon). Keras adds it to
      the uncorrected sqrt(v), so that it acts like epsilon / sqrt(1 - beta_2**t): in the first step 32 times as
      strong. The heatmap loss is a mean over all pixels and has gradients of 1e-6 and below, where that counts.
    - `weight_decay`: an update takes ``lr * weight_decay`` of each kernel away, whatever its gradient; but not of
      biases and of what scales and shifts in batch norms, all of which are vectors.
    - `gradient_accumulation_steps`: the gradients of this many steps are averaged for one update. Keras' own
      accumulation, which stays off, updates in a branch, which `MirroredStrategy` refuses, and keeps sums that differ
      from device to device, which cannot be saved. `iterations` and the schedule count steps, t counts updates.
    - `use_ema`: the average starts as the weights are, and its momentum in update t (from 0) is
      ``min(ema_momentum, t / (t + 9))``: until that of the user is reached, it reaches back over a tenth of the
      updates made. With Keras' constant one, the average of a training of fewer than 1 / (1 - ema_momentum) updates
      is one of its beginnings.
    - The end of `fit` leaves the weights as they are. Keras puts the average in their place, from which a training
      could not go on. `keras_mrpose.training.optimization` swaps the average in where it is needed.

    Args:
        learning_rate: a number or a schedule.
        gradient_accumulation_steps: steps for one update.
        **kwargs: of Keras' Adam; no clipping, and no `amsgrad`.

    Source: Kingma and Ba 2015, algorithm 1, and PyTorch, with which the published networks were trained; Loshchilov
    and Hutter 2019, algorithm 2; the rising momentum is that of `tf.train.ExponentialMovingAverage(num_updates=...)`.
    """

    def __init__(self, learning_rate=1e-3, gradient_accumulation_steps: int = 1, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.steps_per_update = gradient_accumulation_steps  # the name of the argument would turn on Keras' own

    def build(self, var_list):
        """Create the variables."""
        if self.built:
            return
        super().build(var_list)
        if self.steps_per_update > 1:
            self._sums = self.add_optimizer_variables(var_list, "gradient_sum")
        if self.use_ema:
            for average, variable in zip(self._model_variables_moving_average, var_list, strict=True):
                average.assign(ops.copy(variable))  # JAX would share the memory, which `fit` gives away

    def update_step(self, gradient, variable, learning_rate):
        """Take one step of one variable."""
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        gradient, rate, update, beta_1, beta_2 = (
            ops.cast(value, variable.dtype)
            for value in (
                gradient,
                learning_rate,
                self._iterations // self.steps_per_update + 1,
                self.beta_1,
                self.beta_2,
            )
        )
        if apply_adam and self.steps_per_update == 1 and not distribute.has_strategy():
            self._fused_step(gradient, variable, momentum, velocity, rate, update)
            return
        if self.steps_per_update > 1:
            gradient = self._sums[index] + gradient
            self.assign(self._sums[index], ops.where(self._is_update(), 0.0, gradient))
            gradient = gradient / self.steps_per_update
        m = momentum + (1 - beta_1) * (gradient - momentum)
        v = velocity + (1 - beta_2) * (ops.square(gradient) - velocity)
        deviation = ops.sqrt(v / (1 - ops.power(beta_2, update)))
        step = rate * (m / (1 - ops.power(beta_1, update))) / (deviation + self.epsilon)
        if self.weight_decay and len(variable.shape) > 1:
            step = step + rate * self.weight_decay * variable
        for old, new in ((momentum, m), (velocity, v), (variable, variable - step)):
            if self.steps_per_update > 1:
                new = ops.where(self._is_update(), new, ops.convert_to_tensor(old))
            self.assign(old, new)

    def _fused_step(self, gradient, variable, momentum, velocity, rate, update) -> None:
        """`update_step` in one pass over the weights, which takes a fifth of the time on a CPU.

        TensorFlow's kernel adds epsilon to the uncorrected deviation, so it gets one that is corrected as that is.
        """
        decay_1, decay_2 = (ops.power(ops.cast(beta, variable.dtype), update) for beta in (self.beta_1, self.beta_2))
        if self.weight_decay and len(variable.shape) > 1:
            self.assign(variable, variable * (1 - rate * self.weight_decay))
        apply_adam(
            var=_handle(variable),
            m=_handle(momentum),
            v=_handle(velocity),
            beta1_power=decay_1,
            beta2_power=decay_2,
            lr=rate,
            beta1=ops.cast(self.beta_1, variable.dtype),
            beta2=ops.cast(self.beta_2, variable.dtype),
            epsilon=self.epsilon * ops.sqrt(1 - decay_2),
            grad=gradient,
        )

    def _is_update(self):
        return (self._iterations + 1) % self.steps_per_update == 0

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Sum the gradients of all devices; Keras calls this in each step on TensorFlow.

        Of one device there is nothing to sum, and TensorFlow's sum would keep the step's graph, and with it all
        weights and averages, until the process ends (tensorflow/tensorflow#97697).
        """
        return super()._all_reduce_sum_gradients(grads_and_vars) if distribute.has_strategy() else grads_and_vars

    def _apply_weight_decay(self, variables):
        """Do nothing; Keras calls this in each step, `update_step` does it."""

    def _update_model_variables_moving_average(self, trainable_variables):
        """Update the averages; Keras calls this after each step, before it counts the step."""
        done = ops.cast(self._iterations // self.steps_per_update, "float32")
        momentum = ops.minimum(self.ema_momentum, done / (done + 9))
        momentum = ops.where(self._is_update(), momentum, 1.0)
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            average.assign(momentum * average + (1 - momentum) * variable)

    def finalize_variable_values(self, var_list):
        """Do nothing; Keras calls this at the end of `fit`."""

    def get_config(self) -> dict:
        """The arguments of this optimizer."""
        return {**super().get_config(), "gradient_accumulation_steps": self.steps_per_update}


def _handle(variable):
    """What TensorFlow's own operations call a variable of its or of Keras."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle
