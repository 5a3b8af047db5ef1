"""Checkpoints: everything that a training needs to go on as if it had never been stopped, and when it is saved.

One file is one generation: a NumPy ``.npz`` with every variable of the network, its optimizer and its metrics, and a
JSON part. It is written to a temporary name, flushed to the disk, and renamed; its name has its position in the
training and its SHA-256, by which damage is noticed. The generation before it is kept.

Ctrl-C and SIGTERM stop a training as soon as its state can be saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.errors import InputError

_LOG = logging.getLogger(__name__)

_ABOUT = "about"
_NAME = re.compile(r"(\d+)-(\d+)-([0-9a-f]{64})\.npz")


@dataclass(frozen=True)
class State:
    """The state of a training; ``State()`` is its beginning.

    Args:
        epoch: how many epochs are finished, with validation and files.
        step: how many steps of the next one are done.
        history: name -> one value per finished epoch.
        data_hash: hash of the people of each table, see `run_dir.data_hash`; it must not change.
        preprocessing: what the first layer of the network does, see `networks.build`.
        variables: ``model/...``, ``optimizer/...``, ``metrics/...``, ``copies/...`` -> value, see `capture`.
        callbacks: of each of the caller's, what the training has changed in it, see `changed`.
    """

    epoch: int = 0
    step: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    data_hash: dict[str, str] = field(default_factory=dict)
    preprocessing: str | None = None
    variables: dict[str, np.ndarray] = field(default_factory=dict)
    callbacks: list[dict] = field(default_factory=list)


class States:
    """The saved states of a training: the last two generations in a folder.

    Args:
        folder: for these files only; it need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.current: Path | None = None  # the last one read or written

    def __bool__(self) -> bool:
        """Whether there are any, damaged or not."""
        return bool(self._generations())

    @property
    def trained(self) -> bool:
        """Whether there is one after the beginning."""
        return any(not path.name.startswith(f"{_file_prefix(0, 0)}-") for path in self._generations())

    def newest(self) -> State | None:
        """Read the newest undamaged generation; None if there is none at all. A damaged one is logged as a warning.

        Raises:
            InputError: all are damaged.
        """
        found = self._generations()
        for path in reversed(found):
            if _digest(path) == _NAME.fullmatch(path.name)[3]:
                self.current = path
                return _read(path)
            _LOG.warning("%s is damaged; going back to the state before it.", path)
        if found:
            raise InputError(
                f"{found[-1]} is damaged, and there is no whole state before it; start with overwrite=True."
            )
        return None

    def write(self, state: State) -> None:
        """Save a state as the newest generation, keep the one before, and delete the others.

        Raises:
            OSError: it cannot be written, with the file's name; the earlier ones are unchanged.
        """
        self.folder.mkdir(exist_ok=True)
        with atomic_write(self.folder / "state.npz") as part:
            names = ("epoch", "step", "history", "data_hash", "preprocessing", "callbacks")
            about = {name: getattr(state, name) for name in names}
            with part.open("wb") as file:
                np.savez(file, **{_ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}, **state.variables)
            path = self.folder / f"{_file_prefix(state.epoch, state.step)}-{_digest(part)}.npz"
            commit(part, path)
        if path == self.current:  # the same, bit for bit
            return
        for old in self._generations():
            if old not in (path, self.current):
                old.unlink()
        self.current = path

    def advice(self) -> str:
        """What to do after a failed write."""
        if self.current is None:
            return "nothing was saved before; make room and start again"
        epoch, step, _ = _NAME.fullmatch(self.current.name).groups()
        position = describe_position(int(epoch), int(step))
        return f"{self.current} (after {position}) is whole; make room and go on with resume=True"

    def _generations(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.folder.glob("*.npz") if _NAME.fullmatch(path.name))


class ReadOnlyStates(States):
    """The generations as a process other than the main one sees them: it reads, and `write` does nothing."""

    def write(self, state: State) -> None:
        """Do nothing."""


def describe_position(epoch: int, step: int) -> str:
    """The position after ``epoch`` finished epochs and ``step`` steps of the next, in words."""
    if (epoch, step) == (0, 0):
        return "no batch"
    return f"epoch {epoch}" if step == 0 else f"batch {step} of epoch {epoch + 1}"


def capture(model: keras.Model) -> dict[str, np.ndarray]:
    """Copy every variable of a compiled network, by a name that is the same in each process.

    Of a counter whose copies are summed over the devices, the sum and each copy: adding goes on in the same order.
    """
    if hasattr(model, "jax_state_sync"):  # `fit` keeps them elsewhere under JAX
        model.jax_state_sync()
    own = _variables(model)
    sums = {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in own.items()}
    copies = {f"copies/{name}": np.array(copies) for name, v in own.items() if (copies := _summed_copies(v))}
    return {**sums, **copies}


