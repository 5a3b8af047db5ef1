"""Train an experiment or a network; the run folder gets the network, its history and the state to go on from."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose import codecs, skeletons
from keras_mrpose.data import mixture, pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.mixture import Source
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.data.pipeline import Skipped
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import metric
from keras_mrpose.models import PoseModel, backbones, networks, normalization
from keras_mrpose.models.pretrained import read_keras, source_kind
from keras_mrpose.presets import PRESETS
from keras_mrpose.skeletons import LSP, MPII, Skeleton
from keras_mrpose.training.callbacks import Curves, ListSkipped, PreviewImages, SourceScore, Throughput, TimeLimit
from keras_mrpose.training.checkpointing import ReadOnlyStates, SaveState, State, States, restore
from keras_mrpose.training.config import Experiment, Recipe
from keras_mrpose.training.distributed import ProcessGroup, devices, per_sample
from keras_mrpose.training.optimization import AveragedWeights, ValidateAveraged, build_optimizer, precise_bn_batches
from keras_mrpose.training.run_dir import (
    LAST,
    LOGS,
    STATE,
    RunFiles,
    account,
    data_hash,
    find_resume_state,
    make_folder,
)
from keras_mrpose.training.sanity_checks import BAD_BATCH, BadBatch, BatchNormGuard, StopOnNaN, warn_of_slow_precision

_LOG = logging.getLogger(__name__)
# The names of the protocols' metrics in logs.
METRICS = {"ap": "oks_ap", "pckh": "pckh", "pck": "pck"}
# Crops for the statistics of folded batch norms; they take seconds. Correlation of training and inference mode in C5 of
# a real MobileNetV2 on other people: 0.11 without, 0.88 with 160 crops, 0.90 with 320 as with 640 (0.97 on augmented
# crops).
FOLDED_NORM_CROPS = 320


def train(
    experiment: Experiment | PoseModel,
    people: People,
    validation: People,
    run: str | Path,
    *,
    recipe: Recipe | None = None,
    augmentation: Augmentation | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
    save_every: float | None = 600.0,
    on_bad_record: str = "stop",
    strategy: str = "auto",
    process_group: ProcessGroup | None = None,
) -> dict[str, list[float]]:
    """Train an experiment, or a network that is built already; everything that it makes is in the run folder.

    The folder gets ``config.json``, ``data.json`` (who was left out, and why), ``best.keras`` (best in validation, see
    `metrics`), ``last.keras`` (with the optimizer), ``history.json`` (one value per epoch), ``logs/`` for TensorBoard,
    and ``state/``, from which a training that was stopped or killed goes on as if nothing had happened (see
    `keras_mrpose.training.checkpointing`).

    Args:
        experiment: what to train; or a network made by `build`, from the weights that it has, with the layers frozen
            that are. It is compiled anew, by the recipe, and trains on one device.
        people: the training people; for a network with other joints by name (`People.with_skeleton`).
        validation: evaluated after each epoch.
        run: the run folder.
        recipe: for a network; None is `Recipe()`. (An experiment has its own, and its own augmentation.)
        augmentation: for a network; None is `Augmentation()`.
        callbacks: of your own, called after those that validate and write the epoch's files. A training that goes on
            finds their public attributes as they were, if JSON can hold them: the best score of an `EarlyStopping`,
            but not the weights that it keeps (``best.keras`` has them).
        resume: go on where the run in this folder was left; start it if there is none.
        overwrite: delete an earlier run in this folder first.
        time_limit: seconds after which the running epoch is the last; None is no limit.
        save_every: seconds between two states within an epoch; None is at the ends of epochs only.
        on_bad_record: what to do about an image that cannot be read: ``"stop"`` the training, or ``"skip"`` its
            people, who are then listed in ``skipped.json``; see `data.pipeline.batches`.
        strategy: ``auto``, ``none`` or ``mirrored``, see `keras_mrpose.training.distributed`.
        process_group: the processes that train together, each with these same arguments, see
            `keras_mrpose.training.distributed`; all read the run folder, process 0 writes it. None is this process
            alone.

    Returns:
        The history: name -> one value per epoch.

    Raises:
        InputError: an unknown codec, a run folder in use, people of another skeleton, mirroring of joints that are not
            known to be left or right, an unreadable image, a file that cannot be written, or a loss that is NaN.
        Stopped: SIGINT (Ctrl-C) or SIGTERM came, and the state is saved.
    """
    run, group, model = Path(run), process_group or ProcessGroup(), None
    if isinstance(experiment, PoseModel):
        model, strategy = experiment, _one_device(strategy)
        experiment = _experiment_of(model, recipe, augmentation)
        people, validation = (pipeline.with_joints_of(model, table) for table in (people, validation))
    elif recipe is not None or augmentation is not None:
        raise InputError("An experiment has its own recipe and augmentation; change those, with dataclasses.replace.")
    recipe = experiment.recipe
    _check_joints(experiment, people, validation)
    distribution = devices(strategy, recipe.batch_size)
    crops = _crops_of_epoch(experiment, people)
    steps = (len(people) if crops is None else sum(crops)) // recipe.batch_size
    states = (States if group.is_main else ReadOnlyStates)(run / STATE)
    skipped = Skipped()
    pipeline_options = {
        "input_size": experiment.input_size,
        "batch_size": recipe.batch_size,
        "codec": codecs.codec(experiment.codec, experiment.sigma),
        "on_bad_record": on_bad_record,
        "skipped": skipped,
    }
    hashes = data_hash(people, validation, recipe.teacher)
    resume_state = _agree_on_resume_state(run, states, experiment, hashes, resume, overwrite, group)
    if resume_state.epoch == recipe.epochs:
        _LOG.info("%s is finished: its %d epochs are done.", run, recipe.epochs)
        return resume_state.history
    first = {"first_epoch": resume_state.epoch, "first_step": resume_state.step}
    augmented = {**pipeline_options, "augmentation": experiment.augmentation, "seed": recipe.seed, "crops": crops}
    data = pipeline.batches(people, **augmented, **first, shard=group.shard)
    if group.is_main:
        warn_of_slow_precision(recipe.precision)
    if experiment.augmentation.flip_probability and group.is_main:
        _LOG.info("mirrored: %s", people.skeleton.mirrored())
    val_data, preview = _validation_data(validation, pipeline_options, group, distribution)

    keras.utils.set_random_seed(recipe.seed)
    with distribution.scope():
        model, resume_state = _build_or_restore(experiment, people, steps, resume_state, model)
    anew = not resume_state.variables
    new_folder = group.is_main and make_folder(
        run, states, experiment, account(people, validation), anew
    )  # after all that can be refused
    interruption = group.interruption()
    seconds = save_every if group.is_main else None
    save_state = SaveState(states, resume_state, steps, seconds, interruption, callbacks)
    batches = partial(_precise_bn_data, people, augmented, precise_bn_batches(recipe.batch_size, steps), save_state)
    averaged = AveragedWeights(model, batches, group.broadcast_arrays)
    validate = ValidateAveraged(averaged)
    try:
        with (
            _translate_errors(run, states, (people, validation), on_bad_record),
            interruption,
            group.folder(run) as folder,
            validate.validation,
        ):
            if anew:
                _match_statistics(model, experiment, people, augmented)
            model.fit(
                data,
                steps_per_epoch=steps,
                epochs=recipe.epochs,
                initial_epoch=resume_state.epoch,
                shuffle=False,  # the pipeline has shuffled
                validation_data=val_data,
                verbose="auto" if group.is_main else 0,
                callbacks=[
                    BatchNormGuard(preview, averaged),
                    StopOnNaN(BadBatch(folder, people, augmented, states), (resume_state.epoch, resume_state.step)),
                    *_recording_callbacks(folder, resume_state.history, model, preview, experiment, people, validate),
                    ListSkipped(folder, skipped),
                    *callbacks,
                    save_state,
                    TimeLimit(time_limit, group),
                ],
            )
    finally:
        if new_folder and not states.trained and not any((run / name).exists() for name in (LAST, BAD_BATCH)):
            shutil.rmtree(run)  # nothing was trained
    return resume_state.history


def build(experiment: Experiment, people: People, steps: int, preprocessing: str | None = None) -> keras.Model:
    """The compiled network of an experiment, under its precision.

    Args:
        experiment: what to build.
        people: their skeleton names the joints.
        steps: batches per epoch, for the schedule.
        preprocessing: what the first layer does, see `networks.build`.
    """
    with networks.precision(experiment.recipe.precision):
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
    return compile_by_recipe(model, experiment, people, steps)


def compile_by_recipe(model: keras.Model, experiment: Experiment, people: People, steps: int) -> keras.Model:
    """The network, its stages frozen and its batch norms synchronized as the recipe says, and compiled."""
    if experiment.recipe.ohkm_topk > people.skeleton.num_joints:
        raise InputError(
            f"The recipe's ohkm_topk is {experiment.recipe.ohkm_topk}, but {people.skeleton.name} has "
            f"{people.skeleton.num_joints} joints; give fewer."
        )
    backbones.freeze(model, experiment.backbone, experiment.recipe.frozen_stages)
    if experiment.recipe.sync_batch_norm:
        normalization.synchronize(model)
    model.compile(
        build_optimizer(experiment.recipe, steps),
        per_sample(HeatmapMSE(model.codec, ohkm_topk=experiment.recipe.ohkm_topk), model),
        metrics=metrics(people.skeleton, model.codec, experiment.sources, people),
        teacher=_teacher(experiment.recipe),
        teacher_share=experiment.recipe.teacher_share,
    )
    model.optimizer.build(model.trainable_variables)  # which a state is restored into
    return model


def _teacher(recipe: Recipe) -> keras.Model | None:
    """The network that a recipe names as the teacher."""
    if recipe.teacher is None:
        return None
    if recipe.teacher in PRESETS:
        with networks.precision(recipe.precision):
            return networks.build(preset=recipe.teacher)
    return read_keras(Path(recipe.teacher))


def metrics(
    skeleton: Skeleton, codec: codecs.Codec, sources: tuple[Source, ...] = (), people: People | None = None
) -> list[keras.metrics.Metric]:
    """Validation metrics; the first one selects ``best.keras``, or of several sources their weighted mean.

    A target's reference length is the head size in MPII, for PCKh, and sqrt(area) in the others, for OKS. Without
    people it goes by the skeleton.
    """
    if sources:
        return [_metric_of(index, skeleton, codec, sources, people) for index in _validated(sources)]
    torso = [metric("pck", skeleton, codec)] if skeleton.torso else []
    if skeleton == MPII if people is None else protocol_of(people) == "pckh":
        return [metric("pckh", skeleton, codec), *torso]
    similarity = [metric("oks_ap", skeleton, codec)]
    return torso + similarity if skeleton == LSP else similarity + torso


def _validated(sources: tuple[Source, ...]) -> list[int]:
    return [index for index, source in enumerate(sources) if source.protocol]


def _metric_name(source: Source) -> str:
    return f"{source.name}_{METRICS[source.protocol]}"


def _metric_of(index: int, skeleton: Skeleton, codec, sources: tuple[Source, ...], people: People):
    """The metric of one source by its own protocol, on the joints of the skeleton that it labels."""
    source = sources[index]
    options = {"name": _metric_name(source), "source": index if len(sources) > 1 else None}
    if source.protocol == "ap":
        labelled = (people.keypoints[people.source_index == index, :, 2] > 0).any(axis=0)
        options["exclude"] = np.flatnonzero(~labelled).tolist()
    return metric(METRICS[source.protocol], skeleton, codec, **options)


def _crops_of_epoch(experiment: Experiment, people: People) -> tuple[int, ...] | None:
    """The number of crops of each source per epoch, if there are several."""
    if not experiment.sources:
        return None
    batch_size, total = experiment.recipe.batch_size, experiment.crops_per_epoch
    return mixture.crops_of_epoch(experiment.sources, people, batch_size, total)


def _one_device(strategy: str) -> str:
    """The strategy of a network that is built already, outside of the scope of any."""
    if strategy == "mirrored":
        raise InputError("A network that is built already trains on one device; give an Experiment for several.")
    return "none" if strategy == "auto" else strategy


def _experiment_of(model: PoseModel, recipe: Recipe | None, augmentation: Augmentation | None) -> Experiment:
    """The experiment that trains a network that is built already."""
    precision, spec = model.dtype_policy.name, {"name": "own", "backbone": "", **model.spec}
    recipe = recipe or Recipe(precision=precision)
    if recipe.precision != precision:
        raise InputError(
            f"The recipe's precision is {recipe.precision!r}, but {model.name} was built with {precision!r}; give one "
            "precision, by keras.config.set_dtype_policy before building."
        )
    return Experiment(
        name=spec["name"],  # not the model's, which Keras numbers, nor the folder's, which may be moved
        model=spec["name"],
        backbone=spec["backbone"],
        skeleton=model.skeleton,
        input_size=tuple(model.input_shape[1:3]),
        sigma=float(model.codec.sigma),
        codec=codecs.name_of(model.codec),
        augmentation=augmentation or Augmentation(),
        recipe=recipe,
    )


def _check_joints(experiment: Experiment, *tables: People) -> None:
    skeleton = skeletons.get(experiment.skeleton)
    for table in tables:
        if table.skeleton != skeleton:
            raise InputError(
                f"{table.source} has {table.skeleton.name} joints, but experiment {experiment.name!r} is for "
                f"{skeleton.name}; choose an experiment or data that fit, or give both the same skeleton."
            )


def _validation_data(
    validation: People, pipeline_options: dict, group: ProcessGroup, distribution: tf.distribute.Strategy
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """This process's share of the validation batches, and whole batches for previews, equal in all processes."""
    preview = pipeline.batches(validation, **pipeline_options)
    if group.count == distribution.num_replicas_in_sync == 1:
        return preview, preview
    return pipeline.batches(validation, **pipeline_options, shard=group.shard, whole=True), preview


