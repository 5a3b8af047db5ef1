"""Several devices of one machine, and several machines.

**One machine, several devices:** TensorFlow's `MirroredStrategy`, and what Keras needs to be right under it. Each
device holds the whole network and takes an equal share of each batch; the gradients are added up, so that a step is
that of one device with the whole batch. Batch sizes are over all devices and the learning rate does not change; nothing
else about a training changes, except batch norm (`keras_mrpose.models.normalization.BatchNorm`).

**Several machines:** one process on each, Keras' JAX backend. Every process is given the same list of addresses and its
index in it, and does the same as all others, each with its share of every batch; only process 0, the main one, writes
files. While they train, a TCP connection is open from process 0 to each other one, and a thread ends the process when
another one is lost: a closed connection is noticed at once, a machine or network that is gone within `PEER_TIMEOUT`
seconds, by TCP's keep-alive. JAX's coordination service, at process 0's address, is set not to end processes
(``jax_enable_recoverability``): its own watch aborts with a stack of C++ functions, and lets a process that fails wait
minutes for the others.
"""

from __future__ import annotations

import functools
import importlib
import json
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
import tensorflow as tf

from keras_mrpose.errors import InputError
from keras_mrpose.training.checkpointing import Interruption

jax = None
if keras.backend.backend() == "jax":  # only then it has to be installed
    jax = importlib.import_module("jax")
    multihost_utils = importlib.import_module("jax.experimental.multihost_utils")

STRATEGIES = ("auto", "none", "mirrored")
CONNECT_TIMEOUT = 300  # seconds in which all processes have to be started
PEER_TIMEOUT = 30  # seconds until a machine that does not answer is given up
LOST = 1  # exit code of a process that has lost another one
_ADVICE = "start all processes again with resume=True"


