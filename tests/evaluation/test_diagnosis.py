"""Classes of errors: people made by hand for each class and border, a loop over joints, and the published results."""

import io
import json
import math
import time

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_mrpose.cli import tables
from keras_mrpose.data import coco
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import diagnosis
from keras_mrpose.evaluation.diagnosis import CLASSES, GOOD, INVERSION, JITTER, MISS, NEAR_RATIO, SWAP
from keras_mrpose.skeletons import COCO, Skeleton
from keras_mrpose.visualization import curves

SKELETON = Skeleton("three", ("nose", "left_hand", "right_hand"), flip_pairs=((1, 2),), sigmas=(0.05, 0.1, 0.1))
G = 5.0  # distances of 3-4-5 triangles are exact
HERE = np.array([[100.0, 50], [60, 90], [140, 90]])


def people(*keypoints, images=None, areas=None, skeleton=SKELETON):
    """A table of (joints, 2 or 3) people; all joints are labelled if there is no third column."""
    joints = [np.c_[person, np.full(len(person), 2)] if np.shape(person)[1] == 2 else person for person in keypoints]
    count = len(joints)
    images = np.zeros(count, int) if images is None else np.asarray(images)
    return People(
        source="drawn",
        skeleton=skeleton,
        image_paths=[f"{number}.jpg" for number in range(9)],
        image_ids=np.arange(9) + 100,
        image_index=images,
        ids=np.arange(count) + 7,
        boxes=np.tile([0.0, 0, 30, 20], (count, 1)),
        keypoints=np.array(joints),
        reference_length=np.ones(count),
        areas=np.full(count, 5000.0) if areas is None else areas,
    )


def classed(found, table, rows=(0,), good=G):
    good = np.broadcast_to(good, table.keypoints.shape[:2])
    return diagnosis.diagnose(np.asarray(found, float), np.array(rows), table, good).classes


def shifted(x, y):
    return HERE + np.array([x, y])


def moved(joint, by, start=HERE):
    """One prediction: the person at `start`, with a joint moved."""
    found = start.copy()
    found[joint] += by
    return found[None]


# --- distances ----------------------------------------------------------------------------------------------------


def test_good_is_where_similarity_is_085_and_near_where_it_is_a_half():
    """1e-12: a few roundings of float64."""
    areas, sigmas = np.array([5000.0, 800.0]), np.array([0.026, 0.107, 0.062])
    good = diagnosis.tolerances_oks(areas, sigmas)
    assert good.shape == (2, 3)
    for factor, similarity in ((1, 0.85), (NEAR_RATIO, 0.5)):
        d = factor * good
        np.testing.assert_allclose(np.exp(-(d**2) / (2 * (2 * sigmas) ** 2 * areas[:, None])), similarity, rtol=1e-12)


def test_good_of_pck_is_a_share_of_the_length():
    np.testing.assert_array_equal(diagnosis.tolerances_pck([10, 30], 0.5, 3), [[5.0] * 3, [15.0] * 3])


def test_people_without_a_length_do_not_count():
    for nothing in (0, math.nan):
        good = [diagnosis.tolerances_pck([10, nothing], 0.2, 3), diagnosis.tolerances_oks([9, nothing], [1.0])]
        assert [np.isnan(g).any(axis=1).tolist() for g in good] == [[False, True]] * 2
        table = people(HERE, HERE + 50)
        assert classed([HERE, HERE + 50], table, (0, 1), good[0]).tolist() == [[GOOD] * 3, [-1] * 3]
        assert classed(moved(0, (50, 50)), table, good=good[0])[0, 0] == MISS  # nothing is near such a joint


@pytest.mark.parametrize("bad", [[-1.0], [math.inf], [[1.0]], 1.0])
def test_wrong_lengths_are_refused(bad):
    with pytest.raises(InputError, match="lengths"):
        diagnosis.tolerances_pck(bad, 0.2, 3)
    with pytest.raises(InputError, match="areas"):
        diagnosis.tolerances_oks(bad, [0.1])


