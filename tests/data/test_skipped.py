"""Records whose image cannot be read: what takes their place, what stays as it was, and that each is listed once."""

import json
import re
import shutil
from pathlib import Path

import cv2
import micro
import numpy as np
import pytest
import tensorflow as tf
from commands import call

import keras_mrpose
from keras_mrpose import data
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.pipeline import Skipped
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.synthetic import dataset
from keras_mrpose.training import callbacks, train

SIZE = (96, 64)
VARIED = Augmentation(scale=0.2, rotation=20.0)


@pytest.fixture(scope="module", autouse=True)
def micro_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.networks, "build", micro.micro)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Drawn people: seven images to train on, two to validate on."""
    folder = tmp_path_factory.mktemp("whole")
    dataset.write(folder, 7, size=(72, 96))
    return dataset.write(folder, 2, split="val2017", first_index=7, size=(72, 96))


@pytest.fixture(scope="module")
def spoilt(whole, tmp_path_factory):
    """The same: the second image is cut off, the third is no image, the fifth is gone."""
    folder = tmp_path_factory.mktemp("spoilt")
    for file in [path for path in whole.rglob("*") if path.is_file()]:
        copy = folder / file.relative_to(whole)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    second, third, fifth = (folder / "train2017" / f"{number:012d}.jpg" for number in (2, 3, 5))
    second.write_bytes(second.read_bytes()[:900])
    third.write_text("<html>404</html>")
    fifth.unlink()
    return folder


@pytest.fixture(scope="module")
def tables(whole, spoilt):
    return data.load(whole, "train"), data.load(spoilt, "train", require_images=False)


def bad_rows(people):
    return np.isin(people.image_ids[people.image_index], (2, 3, 5))


def taken(people, epochs=1, **options):
    """Images and targets of some epochs, in the order of the pipeline."""
    steps = len(people) // 3 * epochs
    batches = pipeline.batches(people, SIZE, 3, augmentation=VARIED, **options).take(steps)
    images, targets = zip(*batches.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(targets)


@pytest.mark.parametrize("augmented", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_bad_image_becomes_black_without_labels_and_all_else_stays(tables, augmented):
    """Bit for bit: the others' pixels, joints, lengths and places in the order."""
    whole, spoilt = tables
    if augmented:
        (images, targets), (seen, found) = taken(whole, 4), taken(spoilt, 4, on_bad_record="skip")
    else:
        (images, targets), (seen, found) = (
            [
                np.concatenate(part)
                for part in zip(*pipeline.batches(people, SIZE, 3, on_bad_record="skip"), strict=True)
            ]
            for people in tables
        )
    black = ~seen.any(axis=(1, 2, 3))
    if not augmented:
        np.testing.assert_array_equal(black, bad_rows(spoilt))
    assert 0 < black.sum() < len(black)
    np.testing.assert_array_equal(seen[~black], images[~black])
    np.testing.assert_array_equal(found[~black], targets[~black])
    assert not found[black][..., :3].any()
    assert images[black].any(axis=(1, 2, 3)).all() and (found[black][..., 3] > 0).all()