def devices(name: str, batch_size: int) -> tf.distribute.Strategy:
    """The devices to train on; build, load, compile and fit a model inside the ``scope()`` of what is returned.

    Args:
        name: ``"none"`` is one device; ``"mirrored"`` is all GPUs that TensorFlow sees, or all logical CPU devices
            where there is no GPU; ``"auto"`` is mirrored on several GPUs and none otherwise.
        batch_size: over all devices, a multiple of their number.

    Raises:
        InputError: another name, a batch that cannot be shared equally, or ``"mirrored"`` on the JAX backend.
    """
    if name not in STRATEGIES:
        raise InputError(f"The strategy is {name!r}; give {', '.join(STRATEGIES)}.")
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if name == "mirrored" and not on_tensorflow:
        raise InputError(
            f"The strategy 'mirrored' needs Keras on TensorFlow, this is Keras on {keras.backend.backend()}; "
            "give none, or set KERAS_BACKEND=tensorflow."
        )
    one_device = tf.distribute.get_strategy()
    if name == "none" or not on_tensorflow:
        return one_device
    found = tf.config.list_logical_devices("GPU")
    if name == "auto" and len(found) < 2:
        return one_device
    names = tuple(device.name for device in found or tf.config.list_logical_devices("CPU"))
    if batch_size % len(names):
        raise InputError(
            f"The recipe's batch_size is {batch_size}, which {len(names)} devices cannot share equally; give a "
            f"multiple of {len(names)}, or the strategy none."
        )
    return _mirrored(names)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy per process: TensorFlow confuses the all-reduce keys of two, and fails or waits for ever."""
    return tf.distribute.MirroredStrategy(devices)


def per_sample(loss: keras.losses.Loss, model: keras.Model) -> keras.losses.Loss:
    """Check that a loss gives one value per person and takes their mean, and return it.

    Keras adds up the losses of the replicas. With one value per person and their mean, that is the mean over the whole
    batch; a loss that returns a scalar would count once per device.

    Args:
        loss: for ``compile``.
        model: whose output the loss is of.

    Raises:
        InputError: it does not return ``(batch,)``, or its reduction is not a mean.
    """
    people, *_, joints = 2, *model.output_shape
    target, heatmaps = keras.ops.zeros((people, joints, 4)), keras.ops.zeros((people, *model.output_shape[1:]))
    name, shape = getattr(loss, "name", loss), tuple(keras.ops.shape(loss.call(target, heatmaps)))
    if shape != (people,):
        raise InputError(
            f"The loss {name!r} returns shape {shape} for {people} people; give one value per person, (batch,)."
        )
    if loss.reduction not in ("sum_over_batch_size", "mean"):
        raise InputError(f"The loss {name!r} has the reduction {loss.reduction!r}; give 'sum_over_batch_size'.")
    return loss


class ProcessGroup:
    """The processes of a training, as one of them sees it; ``ProcessGroup()`` is a single process.

    In a ``with`` statement the processes end together: without an error after the last one is through; with one, the
    others get the reason, say it, and end with the exit code `LOST`.

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
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.index == 0

    def broadcast(self, value: int) -> int:
        """Process 0's value, for all. A call of all processes."""
        if self.count == 1:
            return value
        return int(multihost_utils.broadcast_one_to_all(np.int32(value)))

    def broadcast_arrays(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Process 0's arrays, for all: another kind of machine rounds otherwise. A call of all processes."""
        return arrays if self.count == 1 else multihost_utils.broadcast_one_to_all(arrays)

    def check_same(self, text: str, what: str) -> None:
        """An `InputError` in each process whose text is not process 0's. A call of all processes."""
        own = zlib.crc32(text.encode()) & 0x7FFFFFFF
        if self.broadcast(own) != own:
            raise InputError(f"Process {self.index} has {what} other than process 0's; give all processes the same.")

    @contextmanager
    def folder(self, run: Path) -> Iterator[Path]:
        """Where this process writes: process 0 into the run folder, the others into one that is thrown away.

        All do the same, since JAX computes with the variables of all processes in all of them, or waits for ever.
        """
        if self.is_main:
            yield run
        else:
            with tempfile.TemporaryDirectory() as self._scratch:
                yield Path(self._scratch)

    def interruption(self) -> Interruption:
        """Catches signals; those of other processes are sent to process 0, which stops all when it has saved."""
        self._interruption = Interruption() if self.is_main else _ForwardedInterruption(self._say)
        return self._interruption

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.count == 1:
            return
        if error is None:
            if not self.is_main:
                self._say("through")
            self._all_through.wait()  # or the watch ends this process
            if self.is_main:
                self._say("through")
        else:
            if isinstance(error, Exception) and not isinstance(error, InputError):
                self._closed.wait(5)  # a broken computation: another process is gone, and the watch will say which
            self._ending = True  # for a reason of its own, which has to be said here
            self._say(f"lost process {self.index} has stopped: {_one_line(error)}")
        if self.is_main:
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
                    reason = word.removeprefix("lost ") or f"{self._names[line]} is gone (its own output may say why)"
                    self._say(f"lost {reason}", but=line)
                    advice = "" if "resume=True" in reason else f"; {_ADVICE}"
                    os.write(2, f"error: {reason}{advice}.\n".encode())
                    if self.is_main:
                        _drain(open_lines, 5)
                    if self._scratch:
                        shutil.rmtree(self._scratch, ignore_errors=True)
                    os._exit(LOST)
        self._closed.set()


class _ForwardedInterruption(Interruption):
    """Sends signals to process 0, which stops all."""

    def __init__(self, say: Callable[[str], None]):
        super().__init__()
        self.say = say

    def _catch(self, number: int, frame) -> None:
        self.say(f"signal {signal.Signals(number).name}")
        self._restore()


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
            raise InputError("host_index is of no use without hosts; give the addresses of all machines.")
        return ProcessGroup()
    if jax is None:
        raise InputError(
            f"Several machines need Keras' JAX backend, this is {keras.backend.backend()}; "
            "set the environment variable KERAS_BACKEND=jax."
        )
    listed = addresses(hosts)
    if index is None or not 0 <= index < len(listed):
        raise InputError(f"host_index is {index}; give this machine's place in hosts, 0 to {len(listed) - 1}.")
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
    """The message of an error that ends a process."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def addresses(hosts: str) -> list[str]:
    """``"a:port,b:port"`` as a list, checked: at least two, all different, each a name and a port."""
    listed = [address.strip() for address in hosts.split(",")]
    for address in listed:
        name, _, port = address.rpartition(":")
        if not name or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise InputError(f"hosts has {address!r}; give each machine as name:port, separated by commas.")
    if len(listed) < 2:
        raise InputError(f"hosts has only {hosts!r}; give the addresses of all machines, or leave it out for one.")
    if twice := {address for address in listed if listed.count(address) > 1}:
        raise InputError(f"hosts has {min(twice)} twice; give each process an address of its own.")
    return listed


def rendezvous(listed: list[str], index: int, patience: float) -> tuple[socket.socket, ...]:
    """Open lines: of process 0 to all others in their order, of every other process to process 0."""
    end = time.monotonic() + patience
    with _server(listed[index]) as server:  # process 0: to see that JAX can have the port
        if index:
            return (_called(server, listed, index, end),)
    lines = []
    try:
        for i, address in enumerate(listed[1:], start=1):
            lines.append(_call(address, listed, i, end))
    except InputError:
        for line in lines:
            line.close()
        raise
    return tuple(lines)


def _server(address: str) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        port = int(address.rpartition(":")[2])
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(f"{address} cannot be used here ({error.strerror}); give another port in hosts.") from None


def _call(address: str, listed: list[str], index: int, end: float) -> socket.socket:
    """Process 0's line to process `index`, which may not be there yet."""
    name, _, port = address.rpartition(":")
    while (left := end - time.monotonic()) > 0:
        try:
            line = socket.create_connection((name.strip("[]"), int(port)), timeout=min(left, 5))
        except OSError:
            time.sleep(0.2)
            continue
        if _agreed(line, listed, address):
            return line
        time.sleep(0.2)
    raise InputError(
        f"{address} was not there in time; start process {index} on it, and see that its port can be reached."
    )


def _called(server: socket.socket, listed: list[str], index: int, end: float) -> socket.socket:
    """The line on which process 0 calls process `index`; other callers are sent away."""
    while (left := end - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            line, _ = server.accept()
        except TimeoutError:
            break
        line.settimeout(min(left, 5))
        if _agreed(line, listed, "Process 0"):
            return line
    raise InputError(
        f"Process 0 at {listed[0]} did not call in time; start it, and see that it can reach {listed[index]}."
    )


def _agreed(line: socket.socket, listed: list[str], name: str) -> bool:
    """Whether the other end is one of these processes; a line to any other is closed.

    Raises:
        InputError: it is one, but was given other addresses.
    """
    theirs = _exchange(line, listed)
    if theirs == listed:
        _keep_alive(line)
        return True
    line.close()
    if theirs:
        raise InputError(f"{name} was started with hosts={','.join(theirs)}; give all processes the same.")
    return False


def _exchange(line: socket.socket, listed: list[str]) -> list[str]:
    """The other end's list of addresses, for this one; empty if it is none of these processes."""
    try:
        line.sendall(json.dumps(listed).encode() + b"\n")
        theirs = json.loads(recv_line(line))
    except (OSError, ValueError):
        return []
    return theirs if isinstance(theirs, list) and all(isinstance(address, str) for address in theirs) else []


def _keep_alive(line: socket.socket) -> None:
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", PEER_TIMEOUT // 3), ("TCP_KEEPINTVL", PEER_TIMEOUT // 6), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):  # macOS has them under other names, and its own pace
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def recv_line(line: socket.socket) -> str:
    """The next word; "" when the line is closed or broken."""
    word = b""
    try:
        while not word.endswith(b"\n") and (byte := line.recv(1)):
            word += byte
    except OSError:  # reset by the other end, or given up by the keep-alive
        return ""
    return word.decode(errors="replace").strip()
