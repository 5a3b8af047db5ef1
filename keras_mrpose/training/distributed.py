"""Several devices of one machine, and several machines.

**One machine, several devices:** TensorFlow's `MirroredStrategy`, and what Keras needs to be right under it. Each
device holds the whole network and takes an equal share of each batch; the gradients are added up, so that a step is
that of one device with the whole batch. Batch sizes are over all devices and the learning rate does not change; nothing
else about a training changes, except batch norm (`keras_mrpose.models.normalization.BatchNorm`).

**Several machines:** one process on each, Keras' JAX backend. Every process is given the same list of addresses and its
index in it, and does the same as all others, each with its share of every batch; only process 0, the main one, writes
files. Connecting, and noticing that a process is lost, is `jax.distributed`: it aborts the others with a message of its
own and exit code 134, at once or after `HEARTBEAT_TIMEOUT`. What JAX does not have is here:

- a check that all processes were given the same (`ProcessGroup.check_same`), which refuses in all of them;
- one sentence for people: before JAX can abort, and when a computation breaks because another process is gone;
- a stop by Ctrl-C, where JAX's preemption service knows SIGTERM only: whichever process gets one of them, all save
  and end at the same step;
- a check of the coordinator's port, as JAX ends in a segmentation fault where it is in use.
"""

from __future__ import annotations

import functools
import importlib
import logging
import signal
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.errors import InputError, short_message
from keras_mrpose.training.checkpointing import Interruption, Stopped

jax = None
if keras.backend.backend() == "jax":  # only then it has to be installed
    jax = importlib.import_module("jax")
    multihost_utils = importlib.import_module("jax.experimental.multihost_utils")

_LOG = logging.getLogger(__name__)
STRATEGIES = ("auto", "none", "mirrored")
CONNECT_TIMEOUT = 300  # seconds in which all processes have to be started
HEARTBEAT_TIMEOUT = 20  # seconds until a machine that does not answer is given up
SHUTDOWN_TIMEOUT = 10  # seconds that a process which fails waits for the others


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

    In a ``with`` statement the processes end together. If one ends with an error of its own, JAX aborts the others.

    Args:
        count: how many processes there are.
        index: which one this is; only process 0 writes files.
    """

    def __init__(self, count: int = 1, index: int = 0):
        self.count, self.index = count, index

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
        """The main process's value, in all. All processes have to call it."""
        if self.count == 1:
            return value
        return int(multihost_utils.broadcast_one_to_all(np.int32(value)))

    def broadcast_arrays(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The main process's arrays, in all: other hardware rounds differently. All processes have to call it."""
        return arrays if self.count == 1 else multihost_utils.broadcast_one_to_all(arrays)

    def check_same(self, text: str, what: str) -> None:
        """Raise an `InputError` in all processes if the text is not the same in all. All processes have to call it."""
        if self.count == 1:
            return
        hashes = multihost_utils.process_allgather(np.int32(zlib.crc32(text.encode()) & 0x7FFFFFFF))
        for other in np.flatnonzero(hashes != hashes[0]):
            raise InputError(f"Process {other} has {what} other than process 0's; give all processes the same.")

    @contextmanager
    def folder(self, run: Path) -> Iterator[Path]:
        """Where this process writes: the main one to the run folder, the others to a temporary directory.

        All do the same: under JAX a computation with the network's variables needs all processes, or it never ends.
        """
        if self.is_main:
            yield run
        else:
            with tempfile.TemporaryDirectory() as scratch:
                yield Path(scratch)

    def interruption(self) -> Interruption:
        """What catches Ctrl-C and SIGTERM; with several processes, those that come to any of them."""
        return Interruption() if self.count == 1 else _GroupInterruption()

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.count == 1:
            return
        if error is None or isinstance(error, Stopped):
            multihost_utils.sync_global_devices("end of the training")  # the main process may still be writing
            jax.distributed.shutdown()
        elif isinstance(error, jax.errors.JaxRuntimeError):
            raise InputError(
                f"The computation with the other processes broke off ({short_message(error)}); one of them may be "
                "gone, and its own output may say why; start all processes again with resume=True."
            ) from error


class _GroupInterruption(Interruption):
    """A stop of several processes at the same step, by JAX's preemption service, which catches SIGTERM itself."""

    SIGNALS = (signal.SIGINT,)

    def __init__(self):
        super().__init__()
        self._requests = 0

    def _catch(self, number: int, frame) -> None:
        self._restore()
        signal.raise_signal(signal.SIGTERM)

    def requested(self) -> signal.Signals | None:
        """SIGTERM at the step on which all agree. All processes have to call it equally often."""
        self._requests += 1
        if self.signal is None and multihost_utils.reached_preemption_sync_point(self._requests):
            self.signal = signal.SIGTERM
        return self.signal


def join(hosts: str | None, host_index: int | None, timeout: int = CONNECT_TIMEOUT) -> ProcessGroup:
    """Connect to the other processes; then Keras spreads every batch over the devices of all. Before any computation.

    Args:
        hosts: addresses of all processes, ``"a:port,b:port"``, the same in each; at the first one the others find
            JAX's coordination service. None is this process alone.
        host_index: which of them is this process's.
        timeout: seconds in which all have to be there, or JAX aborts.

    Raises:
        InputError: another backend than JAX, an address or index that cannot be, a port in use, or a process that was
            given other addresses.
    """
    if hosts is None:
        if host_index is not None:
            raise InputError("host_index is of no use without hosts; give the addresses of all machines.")
        return ProcessGroup()
    if jax is None:
        raise InputError(
            f"Several machines need Keras' JAX backend, this is {keras.backend.backend()}; "
            "set the environment variable KERAS_BACKEND=jax."
        )
    listed = addresses(hosts)
    if host_index is None or not 0 <= host_index < len(listed):
        raise InputError(f"host_index is {host_index}; give this machine's place in hosts, 0 to {len(listed) - 1}.")
    if host_index == 0:
        check_port(listed[0])
    _LOG.info(
        "Process %d of %d connects at %s. If another one is not there within %d s, or is lost later, JAX aborts this "
        "one (exit code 134): see what the others say, and start all again with resume=True.",
        host_index, len(listed), listed[0], timeout,
    )  # fmt: skip
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        listed[0],
        len(listed),
        host_index,
        cluster_detection_method="deactivate",  # under Slurm it would take one GPU of this machine only
        initialization_timeout=timeout,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
    )
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    group = ProcessGroup(len(listed), host_index)
    group.check_same(",".join(listed), "hosts")
    return group


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


def check_port(address: str) -> None:
    """Raise an `InputError` if the port of an address of this machine is in use."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", int(address.rpartition(":")[2])), family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise InputError(f"{address} cannot be used here ({error.strerror}); give another port in hosts.") from None
