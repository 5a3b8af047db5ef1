"""A user's own joints: a small file and a COCO-format json go all the way to a phone, by the command line alone."""

import json
from functools import partial

import numpy as np
import pytest
from commands import call

import keras_mrpose
from keras_mrpose import data, skeletons
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import coco
from keras_mrpose.skeletons import COCO, Skeleton
from keras_mrpose.synthetic import dataset
from keras_mrpose.training.config import Experiment, Recipe

# Nine joints of the drawn people, under other names and in another order.
DRAWN = {
    "face": "nose",
    "hand_r": "right_wrist",
    "foot_l": "left_ankle",
    "shoulder_l": "left_shoulder",
    "seat_r": "right_hip",
    "hand_l": "left_wrist",
    "shoulder_r": "right_shoulder",
    "foot_r": "right_ankle",
    "seat_l": "left_hip",
}
JOINTS = list(DRAWN)
MIRRORED = [0, 5, 7, 6, 8, 1, 3, 2, 4]
LIMBS = [["shoulder_l", "hand_l"], ["shoulder_r", "hand_r"], ["seat_l", "foot_l"], ["seat_r", "foot_r"]]
SIGMAS = [0.03, 0.06, 0.09, 0.08, 0.11, 0.06, 0.08, 0.09, 0.11]
FILE = {"name": "puppet", "joints": JOINTS, "edges": LIMBS, "sigmas": SIGMAS, "torso": ["seat_r", "shoulder_l"]}
SMALL = ("--backbone", "tiny_v1b", "--input-size", 96, 64, "--batch-size", 4, "--epochs", 1, "--people", 8)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """`drawn`: images of people in COCO's format; `puppets`: the same with nine joints; `puppet.json`."""
    work = tmp_path_factory.mktemp("work")
    (work / "puppet.json").write_text(json.dumps(FILE))
    (work / "puppets" / "annotations").mkdir(parents=True)
    columns = [COCO.joints.index(name) for name in DRAWN.values()]
    for split, count, first in (("train2017", 8, 0), ("val2017", 3, 8)):
        dataset.write(work / "drawn", count, split=split, first_index=first)
        (work / "puppets" / split).symlink_to(work / "drawn" / split)
        name = f"annotations/person_keypoints_{split}.json"
        content = json.loads((work / "drawn" / name).read_text())
        for person in content["annotations"]:
            joints = np.reshape(person["keypoints"], (17, 3))[columns]
            person |= {"keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum())}
        edges = [[JOINTS.index(a) + 1, JOINTS.index(b) + 1] for a, b in LIMBS]
        content["categories"] = [{"id": 1, "name": "puppets", "keypoints": JOINTS, "skeleton": edges}]
        (work / "puppets" / name).write_text(json.dumps(content))
    return work


@pytest.fixture(scope="module")
def puppet(work):
    return skeletons.load(work / "puppet.json")


@pytest.fixture(scope="module")
def trained(run, work):
    options = ("--skeleton", work / "puppet.json", *SMALL, "--run", work / "run")
    assert call(run, "train", "coco-simplebaseline", "--data", work / "puppets", *options) == 0
    return work / "run"


# --- the people ---------------------------------------------------------------------------------------------------


def test_a_file_brings_its_own_joints(work):
    people = data.load(work / "puppets", "val")
    edges = [tuple(JOINTS.index(joint) for joint in limb) for limb in LIMBS]
    assert people.skeleton == Skeleton("puppets", JOINTS, [(1, 5), (2, 7), (3, 6), (4, 8)], edges)
    assert people.skeleton.flip_indices == tuple(MIRRORED) and people.skeleton.sigmas == (0.05,) * 9
    drawn = data.load(work / "drawn", "val")
    columns = [drawn.skeleton.joints.index(name) for name in DRAWN.values()]
    whose = np.searchsorted(drawn.ids, people.ids)
    np.testing.assert_array_equal(people.keypoints, drawn.keypoints[whose][:, columns])
    np.testing.assert_array_equal(people.boxes, drawn.boxes[whose])


def test_a_skeleton_file_goes_first_and_has_to_fit(work, puppet):
    assert data.load(work / "puppets", "val", skeleton=puppet).skeleton is puppet
    turned = Skeleton("turned", JOINTS[::-1])
    for wrong in (turned, COCO):
        with pytest.raises(InputError, match=rf"val2017\.json has the joints face, .*skeleton {wrong.name} has"):
            data.load(work / "puppets", "val", skeleton=wrong)
    with pytest.raises(InputError, match=r"val2017\.json has the joints nose, .*skeleton puppet has face, hand_r"):
        data.load(work / "drawn", "val", skeleton=puppet)


def test_a_file_without_names_needs_the_skeleton(work, puppet, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").symlink_to(work / "drawn" / "val2017")
    name = "annotations/person_keypoints_val2017.json"
    content = json.loads((work / "puppets" / name).read_text())
    (tmp_path / name).write_text(json.dumps({key: content[key] for key in ("annotations", "images")}))
    with pytest.raises(InputError, match="its people have 9 joints, which are not named; give a skeleton file"):
        data.load(tmp_path, "val")
    people = data.load(tmp_path, "val", skeleton=puppet)
    np.testing.assert_array_equal(people.keypoints, data.load(work / "puppets", "val").keypoints)


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ({"id": 1, "keypoints": "face"}, "category 1 has keypoints 'face', expected a list of names"),
        ({"id": 1, "keypoints": [1] * 9}, r"category 1 has keypoints \[1, .*expected a list of names"),
        ({"id": 1, "keypoints": ["a"] * 9}, "category 1 has .* a joint name twice"),
        ({"id": 1, "keypoints": JOINTS, "skeleton": [[0, 1]]}, r"category 1 has .* edges has \(-1, 0\)"),
        ({"id": 1, "keypoints": JOINTS, "skeleton": [[1, 2, 3]]}, "category 1 has .*a skeleton that cannot be"),
        ({"id": 7, "keypoints": JOINTS}, "have the category_id 1, but people are 7"),
        ({"id": 1, "keypoints": JOINTS[:8]}, r"keypoints \[.*expected 8 joints of x, y, v: 24 finite numbers"),
    ],
)
def test_wrong_categories_are_named(category, message, work, tmp_path):
    (tmp_path / "annotations").mkdir()
    name = "annotations/person_keypoints_val2017.json"
    content = json.loads((work / "puppets" / name).read_text())
    (tmp_path / name).write_text(json.dumps(content | {"categories": [category]}))
    with pytest.raises(InputError, match=message) as caught:
        data.load(tmp_path, "val", require_images=False)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_mirrored_crops_change_the_right_pairs(work, puppet):
    """The centre of a box is the point w / 2 of its crop (see `geometry`), so x' = w - x, left for right."""
    people = data.load(work / "puppets", "train", skeleton=puppet)
    size, count = (96, 64), len(people)
    always = Augmentation(scale=0.0, rotation_probability=0.0, flip_probability=1.0)
    still = next(iter(pipeline.batches(people, size, count)))[1].numpy()
    mirrored = next(iter(pipeline.batches(people, size, count, augmentation=always)))[1].numpy()
    # each person has a length of their own, by which the shuffled ones are found again
    assert len(np.unique(still[:, 0, 3])) == count
    mirrored = mirrored[np.argsort(mirrored[:, 0, 3])][:, MIRRORED]
    still = still[np.argsort(still[:, 0, 3])]
    np.testing.assert_array_equal(mirrored[..., 2], still[..., 2])
    seen = still[..., 2] > 0
    np.testing.assert_allclose(mirrored[seen][:, 0], 64 / 4 - still[seen][:, 0], atol=1e-4)
    np.testing.assert_allclose(mirrored[seen][:, 1], still[seen][:, 1], atol=1e-4)


