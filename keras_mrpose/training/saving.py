"""When a training saves its state, and how an epoch goes on in its middle."""

from __future__ import annotations

import time

import keras
import numpy as np

from keras_mrpose.training.checkpointing import State, States, capture, place, restore
from keras_mrpose.training.interruption import Interruption, Stopped


class SaveState(keras.callbacks.Callback):
    """Saves the state at the beginning, after each epoch, from time to time, and when the training is asked to stop.

    Stands after those who write the epoch's files: with the state an epoch is done. Until then it counts for nothing,
    and a training that goes on from an earlier state writes the same files again.

    A stop during the validation saves the state before the epoch's last step, which is then taken again: a state
    between that step and the end of the epoch would be one that `fit` cannot begin with.

    Args:
        states: where to.
        begun: the state that this training goes on from; its history is the one that grows.
        steps: per epoch.
        seconds: between two states; None is at the ends of epochs only.
        interruption: whether to stop.
    """

    def __init__(self, states: States, begun: State, steps: int, seconds: float | None, interruption: Interruption):
        super().__init__()
        self.states, self.begun, self.steps, self.seconds = states, begun, steps, seconds
        self.interruption = interruption
        self.saved = time.monotonic()

    def on_train_begin(self, logs=None):
        """Save the beginning: where there are files of the first epoch, there is a state to write them again from."""
        if not self.begun.variables:
            self._save(self._state(0, 0))

    def on_epoch_begin(self, epoch, logs=None):
        """Go on in the middle; Keras has just set the metrics to zero."""
        self.epoch, self.step, self.cut = epoch, 0, False
        if epoch == self.begun.epoch and self.begun.step:
            self.step = self.begun.step
            if len(self.model.metrics_variables) < sum(name.startswith("metrics/") for name in self.begun.variables):
                build_metrics(self.model)
            restore(self.model, self.begun.variables, "metrics")

    def on_train_batch_begin(self, batch, logs=None):
        """Before the last step: keep what a stop during the validation will save."""
        if self.step == self.steps - 1:
            self.before_last = self._state(self.epoch, self.step)

    def on_train_batch_end(self, batch, logs=None):
        """Save if it is time."""
        self.step += 1
        if self.step == self.steps:
            self._stop_if_asked(self.before_last)
            if batch + 1 < self.steps:  # `fit` would take as many as in a whole epoch
                self.cut = self.model.stop_training = True
        elif self.interruption.signal:
            self._stop_if_asked(self._state(self.epoch, self.step))
        elif self.seconds is not None and time.monotonic() - self.saved >= self.seconds:
            self._save(self._state(self.epoch, self.step))

    def stop_in_validation(self) -> None:
        """Raise `Stopped` if the training is asked to stop; for what takes its time between two callbacks."""
        self._stop_if_asked(self.before_last)

    def on_test_batch_end(self, batch, logs=None):
        """Do not make a user wait for the rest of the validation."""
        self.stop_in_validation()

    def on_epoch_end(self, epoch, logs=None):
        """Save: the epoch is done."""
        if self.cut:
            self.model.stop_training = False
        self.before_last = None
        state = self._state(epoch + 1, 0)
        self._save(state)
        if self.interruption.signal and epoch + 1 < self.params["epochs"]:
            self._stop(state)

    def _state(self, epoch: int, step: int) -> State:
        return State(epoch, step, self.begun.history, self.begun.origin, capture(self.model))

    def _save(self, state: State) -> None:
        if not all(np.isfinite(values).all() for values in state.variables.values()):
            return  # the loss will say so in the next step; until then the last state is one to go on from
        self.states.write(state)
        self.saved = time.monotonic()

    def _stop_if_asked(self, state: State) -> None:
        if self.interruption.signal:
            self._save(state)
            self._stop(state)

    def _stop(self, state: State) -> None:
        number = self.interruption.signal
        raise Stopped(
            f"stopped by {number.name}; the training is saved after {place(state.epoch, state.step)} in "
            f"{self.states.folder}: go on with --resume",
            number,
        )


def build_metrics(model: keras.Model) -> None:
    """Keras on TensorFlow makes a list of the metrics' variables when it first uses them; here it does so at once."""
    joints = model.output_shape[-1]
    model.compute_metrics(
        None, keras.ops.zeros((1, joints, 5)), keras.ops.zeros((1, *model.output_shape[1:])), sample_weight=None
    )
    model.reset_metrics()
