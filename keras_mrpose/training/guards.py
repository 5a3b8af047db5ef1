"""What ends a training that has gone wrong."""

from __future__ import annotations

import keras
import numpy as np

from keras_mrpose.errors import InputError


class StopOnNaN(keras.callbacks.Callback):
    """Ends a training whose values are no longer numbers, with a sentence that says where and what to do.

    Stands before those who write files.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Look at the running loss."""
        if not np.isfinite(logs["loss"]):
            raise InputError(
                f"The loss became {logs['loss']} at batch {batch + 1} of this epoch; lower the learning rate "
                "(the checkpoints of earlier epochs are whole)."
            )

    def on_epoch_end(self, epoch, logs=None):
        """Look at the validation too: the last step may have spoilt the weights after its loss was taken."""
        for name, value in logs.items():
            if not np.isfinite(value):
                raise InputError(
                    f"After epoch {epoch + 1}, {name} is {value}; lower the learning rate "
                    "(the checkpoints of earlier epochs are whole)."
                )
