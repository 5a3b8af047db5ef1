"""From an experiment and people to a trained network in a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose import codecs, skeletons
from keras_mrpose.data import mixture, pipeline
from keras_mrpose.data.mixture import Source
from keras_mrpose.data.people import People
from keras_mrpose.data.pipeline import Skipped
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import OKSAP, PCK, PCKh
from keras_mrpose.models import backbones, networks, normalization
from keras_mrpose.models.pretrained import source_kind
from keras_mrpose.skeletons import LSP, MPII, Skeleton
from keras_mrpose.training.bad_batch import FILE, BadBatch
from keras_mrpose.training.callbacks import Curves, ListSkipped, PreviewImages, SourceScore, Throughput, TimeLimit
from keras_mrpose.training.checkpointing import State, States, restore
from keras_mrpose.training.config import Experiment
from keras_mrpose.training.distributed import devices, per_sample
from keras_mrpose.training.hosts import ProcessGroup, ReadOnlyStates
from keras_mrpose.training.optimization import AveragedWeights, ValidateAveraged, precise_bn_batches
from keras_mrpose.training.run_dir import LAST, LOGS, STATE, RunFiles, data_hash, make_folder, resume_state
from keras_mrpose.training.sanity_checks import BatchNormGuard, StopOnNaN
from keras_mrpose.training.saving import SaveState
from keras_mrpose.training.schedules import optimizer

# What the metric of a protocol is called in logs.
METRICS = {"ap": "oks_ap", "pckh": "pckh", "pck": "pck"}
# Crops that the statistics of folded batch norms are counted on: seconds. Correlation of both modes in C5 of a real
# MobileNetV2 on other people: 0.11 without, 0.88 with 160 crops, 0.90 with 320 as with 640 (0.97 on augmented crops).
CROPS = 320


def train(
    experiment: Experiment,
    people: People,
    validation: People,
    run: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
    save_every: float | None = 600.0,
    on_bad_record: str = "stop",
    strategy: str = "auto",
    hosts: ProcessGroup | None = None,
) -> dict[str, list[float]]:
    """Train an experiment and leave everything in its run folder.

    The folder gets ``config.json``, ``best.keras`` (best in validation, see `metrics`), ``last.keras`` (with the
    optimizer), ``history.json`` (one value per epoch), ``logs/`` for TensorBoard, and ``state/``, from which a training
    that was stopped or killed goes on as if nothing had happened (see `keras_mrpose.training.checkpointing`).

    Args:
        experiment: what to train.
        people: the training people.
        validation: evaluated after each epoch.
        run: the run folder.
        resume: go on where the run in this folder was left; start it if there is none.
        overwrite: delete an earlier run in this folder first.
        time_limit: seconds after which the running epoch is the last; None is no limit.
        save_every: seconds between two states within an epoch; None is at the ends of epochs only.
        on_bad_record: what an image that cannot be read does: ``"stop"`` the training, or ``"skip"`` its people, who
            are then listed in ``skipped.json``; see `data.pipeline.batches`.
        strategy: ``auto``, ``none`` or ``mirrored``, see `keras_mrpose.training.distributed`.
        hosts: the processes that train together, each with these same arguments, see `keras_mrpose.training.hosts`;
            all read the run folder, process 0 writes it. None is this process alone.

    Returns:
        The history: name -> one value per epoch.

    Raises:
        InputError: an unknown codec, a run folder in use, people of another skeleton, an unreadable image, a file that
            cannot be written, or a loss that is NaN.
        Stopped: SIGINT (Ctrl-C) or SIGTERM came, and the state is saved.
    """
    run, recipe, hosts = Path(run), experiment.recipe, hosts or ProcessGroup()
    _check_joints(experiment, people, validation)
    distribution = devices(strategy, recipe.batch_size)
    crops = _crops_of_epoch(experiment, people)
    steps = (len(people) if crops is None else sum(crops)) // recipe.batch_size
    states = (States if hosts.first else ReadOnlyStates)(run / STATE)
    skipped = Skipped()
    reading = {
        "input_size": experiment.input_size,
        "batch_size": recipe.batch_size,
        "codec": codecs.codec(experiment.codec, experiment.sigma),
        "on_bad_record": on_bad_record,
        "skipped": skipped,
    }
    begun = _resume_state(run, states, experiment, data_hash(people, validation), resume, overwrite, hosts)
    if begun.epoch == recipe.epochs:
        print(f"{run} is finished: its {recipe.epochs} epochs are done.")
        return begun.history
    varied = {**reading, "augmentation": experiment.augmentation, "seed": recipe.seed, "crops": crops}
    data = pipeline.batches(people, **varied, first_epoch=begun.epoch, first_step=begun.step, shard=hosts.shard)
    judged, shown = _validation_data(validation, reading, hosts, distribution)

    keras.utils.set_random_seed(recipe.seed)
    with distribution.scope():
        model, begun = _network(experiment, people, steps, begun)
    new = hosts.first and make_folder(run, states, experiment, anew=not begun.variables)  # now that the network stands
    interruption = hosts.interruption()
    save_state = SaveState(states, begun, steps, save_every if hosts.first else None, interruption)
    batches = partial(_precise_bn_data, people, varied, precise_bn_batches(recipe.batch_size, steps), save_state)
    averaged = AveragedWeights(model, batches, hosts.arrays_of_first)
    validate = ValidateAveraged(averaged)
    try:
        with (
            _translate_errors(run, states, (people, validation), on_bad_record),
            interruption,
            hosts.folder(run) as folder,
            validate.validation,
        ):
            if not begun.variables:
                _match_statistics(model, experiment, people, varied)
            model.fit(
                data,
                steps_per_epoch=steps,
                epochs=recipe.epochs,
                initial_epoch=begun.epoch,
                shuffle=False,  # the pipeline has shuffled
                validation_data=judged,
                verbose="auto" if hosts.first else 0,
                callbacks=[
                    BatchNormGuard(shown, averaged),
                    StopOnNaN(BadBatch(folder, people, varied, states), (begun.epoch, begun.step)),
                    *_records(folder, begun.history, model, shown, experiment, validate),
                    ListSkipped(folder, skipped),
                    save_state,
                    TimeLimit(time_limit, hosts),
                ],
            )
    finally:
        if new and not states.trained and not any((run / name).exists() for name in (LAST, FILE)):  # no trace
            shutil.rmtree(run)
    return begun.history


def build(experiment: Experiment, people: People, steps: int, preprocessing: str | None = None) -> keras.Model:
    """The compiled network of an experiment, under its precision.

    Args:
        experiment: what to build.
        people: whose skeleton names the joints.
        steps: batches per epoch, for the schedule.
        preprocessing: what the first layer does, see `zoo.build`.
    """
    if experiment.recipe.ohkm_topk > people.skeleton.num_joints:
        raise InputError(
            f"The recipe's ohkm_topk is {experiment.recipe.ohkm_topk}, but {people.skeleton.name} has "
            f"{people.skeleton.num_joints} joints; give fewer."
        )
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(experiment.recipe.precision)
    try:
        model = networks.build(
            experiment.model,
            backbone=experiment.backbone,
            input_shape=(*experiment.input_size, 3),
            skeleton=people.skeleton,
            backbone_weights=experiment.backbone_weights,
            weights=experiment.weights,
            map_joints=experiment.map_joints,
            codec=codecs.codec(experiment.codec, experiment.sigma),
            preprocessing=preprocessing,
        )
    finally:
        keras.config.set_dtype_policy(before)
    backbones.freeze(model, experiment.backbone, experiment.recipe.frozen_stages)
    if experiment.recipe.sync_batch_norm:
        normalization.synchronize(model)
    # TensorFlow's XLA is slower than oneDNN's kernels on CPUs, and compiles for minutes; JAX has no other way.
    compiled = bool(tf.config.list_physical_devices("GPU")) or keras.backend.backend() == "jax"
    model.compile(
        optimizer(experiment.recipe, steps),
        per_sample(HeatmapMSE(model.codec, ohkm_topk=experiment.recipe.ohkm_topk), model),
        metrics=metrics(people.skeleton, model.codec, experiment.sources, people),
        jit_compile="auto" if compiled else False,
    )
    model.optimizer.build(model.trainable_variables)  # else TensorFlow traces the first step twice
    return model


def metrics(
    skeleton: Skeleton, codec: codecs.Codec, sources: tuple[Source, ...] = (), people: People | None = None
) -> list[keras.metrics.Metric]:
    """Validation metrics; the first one selects ``best.keras``, or of several sources their weighted mean.

    A target's reference length is the head size in MPII, for PCKh, and sqrt(area) in the others, for OKS.
    """
    if sources:
        return [_metric_of(index, skeleton, codec, sources, people) for index in _validated(sources)]
    torso = [PCK(codec, threshold=0.2, torso=skeleton.torso, name="pck")] if skeleton.torso else []
    if skeleton == MPII:
        return [PCKh(codec, name="pckh"), *torso]
    similarity = [OKSAP(skeleton.sigmas, codec=codec, name="oks_ap")]
    return torso + similarity if skeleton == LSP else similarity + torso


def _validated(sources: tuple[Source, ...]) -> list[int]:
    return [index for index, source in enumerate(sources) if source.protocol]


def _metric_name(source: Source) -> str:
    return f"{source.name}_{METRICS[source.protocol]}"


def _metric_of(index: int, skeleton: Skeleton, codec, sources: tuple[Source, ...], people: People):
    """The metric of one source by its own protocol, on the joints of the skeleton that it labels."""
    source = sources[index]
    name, kwargs = _metric_name(source), {"codec": codec, "source": index if len(sources) > 1 else None}
    if source.protocol == "pckh":
        excluded = [joint for joint, own in enumerate(skeleton.joints) if own in ("pelvis", "thorax")]
        return PCKh(**kwargs, exclude=excluded, name=name)
    if source.protocol == "pck":
        return PCK(**kwargs, threshold=0.2, torso=skeleton.torso, name=name)
    labelled = (people.keypoints[people.source_index == index, :, 2] > 0).any(axis=0)
    return OKSAP(skeleton.sigmas, **kwargs, exclude=np.flatnonzero(~labelled).tolist(), name=name)


def _crops_of_epoch(experiment: Experiment, people: People) -> tuple[int, ...] | None:
    """Of each source, if there are several."""
    if not experiment.sources:
        return None
    batch_size, total = experiment.recipe.batch_size, experiment.crops_per_epoch
    return mixture.crops_of_epoch(experiment.sources, people, batch_size, total)


def _check_joints(experiment: Experiment, *tables: People) -> None:
    skeleton = skeletons.get(experiment.skeleton)
    for table in tables:
        if table.skeleton != skeleton:
            raise InputError(
                f"{table.source} has {table.skeleton.name} joints, but experiment {experiment.name!r} is for "
                f"{skeleton.name}; choose an experiment or data that fit, or give both the same skeleton."
            )


def _validation_data(validation: People, reading: dict, hosts: ProcessGroup, distribution: tf.distribute.Strategy):
    """Batches that are judged, and batches that are shown, which are the same in all processes."""
    shown = pipeline.batches(validation, **reading)
    if hosts.count == distribution.num_replicas_in_sync == 1:
        return shown, shown
    return pipeline.batches(validation, **reading, shard=hosts.shard, whole=True), shown


def _precise_bn_data(people: People, varied: dict, count: int, save_state: SaveState) -> Iterator[tuple]:
    """The first so many batches of a training, in all processes the same whole ones; a stop need not wait for them."""
    for batch in pipeline.batches(people, **varied).take(count):
        save_state.stop_in_validation()
        yield batch


def _resume_state(run, states, experiment, of_people, resume, overwrite, hosts: ProcessGroup) -> State:
    """`begun_run`, the same in all processes; each has read the folder when process 0 begins to write."""
    recipe = experiment.recipe
    if recipe.batch_size % hosts.devices:
        raise InputError(
            f"The recipe's batch_size is {recipe.batch_size}, which the {hosts.devices} devices of {hosts.count} "
            f"processes cannot share equally; give a multiple of {hosts.devices}."
        )
    hosts.check_same(f"{experiment}{of_people}", "an experiment, recipe or people")
    begun = resume_state(run, states, experiment, of_people, resume, overwrite or not hosts.first)
    hosts.check_same(f"{begun.epoch} {begun.step}", f"a state in {run}, which has to be a folder that all share,")
    return begun


def _network(experiment: Experiment, people: People, steps: int, begun: State) -> tuple[keras.Model, State]:
    """The network as it was in a state, and that state; for a beginning, with the network's preprocessing noted."""
    if not begun.variables:
        model = build(experiment, people, steps)
        return model, replace(begun, origin={**begun.origin, "preprocessing": model.spec.get("preprocessing")})
    bare = replace(experiment, weights=None, backbone_weights=None, map_joints=False)  # the files may be gone
    model = build(bare, people, steps, begun.origin["preprocessing"])
    for part in ("model", "optimizer"):
        restore(model, begun.variables, part)
    return model, begun