def test_wrong_thresholds_and_sigmas_are_refused():
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(InputError, match="threshold"):
            diagnosis.tolerances_pck([1.0], bad, 3)
        with pytest.raises(InputError, match="sigmas"):
            diagnosis.tolerances_oks([1.0], [0.1, bad])


# --- classes by hand ----------------------------------------------------------------------------------------------


def test_borders_belong_to_the_nearer_class():
    table = people(HERE)
    far = NEAR_RATIO * G
    for by, expected in (
        ((3, 4), GOOD),
        ((3, 4.001), JITTER),
        ((far, 0), JITTER),
        ((far + 1e-6, 0), MISS),
        ((0, 0), GOOD),
    ):
        start = np.array([[0.0, 0], [60, 90], [140, 90]])  # sums are exact at 0
        assert classed(moved(0, by, start), people(start))[0].tolist() == [expected, GOOD, GOOD], by
    assert classed(moved(1, (0, 50)), table)[0].tolist() == [GOOD, MISS, GOOD]


def test_inversion_is_near_the_own_mirrored_joint_by_that_joints_distance():
    table = people(HERE)
    assert classed(HERE[[0, 2, 1]][None], table)[0].tolist() == [GOOD, INVERSION, INVERSION]
    found = moved(1, (80 + 2 * G, 0))  # 2 g from the right hand
    for right, expected in ((G, INVERSION), (0.9 * G, MISS)):
        assert classed(found, table, good=np.array([[9 * G, G, right]]))[0, 1] == expected
    unlabelled = np.c_[HERE, [2, 2, 0]]
    assert classed(HERE[[0, 2, 1]][None], people(unlabelled))[0].tolist() == [GOOD, MISS, -1]
    assert classed(moved(0, (40, 40)), table)[0, 0] == MISS  # the nose on a hand; it has no partner


def test_swap_is_near_this_or_the_mirrored_joint_of_another_of_the_image():
    other = shifted(300, 10)
    for images, expected in (((0, 0), SWAP), ((0, 1), MISS)):
        table = people(HERE, other, images=images)
        for place in (1, 2):  # the other's left and right hand
            found = moved(1, other[place] - HERE[1])
            assert classed(found, table)[0].tolist() == [GOOD, expected, GOOD]
        assert classed(moved(1, other[0] - HERE[1]), table)[0, 1] == MISS  # the other's nose
    table = people(HERE, np.c_[other, [2, 0, 2]])
    assert classed(moved(1, other[1] - HERE[1]), table)[0, 1] == MISS
    assert classed(moved(1, other[2] - HERE[1] + (2 * G, 0)), people(HERE, other))[0, 1] == SWAP
    small = np.array([[G] * 3, [0.9 * G] * 3])
    assert classed(moved(1, other[2] - HERE[1] + (2 * G, 0)), people(HERE, other), good=small)[0, 1] == MISS


def test_own_joints_come_before_those_of_others():
    assert classed(moved(1, (7, 0)), people(HERE, shifted(7, 0)))[0, 1] == JITTER
    assert classed(HERE[[0, 2, 1]][None], people(HERE, HERE))[0].tolist() == [GOOD, INVERSION, INVERSION]


def test_unlabelled_joints_and_predictions_of_nobody_are_not_counted():
    table = people(np.c_[HERE, [0, 1, 2]], HERE + 50)
    found = np.stack([HERE + 50, HERE, HERE])
    result = classed(found, table, (1, -1, 0))
    assert result.tolist() == [[GOOD] * 3, [-1] * 3, [-1, GOOD, GOOD]]
    assert result.dtype == np.int8


# --- against a loop -----------------------------------------------------------------------------------------------


