"""A folder of one's own at the command line: splits by name, a share held out, what is refused at once."""

import json
import re

import numpy as np
import pytest
import scipy.io
from commands import call

import keras_mrpose
from keras_mrpose.skeletons import COCO, LSP


@pytest.fixture
def exported(tmp_path):
    """Eight images of one person each, as an annotation tool writes them: one file, one split."""
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 80} for n in range(8)]
    person = {"category_id": 0, "bbox": [10, 20, 30, 40], "area": 900, "keypoints": [15, 25, 2] + [30, 50, 2] * 16}
    content = {
        "images": images,
        "annotations": [{**person, "id": n, "image_id": n} for n in range(8)],
        "categories": [{"id": 0, "name": "climber", "keypoints": list(COCO.joints)}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_default.json").write_text(json.dumps(content))
    (tmp_path / "images" / "default").mkdir(parents=True)
    for image in images:
        (tmp_path / "images" / "default" / image["file_name"]).touch()
    return tmp_path


@pytest.fixture
def started(monkeypatch):
    """What trainings would be started with."""
    calls = []
    monkeypatch.setattr(keras_mrpose, "train", lambda *arguments, **options: calls.append(arguments))
    return calls


TRAIN = ("train", "coco-simplebaseline", "--run", "nowhere/run")


@pytest.mark.parametrize("split", [(), ("--train-split", "default")])
def test_a_share_is_held_out_and_written_down(split, run, exported, started, capsys):
    assert call(run, *TRAIN, "--data", exported, *split, "--val-share", 0.25, "--val-seed", 3) == 0
    experiment, people, validation, _ = started[0]
    name = split[1] if split else "train"
    assert (experiment.train_split, experiment.val_split) == (f"{name}@3[25%:]", f"{name}@3[:25%]")
    assert sorted([*people.ids, *validation.ids]) == list(range(8)) and len(validation) == 2
    assert capsys.readouterr().out.count("person_keypoints_default.json: 8 people") == 1


def test_splits_by_name(run, exported, started):
    assert call(run, *TRAIN, "--data", exported, "--train-split", "default[2:]", "--val-split", "default[:2]") == 0
    experiment, people, validation, _ = started[0]
    assert (experiment.train_split, experiment.val_split) == ("default[2:]", "default[:2]")
    assert (people.ids.tolist(), validation.ids.tolist()) == ([2, 3, 4, 5, 6, 7], [0, 1])


def test_without_validation_the_option_is_named(run, exported, started, capsys):
    assert call(run, *TRAIN, "--data", exported) == 2
    assert re.search(r"only split is default: .* \(--val-share 0\.1\)", capsys.readouterr().err)
    assert call(run, "doctor", "--data", exported, "--no-images") == 0
    assert "--val-share 0.1" in " ".join(capsys.readouterr().out.split())
    assert not started


def test_what_the_evaluation_would_refuse_is_refused_before_the_training(run, tmp_path, started, capsys):
    """LSP whose validation people have no left shoulder, so no torso for PCK."""
    joints = np.dstack([np.random.default_rng(0).uniform(5, 90, (10, 14, 2)), np.ones((10, 14, 1))])
    joints[8:, LSP.joints.index("left_shoulder"), 2] = 0
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints.transpose(1, 2, 0)})
    (tmp_path / "images").mkdir()
    for number in range(1, 11):
        (tmp_path / "images" / f"im{number:05d}.jpg").touch()
    assert call(run, "train", "lsp-simplebaseline", "--data", tmp_path, "--run", "nowhere/run") == 2
    assert "nobody with right hip and left shoulder labelled" in capsys.readouterr().err and not started