def renamed(work, folder, names):
    """The drawn people in a folder of their own, their joints renamed by a function."""
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (folder / split).symlink_to(work / "drawn" / split)
        name = f"annotations/person_keypoints_{split}.json"
        content = json.loads((work / "drawn" / name).read_text())
        content["categories"][0]["keypoints"] = [names(joint) for joint in COCO.joints]
        (folder / name).write_text(json.dumps(content))
    return folder


def without_sides(joint):
    return f"point_{COCO.joints.index(joint)}"


def one_side_left(joint):
    return {"right_wrist": "glove"}.get(joint, joint)


@pytest.mark.parametrize(
    "spelled",
    [
        lambda name: name.replace("left_", "l").replace("right_", "r"),
        lambda name: name.replace("left_", "Links").replace("right_", "rechts-"),
        lambda name: "_".join(reversed(name.title().split("_"))),
    ],
    ids=["lhip", "LinksHip", "Hip_Left"],
)
def test_other_spellings_are_mirrored_as_coco(spelled, work, tmp_path):
    """Labels of mirrored crops are those of the same people under COCO's own names, whose pairs are published."""
    people = data.load(renamed(work, tmp_path / "own", spelled), "train")
    assert people.skeleton.joints != COCO.joints and people.skeleton.flip_indices == COCO.flip_indices
    always = Augmentation(scale=0.0, rotation_probability=0.0, flip_probability=1.0)
    own, coco_names = (
        next(iter(pipeline.batches(table, (96, 64), len(people), augmentation=always)))[1].numpy()
        for table in (people, data.load(work / "drawn", "train"))
    )
    np.testing.assert_array_equal(own, coco_names)


