"""Several machines: how processes meet, what each reads, and that two of them train as one does.

What needs JAX and two processes is in `one_host.py`, started here on loopback: a start takes many seconds, so that one
training answers many questions.
"""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
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

CHILD = Path(__file__).with_name("one_host.py")
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


# --- addresses and meeting ----------------------------------------------------------------------------------------


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


def met(lists, patience=20.0):
    """What each of the processes gets that meet with these lists of addresses: lines, or the words of an error."""
    results = [None] * len(lists)

    def process(index):
        try:
            results[index] = distributed.rendezvous(lists[index], index, patience)
        except InputError as error:
            results[index] = str(error)

    threads = [threading.Thread(target=process, args=(index,)) for index in range(len(lists))]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_meeting_joins_process_0_with_each_other():
    listed = free_addresses(3)
    lines = met([listed] * 3)
    assert [len(part) for part in lines] == [2, 1, 1]
    for index in (1, 2):
        lines[0][index - 1].sendall(f"you are {index}\n".encode())
        assert distributed.recv_line(lines[index][0]) == f"you are {index}"
    for line in (line for part in lines for line in part):
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):  # Linux
            keep = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle, pause, times = (line.getsockopt(socket.IPPROTO_TCP, name) for name in keep)
            assert idle + pause * times == distributed.PEER_TIMEOUT
        assert line.gettimeout() is None  # a training may be quiet for hours
        line.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_meeting_by_ipv6():
    listed = [address.replace("127.0.0.1", "[::1]") for address in free_addresses()]
    (line,), (other,) = met([listed] * 2)
    line.close(), other.close()


def test_meeting_with_other_lists():
    listed = free_addresses(3)
    first, second = met([listed, listed[:2]], patience=5.0)
    assert f"{listed[1]} was started with hosts=" in first and ",".join(listed) in second


def test_nobody_there():
    listed = free_addresses()
    begin = time.monotonic()
    with pytest.raises(InputError, match=f"{listed[1]} was not there in time; start process 1"):
        distributed.rendezvous(listed, 0, 1.0)
    with pytest.raises(InputError, match=f"Process 0 at {listed[0]} did not call in time"):
        distributed.rendezvous(listed, 1, 1.0)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("words", [b"GET / HTTP/1.0\r\n\r\n", b"80\n", b"[80]\n"])
def test_strangers_are_sent_away(words):
    listed, lines = free_addresses(), []
    other = threading.Thread(target=lambda: lines.extend(distributed.rendezvous(listed, 1, 5.0)))
    other.start()
    call_as_a_stranger(listed[1], words)
    lines.extend(distributed.rendezvous(listed, 0, 5.0))
    other.join()
    assert len(lines) == 2
    for line in lines:
        line.close()


def test_a_stranger_at_an_address_is_nobody():
    def answer():
        with server.accept()[0] as line:
            line.sendall(b"SSH-2.0\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        listed = [*free_addresses(1), f"127.0.0.1:{server.getsockname()[1]}"]
        threading.Thread(target=answer).start()
        with pytest.raises(InputError, match="was not there in time; start process 1"):
            distributed.rendezvous(listed, 0, 0.5)


def test_who_has_met_is_told_that_another_is_not_there():
    """By the end of its line: it would wait for ever."""
    listed = free_addresses(3)
    first, (second,) = met([listed] * 2, patience=0.5)
    assert f"{listed[2]} was not there in time; start process 2" in first
    second.settimeout(5)
    assert second.recv(1) == b""
    second.close()


def call_as_a_stranger(address, words):
    name, _, port = address.partition(":")
    for _ in range(100):
        try:
            with socket.create_connection((name, int(port)), timeout=1) as line:
                line.sendall(words)
                with contextlib.suppress(ConnectionResetError):  # sent away with something unread
                    while line.recv(100):
                        pass
                return
        except ConnectionRefusedError:  # not there yet
            time.sleep(0.01)


def test_a_line_that_breaks_in_any_way_is_a_closed_one():
    """Reset by the other end, or given up by the keep-alive, which is a timeout."""
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0.01)
        assert distributed.recv_line(one) == ""
        other.sendall(b"a word\n")
        other.close()
        assert [distributed.recv_line(one), distributed.recv_line(one)] == ["a word", ""]