def restore(model: keras.Model, variables: dict[str, np.ndarray], part: str) -> None:
    """Set the variables of a part (``"model"``, ``"optimizer"``, ``"metrics"``) to their captured values.

    Raises:
        InputError: they belong to another network.
    """
    own = {name: variable for name, variable in _variables(model).items() if name.startswith(part)}
    values = {name: value for name, value in variables.items() if name.startswith(part)}
    if {name: tuple(v.shape) for name, v in own.items()} != {name: v.shape for name, v in values.items()}:
        raise InputError(
            f"The run's state has other {part} variables than the network has, for example "
            f"{min(own.keys() ^ values.keys(), default='of another shape')}; it is of another version of this library, "
            "or other layers are frozen now: start again with overwrite=True."
        )
    for name, variable in own.items():
        _assign(variable, values[name], variables.get(f"copies/{name}", ()))


def _assign(variable: keras.Variable, value: np.ndarray, parts: Sequence[np.ndarray]) -> None:
    """Set a variable on all devices.

    A counter whose copies are summed over the devices gets its `parts`; of another number of devices, its value on the
    first one only: TensorFlow would split it into equal parts, and round whole numbers down.
    """
    copies = _summed_copies(variable)
    if len(parts) != len(copies):
        parts = (value, *[np.zeros_like(value)] * (len(copies) - 1))
    for copy, part in zip(copies, parts, strict=False):
        copy.assign(part)
    if not copies:
        variable.assign(value)


def _summed_copies(variable: keras.Variable) -> tuple:
    """Copies on each device of a counter that is their sum, with `MirroredStrategy`; else none."""
    return tuple(getattr(variable.value, "values", ())) if variable.aggregation == "sum" else ()


def attributes(callback: keras.callbacks.Callback) -> dict:
    """The public attributes of a callback that JSON can hold: numbers, strings, None, lists and dicts of such."""
    found = {}
    for name, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        if not name.startswith("_") and name not in ("params", "model"):
            with contextlib.suppress(TypeError, ValueError):  # no JSON
                found[name] = json.loads(json.dumps(value))
    return found


