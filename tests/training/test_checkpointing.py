"""A training that is killed, stopped, or out of disk goes on and ends with the same bits as one that was not.

Most kills are exceptions that no code handles, at every kind of moment: in these one network, traced once, serves all
starts, filled with noise before each. Real signals end real processes in `test_signals` and `test_random_kills`.
"""

import dataclasses
import errno
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from micro import EXPERIMENT_OF_ALL as EXPERIMENT
from micro import STEPS, Killed, draw, micro, people_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_mrpose.data import pipeline
from keras_mrpose.errors import InputError
from keras_mrpose.training import checkpointing, train
from keras_mrpose.training.checkpointing import Interruption, State, States, Stopped

EPOCHS = EXPERIMENT.recipe.epochs


# --- generations --------------------------------------------------------------------------------------------------


def example(epoch, step=0):
    """A state with a float that JSON must keep to the bit, and with all kinds of variables."""
    variables = {
        "model/conv1/kernel": np.random.default_rng(epoch).normal(size=(3, 5)).astype(np.float32),
        "optimizer/adam/iteration": np.int64(7 * epoch),
        "metrics/pck/correct": np.arange(4),
    }
    return State(epoch, step, {"loss": [0.1 + 0.2, 1e-300][:epoch]}, {"training": "a" * 64}, "caffe", variables)


def equal(one, other):
    for name in ("epoch", "step", "history", "data_hash", "preprocessing"):
        assert getattr(one, name) == getattr(other, name)
    assert one.variables.keys() == other.variables.keys()
    for name, value in one.variables.items():
        assert np.asarray(value).dtype == other.variables[name].dtype, name
        np.testing.assert_array_equal(value, other.variables[name], err_msg=name)


@pytest.fixture
def written(tmp_path):
    """Three states were written: the last two are there."""
    states = States(tmp_path / "state")
    for epoch, step in ((1, 0), (1, 12), (2, 0)):
        states.write(example(epoch, step))
    return tmp_path / "state"


def names(folder):
    return [path.name[:13] for path in sorted(folder.iterdir())]


def test_the_last_two_generations_stay(written):
    assert names(written) == ["00001-0000012", "00002-0000000"]
    equal(example(2), States(written).newest())


def test_no_generation_is_no_state(tmp_path):
    assert States(tmp_path / "state").newest() is None and not States(tmp_path / "state")


def flipped(content, where):
    """The same with another bit in the byte there."""
    place = int(where * (len(content) - 1))
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


DAMAGES = {
    "bit in the head": lambda content: flipped(content, 0),
    "bit in the middle": lambda content: flipped(content, 0.5),
    "bit at the end": lambda content: flipped(content, 1),
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one byte more": lambda content: content + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_generation_is_told_and_the_older_taken(written, damage, caplog):
    older, newest = sorted(written.iterdir())
    newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
    states = States(written)
    equal(example(1, 12), states.newest())
    assert caplog.messages == [f"{newest} is damaged; going back to the state before it."]
    states.write(example(1, 30))  # the training goes on: the damaged one leaves, though it is of a later epoch
    assert names(written) == ["00001-0000012", "00001-0000030"]
    older.write_bytes(DAMAGES[damage](older.read_bytes()))
    equal(example(1, 30), States(written).newest())


def test_two_damaged_generations_are_an_error(written):
    for path in written.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"00002-0000000-\w+\.npz is damaged, and there is no whole state before it"):
        States(written).newest()


