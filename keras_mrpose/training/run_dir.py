"""The run folder: what a training leaves, and what it goes on from."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.training.checkpointing import State, States, atomic_write, commit
from keras_mrpose.training.config import Experiment
from keras_mrpose.training.optimization import AveragedWeights

BEST, LAST, CONFIG, HISTORY, LOGS, STATE = "best.keras", "last.keras", "config.json", "history.json", "logs", "state"


def resume_state(
    run: Path, states: States, experiment: Experiment, origin: dict[str, str], resume: bool, overwrite: bool
) -> State:
    """The state to go on from; for a new run that of the beginning, with this origin.

    Raises:
        InputError: the folder is in use, or the run in it was started otherwise or is damaged.
    """
    there = bool(states) or (run / LAST).exists()
    if there and not resume and not overwrite:
        raise InputError(f"{run} holds a run; go on with --resume, replace it with --overwrite, or name another.")
    if not there or not resume:
        return State(origin=data_hash)
    if Experiment.load(run / CONFIG) != experiment:
        raise InputError(f"{run / CONFIG} says that the run was started otherwise; give --resume the same options.")
    state = states.newest()
    if state is None:
        raise InputError(
            f"{run} has {LAST} and no state to go on from; start from its weights in another run, or with --overwrite."
        )
    for name, value in data_hash.items():
        if state.origin[name] != value:
            raise InputError(f"{run} was started with other {name} people; give --resume the same people.")
    return state


def data_hash(people: People, validation: People) -> dict[str, str]:
    """A SHA-256 of all that a training takes from each table; image files go by their names, folders may move."""
    return {"training": _digest(people), "validation": _digest(validation)}


def make_folder(run: Path, states: States, experiment: Experiment, anew: bool) -> bool:
    """The run folder with its config, without an earlier run if this one starts `anew`; tells whether it is new."""
    if anew and (states or (run / LAST).exists()):
        shutil.rmtree(run)
    new = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    if anew:
        experiment.save(run / CONFIG)
    return new


def _digest(people: People) -> str:
    digest = hashlib.sha256("\n".join(os.path.basename(path) for path in people.paths()).encode())
    for column in (people.boxes, people.keypoints, people.reference_length):
        digest.update(np.ascontiguousarray(column, np.float64))
    if people.num_sources > 1:
        digest.update(people.source_index)
    return digest.hexdigest()


class RunFiles(keras.callbacks.Callback):
    """Writes the checkpoints and the history after each epoch, each replaced in one piece.

    Keras' `ModelCheckpoint` writes over the old file (a training that is killed then has none to go on from) and
    forgets the best score when a training goes on.

    Args:
        run: the run folder.
        history: of the epochs before; each epoch appends its values, and the learning rate after it.
        monitor: the higher this value, the better the epoch.
        averaged: what is saved, of the network.
    """

    def __init__(self, run: Path, history: dict[str, list[float]], monitor: str, averaged: AveragedWeights):
        super().__init__()
        self.run, self.history, self.monitor, self.averaged = run, history, monitor, averaged

    def on_epoch_end(self, epoch, logs=None):
        """Save; a training that dies in between goes on from its state and writes the same again."""
        is_best = logs[self.monitor] > max(self.history.get(self.monitor, ()), default=-math.inf)
        for name, value in {**logs, "learning_rate": float(self.model.optimizer.learning_rate)}.items():
            self.history.setdefault(name, []).append(float(value))
        with atomic_write(self.run / LAST) as part:
            with self.averaged.swapped_in():
                self.model.save(part)
            commit(part, self.run / LAST)
        if is_best:
            with atomic_write(self.run / BEST) as part:
                shutil.copyfile(self.run / LAST, part)
                commit(part, self.run / BEST)
        with atomic_write(self.run / HISTORY) as part:
            part.write_text(json.dumps(self.history, indent=1) + "\n")
            commit(part, self.run / HISTORY)
