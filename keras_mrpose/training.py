"""Training is `model.fit`: build, compile, callbacks, and a run folder that `evaluate` and `predict` can use."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose import heatmaps, visualize
from keras_mrpose.config import Experiment, Recipe
from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import OKSAP, PCK, PCKh
from keras_mrpose.models import zoo
from keras_mrpose.optimizers import Adam
from keras_mrpose.skeletons import COCO, MPII, Skeleton

BEST, LAST, CONFIG, HISTORY, LOGS = "best.keras", "last.keras", "config.json", "history.json", "logs"


def train(
    experiment: Experiment,
    people: People,
    validation: People,
    run: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
) -> dict[str, list[float]]:
    """Train an experiment and leave everything in its run folder.

    The folder gets ``config.json``, ``best.keras`` (best in validation, see `metrics`), ``last.keras`` (with the
    optimizer), ``history.json`` (one value per epoch) and ``logs/`` for TensorBoard.

    Args:
        experiment: what to train.
        people: the training people.
        validation: evaluated after each epoch.
        run: the run folder.
        resume: go on after the last finished epoch of this folder.
        overwrite: delete an earlier run in this folder first.
        time_limit: seconds after which the running epoch is the last; None is no limit.

    Returns:
        The history: name -> one value per epoch.

    Raises:
        InputError: an unknown codec, a run folder in use, people of another skeleton, an unreadable image, or a loss
            that is NaN.
    """
    run = Path(run)
    for table in (people, validation):
        if table.skeleton.name != experiment.skeleton:
            raise InputError(
                f"{table.source} has {table.skeleton.name} joints, but experiment {experiment.name!r} is for "
                f"{experiment.skeleton}; choose an experiment or data that fit."
            )
    codec = heatmaps.codec(experiment.codec, experiment.sigma)
    history = _open_run(run, experiment, resume, overwrite)
    recipe = experiment.recipe
    steps = len(people) // recipe.batch_size
    start = len(history.get("loss", ()))
    data = pipeline.batches(
        people,
        experiment.input_size,
        recipe.batch_size,
        codec=codec,
        augmentation=experiment.augmentation,
        seed=recipe.seed,
        first_epoch=start,
    )
    validation_data = pipeline.batches(validation, experiment.input_size, recipe.batch_size, codec=codec)

    keras.utils.set_random_seed(recipe.seed)
    model = _restored(run, start, steps) if start else build(experiment, people, steps)
    if not start and (run / LAST).exists():  # to be replaced, now that the new network stands
        shutil.rmtree(run)
    new = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    experiment.save(run / CONFIG)
    try:
        model.fit(
            data,
            steps_per_epoch=steps,
            epochs=recipe.epochs,
            initial_epoch=start,
            shuffle=False,  # the pipeline has shuffled
            validation_data=validation_data,
            callbacks=_callbacks(run, history, model, validation_data, recipe.batch_size * steps, time_limit),
        )
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        for table in (people, validation):
            explained = pipeline.explain_failure(table, error)
            if explained is not error:
                raise explained from error
        raise
    finally:
        if new and not (run / LAST).exists():  # nothing was trained: leave nothing behind
            shutil.rmtree(run)
    return history


def build(experiment: Experiment, people: People, steps: int) -> keras.Model:
    """The compiled network of an experiment, under its precision.

    Args:
        experiment: what to build.
        people: whose skeleton names the joints.
        steps: batches per epoch, for the schedule.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(experiment.recipe.precision)
    try:
        model = zoo.build(
            experiment.model,
            backbone=experiment.backbone,
            input_shape=(*experiment.input_size, 3),
            skeleton=people.skeleton,
            backbone_weights=experiment.backbone_weights,
            weights=experiment.weights,
            map_joints=experiment.map_joints,
            codec=heatmaps.codec(experiment.codec, experiment.sigma),
        )
    finally:
        keras.config.set_dtype_policy(before)
    # XLA is slower than oneDNN's kernels on CPUs, and compiles for minutes.
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    model.compile(
        Adam(schedule(experiment.recipe, steps), epsilon=experiment.recipe.epsilon),
        HeatmapMSE(model.codec),
        metrics=metrics(people.skeleton, model.codec),
        jit_compile="auto" if on_gpu else False,
    )
    model.optimizer.build(model.trainable_variables)  # else TensorFlow traces the first step twice
    return model


