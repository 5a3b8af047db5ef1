"""Several data sets as one training: joints by name, shares of an epoch, the number of each by its own protocol."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
from micro import EXPERIMENT, EXPERIMENT_OF_ALL, Killed, draw, micro
from scipy.io import savemat

from keras_mrpose import Skeleton, data, evaluate, metrics, skeletons
from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.data import mixture, pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.mixture import Mixture, Source, SourceFolder
from keras_mrpose.data.people import concatenate
from keras_mrpose.errors import InputError
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import BODY19, COCO, LSP, MPII
from keras_mrpose.training import train
from keras_mrpose.training.config import Experiment

SIZE = (96, 64)


# --- joints by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    [
        *("left_shoulder", "LShoulder", "l_shoulder", "shoulder_l", "leftShoulder", "Left Shoulder", "LEFT_SHOULDER"),
        *("shoulder.left", "Shoulder-L", "L Shoulder"),
    ],
)
def test_spellings_of_one_joint(spelling):
    assert skeletons.canonical(spelling) == "left_shoulder"


@pytest.mark.parametrize("spelling", ["head_top", "HeadTop", "top of head", "headtop", "Head top", "crown"])
def test_other_names_of_the_head_top(spelling):
    assert skeletons.canonical(spelling) == "head_top"


def test_which_joints_are_the_same():
    """Worked out by hand from the lists of names: LSP's neck is not MPII's upper neck, and nobody's nose."""
    lsp = dict(zip(BODY19.joints, skeletons.joint_map(LSP, BODY19), strict=True))
    assert lsp["right_ankle"] == 0 and lsp["left_wrist"] == 11 and lsp["neck"] == 12 and lsp["head_top"] == 13
    assert [lsp[name] for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")] == [-1] * 5
    mpii = dict(zip(BODY19.joints, skeletons.joint_map(MPII, BODY19), strict=True))
    assert mpii["neck"] == mpii["nose"] == -1
    assert mpii["head_top"] == 9 and mpii["right_wrist"] == 10 and mpii["left_ankle"] == 5
    assert skeletons.joint_map(COCO, BODY19) == (*range(17), -1, -1)
    assert skeletons.joint_map(COCO, COCO) == tuple(range(17))


def test_joints_of_one_name_in_two_spellings_are_refused():
    both = Skeleton("both", ("LHand", "hand_l"))
    with pytest.raises(InputError, match=r"'both' has 'LHand' and 'hand_l'"):
        skeletons.joint_map(both, COCO)
    assert skeletons.joint_map(both, both) == (0, 1)  # nothing to look for


def test_names_in_other_letters_are_themselves():
    climber = Skeleton("climber", ("голова", "рука"))
    assert skeletons.joint_map(climber, Skeleton("more", ("Рука", "нога"))) == (1, -1)


# --- the folders --------------------------------------------------------------------------------------------------


def lsp_folder(folder, people, visible=14):
    """An LSP folder of drawn people: COCO's twelve edge joints, a neck and a head top."""
    coco_of = skeletons.joint_map(COCO, LSP)
    points = people.keypoints[:, coco_of, :2].copy()
    points[:, 12] = people.keypoints[:, (5, 6), :2].mean(axis=1) - (0, 3)
    points[:, 13] = people.keypoints[:, 0, :2] - (0, 12)
    joints = np.concatenate([points + 1, np.zeros((len(people), 14, 1))], axis=-1)
    (folder / "images").mkdir(parents=True)
    for number, path in enumerate(people.paths(), 1):
        shutil.copy(path, folder / "images" / f"im{number:04d}.jpg")
    savemat(folder / "joints.mat", {"joints": joints.transpose(2, 1, 0)})
    return points


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """COCO format, 19 people to train on and 8 to validate; LSP, 14 and 13 of the same drawn people."""
    root = tmp_path_factory.mktemp("data")
    draw(root / "coco")
    both = concatenate([data.load(root / "coco", split) for split in ("train", "val")])
    lsp_folder(root / "lsp", both)
    return root


def test_a_slice_is_of_images(folders):
    """As in TensorFlow Datasets: images in their order, each with all its people; both splits with a plus."""
    everybody = data.load(folders / "coco", "train")
    images = len(everybody.image_ids)
    some = data.load(folders / "coco", "train[2:5]")
    assert some.image_ids.tolist() == everybody.image_ids[2:5].tolist()
    np.testing.assert_array_equal(some.ids, everybody.ids[np.isin(everybody.image_index, (2, 3, 4))])
    assert data.load(folders / "coco", "train[:-2]").image_ids.tolist() == everybody.image_ids[:-2].tolist()
    quarter = round(images / 4)
    assert data.load(folders / "coco", "train[25%:]").image_ids.tolist() == everybody.image_ids[quarter:].tolist()
    both = data.load(folders / "lsp", "train+val")
    assert len(both) == 27 and both.source_index.tolist() == [0] * 13 + [1] * 14
    assert both.image_ids.tolist() == list(range(1, 28))


@pytest.mark.parametrize("split", ["train[1:2:3]", "train[", "[1:2]", "train[a:]", ""])
def test_a_split_that_is_none(folders, split):
    with pytest.raises(InputError, match="split is"):
        data.load(folders / "coco", split)


def test_an_empty_slice(folders):
    with pytest.raises(InputError, match=r"'train\[5:5\]' of .* has nobody: the split has 8 images"):
        data.load(folders / "coco", "train[5:5]")


def test_people_with_another_skeleton(folders):
    people = data.load(folders / "lsp", "train")
    wider = people.with_skeleton(BODY19)
    assert wider.skeleton is BODY19 and wider.protocol == "pck"
    np.testing.assert_array_equal(wider.keypoints[:, BODY19.joints.index("neck")], people.keypoints[:, 12])
    np.testing.assert_array_equal(wider.keypoints[:, BODY19.joints.index("left_knee")], people.keypoints[:, 4])
    assert not wider.keypoints[:, BODY19.joints.index("nose")].any()
    np.testing.assert_array_equal(wider.with_skeleton(LSP).keypoints, people.keypoints)
    with pytest.raises(InputError, match="none of which is in the skeleton tail"):
        people.with_skeleton(Skeleton("tail", ("tail",)))


def two(folders, **of_coco):
    return Mixture(
        (SourceFolder(folders / "lsp"), SourceFolder(folders / "coco")),
        (Source("lsp", weight=3), Source("coco", **of_coco)),
    )


def test_the_people_of_all_sources(folders):
    joined = mixture.join(two(folders), BODY19)
    lsp, coco = (data.load(folders / name, "train") for name in ("lsp", "coco"))
    assert len(joined.people) == len(lsp) + len(coco) == 13 + 19
    assert joined.people.source_index.tolist() == [0] * 13 + [1] * 19
    assert joined.people.paths().tolist() == [*lsp.paths(), *coco.paths()]
    np.testing.assert_array_equal(joined.people.boxes, np.concatenate([lsp.boxes, coco.boxes]))
    assert [source.protocol for source in joined.sources] == ["pck", "ap"]
    assert joined.joints[0].startswith("lsp: labels 14 of 19 joints, not nose, left_eye")
    assert joined.joints[1] == "coco: labels 17 of 19 joints, not neck, head_top"


def test_joints_that_have_no_place_are_told_with_the_reason(folders):
    joined = mixture.join(two(folders), MPII)
    assert "its nose, left_eye" in joined.joints[1] and joined.joints[0].endswith("its neck are not used")
    sentence = mixture._on_joints("mpii", MPII, BODY19)
    assert "its pelvis, thorax, upper_neck are not used" in sentence and "LSP's neck" in sentence


def test_nobody_to_validate_on(folders):
    none = Mixture((SourceFolder(folders / "lsp", val=None),), (Source("lsp"),))
    with pytest.raises(InputError, match="No source has a split to validate on"):
        mixture.join(none, BODY19)


def test_a_missing_source_is_named(folders):
    wrong = Mixture((SourceFolder(folders / "nothing"),), (Source("extra"),))
    with pytest.raises(InputError, match=r"Source 'extra': The data folder .*nothing is not there"):
        mixture.join(wrong, BODY19)


# --- a mixture file -----------------------------------------------------------------------------------------------


def test_a_file(tmp_path):
    content = {
        "skeleton": "body19",
        "crops_per_epoch": 100,
        "sources": {
            "lsp": {"data": "sets/lsp", "train": "train[:-2]", "val": "train[-2:]", "share": 0.25, "weight": 2},
            "extra": {"data": "/sets/extra", "val": None},
        },
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    found = mixture.read(tmp_path / "m.json")
    assert (found.skeleton, found.crops_per_epoch) == (BODY19, 100)
    assert found.sources == (Source("lsp", 0.25, 2), Source("extra"))
    assert found.folders[0] == SourceFolder(tmp_path / "sets" / "lsp", "train[:-2]", "train[-2:]")
    assert str(found.folders[1].data) == "/sets/extra" and found.folders[1].val is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": {}}, "has no sources"),
        ({"sorces": {}}, "unknown field 'sorces'"),
        ({"crops_per_epoch": 0}, "crops_per_epoch is 0"),
        ({"crops_per_epoch": True}, "crops_per_epoch is True"),
        ({"skeleton": "body"}, "Unknown skeleton 'body'"),
        ({"skeleton": 3}, "skeleton is 3"),
        ({"sources": {"a": "dir"}}, "source 'a' is 'dir'"),
        ({"sources": {"a": {}}}, "source 'a': data is None"),
        ({"sources": {"a": {"data": "d", "weigth": 1}}}, "source 'a' has an unknown field 'weigth'"),
        ({"sources": {"a": {"data": "d", "train": None}}}, "source 'a': train is None"),
        ({"sources": {"a": {"data": "d", "share": 1.5}}}, "source a's share is 1.5"),
        ({"sources": {"a": {"data": "d", "share": "half"}}}, "source a's share is 'half'"),
        ({"sources": {"a": {"data": "d", "weight": -1}}}, "source a's weight is -1"),
        ({"sources": {"a b": {"data": "d"}}}, "source's name is 'a b'"),
    ],
)
def test_a_wrong_file(tmp_path, change, words):
    (tmp_path / "m.json").write_text(json.dumps({"sources": {"a": {"data": "d"}}} | change))
    with pytest.raises(InputError, match=words) as caught:
        mixture.read(tmp_path / "m.json")
    assert change == {"skeleton": "body"} or "m.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "3", '{"sources": []}'])
