"""Several machines: their addresses, what each reads, and that two of them train as one does.

What needs JAX and two processes is in `one_host.py`, started here on loopback: a start takes many seconds, so that one
training answers many questions.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import commands
import keras
import numpy as np
import pytest
from micro import draw

from keras_mrpose import data
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.training import distributed

CHILD = Path(__file__).parents[1] / "helpers" / "one_host.py"
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Drawn people: 19 to train on, 8 to validate on."""
    return draw(tmp_path_factory.mktemp("drawn"))


def free_addresses(count=2):
    """Of this machine, with ports that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    listed = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    return listed


# --- addresses ----------------------------------------------------------------------------------------------------


def test_addresses():
    assert distributed.addresses("a.b:1, [::1]:22,c:65535") == ["a.b:1", "[::1]:22", "c:65535"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a:1,b", "'b'; give each machine as name:port"),
        ("a:1,:2", "':2'"),
        ("a:1,b:x", "'b:x'"),
        ("a:1,b:0", "'b:0'"),
        ("a:1,b:65536", "'b:65536'"),
        ("a:1,", "''"),
        ("a:1", "only 'a:1'"),
        ("a:1,b:2,a:1", "a:1 twice"),
    ],
)
def test_wrong_addresses(given, words):
    with pytest.raises(InputError, match=re.escape(words)):
        distributed.addresses(given)


def test_alone():
    """Without --hosts nothing is joined, under any backend."""
    with distributed.join(None, None) as alone:
        assert (alone.is_main, alone.shard, alone.devices, alone.broadcast(7)) == (True, (0, 1), 1, 7)
        assert alone.broadcast_arrays([np.ones(2)])[0].tolist() == [1, 1]
        alone.check_same("this", "something")
    with pytest.raises(InputError, match="host_index is of no use without hosts"):
        distributed.join(None, 0)


def test_another_backend():
    with pytest.raises(InputError, match=r"need Keras' JAX backend, this is tensorflow; .* KERAS_BACKEND=jax"):
        distributed.join("a:1,b:2", 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hosts", "a:1,b:2", "--host-index", "0"), "need Keras' JAX backend"),
        (("--host-index", "0"), "of no use without hosts"),
    ],
)
def test_command_line(run, drawn, tmp_path, capfd, options, words):
    arguments = ("train", "coco-mrfeanet2", "--data", "DRAWN", "--run", "WORK/run", *options)
    commands.refused(run, arguments, words, {"DRAWN": drawn, "WORK": tmp_path}, capfd)


def test_port_in_use():
    (address,) = free_addresses(1)
    distributed.check_port(address)
    with (
        socket.create_server(("", int(address.partition(":")[2]))),
        pytest.raises(InputError, match=f"{address} cannot be used"),
    ):
        distributed.check_port(address)


# --- what JAX does not have ----------------------------------------------------------------------------------------


def test_a_signal_stops_all_at_the_step_that_they_agree_on(monkeypatch):
    """Ctrl-C becomes the SIGTERM that JAX waits for; a second one does what it did before."""
    came = []
    service = SimpleNamespace(reached_preemption_sync_point=lambda step: step == 3)
    monkeypatch.setattr(distributed, "multihost_utils", service, raising=False)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in numbers}
    try:
        with distributed.ProcessGroup(2, 1).interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            assert came == [signal.SIGTERM, signal.SIGINT]
            asked = [interruption.requested() for _ in range(4)]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert asked == [None, None, signal.SIGTERM, signal.SIGTERM]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_all_processes_refuse_what_one_has_otherwise(index, monkeypatch):
    others = {"process_allgather": lambda value: np.array([value, value, value + 1])}
    monkeypatch.setattr(distributed, "multihost_utils", SimpleNamespace(**others), raising=False)
    with pytest.raises(InputError, match="Process 2 has a recipe other than process 0's; give all processes the same"):
        distributed.ProcessGroup(3, index).check_same("this", "a recipe")
    others["process_allgather"] = lambda value: np.array([value, value])
    monkeypatch.setattr(distributed, "multihost_utils", SimpleNamespace(**others), raising=False)
    distributed.ProcessGroup(2, index % 2).check_same("this", "a recipe")


def test_a_broken_computation_is_one_sentence(monkeypatch):
    monkeypatch.setattr(distributed, "jax", SimpleNamespace(errors=SimpleNamespace(JaxRuntimeError=RuntimeError)))
    with (
        pytest.raises(InputError, match=r"broke off \(closed by peer\); .* start all processes again with resume=True"),
        distributed.ProcessGroup(2, 1),
    ):
        raise RuntimeError("closed by peer")
    with pytest.raises(InputError, match="of its own"), distributed.ProcessGroup(2, 1):
        raise InputError("of its own")


# --- what each process reads --------------------------------------------------------------------------------------


def taken(people, count=1, index=0, steps=4, **options):
    batches = pipeline.batches(people, (96, 64), 4, shard=(index, count), **options)
    return [tuple(part.numpy() for part in batch) for batch in batches.take(steps)]


@pytest.mark.parametrize("count", [2])
def test_shares_are_the_batches_of_one_process(drawn, count):
    """The same people with the same augmentation, in the same order, also across epochs and from a later step."""
    people = data.load(drawn, "train")
    options = {"augmentation": Augmentation(), "seed": 3, "first_epoch": 1, "first_step": 2}
    whole = taken(people, steps=5, **options)
    shares = [taken(people, count, index, steps=5, **options) for index in range(count)]
    for step in range(5):
        for part in (0, 1):
            joined = np.concatenate([share[step][part] for share in shares])
            np.testing.assert_array_equal(joined, whole[step][part])


@pytest.mark.parametrize("present", [pytest.param(8, marks=pytest.mark.slow), 5])
def test_shares_of_the_validation_count_everybody_once(drawn, present):
    """All have equally many batches of one size; those who fill them up count for nothing, and a mean stays a mean."""
    people = data.load(drawn, "val").take(slice(present))
    (whole,) = [np.concatenate(parts) for parts in zip(*[batch[1:] for batch in taken(people)], strict=True)]
    shares = [taken(people, 2, index) for index in range(2)]
    assert [[len(batch[0]) for batch in share] for share in shares] == [[2, 2]] * 2
    rows = [batch for pair in zip(*shares, strict=True) for batch in pair]
    targets = np.concatenate([batch[1] for batch in rows])
    np.testing.assert_array_equal(targets[:present], whole)
    assert not targets[present:, :, :3].any()
    if present < 8:
        weights = np.concatenate([batch[2] for batch in rows])
        np.testing.assert_allclose(weights, 8 / present, rtol=1e-7)
    assert pipeline.batches(people, (96, 64), 4, shard=(1, 2)).cardinality() == 2  # as Keras asks it


# --- two processes ------------------------------------------------------------------------------------------------


def start(drawn, run, result, count=2, each=None, **options):
    """Processes that train together, as `one_host.main` says; `each` has options of single ones."""
    addresses = ",".join(free_addresses(count)) if count > 1 else ""
    processes = []
    for index in range(count):
        given = {"folder": str(drawn), "run": str(run), "result": f"{result}-{index}.npz", "addresses": addresses}
        given |= {"index": index, **options, **(each or {}).get(index, {})}
        command = [sys.executable, str(CHILD), json.dumps(given)]
        environment = {**os.environ, "KERAS_BACKEND": "jax"}
        environment.pop("PYTEST_CURRENT_TEST", None)
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    return processes


def ended(processes, seconds=300):
    """Exit codes and outputs; a process that does not end is a failure, and is ended."""
    try:
        outputs = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return SimpleNamespace(codes=[process.returncode for process in processes], outputs=outputs)


def values(path):
    with np.load(path) as file:
        found = {name: file[name] for name in file.files}
    return json.loads(str(found.pop("history"))), found


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    """One process, and two that share its batches."""
    folder = tmp_path_factory.mktemp("trained")
    together = start(drawn, folder / "two", folder / "two")
    done = ended(together)
    assert done.codes == [0, 0], done.outputs
    alone = ended(start(drawn, folder / "one", folder / "one", count=1))
    assert alone.codes == [0], alone.outputs
    return folder


def equal(one, other, names=None, **tolerance):
    for name in names or one:
        np.testing.assert_allclose(one[name], other[name], **tolerance, err_msg=name)


@pytest.mark.slow
@needs_jax
def test_two_processes_train_as_one(trained):
    """Equal to the bit in both; to one process in all but the order of float32 sums.

    That includes the losses, the metrics, the averaged weights and the batch norms' averages: mean and variance are of
    the whole batch. Sums of 2**12 float32 terms differ by 1e-6 of their size; Adam's division carries that into the
    weights (learning rate 3e-3), where 4 updates of it stay below 1e-4.
    """
    history, first = values(trained / "two-0.npz")
    other_history, second = values(trained / "two-1.npz")
    one_history, one = values(trained / "one-0.npz")
    equal(first, second, rtol=0)
    rates = {"images_per_second"}
    assert set(history) == set(one_history) == set(other_history)
    equal(history, other_history, set(history) - rates, rtol=0)
    equal(history, one_history, set(history) - rates, rtol=1e-4)
    equal(first, one, rtol=1e-3, atol=1e-4)
    moving = [name for name in first if "moving_variance" in name]
    assert moving
    equal(first, one, moving, rtol=1e-4)
    saved = keras.models.load_model(trained / "two" / "last.keras").trainable_variables
    for variable in saved:
        average = f"adam/{variable.path.replace('/', '_')}_average"
        np.testing.assert_array_equal(variable, first[average], err_msg=average)
        assert (first[average] != first[variable.path]).any(), "the weights are not their average"


@pytest.mark.slow
@needs_jax
def test_process_0_writes(trained):
    """Once what one process writes, and no process wrote elsewhere."""
    names = {
        name: sorted(str(path.relative_to(trained / name)) for path in (trained / name).rglob("*") if path.is_file())
        for name in ("one", "two")
    }
    kinds = {name: [re.sub(r"[0-9a-f]{64}|\d{9,}.*", "", path) for path in paths] for name, paths in names.items()}
    assert kinds["one"] == kinds["two"]
    assert json.loads((trained / "two" / "history.json").read_text()) == values(trained / "two-0.npz")[0]


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("dying", [1, 0])
def test_the_death_of_one_ends_the_others_and_all_go_on(drawn, trained, tmp_path, dying):
    """kill -9 in the second epoch: the other one ends, with a sentence; started again, the end is the same."""
    processes = start(drawn, tmp_path / "run", tmp_path / "died", each={dying: {"die": ["SIGKILL", 2]}})
    processes[dying].wait(timeout=300)
    begin = time.monotonic()
    done = ended(processes, 60)
    assert time.monotonic() - begin < 30
    assert done.codes[dying] == -signal.SIGKILL
    assert done.codes[1 - dying] in (-signal.SIGABRT, 2)
    assert "start all again with resume=True" in done.outputs[1 - dying]
    again = ended(start(drawn, tmp_path / "run", tmp_path / "again", resume=True))
    assert again.codes == [0, 0], again.outputs
    for index in (0, 1):
        history, found = values(tmp_path / f"again-{index}.npz")
        wanted_history, wanted = values(trained / "two-0.npz")
        equal(history, wanted_history, set(history) - {"images_per_second"}, rtol=1e-5)
        equal(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_is_saved_and_ends_all(drawn, trained, tmp_path, asked, name):
    """Whichever process gets the signal: the state is saved, all end, and go on to the same end."""
    stopped = ended(start(drawn, tmp_path / "run", tmp_path / "s", each={asked: {"die": [name, 1]}}))
    assert stopped.codes == [130, 130], stopped.outputs
    for output in stopped.outputs:
        assert re.search("stopped by SIGTERM; the training is saved after (batch|epoch)", output)
    again = ended(start(drawn, tmp_path / "run", tmp_path / "again", resume=True))
    assert again.codes == [0, 0], again.outputs
    equal(values(tmp_path / "again-1.npz")[1], values(trained / "two-0.npz")[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@needs_jax
def test_an_error_of_one_ends_the_others(drawn, tmp_path):
    """It is said by the process that has it; nobody waits for ever."""
    processes = start(drawn, tmp_path / "run", tmp_path / "x", each={1: {"die": ["error", 2]}})
    done = ended(processes, 120)
    assert "error: a mistake of one process" in done.outputs[1]
    assert 0 not in done.codes, done.outputs


@pytest.mark.slow
@needs_jax
def test_other_options_are_refused(drawn, trained, tmp_path):
    """Another learning rate would leave the weights of two processes apart without a word."""
    run = shutil.copytree(trained / "two", tmp_path / "run")
    done = ended(start(drawn, run, tmp_path / "x", overwrite=True, each={1: {"rate": 1e-3}}))
    assert done.codes == [2, 2], done.outputs
    for output in done.outputs:
        assert "error: Process 1 has an experiment, recipe or people other than process 0's" in output
    assert (run / "last.keras").exists()