def drawn(seed, count=60):
    """Random people close together, and predictions of most, in a random order: all classes turn up."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 120, (count, COCO.num_joints, 3))
    truth[..., 2] = rng.integers(0, 3, truth.shape[:2])
    table = people(*truth, images=rng.integers(0, 9, count), areas=rng.uniform(400, 20000, count), skeleton=COCO)
    rows = rng.permutation(count)[: count - 8]
    rows[::9] = -1
    found = truth[rows] + np.r_[6, 6, 0.1] * rng.normal(size=(len(rows), COCO.num_joints, 3))
    exchanged = rng.random(found.shape[:2]) < 0.2
    found[exchanged] = found[:, COCO.flip_indices][exchanged]
    exchanged = rng.random(found.shape[:2]) < 0.2
    found[exchanged] = rng.uniform(0, 120, (exchanged.sum(), 3))
    good = diagnosis.tolerances_oks(table.areas, COCO.sigmas) * rng.choice([0, 1], (count, 1), p=[0.1, 0.9])
    return found, rows, table, good


def slow_class(point, row, joint, table, good):
    def near(person, j, reach):
        x, y, flag = table.keypoints[person, j]
        return flag > 0 and good[person, j] > 0 and np.hypot(point[0] - x, point[1] - y) <= reach * good[person, j]

    mirrored = COCO.flip_indices[joint]
    if row < 0 or not table.keypoints[row, joint, 2] > 0 or not good[row, joint] > 0:
        return -1
    if near(row, joint, 1):
        return GOOD
    if near(row, joint, NEAR_RATIO):
        return JITTER
    if mirrored != joint and near(row, mirrored, NEAR_RATIO):
        return INVERSION
    for person in range(len(table)):
        beside = person != row and table.image_index[person] == table.image_index[row]
        if beside and (near(person, joint, NEAR_RATIO) or near(person, mirrored, NEAR_RATIO)):
            return SWAP
    return MISS


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_those_of_a_loop_over_joints_in_any_order(seed):
    found, rows, table, good = drawn(seed)
    result = diagnosis.diagnose(found, rows, table, good)
    expected = [[slow_class(found[n, j], rows[n], j, table, good) for j in range(17)] for n in range(len(found))]
    np.testing.assert_array_equal(result.classes, expected)
    assert set(np.unique(expected)) == {-1, GOOD, JITTER, INVERSION, SWAP, MISS}
    order = np.random.default_rng(seed).permutation(len(found))
    np.testing.assert_array_equal(
        diagnosis.diagnose(found[order], rows[order], table, good).classes, result.classes[order]
    )


@pytest.mark.parametrize("name", CLASSES)
def test_corrected_joints_have_no_error_and_others_stay(name):
    found, rows, table, good = drawn(4)
    before = found.copy()
    result = diagnosis.diagnose(found, rows, table, good)
    corrected, chosen = result.corrected(name), result.classes == CLASSES.index(name)
    np.testing.assert_array_equal(corrected[..., :2][chosen], table.keypoints[rows][..., :2][chosen])
    np.testing.assert_array_equal(corrected[~chosen], before[~chosen])
    np.testing.assert_array_equal(corrected[..., 2], before[..., 2])
    np.testing.assert_array_equal(result.keypoints, before)
    again = diagnosis.diagnose(corrected, rows, table, good)
    assert (again.classes[chosen] == GOOD).all()
    with pytest.raises(InputError, match="'blunder'"):
        result.corrected("blunder")


def test_no_predictions_and_no_people():
    for table, count in ((people(HERE), 0), (people(), 0), (people(), 2)):
        result = diagnosis.diagnose(np.zeros((count, 3, 2)), [-1] * count, table, np.zeros((len(table), 3)))
        assert result.classes.shape == (count, 3) and (result.classes == -1).all()
        report = result.to_dict({"miss": math.nan})
        assert report["all"] == {"count": 0, **dict.fromkeys(CLASSES)} and report["gains"] == {"miss": None}
        assert result.corrected("miss").shape == (count, 3, 2)
        matched = diagnosis.match(np.zeros((count, 3, 2)), [100] * count, [0.5] * count, table, SKELETON.sigmas)
        assert matched.tolist() == [-1] * count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((1, 17, 2))}, "three"),
        ({"keypoints": np.zeros((1, 3, 4))}, "shape"),
        ({"keypoints": np.full((1, 3, 2), math.nan)}, "Prediction 0 has"),
        ({"rows": [0, 0]}, "rows of shape"),
        ({"rows": [0.0]}, "rows of shape"),
        ({"rows": [1]}, "none of the 1 people"),
        ({"rows": [-2]}, "none of the 1 people"),
        ({"keypoints": np.zeros((2, 3, 2)), "rows": [0, 0]}, "record 7 has 2 predictions"),
        ({"tolerance": np.ones((1, 2))}, "tolerances"),
        ({"tolerance": -np.ones((1, 3))}, "tolerances"),
        ({"tolerance": np.full((1, 3), math.inf)}, "tolerances"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    arguments = {"keypoints": np.zeros((1, 3, 2)), "rows": [0], "people": people(HERE), "tolerance": np.ones((1, 3))}
    with pytest.raises(InputError, match=message):
        diagnosis.diagnose(**(arguments | change))


# --- matching -----------------------------------------------------------------------------------------------------


def test_the_surest_prediction_takes_its_nearest_person():
    other = shifted(4, 0)
    table = people(HERE, other, HERE, images=(0, 0, 1))
    found = np.stack([shifted(3, 0), shifted(3, 0), shifted(3, 0), HERE, HERE])
    rows = diagnosis.match(found, [100, 100, 100, 101, 108], [0.4, 0.9, 0.1, 0.5, 1], table, SKELETON.sigmas)
    assert rows.tolist() == [0, 1, -1, 2, -1]


def test_a_prediction_below_oks_01_is_nobodys():
    """One labelled joint, so that OKS is its similarity: 0.1 at 2 sigma sqrt(2 ln 10 area). 0.1 % to either side."""
    border = 2 * 0.1 * math.sqrt(2 * math.log(10) * 5000)
    table = people(np.c_[HERE, [0, 2, 0]], np.c_[HERE, [0, 0, 0]])
    for factor, row in ((0.999, 0), (1.001, -1)):
        found = moved(1, (0, factor * border))
        assert diagnosis.match(found, [100], [1.0], table, SKELETON.sigmas).tolist() == [row]


@pytest.mark.parametrize("name", ["image_ids", "scores", "sigmas"])
def test_wrong_columns_of_the_matching_are_named(name):
    arguments = {"image_ids": [100], "scores": [0.5], "sigmas": SKELETON.sigmas}
    for bad in ([1, 2], [math.nan] * len(arguments[name])):
        with pytest.raises(InputError, match=name):
            diagnosis.match(HERE[None], people=people(HERE), **(arguments | {name: bad}))


@pytest.fixture(scope="module")
def real(shared):
    file = shared / "golden" / "coco_eval_gt_538.json"
    table = coco.parse(json.loads(file.read_text()), str(file), "")
    golden = np.load(shared / "golden" / "coco_eval.npz")
    kept = golden["kept_official"]
    found, images, scores = golden["preds"][kept], golden["image_id"][kept], golden["score_official"]
    start = time.perf_counter()
    rows = diagnosis.match(found, images, scores, table, COCO.sigmas)
    result = diagnosis.diagnose(found, rows, table, diagnosis.tolerances_oks(table.areas, COCO.sigmas))
    assert time.perf_counter() - start < 2
    return result, images, scores


def test_real_results(real, shared):
    """Who is found at OKS 0.5 is found at 0.1. These predictions are poor: AP 0.385."""
    result, images, scores = real
    known, table = result.rows >= 0, result.people
    np.testing.assert_array_equal(table.image_ids[table.image_index[result.rows[known]]], images[known])
    published = json.loads((shared / "golden" / "coco_eval.json").read_text())["official"]["stats"]
    assert known.sum() >= published["AR50"] * len(table)
    assert (result.classes[known] >= 0).sum() == (table.keypoints[result.rows[known], :, 2] > 0).sum()
    report = result.to_dict()
    for shares in (report["all"], *report["joints"].values(), report["sizes"]["medium"], report["sizes"]["large"]):
        assert sum(shares[name] for name in CLASSES) == pytest.approx(1, abs=1e-12)
    assert 0.3 < report["all"]["good"] < 0.7
    order = np.random.default_rng(0).permutation(len(images))
    scores = scores + 1e-9 * np.arange(len(scores))  # equal ones come in the order given
    rows = diagnosis.match(result.keypoints, images, scores, table, COCO.sigmas)
    again = diagnosis.match(result.keypoints[order], images[order], scores[order], table, COCO.sigmas)
    np.testing.assert_array_equal(again, rows[order])


# --- reports ------------------------------------------------------------------------------------------------------


@pytest.fixture
def report():
    """Areas on COCO's borders: 32^2 and 96^2 are medium."""
    shifts = np.arange(5)[:, None, None] * np.array([1000.0, 0])
    table = people(*(HERE + shifts), areas=[1023.9, 1024, 9216, 9216.1, 5000])
    found = HERE + shifts
    found[1, 1] += (0, 50)
    found[3] = found[3, [0, 2, 1]]
    found[4] += (7, 0)
    result = diagnosis.diagnose(found, [0, 1, 2, 3, 4], table, np.full((5, 3), G))
    assert result.by_joint.sum() == result.by_size.sum() == 15
    return result.to_dict({"jitter": 1.25, "miss": math.inf})