def metrics(skeleton: Skeleton, codec: heatmaps.Codec) -> list[keras.metrics.Metric]:
    """What a training shows; by the first, the measure of the skeleton's data set, its best epoch is told.

    A target's normalizer is the head size in MPII, which PCKh needs, and sqrt(area) in the others, which OKS needs.
    """
    torso = [PCK(codec, threshold=0.2, torso=skeleton.torso, name="pck")] if skeleton.torso else []
    if skeleton == MPII:
        return [PCKh(codec, name="pckh"), *torso]
    similarity = [OKSAP(skeleton.sigmas, codec=codec, name="oks_ap")]
    return similarity + torso if skeleton == COCO else torso + similarity


def schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate over all steps of a recipe, `steps` per epoch."""
    total = recipe.epochs * steps
    if recipe.schedule == "step":
        # Keras steps after a border, the published schedule at an epoch's first step. The last border is never crossed.
        borders = [max(1, round(share * recipe.epochs)) * steps - 1 for share in recipe.milestones] + [total]
        rates = [recipe.learning_rate * 0.1**i for i in range(len(borders) + 1)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(borders, rates)
    warmup = math.ceil(recipe.warmup * total)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else recipe.learning_rate,
        decay_steps=max(1, total - warmup),
        alpha=0.01,
        warmup_target=recipe.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def _open_run(run: Path, experiment: Experiment, resume: bool, overwrite: bool) -> dict[str, list[float]]:
    """The history to go on with: empty for a new run."""
    if resume:
        for name in (LAST, HISTORY):
            if not (run / name).exists():
                raise InputError(f"{run} has no {name} to go on from; start without --resume.")
        if Experiment.load(run / CONFIG) != experiment:
            raise InputError(f"{run / CONFIG} says that the run was started otherwise; give --resume the same options.")
        return json.loads((run / HISTORY).read_text())
    if (run / LAST).exists() and not overwrite:
        raise InputError(f"{run} holds a run; go on with --resume, replace it with --overwrite, or name another.")
    return {}


def _restored(run: Path, epochs: int, steps: int) -> keras.Model:
    """The compiled network as it was after so many epochs."""
    try:
        model = keras.models.load_model(run / LAST)
    except Exception as error:  # Keras raises many kinds for a file that it cannot read
        raise InputError(f"{run / LAST} cannot be loaded; start again with --overwrite.") from error
    done = int(model.optimizer.iterations)
    # mixed_float16 leaves steps out, and does not count them, when the gradients overflow
    if done != epochs * steps and not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise InputError(
            f"{run} took {done} steps in {epochs} epochs, with these people it would be {epochs * steps}; "
            "give --resume the same people."
        )
    return model


def _callbacks(run, history, model, validation_data, images_per_epoch, time_limit) -> list[keras.callbacks.Callback]:
    monitor = f"val_{metrics(model.skeleton, model.codec)[0].name}"
    return [
        Throughput(images_per_epoch),
        StopOnNaN(),
        RunFiles(run, history, monitor),
        Pictures(run / LOGS / "pictures", validation_data),
        keras.callbacks.TensorBoard(run / LOGS, write_graph=False, profile_batch=0),
        TimeLimit(time_limit),
    ]


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


class RunFiles(keras.callbacks.Callback):
    """Writes the checkpoints and the history after each epoch, each replaced in one piece.

    Keras' `ModelCheckpoint` writes over the old file (a training that is killed then has none to go on from) and
    forgets the best score when a training goes on.

    Args:
        run: the run folder.
        history: of the epochs before; each epoch appends its values, and the learning rate after it.
        monitor: the higher this value, the better the epoch.
    """

    def __init__(self, run: Path, history: dict[str, list[float]], monitor: str):
        super().__init__()
        self.run, self.history, self.monitor = run, history, monitor

    def on_epoch_end(self, epoch, logs=None):
        """Save; the history and ``last.keras``, which belong together, move into place at the end."""
        is_best = logs[self.monitor] > max(self.history.get(self.monitor, ()), default=-math.inf)
        for name, value in {**logs, "learning_rate": float(self.model.optimizer.learning_rate)}.items():
            self.history.setdefault(name, []).append(float(value))
        part = {name: self.run / f"part-{name}" for name in (BEST, LAST, HISTORY)}
        self.model.save(part[LAST])
        part[HISTORY].write_text(json.dumps(self.history, indent=1) + "\n")
        if is_best:
            shutil.copyfile(part[LAST], part[BEST])
            os.replace(part[BEST], self.run / BEST)
        for name in (LAST, HISTORY):
            os.replace(part[name], self.run / name)


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