def test_no_mixture_file(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match=r"m\.json"):
        mixture.read(tmp_path / "m.json")
    with pytest.raises(InputError, match="not there"):
        mixture.read(tmp_path / "none.json")


# --- shares of an epoch -------------------------------------------------------------------------------------------


def crops(people, shares, batch_size=4, total=None):
    sources = [Source(f"s{index}", share) for index, share in enumerate(shares)]
    return mixture.crops_of_epoch(sources, people, batch_size, total)


def test_shares(folders):
    """13 and 19 people, worked out by hand."""
    people = mixture.join(two(folders), BODY19).people
    assert crops(people, (None, None)) == (13, 19)
    assert crops(people, (None, None), total=100) == (41, 59)  # 40.6 and 59.4
    assert crops(people, (0.25, None), total=50) == (12, 36)  # 48 in whole batches
    assert crops(people, (0.25, 0.75), total=48) == (12, 36)
    assert crops(people, (0.3, 0.7), total=8) == (2, 6)  # 2.4 and 5.6


@pytest.mark.parametrize("shares", [(0.5, 0.6), (0.5, 0.4), (1.0, None), (0.7, 0.7)])
def test_shares_that_do_not_make_a_whole(folders, shares):
    people = mixture.join(two(folders), BODY19).people
    with pytest.raises(InputError, match="The shares s0="):
        crops(people, shares)