@pytest.mark.parametrize("index", [0, 1])
def test_port_in_use(index):
    listed = free_addresses()
    with (
        socket.create_server(("", int(listed[index].partition(":")[2]))),
        pytest.raises(InputError, match=f"{listed[index]} cannot be used"),
    ):
        distributed.rendezvous(listed, index, 1.0)


# --- the watch ----------------------------------------------------------------------------------------------------


@pytest.fixture
def watched(monkeypatch):
    """Makes one of several processes: its `Hosts`, the other ends of its lines, and what it says when it ends."""
    opened, watches, told = [], [], []

    def leave(code):
        told.append(code)
        sys.exit()  # the thread

    def watch(joined, original=distributed.ProcessGroup._watch):
        with contextlib.suppress(SystemExit):
            original(joined)

    monkeypatch.setattr(distributed.ProcessGroup, "_watch", watch)
    monkeypatch.setattr(distributed, "jax", SimpleNamespace(distributed=SimpleNamespace(shutdown=lambda: None)))
    monkeypatch.setattr(distributed.os, "write", lambda descriptor, words: told.append((descriptor, words.decode())))
    monkeypatch.setattr(distributed.os, "_exit", leave)

    def make(index=0, others=2):
        lines, ends = zip(*[socket.socketpair() for _ in range(others)], strict=True)
        opened.extend((*lines, *ends))
        for end in ends:
            end.settimeout(10)
        before = set(threading.enumerate())
        joined = distributed.ProcessGroup(
            others + 1, index, lines, tuple(f"process {i} at a:{i}" for i in range(1, others + 1))
        )
        watches.append((joined, *set(threading.enumerate()) - before))
        return SimpleNamespace(joined=joined, ends=ends, told=told)

    yield make
    for joined, _ in watches:
        joined._ending = True
    for line in opened:
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
    for _, watch in watches:
        watch.join(10)
    for line in opened:
        line.close()