def changed(callback: keras.callbacks.Callback, before: dict) -> dict:
    """Those of its `attributes` that are not as they were when the training began, such as the best score so far."""
    return {name: value for name, value in attributes(callback).items() if before.get(name, ...) != value}


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write its new content to, for `commit`; a failed write leaves none behind.

    Raises:
        OSError: the original one, with the name of `path`.
    """
    part = path.with_name(f"part-{path.name}")
    try:
        yield part
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def commit(part: Path, path: Path) -> None:
    """Flush a written file to the disk, then rename it, so that the old or the new content survives a power cut."""
    for folder_or_file in (part, path.parent):
        descriptor = os.open(folder_or_file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if folder_or_file is part:
            os.replace(part, path)


class Stopped(KeyboardInterrupt):
    """A training was asked to stop, and has saved its state.

    Args:
        message: says so, and how to go on.
        number: the signal.
    """

    def __init__(self, message: str, number: signal.Signals):
        super().__init__(message)
        self.signal = number


class Interruption:
    """Catches Ctrl-C and SIGTERM within a ``with`` statement: `signal` is the first one that came, None before.

    A second one does at once what it did before. Signals that were ignored stay ignored (a shell that starts a
    process in the background ignores SIGINT for it), and outside the main thread, where Python forbids it, nothing is
    changed.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._previous = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._catch) or signal.SIG_DFL
        return self

    def __exit__(self, *error) -> None:
        self._restore()

    def requested(self) -> signal.Signals | None:
        """The signal that asks to stop now, None if there is none."""
        return self.signal

    def _catch(self, number: int, frame) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class SaveState(keras.callbacks.Callback):
    """Saves the state at the beginning, after each epoch, from time to time, and when the training is asked to stop.

    Comes after the callbacks that write the epoch's files: an epoch is finished when its state is saved. A training
    that goes on from an earlier state writes the same files again.

    A stop during the validation saves the state before the epoch's last step, which is then taken again: a state
    between that step and the end of the epoch would be one that `fit` cannot begin with.

    Args:
        states: where to save.
        resume_state: the state that this training goes on from; its history grows with each epoch.
        steps: per epoch.
        seconds: between two states; None is at the ends of epochs only.
        interruption: says whether to stop.
        callbacks: of the caller, before this one in the list: what the training changes in them is kept as well.
    """

    def __init__(
        self,
        states: States,
        resume_state: State,
        steps: int,
        seconds: float | None,
        interruption: Interruption,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        super().__init__()
        self.callbacks, self.before = callbacks, [{} for _ in callbacks]
        self.states, self.resume_state, self.steps, self.seconds = states, resume_state, steps, seconds
        self.interruption = interruption
        self.saved = time.monotonic()

    def on_train_begin(self, logs=None):
        """Save the beginning, from which the first epoch's files can be written again; restore the callbacks."""
        self.before = [attributes(callback) for callback in self.callbacks]
        for callback, values in zip(self.callbacks, self.resume_state.callbacks, strict=False):
            for name, value in values.items():
                setattr(callback, name, value)
        if not self.resume_state.variables:
            self._save(self._state(0, 0))

    def on_epoch_begin(self, epoch, logs=None):
        """Restore the metrics of an epoch that goes on in its middle; Keras has just reset them."""
        self.epoch, self.step, self.cut = epoch, 0, False
        if epoch == self.resume_state.epoch and self.resume_state.step:
            self.step = self.resume_state.step
            if len(self.model.metrics_variables) < sum(
                name.startswith("metrics/") for name in self.resume_state.variables
            ):
                build_metrics(self.model)
            restore(self.model, self.resume_state.variables, "metrics")

    def on_train_batch_begin(self, batch, logs=None):
        """Keep the state before the last step, which a stop during the validation will save."""
        if self.step == self.steps - 1:
            self.before_last = self._state(self.epoch, self.step)

    def on_train_batch_end(self, batch, logs=None):
        """Save if it is time."""
        self.step += 1
        stop = self.interruption.requested()
        if self.step == self.steps:
            if stop:
                self._save_and_stop(self.before_last)
            if batch + 1 < self.steps:  # `fit` would take as many as in a whole epoch
                self.cut = self.model.stop_training = True
        elif stop:
            self._save_and_stop(self._state(self.epoch, self.step))
        elif self.seconds is not None and time.monotonic() - self.saved >= self.seconds:
            self._save(self._state(self.epoch, self.step))

    def stop_in_validation(self) -> None:
        """Raise `Stopped` if the training is asked to stop; for long work between two callbacks."""
        if self.interruption.requested():
            self._save_and_stop(self.before_last)

    def on_test_batch_end(self, batch, logs=None):
        """Stop without the rest of the validation."""
        self.stop_in_validation()

    def on_epoch_end(self, epoch, logs=None):
        """Save: the epoch is done."""
        if self.cut:
            self.model.stop_training = False
        self.before_last = None
        state = self._state(epoch + 1, 0)
        self._save(state)
        if self.interruption.requested() and epoch + 1 < self.params["epochs"]:
            self._stop(state)

    def _state(self, epoch: int, step: int) -> State:
        callbacks = [changed(*pair) for pair in zip(self.callbacks, self.before, strict=True)]
        return replace(self.resume_state, epoch=epoch, step=step, variables=capture(self.model), callbacks=callbacks)

    def _save(self, state: State) -> None:
        if not all(np.isfinite(values).all() for values in state.variables.values()):
            return  # the loss will say so in the next step; until then the last state is one to go on from
        self.states.write(state)
        self.saved = time.monotonic()

    def _save_and_stop(self, state: State) -> None:
        self._save(state)
        self._stop(state)

    def _stop(self, state: State) -> None:
        number = self.interruption.signal
        raise Stopped(
            f"stopped by {number.name}; the training is saved after {describe_position(state.epoch, state.step)} in "
            f"{self.states.folder}: go on with resume=True",
            number,
        )


def build_metrics(model: keras.Model) -> None:
    """Make the metrics' variables now; Keras on TensorFlow makes them when it first uses them."""
    joints = model.output_shape[-1]
    model.compute_metrics(
        None, keras.ops.zeros((1, joints, 5)), keras.ops.zeros((1, *model.output_shape[1:])), sample_weight=None
    )
    model.reset_metrics()


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    groups = {"model": model.variables, "optimizer": model.optimizer.variables, "metrics": model.metrics_variables}
    named = [(f"{part}/{_unnumbered(v.path, part)}", v) for part, group in groups.items() for v in group]
    assert len(dict(named)) == len(named), "two variables of one name"
    return dict(named)


def _unnumbered(path: str, part: str) -> str:
    """The path without the number that Keras gives to the second optimizer of a process, ``adam_1``."""
    return re.sub(r"^(\w+?)_\d+/", r"\1/", path) if part == "optimizer" else path


def _file_prefix(epoch: int, step: int) -> str:
    """File names sort in the order of the training."""
    return f"{epoch:05d}-{step:07d}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> State:
    with np.load(path, allow_pickle=False) as file:
        variables = {name: file[name] for name in file.files}
    return State(**json.loads(variables.pop(_ABOUT).tobytes()), variables=variables)