def test_too_few_crops(folders):
    people = mixture.join(two(folders), BODY19).people
    with pytest.raises(InputError, match="less crops than one batch of 64"):
        crops(people, (None, None), batch_size=64)
    with pytest.raises(InputError, match="'s1' has nobody to train on"):
        crops(people.take(slice(13)), (None, None))


def rows_of(people, of_epoch, epochs, seed=5):
    order = pipeline._order(people, 4, of_epoch, seed, 0).take(sum(of_epoch) * epochs)
    pairs = np.array([(int(cycle), int(row)) for cycle, row in order.as_numpy_iterator()])
    return pairs.reshape(epochs, -1, 2)


def test_an_epoch_has_so_many_of_each_and_nobody_is_forgotten(folders):
    """5 of 13 and 39 of 19 people: after 13 epochs everybody of the first came 5 times, of the second 26 or 27 times.

    No (cycle, person) comes twice: each crop has an augmentation of its own.
    """
    people, of_epoch = mixture.join(two(folders), BODY19).people, (5, 39)
    found = rows_of(people, of_epoch, 13)
    for epoch in found:
        assert np.bincount(people.source_index[epoch[:, 1]]).tolist() == [5, 39]
        assert not np.array_equal(np.sort(epoch[:, 1]), epoch[:, 1])
    times = np.bincount(found[..., 1].ravel(), minlength=32)
    assert (times[:13] == 5).all()
    assert set(times[13:].tolist()) <= {26, 27} and times[13:].sum() == 13 * 39
    assert len(np.unique(found.reshape(-1, 2), axis=0)) == 13 * 44
    assert not np.array_equal(found[0, :, 1], found[1, :, 1])
    assert not np.array_equal(found, rows_of(people, of_epoch, 13, seed=6))


