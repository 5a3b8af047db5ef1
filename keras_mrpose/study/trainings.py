"""The trainings of a study: every network with every seed, each in a run folder, measured on the same people."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError, lookup
from keras_mrpose.evaluation.evaluate import Result, check, evaluate
from keras_mrpose.evaluation.provenance import of_data
from keras_mrpose.models import list_models
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.training.checkpointing import Interruption, Stopped
from keras_mrpose.training.config import Experiment
from keras_mrpose.training.distributed import ProcessGroup
from keras_mrpose.training.run_dir import CONFIG, LAST
from keras_mrpose.training.train import train

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """Which networks are compared, and where.

    Args:
        experiment: how all of them are trained; its network and seed are replaced.
        networks: of `keras_mrpose.list_models()`; the others are compared with the first.
        seeds: how many trainings of each; they have the seeds 0, 1, 2 ... With the same seed all networks see the same
            crops in the same order.
        folder: gets a run folder for each training, ``NETWORK-SEED``.

    Raises:
        InputError: less than two networks, an unknown one, one that is named twice, or no seed.
    """

    experiment: Experiment
    networks: tuple[str, ...]
    seeds: int
    folder: Path

    def __post_init__(self) -> None:
        networks = tuple(lookup("network", name, list_models()) for name in self.networks)
        object.__setattr__(self, "networks", networks)
        if len(set(networks)) < max(2, len(networks)):
            raise InputError(f"The networks are {', '.join(networks)}; give at least two, each once.")
        if self.seeds < 1:
            raise InputError(f"seeds is {self.seeds}; give a number of at least 1, better 3 or more.")

    def run(self, network: str, seed: int) -> Path:
        """The run folder of a training."""
        return self.folder / f"{network}-{seed}"

    def result(self, network: str, seed: int, test: str) -> Path:
        """The result file of a training on a test."""
        return self.run(network, seed) / f"result-{test}.json"

    def training(self, network: str, seed: int) -> Experiment:
        """The experiment of a training."""
        recipe = replace(self.experiment.recipe, seed=seed)
        return replace(self.experiment, name=f"{network}-{seed}", model=network, recipe=recipe)


def check_study(study: Study, people: People, tests: Mapping[str, People], protocol: str | None = None) -> None:
    """Raise before hours of work what would be refused after them.

    Args:
        study: its run folders, as far as they are there, must have been started by the same experiment.
        people: to train on.
        tests: name -> people to measure on, nobody of them in an image of the training.
        protocol: to measure by; None is each data set's own.

    Raises:
        InputError: another experiment, with the fields that differ; an image for both training and test; people who
            cannot be measured.
    """
    for name, table in tests.items():
        check(protocol or protocol_of(table), table)
        if shared := _files(table) & _files(people):
            raise InputError(
                f"{len(shared)} images of test {name!r} are trained on, such as {min(shared)}; measure on other people."
            )
    for seed in range(study.seeds):
        for network in study.networks:
            config = study.run(network, seed) / CONFIG
            if config.exists() and (fields := _differing(Experiment.load(config), study.training(network, seed))):
                raise InputError(
                    f"{config} was started otherwise ({', '.join(fields)}), and networks are compared that are trained "
                    "alike; give the options of its start, or another folder."
                )


def run_study(
    study: Study,
    people: People,
    validation: People,
    tests: Mapping[str, People],
    *,
    protocol: str | None = None,
    flip_test: bool = True,
    **options,
) -> Iterator[int]:
    """Train and measure seed by seed, so that a study that was stopped compares all networks with the seeds it has.

    What is trained and measured already is not done again. Measured are the weights after the last epoch
    (``last.keras``): nobody chooses an epoch, so that no network is lucky in the choice. The result of each test lies
    in the run folder, ``result-NAME.json`` with the raw predictions beside it.

    Args:
        study: what to do.
        people: to train on.
        validation: for the curves of the trainings.
        tests: name -> people to measure on.
        protocol: to measure by; None is each data set's own.
        flip_test: whether to measure with the flip test.
        options: of `training.train`, but for ``resume``, ``overwrite`` and ``process_group``.

    Yields:
        How many seeds are done with all networks, after each.

    Raises:
        InputError: as `check_study`, `train` and `evaluate`.
        Stopped: Ctrl-C or SIGTERM came, and the state is saved.
    """
    check_study(study, people, tests, protocol)
    for seed in range(study.seeds):
        for network in study.networks:
            run = study.run(network, seed)
            _LOG.info("%s, seed %d (of %d), run folder %s", network, seed, study.seeds, run)
            process, training = _Process(), study.training(network, seed)
            try:
                train(training, people, validation, run, resume=True, process_group=process, **options)
            except Stopped as stop:
                raise Stopped(f"stopped in {run}, which is saved: the same command goes on", stop.signal) from None
            if process.caught.requested():
                raise Stopped(f"stopped after {run}: the same command goes on", process.caught.signal)
            for name, table in tests.items():
                _measure(run, study.result(network, seed, name), table, protocol, flip_test)
            gc.collect()  # a network is a cycle of references
        yield seed + 1


def results(study: Study, tests: Mapping[str, People], seeds: int) -> dict[str, list[list[Result]]]:
    """What was measured: name of a test -> results of each network in order, of each of its first `seeds` seeds."""
    return {
        name: [[Result.load(study.result(network, seed, name)) for seed in range(seeds)] for network in study.networks]
        for name in tests
    }


class _Process(ProcessGroup):
    """This process; knows of a signal that a training caught and finished all the same, in its last moments."""

    def __init__(self):
        super().__init__()
        self.caught = Interruption()

    def interruption(self) -> Interruption:
        """What catches the signals of a training."""
        return self.caught


def _measure(run: Path, file: Path, people: People, protocol: str | None, flip_test: bool) -> None:
    """Evaluate a trained network, unless its result on these people is there."""
    if _is_measured(file, people, protocol, flip_test):
        return
    predictor = Predictor(run / LAST, flip_test=flip_test)
    result = evaluate(predictor, people, protocol=protocol, diagnose=False)
    result.save(file)
    _LOG.info("%s: %s %.1f in %s", run.name, result.metric, 100 * result.value, file.name)


def _is_measured(file: Path, people: People, protocol: str | None, flip_test: bool) -> bool:
    """Whether a result is there, whole, of these people and made in this way."""
    if not file.exists():
        return False
    try:
        made = Result.load(file).protocol
    except InputError:  # of a process that was killed while it wrote
        return False
    return (
        made["evaluation"] == (protocol or protocol_of(people))
        and made["settings"]["flip_test"] == flip_test
        and made["data"]["sha256"] == of_data(people)["sha256"]
    )


def _files(people: People) -> set[str]:
    """Images that people are in, without symbolic links."""
    return {str(Path(path).resolve()) for path in np.unique(people.paths())}


def _differing(one: Experiment, other: Experiment) -> list[str]:
    """Fields in which two experiments differ, the recipe's and the augmentation's own ones among them."""
    return [
        f"{name} is {value!r:.60}, now {there[name]!r:.60}"
        for there in [_flat(other)]
        for name, value in _flat(one).items()
        if value != there[name]
    ]


def _flat(experiment: Experiment) -> dict:
    fields = asdict(experiment)
    return {**fields.pop("recipe"), **fields.pop("augmentation"), **fields}
