"""Checks that end a training that has gone wrong, or warn that it is about to: NaN, and batch norms that do not fit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.models.hardware import fastest_precision
from keras_mrpose.training.checkpointing import States, restore
from keras_mrpose.training.optimization import AveragedWeights
from keras_mrpose.visualization import heatmaps

_LOG = logging.getLogger(__name__)
BAD_BATCH, BAD_BATCH_IMAGE = "bad-batch.npz", "bad-batch.png"
BN_GAP = "bn_train_eval_gap"
# Measured on small networks and drawn people: at most 0.03 when all is well, with batches of one person too; 0.36 to
# 1.02 with averages that stand still or move by a thousandth, and when training is fed 0..1 and validation 0..255.
MAX_BN_GAP = 0.2
MIN_STEPS = 50  # steps after which averages of momentum 0.9 have forgotten their start: 0.9**50 = 0.005


def warn_of_slow_precision(precision: str) -> None:
    """Log a warning if a training is about to compute in bfloat16 without instructions for it."""
    if precision == "mixed_bfloat16" and fastest_precision() == "float32":
        _LOG.warning(
            "No bfloat16 instructions are known of this CPU: without them the precision mixed_bfloat16 takes several "
            "times as long as float32; train with precision float32 here."
        )


@dataclass(frozen=True)
class BadBatch:
    """Writes the batch at which a training broke down to the run folder, to be looked at.

    A batch depends only on the seed and its position, so it is made again rather than kept.

    Args:
        run: the run folder.
        people: the training people.
        options: arguments of `pipeline.batches`, without the position.
        states: the saved states of the training.
    """

    run: Path
    people: People
    options: dict
    states: States

    def remove(self) -> None:
        """Remove the batch of an earlier attempt."""
        for name in (BAD_BATCH, BAD_BATCH_IMAGE):
            (self.run / name).unlink(missing_ok=True)

    def write(self, model: keras.Model, epoch: int, step: int) -> list[int]:
        """Write ``bad-batch.npz``, and ``bad-batch.png``, which shows its people with their joints.

        The file has ``images`` and ``targets`` as the network got them, ``ids`` and ``image_paths`` of the people,
        ``losses`` in training mode, one per person, and the position, ``epoch`` and ``step``, from 0. Weights that are
        not finite are replaced by those of the newest state; where there is none, the losses mean nothing.

        Args:
            model: the network, whose training is over.
            epoch: from 0.
            step: of the epoch, from 0.

        Returns:
            The ids of the people whose crop or target has a value that is not finite.
        """
        position = {"first_epoch": epoch, "first_step": step}
        images, targets = (
            part.numpy() for part in next(iter(pipeline.batches(self.people, **self.options, **position)))
        )
        order = {name: self.options[name] for name in ("batch_size", "seed")}
        rows = pipeline.rows(self.people, **order, **position, crops=self.options.get("crops"))
        ids, paths = self.people.ids[rows], self.people.paths()[rows]
        losses = self._losses(model, images, targets)
        with (self.run / BAD_BATCH).open("wb") as file:
            columns = {"images": images, "targets": targets, "ids": ids, "image_paths": paths, "losses": losses}
            np.savez_compressed(file, **columns, epoch=epoch, step=step)
        points = targets[..., :3] * (1, 1, 2)  # a weight of 1 is drawn as a visible joint
        points[..., :2] /= model.codec.scale(images.shape[1:3])
        sheet = heatmaps.contact_sheet(
            np.nan_to_num(images).clip(0, 255).astype(np.uint8),
            points,
            self.people.skeleton,
            [f"{number}: {loss:.3g}" for number, loss in zip(ids, losses, strict=True)],
        )
        cv2.imwrite(str(self.run / BAD_BATCH_IMAGE), sheet[..., ::-1])
        finite = np.isfinite(images).all(axis=(1, 2, 3)) & np.isfinite(targets).all(axis=(1, 2))
        return ids[~finite].tolist()

    def _losses(self, model, images, targets) -> np.ndarray:
        """The loss of each person in training mode, ``(people,)``."""
        if not all(np.isfinite(variable).all() for variable in model.variables) and (state := self.states.newest()):
            restore(model, state.variables, "model")
        maps, _ = model.stateless_call(model.trainable_variables, model.non_trainable_variables, images, training=True)
        return keras.ops.convert_to_numpy(model.loss.call(targets, maps))


class StopOnNaN(keras.callbacks.Callback):
    """Ends a training whose loss is NaN or infinite with an `InputError` that says where, and what to do.

    Comes before the callbacks that write files. The running loss is the epoch's mean so far: the first one that is not
    finite identifies the batch. (A step that mixed_float16 skips because gradients overflow has a finite loss.)

    Args:
        bad_batch: writes the batch to the run folder.
        first: epoch and step, from 0, with which the training begins.
    """

    def __init__(self, bad_batch: BadBatch, first: tuple[int, int] = (0, 0)):
        super().__init__()
        self.bad_batch, self.first = bad_batch, first

    def on_train_begin(self, logs=None):
        """Remove the batch of an earlier attempt."""
        self.bad_batch.remove()

    def on_epoch_begin(self, epoch, logs=None):
        """Keep the position."""
        self.epoch, self.skipped = epoch, self.first[1] if epoch == self.first[0] else 0

    def on_train_batch_end(self, batch, logs=None):
        """Check the running loss."""
        if not np.isfinite(logs["loss"]):
            step = self.skipped + batch
            raise InputError(
                f"The loss became {logs['loss']} in epoch {self.epoch + 1}, batch {step + 1}; "
                f"{self._write_batch(step)}; {self._last_state()}; {self._advice()}."
            )

    def on_epoch_end(self, epoch, logs=None):
        """Check the validation too: the last step may have broken the weights after its loss was taken."""
        for name, value in logs.items():
            if not np.isfinite(value):
                raise InputError(f"After epoch {epoch + 1}, {name} is {value}; {self._last_state()}; {self._advice()}.")

    def _write_batch(self, step: int) -> str:
        run = self.bad_batch.run
        try:
            broken = self.bad_batch.write(self.model, self.epoch, step)
        except (OSError, InputError, tf.errors.OpError) as error:
            return f"the batch could not be set aside ({str(error).splitlines()[0]})"
        people = f", where people {', '.join(map(str, broken))} are not finite: remove them" if broken else ""
        return f"the batch is in {run / BAD_BATCH}, and to be looked at in {run / BAD_BATCH_IMAGE}{people}"

    def _last_state(self) -> str:
        path = self.bad_batch.states.current
        return f"{path} is the last whole state" if path else "no state was saved before"

    def _advice(self) -> str:
        rate = float(self.model.optimizer.learning_rate)
        policies = {layer.dtype_policy.name for layer in self.model.layers} - {"float32"}
        precision = f", use another precision than {policies.pop()}" if policies else ""
        return f"start another run with a lower learning rate (now {rate:.3g}){precision}, or fix these people"


class BatchNormGuard(keras.callbacks.Callback):
    """Adds ``bn_train_eval_gap`` to an epoch's logs, and warns once if it is too large.

    Batch norms use the batch's mean and variance in training, and moving averages of these in evaluation. If the
    averages do not fit, training looks well and evaluation finds nobody. Comes before the callbacks that read the logs.

    Args:
        data: validation batches; the first is used.
        averaged: the averaged weights of the network, which are checked.
    """

    def __init__(self, data: Iterable, averaged: AveragedWeights):
        super().__init__()
        self.data, self.averaged, self.warned = data, averaged, False

    def on_train_begin(self, logs=None):
        """Keep the batch."""
        self.images = next(iter(self.data))[0]

    def on_epoch_end(self, epoch, logs=None):
        """Compare; warn once, and not before the averages can have settled."""
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
            _LOG.warning(
                "In evaluation the network does not find what it finds in training: %s is %.2f after epoch %d, where 0 "
                "is the same and above %s is broken. The averages in its batch norms do not fit: take larger batches "
                "or a lower learning rate, and feed both with the same range of pixels.",
                BN_GAP, gap, epoch + 1, MAX_BN_GAP,
            )  # fmt: skip


def bn_train_eval_gap(model: keras.Model, images) -> float:
    """1 - the correlation of the heatmaps that a network makes of the same images in training and inference mode.

    0 if both are the same up to scale (the maximum stays in its place), 1 if they are uncorrelated, at most 2; NaN if
    an output is NaN. The network does not change, nor do the averages of its batch norms.

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