@pytest.mark.slow
def test_without_bad_records_nothing_differs(tables):
    listed = Skipped()
    for one, other in zip(taken(tables[0]), taken(tables[0], on_bad_record="skip", skipped=listed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(listed) == 0 and listed.sentence() == ""


@pytest.mark.slow
def test_an_endless_pipeline_goes_on_exactly(tables):
    two = taken(tables[1], 2, on_bad_record="skip")
    second = taken(tables[1], first_epoch=1, on_bad_record="skip")
    for both, one in zip(two, second, strict=True):
        np.testing.assert_array_equal(both[len(one) :], one)


def test_each_is_listed_once_with_its_reason(tables):
    listed, people = Skipped(), tables[1]
    taken(people, 6, on_bad_record="skip", skipped=listed)  # some of them in each epoch
    wanted = {(str(path), number) for path, number in zip(people.paths(), people.ids, strict=True)}
    wanted = {one for one, bad in zip(sorted(wanted, key=lambda one: one[1]), bad_rows(people), strict=True) if bad}
    records = listed.records()
    assert [(one["image"], one["person"]) for one in records] == sorted(wanted)
    reasons = {one["image"][-5]: one["reason"] for one in records}
    assert "truncated" in reasons["2"] and "no image" in reasons["3"] and "No such file" in reasons["5"], reasons
    said = f"skipped {len(wanted)} people: 3 images cannot be read, the first is {min(wanted)[0]}"
    assert listed.sentence() == said


def test_a_file_that_is_whole_by_now_has_a_reason_too(tables, monkeypatch):
    listed, people = Skipped(), tables[1]
    monkeypatch.setattr(pipeline, "why_unreadable", lambda path, size: None)
    row = np.flatnonzero(bad_rows(people))[0]
    assert pipeline._lister(people, listed)(tf.constant(row)) == 0
    assert [one["reason"] for one in listed.records()] == ["could not be read at that moment"]


def test_stop_is_the_default(tables):
    with pytest.raises(Exception, match=r"JPEG|PNG|No such file"):
        taken(tables[1], 2)


def test_an_unknown_choice(tables):
    with pytest.raises(InputError, match="'ignore'; give one of stop, skip"):
        pipeline.batches(tables[0], SIZE, 3, on_bad_record="ignore")


@pytest.mark.slow
def test_training_past_bad_records(spoilt, tables, tmp_path, caplog):
    """The run folder lists them, and the last line tells."""
    people, run = tables[1], tmp_path / "run"
    caplog.set_level("INFO")
    history = train.train(micro.EXPERIMENT, people, data.load(spoilt, "val"), run, on_bad_record="skip", time_limit=0.0)
    assert np.isfinite(history["loss"]).all()
    records = json.loads((run / "skipped.json").read_text())
    bad = set(people.ids[bad_rows(people)].tolist())
    assert records and {one["person"] for one in records} <= bad
    assert re.search(rf"images cannot be read, .*; all are in {run}/skipped\.json", caplog.text)


def test_a_resumed_run_goes_on_with_the_list(tmp_path, monkeypatch):
    """With this part's reason for whom an earlier one listed, too. A process that is killed leaves the old list."""
    for person, reason in ((3, "gone"), (2, "gone"), (3, "cut off")):
        listed = Skipped()
        listed.add("a.jpg", person, reason)
        listed.add("a.jpg", person, "told once")
        callbacks.ListSkipped(tmp_path, listed).on_train_batch_end(0)
    written = json.loads((tmp_path / "skipped.json").read_text())
    assert [(one["person"], one["reason"]) for one in written] == [(2, "gone"), (3, "cut off")]
    assert [path.name for path in tmp_path.iterdir()] == ["skipped.json"]
    monkeypatch.delattr(Path, "replace")
    listed.add("b.jpg", 1, "gone")
    with pytest.raises(AttributeError):
        listed.write(tmp_path)
    assert json.loads((tmp_path / "skipped.json").read_text()) == written


def test_a_clean_training_lists_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    callback = callbacks.ListSkipped(tmp_path, Skipped())
    callback.on_train_batch_end(0)
    callback.on_train_end()
    assert not list(tmp_path.iterdir()) and not caplog.records


def test_nothing_is_learnt_from_a_skipped_record(tables):
    """Its loss is exactly 0 whatever the network says."""
    _, targets = taken(tables[1], on_bad_record="skip")
    maps = np.random.default_rng(0).normal(size=(len(targets), 24, 16, 17)).astype(np.float32)
    losses = np.asarray(HeatmapMSE().call(targets, maps))
    skipped = ~targets[..., 2].any(axis=1)
    assert skipped.any() and not losses[skipped].any() and losses[~skipped].all()


def test_the_drawn_pictures_can_be_told_from_black(whole):
    """Else the first test would prove nothing."""
    assert all(cv2.imread(str(path)).any() for path in whole.rglob("*.jpg"))


def test_a_wrong_folder_is_no_bad_record(whole, tmp_path):
    shutil.copytree(whole / "annotations", tmp_path / "annotations")
    people = data.load(tmp_path, "train", require_images=False)
    (tmp_path / "train2017").mkdir()
    Path(people.image_paths[0]).touch()  # nobody's, now
    with pytest.raises(InputError, match="is missing"):
        pipeline.batches(people.take(people.image_index > 0), SIZE, 3, on_bad_record="skip")


def test_at_the_command(run, spoilt, tmp_path, monkeypatch, capfd):
    """With "skip" an image may be missing altogether."""
    passed = []
    monkeypatch.setattr(
        keras_mrpose, "train", lambda experiment, people, *rest, **options: passed.append((people, options))
    )
    arguments = ("train", "coco-simplebaseline", "--data", spoilt, "--run", tmp_path / "run")
    assert call(run, *arguments, "--on-bad-record", "skip") == 0
    ((people, options),) = passed
    assert options["on_bad_record"] == "skip" and bad_rows(people).any()
    assert call(run, *arguments) == 2 and "000000000005.jpg is missing" in capfd.readouterr().err
    assert call(run, *arguments, "--on-bad-record", "ignore") == 2
