"""The run folder: the files that a training writes, and the checks before it goes on from them."""

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
DATA = "data.json"


def find_resume_state(
    run: Path, states: States, experiment: Experiment, hashes: dict[str, str], resume: bool, overwrite: bool
) -> State:
    """The state to go on from; for a new run that of the beginning.

    Args:
        run: the run folder.
        states: the saved states in it.
        experiment: the one to be trained.
        hashes: `data_hash` of the people to be trained on.
        resume: go on with an earlier run.
        overwrite: an earlier run may be replaced.

    Raises:
        InputError: the folder is in use, or the run in it was started otherwise or is damaged.
    """
    exists = bool(states) or (run / LAST).exists()
    if exists and not resume and not overwrite:
        raise InputError(f"{run} holds a run; go on with resume=True, replace it with overwrite=True, or name another.")
    if not exists or not resume:
        return State(data_hash=hashes)
    if Experiment.load(run / CONFIG) != experiment:
        raise InputError(f"{run / CONFIG} says that the run was started otherwise; resume=True needs the same options.")
    state = states.newest()
    if state is None:
        raise InputError(
            f"{run} has {LAST} and no state to go on from; start from its weights in another run, or give "
            "overwrite=True."
        )
    for name, value in hashes.items():
        if state.data_hash[name] != value:
            other, same = ("another", "teacher") if name == "teacher" else (f"other {name}", "people")
            raise InputError(f"{run} was started with {other} {same}; resume=True needs the same {same}.")
    return state


def data_hash(people: People, validation: People, teacher: str | None = None) -> dict[str, str]:
    """A SHA-256 of everything that a training takes from each table; of image paths only the file names count.

    And of the teacher, if it is a file.
    """
    hashes = {"training": _digest(people), "validation": _digest(validation)}
    if teacher is not None and Path(teacher).is_file():
        hashes["teacher"] = hashlib.sha256(Path(teacher).read_bytes()).hexdigest()
    return hashes


def account(people: People, validation: People) -> dict[str, dict]:
    """How many people a training has of which files, who was left out and why, and what is odd; ready for JSON."""
    return {
        name: {
            "source": table.source,
            "people": len(table),
            "left_out": dict(table.left_out),
            "remarks": list(table.remarks),
        }
        for name, table in (("training", people), ("validation", validation))
    }


def make_folder(run: Path, states: States, experiment: Experiment, data: dict, anew: bool) -> bool:
    """Make the run folder with its config and the `account` of its data; delete an earlier run if it starts `anew`.

    Returns:
        Whether the folder is new.
    """
    if anew and (states or (run / LAST).exists()):
        shutil.rmtree(run)
    new = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    if anew:
        experiment.save(run / CONFIG)
        (run / DATA).write_text(json.dumps(data, indent=1) + "\n")
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

    Keras' `ModelCheckpoint` overwrites the old file (a training that is killed meanwhile has none to go on from) and
    forgets the best score when a training goes on.

    Args:
        run: the run folder.
        history: of the epochs before; each epoch appends its values, and the learning rate after it.
        monitor: name of the value that is highest in the best epoch.
        averaged: the averaged weights of the network, which are saved.
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