@pytest.mark.slow
@pytest.mark.parametrize(("names", "problem"), [(without_sides, "says of no joint"), (one_side_left, "left_wrist;")])
def test_unknown_sides_are_not_mirrored(names, problem, run, work, tmp_path, capfd):
    """Neither in training nor in a flip test, which say what to do; the doctor says so before."""
    folder = renamed(work, tmp_path / "own", names)
    people = data.load(folder, "train")
    batches = partial(pipeline.batches, people, (96, 64), 4)
    with pytest.raises(InputError, match=f"^Augmentation by mirroring exchanges .*{problem}.*: flip_probability=0"):
        batches(augmentation=Augmentation())
    batches(augmentation=Augmentation(flip_probability=0))
    given = Skeleton("given", people.skeleton.joints, ())
    pipeline.batches(data.load(folder, "train", skeleton=given), (96, 64), 4, augmentation=Augmentation())

    command = ("train", "coco-simplebaseline", "--data", folder, *SMALL, "--run", tmp_path / "run")
    assert call(run, *command) == 2
    assert problem in (said := capfd.readouterr().err) and "without: --augment flip_probability=0." in said
    assert not (tmp_path / "run").exists()

    network = keras_mrpose.build("simplebaseline", "tiny_v1b", (96, 64, 3), skeleton=people.skeleton)
    network.save(tmp_path / "own.keras")
    assert call(run, "evaluate", tmp_path / "own.keras", "--data", folder) == 2
    assert "A flip test exchanges" in (said := capfd.readouterr().err) and "without: --no-flip." in said
    assert keras_mrpose.Predictor(tmp_path / "own.keras", flip_test=False).skeleton == people.skeleton
    keras_mrpose.build("simplebaseline", "tiny_v1b", (96, 64, 3), skeleton=given).save(tmp_path / "given.keras")
    assert keras_mrpose.Predictor(tmp_path / "given.keras").flip_test

    assert call(run, "doctor", "--data", folder, "--no-images") == 1
    kind = "no left and right" if names is without_sides else "one-sided joint"
    assert f"{kind}:" in capfd.readouterr().out


