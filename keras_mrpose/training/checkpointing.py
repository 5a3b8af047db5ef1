"""The state of a training on disk: all that it needs to go on as if it had never been stopped.

One file is one generation: a NumPy ``.npz`` with every variable of the network, its optimizer and its metrics, and a
JSON part. It is written aside, brought to the disk, and renamed; its name has its place in the training and its
SHA-256, by which damage is noticed. The generation before it stays beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.training.distributed import assign

_ABOUT = "about"
_NAME = re.compile(r"(\d+)-(\d+)-([0-9a-f]{64})\.npz")


@dataclass(frozen=True)
class State:
    """Where a training stands; ``State()`` is its beginning.

    Args:
        epoch: how many epochs are finished, with validation and files.
        step: how many steps of the next one are done.
        history: name -> one value per finished epoch.
        origin: what else the training depends on, to be the same when it goes on.
        variables: ``model/...``, ``optimizer/...`` and ``metrics/...`` -> value, see `captured`.
    """

    epoch: int = 0
    step: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    variables: dict[str, np.ndarray] = field(default_factory=dict)


class States:
    """The generations in a folder, which need not be there.

    Args:
        folder: theirs alone.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.current: Path | None = None  # the last that was read or written

    def __bool__(self) -> bool:
        """Whether there are any, whole or not."""
        return bool(self._generations())

    @property
    def trained(self) -> bool:
        """Whether there is any but that of the beginning."""
        return any(not path.name.startswith(f"{_position(0, 0)}-") for path in self._generations())

    def newest(self) -> State | None:
        """The newest whole generation, None if there is none at all; a damaged one is told on standard error.

        Raises:
            InputError: all are damaged.
        """
        found = self._generations()
        for path in reversed(found):
            if _digest(path) == _NAME.fullmatch(path.name)[3]:
                self.current = path
                return _read(path)
            print(f"{path} is damaged; going back to the state before it.", file=sys.stderr)
        if found:
            raise InputError(f"{found[-1]} is damaged, and there is no whole state before it; start with --overwrite.")
        return None

    def write(self, state: State) -> None:
        """Make it the newest generation and keep the one before, and no other.

        Raises:
            OSError: it cannot be written, with the file's name; the earlier ones are as they were.
        """
        self.folder.mkdir(exist_ok=True)
        with atomic_write(self.folder / "state.npz") as part:
            about = {name: getattr(state, name) for name in ("epoch", "step", "history", "origin")}
            with part.open("wb") as file:
                np.savez(file, **{_ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}, **state.variables)
            path = self.folder / f"{_position(state.epoch, state.step)}-{_digest(part)}.npz"
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
        return f"{self.current} (after {place(int(epoch), int(step))}) is whole; make room and go on with --resume"

    def _generations(self) -> list[Path]:
        """Oldest first."""
        return sorted(path for path in self.folder.glob("*.npz") if _NAME.fullmatch(path.name))


def place(epoch: int, step: int) -> str:
    """``epoch`` finished epochs and ``step`` steps of the next, in words."""
    if (epoch, step) == (0, 0):
        return "no batch"
    return f"epoch {epoch}" if step == 0 else f"batch {step} of epoch {epoch + 1}"


def capture(model: keras.Model) -> dict[str, np.ndarray]:
    """A copy of every variable of a compiled network, by a name that is the same in each process."""
    if hasattr(model, "jax_state_sync"):  # `fit` keeps them elsewhere under JAX
        model.jax_state_sync()
    return {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in _variables(model).items()}


def restore(model: keras.Model, variables: dict[str, np.ndarray], part: str) -> None:
    """Give the variables of a part (``"model"``, ``"optimizer"``, ``"metrics"``) their captured values.

    Raises:
        InputError: they are of another network.
    """
    own = {name: variable for name, variable in _variables(model).items() if name.startswith(part)}
    values = {name: value for name, value in variables.items() if name.startswith(part)}
    if {name: tuple(v.shape) for name, v in own.items()} != {name: v.shape for name, v in values.items()}:
        raise InputError(
            f"The run's state has other {part} variables than the network has, for example "
            f"{min(own.keys() ^ values.keys(), default='of another shape')}; it is of another version of this library: "
            "start again with --overwrite."
        )
    for name, variable in own.items():
        assign(variable, values[name])


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write its new content to, for `settle`; a failed write leaves nothing there.

    Raises:
        OSError: as it came, with the name of `path`.
    """
    part = path.with_name(f"part-{path.name}")
    try:
        yield part
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def commit(part: Path, path: Path) -> None:
    """Bring a written file to the disk, then into its place, so that one of the two contents survives a power cut."""
    for folder_or_file in (part, path.parent):
        descriptor = os.open(folder_or_file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if folder_or_file is part:
            os.replace(part, path)


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    groups = {"model": model.variables, "optimizer": model.optimizer.variables, "metrics": model.metrics_variables}
    named = [(f"{part}/{_unnumbered(v.path, part)}", v) for part, group in groups.items() for v in group]
    assert len(dict(named)) == len(named), "two variables of one name"
    return dict(named)


def _unnumbered(path: str, part: str) -> str:
    """Keras calls the second optimizer of a process ``adam_1``."""
    return re.sub(r"^(\w+?)_\d+/", r"\1/", path) if part == "optimizer" else path


def _position(epoch: int, step: int) -> str:
    """Names in the order of the training."""
    return f"{epoch:05d}-{step:07d}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> State:
    with np.load(path, allow_pickle=False) as file:
        variables = {name: file[name] for name in file.files}
    return State(**json.loads(variables.pop(_ABOUT).tobytes()), variables=variables)