def batches_of(people, **place):
    options = {"augmentation": Augmentation(), "seed": 3, "crops": (6, 18)}
    return pipeline.batches(people, SIZE, 4, **options, **place)


@pytest.mark.slow
def test_going_on_from_anywhere(folders):
    """Six steps an epoch; each batch is the one of the unbroken pipeline, and its rows are told."""
    people = mixture.join(two(folders), BODY19).people
    whole = [(images.numpy(), target.numpy()) for images, target in batches_of(people).take(15)]
    for epoch, step in ((0, 3), (1, 0), (2, 1)):
        images, target = next(iter(batches_of(people, first_epoch=epoch, first_step=step)))
        np.testing.assert_array_equal(images, whole[6 * epoch + step][0])
        np.testing.assert_array_equal(target, whole[6 * epoch + step][1])
        rows = pipeline.rows(people, 4, 3, epoch, step, (6, 18))
        np.testing.assert_array_equal(target[:, 0, 4], people.source_index[rows])
    for part in range(2):
        images, _ = next(iter(batches_of(people, shard=(part, 2))))
        np.testing.assert_array_equal(images, whole[0][0][2 * part : 2 * part + 2])


def test_targets_tell_the_source(folders):
    joined = mixture.join(two(folders), BODY19)
    _, target = next(iter(pipeline.batches(joined.people, SIZE, 32)))
    assert target.shape == (32, 19, 5)
    np.testing.assert_array_equal(target[..., 4], np.repeat(joined.people.source_index[:, None], 19, axis=1))
    np.testing.assert_array_equal(target[..., 2], joined.people.keypoints[..., 2] > 0)


def test_epochs_of_no_whole_batches_are_refused(folders):
    people = mixture.join(two(folders), BODY19).people
    with pytest.raises(InputError, match="An epoch of 23 crops is no number of whole batches of 4"):
        pipeline.batches(people, SIZE, 4, augmentation=Augmentation(), crops=(5, 18))
    with pytest.raises(InputError, match="in the order of their sources"):
        pipeline.batches(people.take(slice(None, None, -1)), SIZE, 4, augmentation=Augmentation(), crops=(6, 18))


# --- the number of each -------------------------------------------------------------------------------------------