def test_pairs_are_shown(run, work, tmp_path, caplog, capfd):
    """By the doctor and at the start of a training, in one line."""
    own = renamed(work, tmp_path / "own", lambda name: name.replace("left_", "l").replace("right_", "r"))
    line = "leye/reye, lear/rear, lshoulder/rshoulder, lelbow/relbow, lwrist/rwrist, lhip/rhip, lknee/rknee, "
    line += "lankle/rankle; unchanged: nose"
    assert call(run, "doctor", "--data", own, "--no-images") == 0
    assert f"mirrored in person: {line}\n" in capfd.readouterr().out
    people = data.load(own, "train")
    with caplog.at_level("INFO", "keras_mrpose"), pytest.raises(InputError, match="ohkm_topk"):
        recipe = Recipe(epochs=1, batch_size=4, ohkm_topk=18)  # refused after the pipeline, before the network
        experiment = Experiment(
            "own", backbone="tiny_v1b", input_size=(96, 64), skeleton=people.skeleton, recipe=recipe
        )
        keras_mrpose.train(experiment, people, people, tmp_path / "run")
    assert f"mirrored: {line}" in caplog.messages


# --- the sigmas ---------------------------------------------------------------------------------------------------


def reference_ap(offsets, areas, scores, sigmas):
    """AP of one person in each of some images, all joints labelled: by the definition, in float64."""
    oks = np.exp(-np.square(offsets).sum(-1) / (2 * (2 * np.array(sigmas)) ** 2 * areas[:, None])).mean(axis=1)
    values = []
    for threshold in np.linspace(0.5, 0.95, 10):
        right = (oks >= threshold)[np.argsort(-scores)]
        recall = np.cumsum(right) / len(right)
        precision = np.cumsum(right) / np.arange(1, len(right) + 1)
        values += [max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)]
    return np.mean(values)