def _precise_bn_data(people: People, augmented: dict, count: int, save_state: SaveState) -> Iterator[tuple]:
    """The first `count` whole batches of a training, equal in all processes; a stop does not wait for them."""
    for batch in pipeline.batches(people, **augmented).take(count):
        save_state.stop_in_validation()
        yield batch


def _agree_on_resume_state(
    run: Path, states: States, experiment: Experiment, hashes: dict, resume: bool, overwrite: bool, group: ProcessGroup
) -> State:
    """`find_resume_state`, checked to be the same in all processes; each has read it when the main one writes."""
    batch_size = experiment.recipe.batch_size
    if batch_size % group.devices:
        raise InputError(
            f"The recipe's batch_size is {batch_size}, which the {group.devices} devices of {group.count} "
            f"processes cannot share equally; give a multiple of {group.devices}."
        )
    group.check_same(f"{experiment}{hashes}", "an experiment, recipe or people")
    state = find_resume_state(run, states, experiment, hashes, resume, overwrite or not group.is_main)
    group.check_same(f"{state.epoch} {state.step}", f"a state in {run}, which has to be a folder that all share,")
    return state


def _build_or_restore(
    experiment: Experiment, people: People, steps: int, resume_state: State, given: PoseModel | None
) -> tuple[keras.Model, State]:
    """The network with the weights of a state, and that state; at the beginning, with the network's preprocessing.

    `given` is the network if it is built already.
    """
    anew = not resume_state.variables
    if given is not None:
        model = compile_by_recipe(given, experiment, people, steps)
    elif anew:
        model = build(experiment, people, steps)
    else:
        bare = replace(experiment, weights=None, backbone_weights=None, map_joints=False)  # the files may be gone
        model = build(bare, people, steps, resume_state.preprocessing)
    if anew:
        return model, replace(resume_state, preprocessing=model.spec.get("preprocessing"))
    for part in ("model", "optimizer"):
        restore(model, resume_state.variables, part)
    return model, resume_state


