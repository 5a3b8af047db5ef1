"""What a training tells while it runs."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose import visualize


class Throughput(keras.callbacks.Callback):
    """Adds ``images_per_second`` of training, without validation, to the epoch's logs.

    Stands before those who read them.
    """

    def __init__(self, images_per_epoch: int):
        super().__init__()
        self.images = images_per_epoch

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.begin, self.end = time.perf_counter(), None

    def on_test_begin(self, logs=None):
        """Stop it: training of this epoch is over."""
        self.end = self.end or time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Write the rate."""
        logs["images_per_second"] = self.images / ((self.end or time.perf_counter()) - self.begin)


class TimeLimit(keras.callbacks.Callback):
    """Makes the epoch that is running when the time is up the last one."""

    def __init__(self, seconds: float | None):
        super().__init__()
        self.seconds, self.begin = seconds, time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Look at the clock."""
        if self.seconds is not None and time.perf_counter() - self.begin > self.seconds:
            self.model.stop_training = True


class Pictures(keras.callbacks.Callback):
    """Shows TensorBoard what the network makes of some validation people: input, both heatmaps, overlay."""

    def __init__(self, folder: Path, validation_data: tf.data.Dataset, people: int = 4):
        super().__init__()
        self.folder, self.data, self.people = folder, validation_data, people

    def on_train_begin(self, logs=None):
        """Keep the people to show."""
        images, self.target = next(iter(self.data.unbatch().batch(self.people)))
        self.images = images.numpy()
        self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch, logs=None):
        """Predict them and write the pictures."""
        codec, skeleton = self.model.codec, self.model.skeleton
        found = self.model.predict_on_batch(self.images)
        wanted, _ = codec.encode(self.target[..., :2], self.target[..., 2], found.shape[1:3])
        points, scores = codec.decode(found)
        rows = [
            visualize.target_and_prediction(
                self.images[i].clip(0, 255).astype(np.uint8),
                self.target[i].numpy(),
                keras.ops.convert_to_numpy(wanted[i]),
                found[i],
                np.concatenate([points[i], scores[i][:, None]], axis=-1),
                skeleton,
                scale=codec.scale(self.images.shape[1:3]),
            )
            for i in range(len(self.images))
        ]
        with self.writer.as_default(step=epoch):
            tf.summary.image("input, target, prediction, overlay", np.stack(rows), max_outputs=self.people)
        self.writer.flush()