def test_a_metric_of_one_source_counts_it_alone():
    """Two people of two sources, four joints: exact, and 3 heatmap pixels off in all joints but the first."""
    rng = np.random.default_rng(0)
    points = rng.uniform(8, 20, (2, 4, 2)).round()
    target = np.concatenate([points, np.ones((2, 4, 1)), np.full((2, 4, 1), 10.0)], axis=-1)
    target = np.concatenate([target, np.array([[[0.0]], [[1.0]]]).repeat(4, axis=1)], axis=-1).astype(np.float32)
    shifted = points + np.array([0, 3])[:, None, None] * (np.arange(4) > 0)[:, None] * np.array([1, 0])
    codec = GaussianCodec(1.0)
    maps, _ = codec.encode(shifted.astype(np.float32), np.ones((2, 4), np.float32), (32, 32))
    for source, value in ((0, 1.0), (1, 0.25), (None, 0.625)):
        metric = metrics.PCK(codec, threshold=0.2, torso="reference_length", source=source)
        metric.update_state(target, maps)
        assert float(metric.result()) == pytest.approx(value), source
        again = metrics.PCK.from_config(metric.get_config())
        assert again.source == source
    # OKS-AP of the second person on its first joint alone is 1, on all four it is not
    for exclude, right in (((1, 2, 3), True), ((), False)):
        metric = metrics.OKSAP((0.05,) * 4, codec, source=1, exclude=exclude)
        metric.update_state(target, maps)
        assert (float(metric.result()) > 0.99) is right
        assert metrics.OKSAP.from_config(metric.get_config()).exclude == exclude
    with pytest.raises(InputError, match=r"give \(batch, joints, 5\)"):
        metric.update_state(target[..., :4], maps)


@pytest.fixture(scope="module")
def micro_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.networks, "build", micro)
        yield


MIXED = dataclasses.replace(EXPERIMENT, skeleton="body19")


def mixed(joined, experiment=MIXED, **more):
    return dataclasses.replace(experiment, skeleton="body19", sources=joined.sources, **more)


def test_a_training(folders, micro_networks, tmp_path):
    """Each source by its own protocol, one weighted number for the best epoch, and the config says all of it."""
    joined = mixture.join(two(folders), BODY19)
    experiment = mixed(joined, crops_per_epoch=40)
    history = train.train(experiment, joined.people, joined.validation, tmp_path / "run")
    assert set(history) >= {"lsp_pck", "val_lsp_pck", "coco_oks_ap", "val_coco_oks_ap", "val_score"}
    wanted = [(3 * pck + ap) / 4 for pck, ap in zip(history["val_lsp_pck"], history["val_coco_oks_ap"], strict=True)]
    assert history["val_score"] == pytest.approx(wanted)
    model = keras.models.load_model(tmp_path / "run" / "best.keras")
    assert model.skeleton == BODY19
    assert int(model.optimizer.iterations) == (int(np.argmax(wanted)) + 1) * 10  # 40 crops in batches of 4
    assert Experiment.load(tmp_path / "run" / "config.json") == experiment
    with pytest.raises(InputError, match="started otherwise"):
        other = dataclasses.replace(experiment, sources=(Source("lsp", 0.5, 3, "pck"), experiment.sources[1]))
        train.train(other, joined.people, joined.validation, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_data_sets_alone(folders, micro_networks, tmp_path):
    """What the training says of LSP is what `evaluate` says of it: 14 of the network's 19 joints, PCK's protocol."""
    joined = mixture.join(two(folders), BODY19)
    history = train.train(mixed(joined), joined.people, joined.validation, tmp_path / "run")
    predictor = Predictor(keras.models.load_model(tmp_path / "run" / "last.keras"), flip_test=False)
    result = evaluate(predictor, data.load(folders / "lsp", "val"), diagnose=False)
    assert (result.metric, len(result.numbers["joints"])) == ("PCK", 14)
    assert result.value == pytest.approx(history["val_lsp_pck"][-1], abs=1e-6)


@pytest.mark.slow
def test_one_source_is_a_mixture_too(folders, micro_networks, tmp_path):
    alone = Mixture((SourceFolder(folders / "lsp"),), (Source("lsp"),))
    joined = mixture.join(alone, BODY19)
    history = train.train(mixed(joined), joined.people, joined.validation, tmp_path / "run", time_limit=0.0)
    assert history["val_score"] == history["val_lsp_pck"]


@pytest.mark.slow
def test_a_killed_training_goes_on_exactly(folders, micro_networks, tmp_path, monkeypatch):
    """Killed in the middle of the second epoch, all variables end bit for bit as those of the unbroken training."""
    joined = mixture.join(two(folders, share=0.7), BODY19)
    experiment = mixed(joined, EXPERIMENT_OF_ALL, crops_per_epoch=24)
    arguments = (experiment, joined.people, joined.validation)
    unbroken = train.train(*arguments, tmp_path / "unbroken")
    original, calls = train.SaveState.on_train_batch_end, []

    def killed(self, batch, logs=None):
        original(self, batch, logs)
        calls.append(batch)
        if len(calls) == 9:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train.SaveState, "on_train_batch_end", killed)
        train.train(*arguments, tmp_path / "run", save_every=0.0)
    history = train.train(*arguments, tmp_path / "run", resume=True)
    timeless = lambda values: {name: value for name, value in values.items() if name != "images_per_second"}  # noqa: E731
    assert timeless(history) == timeless(unbroken)
    one, other = (keras.models.load_model(tmp_path / name / "last.keras") for name in ("unbroken", "run"))
    for mine, theirs in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- a network with other joints than a data set --------------------------------------------------------------------