def test_shares_are_of_joints_and_sizes(report):
    def shares(count, **known):
        return {"count": count, **dict.fromkeys(CLASSES, 0.0), **known}

    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report == {
        "people": 5,
        "all": shares(15, good=9 / 15, jitter=3 / 15, inversion=2 / 15, miss=1 / 15),
        "joints": {
            "nose": shares(5, good=0.8, jitter=0.2),
            "left_hand": shares(5, good=0.4, jitter=0.2, inversion=0.2, miss=0.2),
            "right_hand": shares(5, good=0.6, jitter=0.2, inversion=0.2),
        },
        "sizes": {
            "small": shares(3, good=1.0),
            "medium": shares(9, good=5 / 9, jitter=3 / 9, miss=1 / 9),
            "large": shares(3, good=1 / 3, inversion=2 / 3),
        },
        "gains": {"jitter": 1.25, "miss": None},
    }


def test_gains_are_of_known_classes_and_may_be_absent(real):
    assert real[0].to_dict()["gains"] is None
    with pytest.raises(InputError, match="'blunder'"):
        real[0].to_dict({"blunder": 1.0})


def test_table_has_a_row_for_each_joint_size_and_all(report):
    def printed(values):
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(tables.diagnosis_table(values, "AP"))
        return console.export_text()

    lines = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("│") for line in printed(report).splitlines())
        if len(cells) > 2
    }
    assert list(lines) == ["nose", "left hand", "right hand", "small", "medium", "large", "all", "AP if fixed"]
    assert lines["left hand"] == ["40.0", "20.0", "20.0", "0.0", "20.0", "5"]
    assert lines["AP if fixed"] == ["", "+1.2", "", "", "", ""]
    assert "fixed" not in printed(report | {"gains": None})