def full_disk(monkeypatch):
    """As a file system says it, after half of the file."""

    def savez(file, **arrays):
        file.write(b"PK half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpointing.np, "savez", savez)


def too_long(monkeypatch):
    """The operating system ends the write itself."""
    monkeypatch.setattr(checkpointing.np, "savez", limited(checkpointing.np.savez))


def limited(write):
    def within(*arguments, **options):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
        try:
            return write(*arguments, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return within


@pytest.mark.parametrize(("fails", "why"), [(full_disk, "No space left on device"), (too_long, "File too large")])
def test_a_failed_write_leaves_the_generations(written, fails, why, monkeypatch):
    before = {path: path.read_bytes() for path in written.iterdir()}
    states = States(written)
    states.newest()
    fails(monkeypatch)
    with pytest.raises(OSError, match=why) as failed:
        states.write(example(3))
    assert failed.value.filename == str(written / "state.npz")
    assert {path: path.read_bytes() for path in written.iterdir()} == before
    assert re.fullmatch(r".*00002-\w*-\w*\.npz \(after epoch 2\) is whole; make room and go on .*", states.advice())


def test_the_same_state_again_keeps_the_one_before(written):
    states = States(written)
    states.newest()
    states.write(example(2))
    assert names(written) == ["00001-0000012", "00002-0000000"]


def test_variables_of_another_network_are_refused():
    def network(units, name="one"):
        inputs = keras.Input((2,))
        model = keras.Model(inputs, keras.layers.Dense(units, name=name)(inputs))
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        return model

    values = checkpointing.capture(network(3))
    other = network(3)
    for part in ("model", "optimizer"):  # whose optimizer Keras numbers otherwise
        checkpointing.restore(other, values, part)
    assert all(np.array_equal(value, values[name]) for name, value in checkpointing.capture(other).items())
    for unlike in (network(4), network(3, "two")):
        with pytest.raises(InputError, match="has other model variables than the network"):
            checkpointing.restore(unlike, values, "model")


# --- batches ------------------------------------------------------------------------------------------------------


def test_batches_begin_at_any_step_without_reading_what_is_before(tables, tmp_path):
    """The images of the people before it are gone; `shard` takes its part of the same batches."""
    table, recipe = tables[0], EXPERIMENT.recipe
    for path in set(table.paths()):
        shutil.copy(path, tmp_path)
    table = dataclasses.replace(table, image_paths=[str(tmp_path / Path(path).name) for path in table.image_paths])

    def batches(count, **options):
        made = pipeline.batches(table, (96, 64), recipe.batch_size, augmentation=EXPERIMENT.augmentation, **options)
        return list(made.take(count).as_numpy_iterator())

    from_start = batches(2 * STEPS)
    for epoch, step in ((0, 3), (1, 1)):
        later = batches(2 * STEPS - epoch * STEPS - step, first_epoch=epoch, first_step=step)
        for one, other in zip(from_start[epoch * STEPS + step :], later, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
    needed = set(table.take(order(table, 0)[3 * recipe.batch_size : STEPS * recipe.batch_size]).paths())
    for path in set(table.paths()) - needed:
        Path(path).unlink()
    (again,) = batches(1, first_step=3)
    np.testing.assert_array_equal(again[0], from_start[3][0])


def order(table, epoch):
    """The people of an epoch, in their order."""
    pairs = pipeline._endless_order(len(table), len(table), EXPERIMENT.recipe.seed, epoch).take(len(table))
    return [int(person) for _, person in pairs]


# --- signals ------------------------------------------------------------------------------------------------------


def test_the_first_signal_is_noted_the_second_goes_where_it_went_before():
    came = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            with Interruption() as interruption:
                assert interruption.signal is None
                signal.raise_signal(number)
                assert interruption.signal == number and not came
                signal.raise_signal(number)
                assert came == [number]
            came.clear()
        with Interruption():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.signal is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_another_thread_leaves_the_handlers():
    before, within = signal.getsignal(signal.SIGINT), []

    def work():
        with Interruption():
            within.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [before]


# --- processes that are killed ------------------------------------------------------------------------------------


def stopped_at(run, folder, *places):
    """A process that stops at these places, see stopping.py."""
    here = Path(__file__).parents[1] / "helpers"
    paths = os.pathsep.join([str(here.parents[1]), str(here)])
    return subprocess.run(
        [sys.executable, str(here / "stopping.py"), str(run), str(folder), *places],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def plain(tables, tmp_path_factory):
    """Never killed, in this process, without the shortcuts of the tests below, which must not have begun."""
    run = tmp_path_factory.mktemp("runs") / "plain"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.networks, "build", micro)
        history = train.train(EXPERIMENT, *tables, run)
    return SimpleNamespace(run=run, history=history)


@pytest.mark.slow
def test_signals(plain, drawn, tables, tmp_path):
    """Ctrl-C in the first epoch, SIGTERM while validating, then `kill -9` between a write and its rename."""
    run = tmp_path / "run"
    done = stopped_at(run, drawn, "SIGINT:train:2", "SIGTERM:test:1", "SIGKILL:write:20")
    assert re.findall(r"returned (\d+)", done.stdout) == ["130", "143"], done.stderr
    assert done.returncode == -signal.SIGKILL
    assert "stopped by SIGINT; the training is saved after batch 2 of epoch 1" in done.stderr
    assert "stopped by SIGTERM; the training is saved after batch 3 of epoch 1" in done.stderr
    assert not (run / "history.json").exists() or len(json.loads((run / "history.json").read_text())["loss"]) < EPOCHS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.networks, "build", micro)
        train.train(EXPERIMENT, *tables, run, resume=True)
    assert_same(run, plain)


# --- a training that is killed ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def tables(drawn):
    return people_of(drawn)


class Killer:
    """Counts the moments in which a training may die, and ends it in one of them."""

    def __init__(self):
        self.reset()

    def reset(self, last=np.inf):
        self.moments, self.last, self.log = 0, last, []

    def moment(self, what):
        self.moments += 1
        self.log.append(what)
        if self.moments == self.last:
            raise Killed(what)

    def watch(self, patch, owner, name):
        original = getattr(owner, name)

        def watched(*arguments, **options):
            self.moment(f"before {name}")
            result = original(*arguments, **options)
            self.moment(f"after {name}")
            return result

        patch.setattr(owner, name, watched)

    def watch_writing(self, patch):
        original = checkpointing.np.savez

        def savez(file, **arrays):
            file.write(b"PK half a file")
            file.flush()
            self.moment("in savez")
            file.seek(0)
            original(file, **arrays)

        patch.setattr(checkpointing.np, "savez", savez)


@pytest.fixture(scope="module")
def killer(tables):
    """Of trainings with one network, traced once, and batches made once: a start takes a tenth of a second.

    The order from any step, and the metrics of a network that was never used, are those of the real thing in
    `test_signals` and in test_pipeline.py.
    """
    real = train.pipeline.batches
    kept = {}

    def batches(people, *size, augmentation=None, first_epoch=0, first_step=0, **options):
        which = "validation" if augmentation is None else "training"
        if which not in kept:
            data = real(people, *size, augmentation=augmentation, **options)
            made = zip(*data.take(EPOCHS * STEPS).as_numpy_iterator(), strict=True)
            kept[which] = tf.data.Dataset.from_tensor_slices(tuple(np.stack(part) for part in made))
        return kept[which].skip(first_epoch * STEPS + first_step)

    def build(experiment, people, steps, preprocessing=None):
        if "model" not in kept:
            model = kept["model"] = real_build(experiment, people, steps, preprocessing)
            checkpointing.build_metrics(model)
            kept["beginning"] = checkpointing.capture(model)
        noise = np.random.default_rng(1)
        for variable in checkpointing._variables(kept["model"]).values():
            variable.assign(noise.integers(1, 9, variable.shape))
        for part in ("model", "optimizer"):
            checkpointing.restore(kept["model"], kept["beginning"], part)
        return kept["model"]

    real_build = train.build
    killer = Killer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.networks, "build", micro)
        patch.setattr(train.pipeline, "batches", batches)
        patch.setattr(train, "build", build)
        for name in ("PreviewImages", "BatchNormGuard"):  # have no state
            patch.setattr(train, name, lambda *arguments: keras.callbacks.Callback())
        patch.setattr(checkpointing.os, "fsync", lambda descriptor: None)  # is for power cuts
        for owner, name in (
            (checkpointing.SaveState, "on_train_batch_end"),
            (checkpointing.SaveState, "on_test_batch_end"),
            (checkpointing.os, "fsync"),
            (checkpointing.os, "replace"),
            (Path, "unlink"),
            (train.RunFiles, "on_epoch_end"),
        ):
            killer.watch(patch, owner, name)
        killer.watch_writing(patch)
        yield killer


@pytest.fixture(scope="module")
def unbroken(killer, tables, tmp_path_factory):
    """Never killed; its states are saved at the epochs' ends only."""
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    history = train.train(EXPERIMENT, *tables, run, resume=True, save_every=None)
    return SimpleNamespace(run=run, history=history, moments=killer.moments)


def timeless(history):
    return {name: values for name, values in history.items() if name != "images_per_second"}


def weights(path):
    """All arrays of a `.keras` file: of the network and its optimizer."""
    found = {}
    with zipfile.ZipFile(path) as file, h5py.File(io.BytesIO(file.read("model.weights.h5"))) as content:
        content.visititems(lambda name, item: found.update({name: item[()]} if hasattr(item, "dtype") else {}))
    return found


def assert_same(run, unbroken):
    """Weights, optimizer, averages, metrics, history, best and last network, and the curves."""
    found, expected = (States(folder / "state").newest() for folder in (run, unbroken.run))
    assert (found.epoch, found.step, found.data_hash) == (expected.epoch, expected.step, expected.data_hash)
    assert found.variables.keys() == expected.variables.keys()
    for name, value in expected.variables.items():
        np.testing.assert_array_equal(found.variables[name], value, err_msg=name)
    assert timeless(found.history) == timeless(expected.history) == timeless(unbroken.history)
    assert json.loads((run / "history.json").read_text()) == found.history
    for name in ("best.keras", "last.keras"):
        one, other = weights(run / name), weights(unbroken.run / name)
        assert one.keys() == other.keys() and len(one) > 20
        for path, value in other.items():
            np.testing.assert_array_equal(one[path], value, err_msg=f"{name} {path}")
    assert_same_curves(run, unbroken.run)
    assert {path.name for path in run.iterdir()} == {path.name for path in unbroken.run.iterdir()}


def curves(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto).item()) for event in accumulator.Tensors(tag)]
        for tag in accumulator.Tags()["tensors"]
        if tag != "epoch_images_per_second"
    }


