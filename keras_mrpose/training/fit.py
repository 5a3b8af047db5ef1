"""From an experiment and people to a trained network in a run folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from keras_mrpose import heatmaps
from keras_mrpose.config import Experiment
from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import OKSAP, PCK, PCKh
from keras_mrpose.models import zoo
from keras_mrpose.optimizers import Adam
from keras_mrpose.skeletons import COCO, MPII, Skeleton
from keras_mrpose.training.callbacks import Pictures, Throughput, TimeLimit
from keras_mrpose.training.folder import CONFIG, LAST, LOGS, RunFiles, open_run, restored
from keras_mrpose.training.guards import StopOnNaN
from keras_mrpose.training.schedules import schedule


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
    history = open_run(run, experiment, resume, overwrite)
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
    model = restored(run, start, steps) if start else build(experiment, people, steps)
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