def events(folder):
    """The accumulator and the events by tag."""
    read = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    read.Reload()
    return read, {tag: read.Tensors(tag) for tag in read.Tags()["tensors"]}


def test_tensorboard_has_shares_gains_and_the_picture(report, tmp_path):
    curves.write_diagnosis(tmp_path / "new", report, "AP", step=3)
    read, found = events(tmp_path / "new")
    assert all(len(one) == 1 and one[0].step == 3 for one in found.values())
    width, height, picture = tf.make_ndarray(found.pop("diagnosis/joints")[0].tensor_proto)
    decoded = tf.io.decode_png(picture).numpy()
    assert decoded.shape == (int(height), int(width), 3)
    np.testing.assert_array_equal(decoded, curves.diagnosis_chart(report, "AP"))
    scalars = {tag: float(tf.make_ndarray(one[0].tensor_proto)) for tag, one in found.items()}
    wanted = {f"diagnosis/{name}": report["all"][name] for name in CLASSES} | {"diagnosis/gain/jitter": 1.25}
    assert scalars == pytest.approx(wanted, rel=1e-6)  # float32
    assert "points of AP" in read.SummaryMetadata("diagnosis/gain/jitter").summary_description


def test_shares_of_nothing_are_not_written(report, tmp_path):
    nothing = {"count": 0, **dict.fromkeys(CLASSES)}
    curves.write_diagnosis(tmp_path, report | {"all": nothing, "gains": None}, "AP")
    assert list(events(tmp_path)[1]) == ["diagnosis/joints"]