def _match_statistics(model: keras.Model, experiment: Experiment, people: People, augmented: dict) -> None:
    """Set the batch norms of a backbone whose file had them folded, without statistics, from the first training crops.

    The head's batch norms have random weights, so they are left alone. All processes use the same crops.
    """
    if experiment.weights or source_kind(experiment.backbone_weights) != "folded":
        return
    of_backbone = backbones.stage_layers(model, model.spec["backbone"])
    norms = [layer for layer in of_backbone if isinstance(layer, keras.layers.BatchNormalization)]
    crops = pipeline.batches(people, **augmented).take(-(-FOLDED_NORM_CROPS // augmented["batch_size"]))
    normalization.match_statistics(model, (images for images, _ in crops), norms)


@contextmanager
def _translate_errors(run: Path, states: States, tables: tuple[People, ...], on_bad_record: str) -> Iterator[None]:
    """Raise what can go wrong in `fit` without being a bug as an `InputError`: a full disk, a broken image."""
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


def _recording_callbacks(
    run: Path, history: dict, model: keras.Model, preview: tf.data.Dataset, experiment: Experiment, people: People,
    validate: ValidateAveraged,
) -> list[keras.callbacks.Callback]:  # fmt: skip
    """The callbacks that validate and record an epoch, in their order."""
    sources, score = experiment.sources, []
    if sources:
        weights = {f"val_{_metric_name(sources[index])}": sources[index].weight for index in _validated(sources)}
        monitor, score = SourceScore.NAME, [SourceScore(weights)]
    else:
        monitor = f"val_{metrics(model.skeleton, model.codec, people=people)[0].name}"
    return [
        Throughput(experiment.recipe.batch_size),
        *score,
        validate,
        RunFiles(run, history, monitor, validate.averaged),
        PreviewImages(run / LOGS / "images", preview, validate.averaged),
        Curves(run / LOGS, write_graph=False, profile_batch=0),
    ]
