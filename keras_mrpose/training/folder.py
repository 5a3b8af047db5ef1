"""The run folder: what a training leaves, and what it goes on from."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import keras

from keras_mrpose.config import Experiment
from keras_mrpose.errors import InputError

BEST, LAST, CONFIG, HISTORY, LOGS = "best.keras", "last.keras", "config.json", "history.json", "logs"


def open_run(run: Path, experiment: Experiment, resume: bool, overwrite: bool) -> dict[str, list[float]]:
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


def restored(run: Path, epochs: int, steps: int) -> keras.Model:
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