def assert_same_curves(run, unbroken):
    """An epoch whose files were written but whose state was not is there twice, with the same value."""
    for part in ("train", "validation"):
        found, expected = curves(run / "logs" / part), curves(unbroken / "logs" / part)
        assert found.keys() == expected.keys()
        for tag, points in expected.items():
            assert sorted(set(found[tag])) == points, tag
            assert found[tag] == sorted(found[tag]), tag


def killed_until_done(killer, tables, run, draw, save_every):
    """Start again after each kill; returns where it was killed."""
    kills = []
    while True:
        killer.reset(last=int(draw.integers(1, 60)))
        try:
            train.train(EXPERIMENT, *tables, run, resume=True, save_every=save_every)
            return kills
        except Killed as kill:
            kills.append(str(kill))
        finally:
            killer.reset()


@pytest.mark.slow
@pytest.mark.parametrize("save_every", [0.0, None])
def test_many_kills_change_nothing(killer, unbroken, tables, tmp_path, save_every):
    kills = killed_until_done(killer, tables, tmp_path / "run", np.random.default_rng(6), save_every)
    assert len(kills) >= 3
    assert_same(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_a_kill_at_every_moment_changes_nothing(killer, unbroken, tables, tmp_path):
    """Each once, in a training that saves after every step."""
    killer.reset()
    train.train(EXPERIMENT, *tables, tmp_path / "all", resume=True, save_every=0.0)
    moments = killer.log
    assert len(set(moments)) == 13 and len(moments) > 150
    for last, what in enumerate(moments, start=1):
        killer.reset(last)
        with pytest.raises(Killed, match=what):
            train.train(EXPERIMENT, *tables, tmp_path / "run", resume=True, save_every=0.0)
        killer.reset()
        train.train(EXPERIMENT, *tables, tmp_path / "run", resume=True, save_every=0.0)
        assert_same(tmp_path / "run", unbroken)
        shutil.rmtree(tmp_path / "run")


def test_a_damaged_state_costs_steps_only(killer, unbroken, tables, tmp_path, caplog):
    """Also when it was that of an epoch's end: `best.keras` and `history.json` are then ahead."""
    run = tmp_path / "run"
    train.train(EXPERIMENT, *tables, run, time_limit=0.0, save_every=0.0)
    newest = max((run / "state").iterdir())
    newest.write_bytes(flipped(newest.read_bytes(), 0.7))
    train.train(EXPERIMENT, *tables, run, resume=True)
    assert f"{newest} is damaged" in caplog.text
    assert_same(run, unbroken)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_state_and_says_so(killer, unbroken, tables, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train.train(EXPERIMENT, *tables, run, time_limit=0.0, save_every=None)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "logs" not in path.parts}
    with monkeypatch.context() as patch:
        full_disk(patch)
        told = (
            r"state\.npz cannot be written \(No space left on device\); .*00001-0000000-\w+\.npz \(after epoch 1\) is"
        )
        with pytest.raises(InputError, match=told):
            train.train(EXPERIMENT, *tables, run, resume=True, save_every=0.0)
    assert {path: path.read_bytes() for path in before} == before
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", limited(keras.Model.save))
        told = r"last\.keras cannot be written \(.+\); .*\(after batch 3 of epoch 2\) is whole; make room and go on"
        with pytest.raises(InputError, match=told):
            train.train(EXPERIMENT, *tables, run, resume=True, save_every=0.0)
    assert (run / "last.keras").read_bytes() == before[run / "last.keras"]
    train.train(EXPERIMENT, *tables, run, resume=True, save_every=0.0)
    assert_same(run, unbroken)


def test_a_disk_that_is_full_at_once_leaves_nothing(killer, tables, tmp_path, monkeypatch):
    full_disk(monkeypatch)
    with pytest.raises(InputError, match="nothing was saved before; make room and start again"):
        train.train(EXPERIMENT, *tables, tmp_path / "run", save_every=0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("event", "count", "where"),
    [
        ("on_train_batch_end", 2, "batch 2 of epoch 1"),
        pytest.param("on_train_batch_end", 2 * STEPS, "batch 3 of epoch 2", marks=pytest.mark.slow),  # taken again
        ("on_test_batch_end", 1, "batch 3 of epoch 1"),
        pytest.param("on_epoch_end", 2, "epoch 2", marks=pytest.mark.slow),
    ],
)
def test_a_stop_saves_and_says_how_to_go_on(event, count, where, killer, unbroken, tables, tmp_path, monkeypatch):
    """At any batch's end, without a later one, and not the rest of a validation."""
    original, calls = getattr(checkpointing.SaveState, event), []

    def asked(self, *arguments, **options):
        calls.append(event)
        if len(calls) == count:
            self.interruption.signal = signal.SIGTERM
        return original(self, *arguments, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpointing.SaveState, event, asked)
        with pytest.raises(Stopped) as stopped:
            train.train(EXPERIMENT, *tables, run)
    assert len(calls) == count
    assert (
        str(stopped.value)
        == f"stopped by SIGTERM; the training is saved after {where} in {run}/state: go on with resume=True"
    )
    train.train(EXPERIMENT, *tables, run, resume=True)
    assert_same(run, unbroken)


@pytest.mark.slow
def test_a_stop_in_the_last_epochs_end_is_the_end(killer, unbroken, tables, tmp_path, monkeypatch):
    original = train.RunFiles.on_epoch_end

    def asked(self, epoch, logs=None):
        original(self, epoch, logs)
        if epoch == EPOCHS - 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train.RunFiles, "on_epoch_end", asked)
    train.train(EXPERIMENT, *tables, tmp_path / "run")
    assert_same(tmp_path / "run", unbroken)


