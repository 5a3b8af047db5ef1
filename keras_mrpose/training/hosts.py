"""Several machines: one process on each, Keras' JAX backend, and a thread that ends the process when another is gone.

Every process is given the same list of addresses and its place in it, and does the same as all others, each with its
share of every batch; only process 0 writes files. While they train, a line is open from process 0 to each other one
(`keras_mrpose.training.meeting`), and a thread watches it. JAX's coordination service, at process 0's address, is told
not to (``jax_enable_recoverability``): its own watch ends in an abort with a stack of C++ functions, and lets a process
that fails wait minutes for the others.
"""

from __future__ import annotations

import importlib
import os
import select
import shutil
import signal
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.training.checkpointing import State, States
from keras_mrpose.training.interruption import Interruption
from keras_mrpose.training.meeting import addresses, recv_line, rendezvous

jax = None
if keras.backend.backend() == "jax":  # only then it has to be installed
    jax = importlib.import_module("jax")
    multihost_utils = importlib.import_module("jax.experimental.multihost_utils")

CONNECT_TIMEOUT = 300  # seconds in which all processes have to be started
LOST = 1  # exit code of a process that another one has left
_ADVICE = "start all processes again with --resume"


class ProcessGroup:
    """The processes of a training, as one of them sees it; ``Hosts()`` is a process on its own.

    In a ``with`` statement the processes end together: without an error after the last one is through; with one, the
    others are told the reason, say it, and end with the exit code `LOST`.

    Args:
        count: how many processes there are.
        index: which one this is; only process 0 writes files.
        lines: connections to the others: of process 0 to all, of every other one to process 0.
        names: what is said about the other end of each.
    """

    def __init__(self, count: int = 1, index: int = 0, lines: tuple = (), names: tuple[str, ...] = ()):
        self.count, self.index = count, index
        self._names = dict(zip(lines, names, strict=True))
        self._through, self._all_through, self._closed = set(), threading.Event(), threading.Event()
        self._ending = False
        self._scratch: str | None = None
        self._interruption: Interruption | None = None
        if lines:
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def shard(self) -> tuple[int, int]:
        """This process's part of a batch, for `keras_mrpose.data.pipeline.batches`."""
        return self.index, self.count

    @property
    def devices(self) -> int:
        """How many devices share a batch."""
        return 1 if self.count == 1 else jax.device_count()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.index == 0

    def of_first(self, value: int) -> int:
        """Process 0's value, for all. A call of all processes."""
        if self.count == 1:
            return value
        return int(multihost_utils.broadcast_one_to_all(np.int32(value)))

    def arrays_of_first(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Process 0's arrays, for all: another kind of machine rounds otherwise. A call of all processes."""
        return arrays if self.count == 1 else multihost_utils.broadcast_one_to_all(arrays)

    def check_same(self, text: str, what: str) -> None:
        """An `InputError` in each process whose text is not process 0's. A call of all processes."""
        own = zlib.crc32(text.encode()) & 0x7FFFFFFF
        if self.of_first(own) != own:
            raise InputError(f"Process {self.index} has {what} other than process 0's; give all processes the same.")

    @contextmanager
    def folder(self, run: Path) -> Iterator[Path]:
        """Where this process writes: process 0 into the run folder, the others into one that is thrown away.

        All do the same, since JAX computes with the variables of all processes in all of them, or waits for ever.
        """
        if self.first:
            yield run
        else:
            with tempfile.TemporaryDirectory() as self._scratch:
                yield Path(self._scratch)

    def interruption(self) -> Interruption:
        """Notes signals; process 0 is told of those that come to others, and stops all when it has saved."""
        self._interruption = Interruption() if self.first else _PassedOn(self._say)
        return self._interruption

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.count == 1:
            return
        if error is None:
            if not self.first:
                self._say("through")
            self._all_through.wait()  # or the watch ends this process
            if self.first:
                self._say("through")
        else:
            if isinstance(error, Exception) and not isinstance(error, InputError):
                self._closed.wait(5)  # a broken computation: another process is gone, and the watch will say which
            self._ending = True  # for a reason of its own, which has to be said here
            self._say(f"lost process {self.index} has stopped: {_one_line(error)}")
        if self.first:
            self._closed.wait(5)  # the others leave JAX's coordination service before it ends with this process
        else:
            jax.distributed.shutdown()
            for line in self._names:
                with suppress(OSError):  # process 0 may be gone
                    line.shutdown(socket.SHUT_RDWR)  # `close` would wait for the watch to let go

    def _say(self, word: str, but: socket.socket | None = None) -> None:
        for line in self._names:
            if line is not but:
                with suppress(OSError):  # closed meanwhile: the watch knows
                    line.sendall(word.encode() + b"\n")

    def _asked_to_stop(self, name: str) -> None:
        if self._interruption is not None and self._interruption.signal is None:
            self._interruption.signal = signal.Signals[name]

    def _watch(self) -> None:
        """Until the lines are closed: take the others' words, end this process when one is lost."""
        open_lines = set(self._names)
        while open_lines:
            ready, _, _ = select.select(open_lines, [], [])
            for line in ready:
                word = recv_line(line)
                if word == "through":
                    self._through.add(line)
                    if len(self._through) == len(self._names):
                        self._all_through.set()
                elif word.startswith("signal "):
                    self._asked_to_stop(word.removeprefix("signal "))
                elif not word and (self._ending or line in self._through):
                    open_lines.remove(line)
                elif not self._ending:
                    told = word.removeprefix("lost ") or f"{self._names[line]} is gone (its own output may say why)"
                    self._say(f"lost {told}", but=line)
                    advice = "" if "--resume" in told else f"; {_ADVICE}"
                    os.write(2, f"error: {told}{advice}.\n".encode())
                    if self.first:
                        _drain(open_lines, 5)
                    if self._scratch:
                        shutil.rmtree(self._scratch, ignore_errors=True)
                    os._exit(LOST)
        self._closed.set()


class _PassedOn(Interruption):
    """Leaves it to process 0 to stop."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self.say = say

    def _note(self, number: int, frame) -> None:
        self.say(f"signal {signal.Signals(number).name}")
        self._restore()


class ReadOnlyStates(States):
    """The states of a process that does not write: it reads those of process 0."""

    def write(self, state: State) -> None:
        """Nothing."""


def join(hosts: str | None, index: int | None, patience: float = CONNECT_TIMEOUT) -> ProcessGroup:
    """Meet the other processes; from then on Keras spreads every batch over the devices of all. Before any computation.

    Args:
        hosts: addresses of all processes, ``"a:port,b:port"``, the same in each; JAX's coordination service takes the
            first, the others take calls of process 0. None is this process alone.
        index: which of them is this process's.
        patience: seconds in which all have to be there.

    Raises:
        InputError: another backend than JAX, an address or index that cannot be, or a process that is not there in
            time or was given other addresses.
    """
    if hosts is None:
        if index is not None:
            raise InputError("--host-index is of no use without --hosts; give the addresses of all machines.")
        return ProcessGroup()
    if jax is None:
        raise InputError(
            f"Several machines need Keras' JAX backend, this is {keras.backend.backend()}; "
            "set the environment variable KERAS_BACKEND=jax."
        )
    listed = addresses(hosts)
    if index is None or not 0 <= index < len(listed):
        raise InputError(f"--host-index is {index}; give this machine's place in --hosts, 0 to {len(listed) - 1}.")
    lines = rendezvous(listed, index, patience)
    others = [i for i in range(len(listed)) if i] if index == 0 else [0]
    joined = ProcessGroup(len(listed), index, lines, tuple(f"process {i} at {listed[i]}" for i in others))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_recoverability", True)
    jax.distributed.initialize(
        listed[0],
        len(listed),
        index,
        cluster_detection_method="deactivate",  # under Slurm it would take one GPU of this machine only
        initialization_timeout=int(patience),
    )
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    return joined


def _drain(lines: set[socket.socket], seconds: float) -> None:
    """Wait for the other ends to close: with process 0 ends JAX's service, which aborts those who still use it."""
    end = time.monotonic() + seconds
    while lines and (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select(lines, [], [], left)
        lines = {line for line in lines if line not in ready or recv_line(line)}


def _one_line(error: BaseException) -> str:
    """What the user is told of an error that ends a process."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