def soon(condition):
    """Whether it comes true while others work."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_process_0_waits_for_all_and_tells_them(watched):
    run = watched()
    one, two = run.ends
    leaving = threading.Thread(target=run.joined.__exit__, args=(None, None, None))
    one.sendall(b"through\n")
    leaving.start()
    two.settimeout(0.2)
    assert distributed.recv_line(two) == ""  # no word yet
    two.settimeout(10)
    two.sendall(b"through\n")
    assert [distributed.recv_line(end) for end in run.ends] == ["through", "through"]
    one.close(), two.close()  # through: no loss
    leaving.join(3)
    assert not leaving.is_alive() and run.told == []


def test_another_process_waits_for_process_0_and_hangs_up(watched):
    run = watched(1, 1)
    leaving = threading.Thread(target=run.joined.__exit__, args=(None, None, None))
    leaving.start()
    assert distributed.recv_line(run.ends[0]) == "through"
    leaving.join(0.2)
    assert leaving.is_alive()
    run.ends[0].sendall(b"through\n")
    leaving.join(3)
    run.ends[0].settimeout(2)
    assert not leaving.is_alive() and run.ends[0].recv(1) == b"" and run.told == []


def test_a_process_that_is_gone_is_told_to_the_others(watched):
    run = watched()
    gone, other = run.ends
    gone.close()
    words = "process 1 at a:1 is gone (its own output may say why)"
    assert distributed.recv_line(other) == f"lost {words}"
    time.sleep(0.1)
    assert distributed.LOST not in run.told  # JAX's service would end under the other one
    other.close()
    assert soon(lambda: distributed.LOST in run.told)
    assert run.told == [(2, f"error: {words}; start all processes again with resume=True.\n"), 1]


def test_what_process_0_tells_is_said_once_and_the_scratch_goes(watched, tmp_path):
    run = watched(1, 1)
    run.joined._scratch = tmp_path / "scratch"
    run.joined._scratch.mkdir()
    run.ends[0].sendall(b"lost process 0 has stopped: go on with resume=True\n")
    assert soon(lambda: distributed.LOST in run.told)
    assert run.told == [(2, "error: process 0 has stopped: go on with resume=True.\n"), 1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "words"),
    [(InputError("a file\n  is missing."), "a file is missing"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_a_process_that_fails_says_why(watched, error, words):
    """Its own error stands: it is not ended because the others then leave."""
    run = watched()
    leaving = threading.Thread(target=run.joined.__exit__, args=(type(error), error, None))
    leaving.start()
    for end in run.ends:
        assert distributed.recv_line(end) == f"lost process 0 has stopped: {words}"
        end.sendall(b"lost another one, too\n")
        end.close()
    leaving.join(3)
    assert not leaving.is_alive() and run.told == []


def test_a_broken_computation_lets_the_watch_say_who_is_gone(watched):
    """What JAX raises says less; the watch is given time to hear it."""
    run = watched(1, 1)
    error = RuntimeError("connection closed by peer")
    leaving = threading.Thread(target=run.joined.__exit__, args=(RuntimeError, error, None))
    leaving.start()
    time.sleep(0.1)
    run.ends[0].close()
    assert soon(lambda: distributed.LOST in run.told)
    assert "error: process 1 at a:1 is gone" in run.told[0][1]
    run.joined._closed.set()
    leaving.join(3)


def test_a_signal_is_passed_on_to_process_0(watched):
    first, other = watched(0, 1), watched(1, 1)
    with first.joined.interruption() as stop, other.joined.interruption() as passed:
        passed._catch(signal.SIGTERM, None)
        word = distributed.recv_line(other.ends[0])
        assert word == "signal SIGTERM" and passed.signal is None
        first.ends[0].sendall(f"{word}\nsignal SIGINT\n".encode())
        assert soon(lambda: stop.signal is not None)
        assert stop.signal == signal.SIGTERM


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


@pytest.mark.parametrize("present", [8, 5])
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
    """kill -9 in the second epoch: the other one says who is gone and ends; started again, the end is the same."""
    processes = start(drawn, tmp_path / "run", tmp_path / "died", each={dying: {"die": ["SIGKILL", 2]}})
    processes[dying].wait(timeout=300)
    begin = time.monotonic()
    done = ended(processes, 60)
    assert time.monotonic() - begin < 30
    assert done.codes[dying] == -signal.SIGKILL
    assert done.codes[1 - dying] == distributed.LOST
    assert re.search(rf"error: process {dying} at 127\.0\.0\.1:\d+ is gone .*resume=True", done.outputs[1 - dying])
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
def test_a_stop_within_an_epoch_is_saved_by_process_0(drawn, trained, tmp_path, asked):
    """Whichever process gets the signal: the state is saved, all end, and go on to the same end."""
    stopped = ended(start(drawn, tmp_path / "run", tmp_path / "s", each={asked: {"die": ["SIGTERM", 1]}}))
    assert stopped.codes == [130, distributed.LOST], stopped.outputs
    assert "process 0 has stopped: stopped by SIGTERM; the training is saved after batch" in stopped.outputs[1]
    again = ended(start(drawn, tmp_path / "run", tmp_path / "again", resume=True))
    assert again.codes == [0, 0], again.outputs
    equal(values(tmp_path / "again-1.npz")[1], values(trained / "two-0.npz")[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@needs_jax
def test_other_options_are_refused(drawn, trained, tmp_path):
    """Another learning rate would leave the weights of two processes apart without a word."""
    run = shutil.copytree(trained / "two", tmp_path / "run")
    done = ended(start(drawn, run, tmp_path / "x", overwrite=True, each={1: {"rate": 1e-3}}))
    assert done.codes == [distributed.LOST, 2], done.outputs
    assert "Process 1 has an experiment, recipe or people other than process 0's" in done.outputs[1]
    assert (run / "last.keras").exists()
