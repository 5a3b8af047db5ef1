"""Callbacks that record a training: throughput, scores, skipped people, TensorBoard."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.data.pipeline import SKIPPED, Skipped
from keras_mrpose.training.distributed import ProcessGroup
from keras_mrpose.training.optimization import AveragedWeights
from keras_mrpose.visualization import heatmaps

_LOG = logging.getLogger(__name__)


class Throughput(keras.callbacks.Callback):
    """Adds ``images_per_second`` of training, without validation, to the epoch's logs.

    Comes before the callbacks that read the logs.
    """

    def __init__(self, batch_size: int):
        super().__init__()
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.begin, self.end, self.batches = time.perf_counter(), None, 0

    def on_train_batch_end(self, batch, logs=None):
        """Count the batches: an epoch that goes on in its middle has fewer."""
        self.batches += 1

    def on_test_begin(self, logs=None):
        """Stop the clock: training of this epoch is over."""
        self.end = self.end or time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Add the rate to the logs."""
        seconds = (self.end or time.perf_counter()) - self.begin
        logs["images_per_second"] = self.batches * self.batch_size / seconds


class SourceScore(keras.callbacks.Callback):
    """Adds ``val_score`` to an epoch's logs: the weighted mean of the metrics of several validation sources.

    Comes before the callbacks that read the logs.

    Args:
        weights: name in the logs -> weight.
    """

    NAME = "val_score"

    def __init__(self, weights: dict[str, float]):
        super().__init__()
        self.weights = weights

    def on_epoch_end(self, epoch, logs=None):
        """Add the mean to the logs."""
        total = sum(weight * logs[name] for name, weight in self.weights.items())
        logs[self.NAME] = total / sum(self.weights.values())


class TimeLimit(keras.callbacks.Callback):
    """Ends the training after the epoch in which the time is up; several processes go by the main one's clock."""

    def __init__(self, seconds: float | None, process_group: ProcessGroup):
        super().__init__()
        self.seconds, self.process_group, self.begin = seconds, process_group, time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Stop if the time is up."""
        late = self.seconds is not None and time.perf_counter() - self.begin > self.seconds
        if self.process_group.broadcast(late):
            self.model.stop_training = True


class ListSkipped(keras.callbacks.Callback):
    """Keeps ``skipped.json`` in the run folder up to date, and logs at the end how many people were skipped."""

    def __init__(self, run: Path, skipped: Skipped):
        super().__init__()
        self.run, self.skipped, self.written = run, skipped, 0

    def on_train_batch_end(self, batch, logs=None):
        """Write new ones at once: a training that is stopped here and goes on does not meet them again."""
        if len(self.skipped) > self.written:
            self.skipped.write(self.run)
            self.written = len(self.skipped)

    def on_train_end(self, logs=None):
        """Log the number, with those of the last validation."""
        self.on_train_batch_end(None)
        if len(self.skipped):
            _LOG.info("%s; all are in %s", self.skipped.sentence(), self.run / SKIPPED)


class Curves(keras.callbacks.TensorBoard):
    """Keras' TensorBoard callback, flushed at the end of each epoch: a training that is killed keeps its curves."""

    def on_epoch_end(self, epoch, logs=None):
        """Flush the files."""
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()


class PreviewImages(keras.callbacks.Callback):
    """Writes images of some validation people to TensorBoard: input, target and predicted heatmaps, overlay."""

    def __init__(self, folder: Path, validation_data: tf.data.Dataset, averaged: AveragedWeights, people: int = 4):
        super().__init__()
        self.folder, self.data, self.averaged, self.people = folder, validation_data, averaged, people

    def on_train_begin(self, logs=None):
        """Keep the people to preview."""
        images, self.target = next(iter(self.data.unbatch().batch(self.people)))
        self.images = images.numpy()
        self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch, logs=None):
        """Predict them and write the images."""
        codec, skeleton = self.model.codec, self.model.skeleton
        with self.averaged.swapped_in():
            predicted = self.model.predict_on_batch(self.images)
        wanted, _ = codec.encode(self.target[..., :2], self.target[..., 2], predicted.shape[1:3])
        keypoints, scores = codec.decode(predicted)
        rows = [
            heatmaps.target_and_prediction(
                self.images[i].clip(0, 255).astype(np.uint8),
                self.target[i].numpy(),
                keras.ops.convert_to_numpy(wanted[i]),
                predicted[i],
                np.concatenate([keypoints[i], scores[i][:, None]], axis=-1),
                skeleton,
                scale=codec.scale(self.images.shape[1:3]),
            )
            for i in range(len(self.images))
        ]
        with self.writer.as_default(step=epoch):
            tf.summary.image("input, target, prediction, overlay", np.stack(rows), max_outputs=self.people)
        self.writer.flush()
