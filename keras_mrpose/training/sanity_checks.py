"""What ends a training that has gone wrong, or says that it is about to."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.errors import InputError
from keras_mrpose.training.bad_batch import FILE, SHEET, BadBatch
from keras_mrpose.training.optimization import AveragedWeights

BN_GAP = "bn_train_eval_gap"
# Measured on small networks and drawn people: at most 0.03 when all is well, with batches of one person too; 0.36 to
# 1.02 with averages that stand still or move by a thousandth, and when training is fed 0..1 and validation 0..255.
MAX_BN_GAP = 0.2
MIN_STEPS = 50  # steps after which averages of momentum 0.9 have forgotten their start: 0.9**50 = 0.005


class StopOnNaN(keras.callbacks.Callback):
    """Ends a training whose values are no longer numbers, with a sentence that says where and what to do.

    Stands before those who write files. The loss is the epoch's mean so far, on the host already: the first one that is
    not finite tells the batch. (A step that mixed_float16 leaves out, because gradients overflow, has a finite loss.)

    Args:
        bad_batch: sets the batch aside.
        first: epoch and step, from 0, that the training begins with.
    """

    def __init__(self, bad_batch: BadBatch, first: tuple[int, int] = (0, 0)):
        super().__init__()
        self.bad_batch, self.first = bad_batch, first

    def on_train_begin(self, logs=None):
        """A batch that lies there is an earlier attempt's."""
        self.bad_batch.forget()

    def on_epoch_begin(self, epoch, logs=None):
        """Keep the place."""
        self.epoch, self.skipped = epoch, self.first[1] if epoch == self.first[0] else 0

    def on_train_batch_end(self, batch, logs=None):
        """Look at the running loss."""
        if not np.isfinite(logs["loss"]):
            step = self.skipped + batch
            raise InputError(
                f"The loss became {logs['loss']} in epoch {self.epoch + 1}, batch {step + 1}; "
                f"{self._set_aside(step)}; {self._whole()}; {self._advice()}."
            )

    def on_epoch_end(self, epoch, logs=None):
        """Look at the validation too: the last step may have spoilt the weights after its loss was taken."""
        for name, value in logs.items():
            if not np.isfinite(value):
                raise InputError(f"After epoch {epoch + 1}, {name} is {value}; {self._whole()}; {self._advice()}.")

    def _set_aside(self, step: int) -> str:
        run = self.bad_batch.run
        try:
            broken = self.bad_batch.write(self.model, self.epoch, step)
        except (OSError, InputError, tf.errors.OpError) as error:
            return f"the batch could not be set aside ({str(error).splitlines()[0]})"
        people = f", where people {', '.join(map(str, broken))} are not finite: remove them" if broken else ""
        return f"the batch is in {run / FILE}, and to be looked at in {run / SHEET}{people}"

    def _whole(self) -> str:
        path = self.bad_batch.states.current
        return f"{path} is the last whole state" if path else "no state was saved before"

    def _advice(self) -> str:
        rate = float(self.model.optimizer.learning_rate)
        policies = {layer.dtype_policy.name for layer in self.model.layers} - {"float32"}
        precision = f", use another precision than {policies.pop()}" if policies else ""
        return f"start another run with a lower learning rate (now {rate:.3g}){precision}, or fix these people"


class BatchNormGuard(keras.callbacks.Callback):
    """Looks whether batch norms do in evaluation what they do in training, and writes it to the epoch's logs.

    In training they take mean and variance of the batch, in evaluation moving averages of these. If the averages do
    not fit, training looks well and evaluation finds nobody. Stands before those who read the logs.

    Args:
        data: batches as validation has them; the first is looked at.
        averaged: what is looked at, of the network.
    """

    def __init__(self, data: Iterable, averaged: AveragedWeights):
        super().__init__()
        self.data, self.averaged, self.warned = data, averaged, False

    def on_train_begin(self, logs=None):
        """Keep the batch."""
        self.images = next(iter(self.data))[0]

    def on_epoch_end(self, epoch, logs=None):
        """Compare; say it once, and not before the averages can have settled."""
        if hasattr(self.model, "jax_state_sync"):  # `fit` keeps the variables elsewhere under JAX
            self.model.jax_state_sync()
        norms = [layer for layer in self.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        if not norms:
            return
        for layer in norms:
            if not all(np.isfinite(values).all() for values in layer.get_weights()):
                raise InputError(
                    f"After epoch {epoch + 1}, the batch norm {layer.name} has values that are not finite numbers; the "
                    "files of earlier epochs are whole; start another run with a lower learning rate."
                )
        with self.averaged.swapped_in():
            gap = logs[BN_GAP] = bn_train_eval_gap(self.model, self.images)
        if gap > MAX_BN_GAP and not self.warned and self.model.optimizer.iterations.numpy() >= MIN_STEPS:
            self.warned = True
            print(
                f"\nWarning: in evaluation the network does not find what it finds in training: {BN_GAP} is {gap:.2f} "
                f"after epoch {epoch + 1}, where 0 is the same and above {MAX_BN_GAP} is broken. The averages in its "
                "batch norms do not fit: take larger batches or a lower learning rate, and feed both with the same "
                "range of pixels.",
                file=sys.stderr,
            )


def bn_train_eval_gap(model: keras.Model, images) -> float:
    """1 - the correlation of the heatmaps that a network makes of the same images in training and inference mode.

    0 where both are the same up to scale (a maximum stays where it is), 1 where they have nothing in common, 2 at most;
    NaN where an output is no number. The network stays as it is, its batch norms' averages too.

    Args:
        model: a network.
        images: ``(batch, height, width, 3)`` RGB 0..255.
    """
    variables = model.trainable_variables, model.non_trainable_variables
    maps = [
        np.float64(keras.ops.convert_to_numpy(model.stateless_call(*variables, images, training=mode)[0])).ravel()
        for mode in (True, False)
    ]
    trained, evaluated = (values - values.mean() for values in maps)
    length = np.linalg.norm(trained) * np.linalg.norm(evaluated)
    if length == 0:  # the one or the other is flat
        return float(not np.array_equal(*maps))
    return float(1 - trained @ evaluated / length)