def test_states_are_saved_so_often(killer, tables, tmp_path, monkeypatch):
    """A clock that goes on by a second with each look."""
    clock, written = iter(range(1000)), []
    monkeypatch.setattr(checkpointing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    original = States.write
    monkeypatch.setattr(States, "write", lambda self, s: written.append((s.epoch, s.step)) or original(self, s))
    one = dataclasses.replace(EXPERIMENT, recipe=dataclasses.replace(EXPERIMENT.recipe, epochs=1))
    train.train(one, *tables, tmp_path / "run", save_every=2.0)
    assert written == [(0, 0), (0, 2), (1, 0)]


@pytest.mark.slow
def test_random_kills(plain, drawn, tmp_path):
    """`kill -9`, again and again, at random moments."""
    draw, kills, number = np.random.default_rng(9), 0, 0
    while kills < 20:
        run = tmp_path / str(number)
        while True:
            event, most = [("train", 9), ("test", 5), ("write", 60)][draw.integers(3)]
            done = stopped_at(run, drawn, f"SIGKILL:{event}:{draw.integers(1, most)}")
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            kills += 1
        assert_same(run, plain)
        number += 1


def test_weights_that_are_no_numbers_are_no_state(tmp_path):
    """A step can break them while its loss is still finite; the next one tells, and then the older state is whole."""
    states = States(tmp_path / "state")
    keep = checkpointing.SaveState(states, State(), 4, None, Interruption())
    for value, kept in ((1.0, 1), (np.nan, 1), (np.inf, 1), (2.0, 2)):
        keep._save(State(epoch=int(value) if np.isfinite(value) else 3, variables={"model/a": np.float32([0, value])}))
        assert len(states._generations()) == kept