def _match_statistics(model: keras.Model, experiment: Experiment, people: People, varied: dict) -> None:
    """Statistics of the first training crops for a backbone from a file with folded batch norms, which has none.

    The head's batch norms, whose weights are random, have nothing to keep. All processes count the same crops.
    """
    if experiment.weights or source_kind(experiment.backbone_weights) != "folded":
        return
    last = model.get_layer(backbones.BACKBONES[model.spec["backbone"]].taps[-1])
    backbone = keras.Model(model.input, last.output).layers
    norms = [layer for layer in backbone if isinstance(layer, keras.layers.BatchNormalization)]
    crops = pipeline.batches(people, **varied).take(-(-CROPS // varied["batch_size"]))
    normalization.match_statistics(model, (images for images, _ in crops), norms)


@contextmanager
def _translate_errors(run: Path, states: States, tables: tuple[People, ...], on_bad_record: str) -> Iterator[None]:
    """What can go wrong in `fit` without being a bug, as an `InputError`: a full disk, and a broken image."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or run} cannot be written ({error.strerror or error}); {states.advice()}."
        ) from error
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        if on_bad_record == "skip":  # then it was no image
            raise
        for table in tables:
            explained = pipeline.explain_failure(table, error)
            if explained is not error:
                raise explained from error
        raise


def _records(
    run, history, model, validation_data, experiment: Experiment, validate: ValidateAveraged
) -> list[keras.callbacks.Callback]:
    """What is written down of an epoch."""
    sources, first = experiment.sources, []
    if sources:
        weights = {f"val_{_metric_name(sources[index])}": sources[index].weight for index in _validated(sources)}
        monitor, first = SourceScore.NAME, [SourceScore(weights)]
    else:
        monitor = f"val_{metrics(model.skeleton, model.codec)[0].name}"
    return [
        Throughput(experiment.recipe.batch_size),
        *first,
        validate,
        RunFiles(run, history, monitor, validate.averaged),
        PreviewImages(run / LOGS / "images", validation_data, validate.averaged),
        Curves(run / LOGS, write_graph=False, profile_batch=0),
    ]