def pretending(skeleton, folders):
    """A network of these joints, untrained."""
    model = micro("", backbone="", input_shape=(*SIZE, 3), skeleton=skeleton, codec=GaussianCodec(1.5))
    return Predictor(model, flip_test=False)


@pytest.mark.parametrize(("name", "metric"), [("lsp", "PCK"), ("coco", "AP")])
def test_a_network_with_more_joints_is_measured_by_those_that_both_name(folders, name, metric):
    """It finds what the same network does whose heatmaps are in the data set's own order."""
    people = data.load(folders / name, "val")
    wide = pretending(BODY19, folders)
    own = pretending(people.skeleton, folders)
    index = list(skeletons.joint_map(BODY19, people.skeleton))
    kernel, bias = wide.model.get_layer("conv2").get_weights()
    own.model.get_layer("conv1").set_weights(wide.model.get_layer("conv1").get_weights())
    own.model.get_layer("conv2").set_weights([kernel[..., index], bias[index]])
    found, wanted = (evaluate(predictor, people, diagnose=True) for predictor in (wide, own))
    assert found.metric == metric and found.numbers == wanted.numbers and found.diagnosis == wanted.diagnosis
    found, wanted = (result.predictions.keypoints["gaussian/single"] for result in (found, wanted))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)  # a wider convolution may add in another order


def test_joints_that_the_network_has_not_do_not_count(folders, tmp_path):
    """COCO's people by LSP's joints: the face is as if nobody had labelled it, also for pycocotools."""
    people = data.load(folders / "coco", "val")
    predictor = pretending(LSP, folders)
    result = evaluate(predictor, people, diagnose=False)
    assert result.predictions.known.tolist() == [False] * 5 + [True] * 12
    assert result.protocol["data"]["joints_not_counted"] == list(COCO.joints[:5])
    faceless = json.loads((folders / "coco" / "annotations" / "person_keypoints_val2017.json").read_text())
    for person in faceless["annotations"]:
        points = np.reshape(person["keypoints"], (-1, 3))
        points[:5] = 0
        person["keypoints"], person["num_keypoints"] = points.ravel().tolist(), int((points[:, 2] > 0).sum())
    shutil.copytree(folders / "coco", tmp_path / "coco")
    (tmp_path / "coco" / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(faceless))
    wanted = evaluate(predictor, data.load(tmp_path / "coco", "val"), diagnose=False)
    assert result.numbers == wanted.numbers
    result.save(tmp_path / "result.json")
    assert type(result).load(tmp_path / "result.json").predictions.known.tolist() == result.predictions.known.tolist()


def test_nothing_in_common(folders):
    with pytest.raises(InputError, match="no name is in both"):
        evaluate(pretending(Skeleton("tail", ("tail",)), folders), data.load(folders / "lsp", "val"))