def test_ap_takes_the_sigmas_of_the_skeleton(tmp_path, puppet):
    rng, count = np.random.default_rng(0), 40
    areas, scores = rng.uniform(1500, 20000, count), rng.permutation(count) / count
    joints = rng.uniform(20, 400, (count, 9, 2)).round(2)
    offsets = rng.normal(0, 1, (count, 9, 2)) * 0.09 * np.sqrt(areas)[:, None, None] * rng.uniform(0, 2, (count, 1, 1))
    images = [{"id": n + 1, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(count)]
    flagged = np.concatenate([joints, np.full((count, 9, 1), 2)], axis=-1).reshape(count, -1).tolist()
    standard = {"category_id": 1, "iscrowd": 0, "num_keypoints": 9, "bbox": [1, 1, 500, 400]}
    people = [
        {"id": n + 1, "image_id": n + 1, "area": areas[n], "keypoints": flagged[n], **standard} for n in range(count)
    ]
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    file.write_text(json.dumps({"images": images, "annotations": people}))
    found = np.concatenate([joints + offsets, np.ones((count, 9, 1))], axis=-1)
    values = []
    for skeleton in (puppet, Skeleton("plain", JOINTS), Skeleton("strict", JOINTS, sigmas=[0.025] * 9)):
        results = coco.results_json(found, np.arange(count) + 1, scores, skeleton)
        values.append(coco.average_precision(file, results, skeleton=skeleton)["AP"])
        # `joints + offsets` loses 1e-13 of the offsets: no similarity is that near a threshold
        assert values[-1] == pytest.approx(reference_ap(offsets, areas, scores, skeleton.sigmas), abs=1e-9)
    assert 0.9 > values[0] > values[1] + 0.1 > values[2] + 0.2


# --- the whole way ------------------------------------------------------------------------------------------------


def test_training_knows_the_skeleton(trained, puppet):
    """The run's config holds all of it, and so does the network; AP is the first measure."""
    assert Experiment.load(trained / "config.json").skeleton == puppet
    predictor = keras_mrpose.Predictor(trained)
    assert predictor.skeleton == puppet and predictor.skeleton.flip_indices == tuple(MIRRORED)
    assert predictor.model.output_shape[-1] == 9
    history = json.loads((trained / "history.json").read_text())
    assert {"val_oks_ap", "val_pck"} <= set(history)


def test_a_run_goes_on_with_its_skeleton_only(run, trained, work, capfd):
    command = ("train", "coco-simplebaseline", "--data", work / "puppets", *SMALL, "--run", trained, "--resume")
    assert call(run, *command) == 2  # the json's own joints have other sigmas
    assert "was started otherwise" in capfd.readouterr().err
    assert call(run, *command, "--skeleton", work / "puppet.json") == 0


def test_evaluation(run, trained, work, puppet):
    """By COCO's protocol with the network's sigmas, although the json has none; the result says so."""
    assert call(run, "evaluate", trained, "--data", work / "puppets") == 0
    result = keras_mrpose.Result.load(trained / "result.json")
    assert result.metric == "AP" and list(result.numbers["joint_oks"]) == JOINTS
    assert Skeleton.from_dict(result.protocol["data"]["skeleton"]) == puppet
    assert list(result.diagnosis["joints"]) == JOINTS
    assert call(run, "compare", trained / "result.json", trained / "result.json", "--data", work / "puppets") == 0
    assert call(run, "evaluate", trained, "--data", work / "puppets", "--protocol", "pck", "--no-diagnosis") == 0
    assert list(keras_mrpose.Result.load(trained / "result.json").numbers["joints"]) == JOINTS


def test_results_in_a_file(run, trained, work, capfd):
    """--format-only writes nine joints, `score` judges them by the sigmas of --skeleton."""
    file = trained / "person_keypoints_val_results.json"
    assert call(run, "evaluate", trained, "--data", work / "puppets", "--format-only") == 0
    assert {len(record["keypoints"]) for record in json.loads(file.read_text())} == {27}
    told = []
    for options in ((), ("--skeleton", work / "puppet.json")):
        capfd.readouterr()
        assert call(run, "evaluate-results", file, "--data", work / "puppets", *options) == 0
        told.append(capfd.readouterr().out)
    assert all(name in told[0] for name in JOINTS)


@pytest.mark.slow
def test_a_network_of_other_joints_is_measured_by_those_that_both_name(run, trained, work, capfd):
    """The shoulders alone have a name in both; it is said which of COCO's do not count."""
    assert call(run, "evaluate", trained, "--data", work / "drawn", "--no-diagnosis", "--out", work / "own.json") == 0
    unknown = keras_mrpose.Result.load(work / "own.json").protocol["data"]["joints_not_counted"]
    assert unknown == [joint for joint in COCO.joints if "shoulder" not in joint]
    assert "the network does not have nose, left_eye" in " ".join(capfd.readouterr().out.split())


def test_prediction_names_the_joints(run, trained, work):
    (picture, *_) = sorted((work / "puppets" / "val2017").glob("*.jpg"))
    assert (
        call(
            run,
            "predict",
            trained,
            picture,
            "--box",
            5,
            5,
            90,
            90,
            "--person-threshold",
            0,
            "--out",
            work / "predicted",
        )
        == 0
    )
    (content,) = json.loads((work / "predicted" / "keypoints.json").read_text())
    assert list(content["people"][0]["keypoints"]) == JOINTS


@pytest.mark.slow
def test_export_carries_the_skeleton(run, trained, work, puppet):
    """Once it is confident of its joints, which takes more than one epoch: here its maps are raised."""
    pytest.importorskip("ai_edge_litert")
    model = keras_mrpose.Predictor(trained).model
    last = [layer for layer in model.layers if layer.weights][-1]
    kernel, bias = last.get_weights()
    last.set_weights([500 * kernel, bias + 0.5])
    (work / "confident").mkdir()
    model.save(work / "confident" / "best.keras")
    assert call(run, "export", work / "confident", "--data", work / "puppets", "--formats", "float32") == 0
    assert json.loads((work / "confident" / "export" / "report.json").read_text())["metric"] == "AP"
    file = work / "confident" / "export" / "heatmaps_float32.tflite"
    assert keras_mrpose.Predictor(file).skeleton == puppet
    assert call(run, "evaluate", file, "--data", work / "puppets", "--no-diagnosis") == 0
