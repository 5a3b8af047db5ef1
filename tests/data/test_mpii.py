"""MPII folders and PCKh: the published windows and numbers, a float64 loop, and what can be wrong with the files."""

import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from rich.console import Console
from scipy.io import loadmat, savemat

from keras_mrpose import data
from keras_mrpose.cli import tables
from keras_mrpose.data import mpii
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.mpii import PCKhResult, Truth, pckh, read_predictions, read_truth, truth_of
from keras_mrpose.geometry import crop_window
from keras_mrpose.skeletons import LSP, MPII

SQUARE = (256, 256)


def record(**changes):
    joints = [[10.0 * joint, 7.5 * joint + 1] for joint in range(16)]
    return {"image": "a.jpg", "center": [60, 70.5], "scale": 0.75, "joints": joints, "joints_vis": [1] * 16} | changes


def parse(*records, heads=None):
    return mpii.parse(list(records), "made up", "images", heads)


def made_up(folder, records, split="train", **tables):
    """A folder with these records and their images; `tables` go to the split's .mat file."""
    for name in ("annot", "images"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "annot" / f"{split}.json").write_text(json.dumps(records))
    for one in records:
        (folder / "images" / one["image"]).touch()
    if tables:
        savemat(folder / "annot" / f"gt_{split}.mat", tables)
    return folder


# --- people -------------------------------------------------------------------------------------------------------


def test_windows_and_joints_are_the_published_ones(shared):
    """Golden: exact to 1e-12. Here the centre goes through a box, x - w / 2 + w / 2.

    That rounds twice, each time by at most half a unit in the last place of numbers below 2,048, together 2.3e-13. The
    side goes through 200 and 1.25: relative, so 1e-12 of its size.
    """
    golden = json.loads((shared / "golden" / "mpii_db.json").read_text())
    people = parse(*golden["annotations_in"])
    assert people.ids.tolist() == [0, 1, 2, 3, 4, 6]  # 5 has no scale
    centres, widths = crop_window(people.boxes, SQUARE)
    for row, place in enumerate(people.ids):
        wanted = golden["records"][place]
        np.testing.assert_allclose(centres[row], wanted["center"], rtol=0, atol=1e-12)
        np.testing.assert_allclose([widths[row]] * 2, np.multiply(200, wanted["scale"]), rtol=1e-12)
        np.testing.assert_allclose(people.keypoints[row, :, :2], wanted["joints_xy"], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(people.keypoints[row, :, 2], 2 * np.array(wanted["vis"]))


def test_a_window_of_a_high_crop_is_as_wide_as_published():
    """The published window has one scale for both sides, and the crop's width alone counts."""
    _, width = crop_window(parse(record()).boxes, (256, 192))
    np.testing.assert_allclose(width, [0.75 * 1.25 * 200])


def test_real_folder(shared):
    people = data.load(shared / "data" / "mpii", "train")
    assert (len(people), people.skeleton) == (5, MPII)
    assert people.paths()[2].endswith("images/051423444.jpg")
    assert (people.keypoints[..., 2] > 0).sum(axis=1).tolist() == [16, 16, 14, 14, 16]
    with pytest.raises(InputError, match=r"valid\.json: image .*\.jpg is missing \(27\d\d of 2729 are\)"):
        data.load(shared / "data" / "mpii", "val")
    assert len(data.load(shared / "data" / "mpii", "val", require_images=False)) == 2958


def test_scale_gives_the_head_size_where_there_are_no_head_boxes(shared):
    """Six printed digits of a scale above 0.5 leave 1e-6 of it; the boxes have more."""
    annot = shared / "data" / "mpii" / "annot"
    content, heads = json.loads((annot / "valid.json").read_text()), mpii.head_sizes(annot / "gt_valid.mat")
    boxes = loadmat(annot / "gt_valid.mat")["headboxes_src"]
    for place in range(0, 2958, 97):
        (x0, y0), (x1, y1) = boxes[..., place]
        assert heads[place] == pytest.approx(0.6 * math.hypot(x1 - x0, y1 - y0))
    exact, guessed = (mpii.parse(content, "valid.json", "", known) for known in (heads, None))
    np.testing.assert_array_equal(exact.reference_length, heads)
    np.testing.assert_allclose(guessed.reference_length, heads, rtol=1e-6)


def test_people_of_one_image_share_its_row(tmp_path):
    records = [record(), record(image="b.jpg"), record(center=[90, 20], scale=2)]
    people = data.load(made_up(tmp_path, records), "train")
    assert people.image_index.tolist() == [0, 1, 0]
    assert [path.rsplit("/", 1)[1] for path in people.image_paths] == ["a.jpg", "b.jpg"]
    assert people.reference_length.tolist() == [18.75, 18.75, 50]
    assert people.areas.tolist() == [150**2, 150**2, 400**2]
    assert people.boxes[2].tolist() == [89 - 200, 19 + 30 - 200, 400, 400]


def test_head_boxes_beside_the_split_give_the_head_sizes(tmp_path):
    """A person who is left out takes the own head box along."""
    heads = np.array([[[1, 1, 1], [2, 2, 2]], [[4, 7, 31], [6, 10, 42]]])
    made_up(tmp_path, [record(), record(scale=-1), record()], "valid", headboxes_src=heads)
    people = data.load(tmp_path, "val")
    assert people.ids.tolist() == [0, 2]
    np.testing.assert_allclose(people.reference_length, [0.6 * 5, 0.6 * 50])
    made_up(tmp_path, [record()] * 2, "valid", headboxes_src=heads)
    with pytest.raises(InputError, match=r"valid\.json has 2 records, its head boxes 3"):
        data.load(tmp_path, "val")
    made_up(tmp_path, [record()] * 3, "valid", headboxes_src=heads * [1, 0, 1])
    with pytest.raises(InputError, match=r"gt_valid\.mat: headboxes_src of person 1 has no size"):
        data.load(tmp_path, "val")


def test_other_splits_go_by_the_name_of_their_file(tmp_path):
    assert len(data.load(made_up(tmp_path, [record()] * 3, "trainval"), "trainval")) == 3
    with pytest.raises(InputError, match=r"valid\.json is not there; an MPII folder has"):
        data.load(tmp_path, "val")


def test_nobody_is_an_empty_table(tmp_path):
    assert len(data.load(made_up(tmp_path, []), "train")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "image None, expected a file name"),
        ({"center": [1, 2, 3]}, r"center \[1, 2, 3\], expected 2 finite"),
        ({"center": [1, math.nan]}, r"center \[1, nan\], expected 2 finite"),
        ({"scale": "large"}, "scale 'large', expected 1 finite"),
        ({"scale": None}, "scale None, expected 1 finite"),
        ({"scale": 0}, "scale 0, expected a positive one"),
        ({"joints": [[1, 2]] * 14}, r"joints \[\[1, 2\].*, expected 16 x 2 finite"),
        ({"joints": [[1, 2]] * 15 + [[1]]}, r"joints .*, expected 16 x 2 finite"),
        ({"joints_vis": [1] * 15}, r"joints_vis \[1, .*, expected 16 finite"),
        ({"joints_vis": [2] * 16}, r"joints_vis \[2, .*, expected 0 or 1"),
    ],
)
def test_wrong_fields_are_named(change, message):
    with pytest.raises(InputError, match=f"made up: record 1 has {message}"):
        parse(record(), record(**change))


def test_records_that_are_none_are_named():
    with pytest.raises(InputError, match="made up: record 1 has image None"):
        parse(record(), 7)


@pytest.mark.parametrize(
    ("content", "message"), [("[{", "cannot be read as JSON"), ("{}", "is not a list of records"), (None, "JSON")]
)
def test_wrong_files_are_named(content, message, tmp_path):
    file = made_up(tmp_path, []) / "annot" / "train.json"
    file.unlink()
    file.mkdir() if content is None else file.write_text(content)
    with pytest.raises(InputError, match=f"train.json {message}" if content else message):
        data.load(tmp_path, "train")


def drawn(result):
    """Headings, row and caption of the table, as printed on a wide screen."""
    console = Console(file=io.StringIO(), width=200)
    console.print(tables.pckh_table(result.to_dict()))
    lines = [re.findall(r"[^\s┃│]+", line) for line in console.file.getvalue().splitlines()]
    headings = next(place for place, line in enumerate(lines) if "Head" in line)
    return lines[headings], lines[headings + 2], " ".join(" ".join(line) for line in lines[headings + 4 :])


# --- PCKh: published ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared):
    """What is published for the validation split, and our result on the same predictions."""
    folder = shared / "data" / "mpii"
    golden = json.loads((shared / "golden" / "mpii_eval.json").read_text())["results"]["hg_s2"]
    found = pckh(read_predictions(folder / "predictions/hg_s2_b1.mat"), read_truth(folder / "annot/gt_valid.mat"))
    return golden, found


def test_every_published_number(published):
    golden, found = published
    near = {"rel": 0, "abs": 1e-9}
    table = {**found.groups, "Mean": found.mean, "Mean@0.1": found.mean_at_11_hundredths}
    assert list(table) == list(golden["table"])
    assert table == pytest.approx(golden["table"], **near)
    assert found.mean == pytest.approx(golden["mean_at_0_50"], **near)
    assert found.mean_at_10_hundredths == pytest.approx(golden["mean_at_0_10"], **near)
    assert found.mean_at_11_hundredths == pytest.approx(golden["mean_at_0_11"], **near)
    assert found.unweighted_mean == pytest.approx(golden["mean_unweighted_over_14"], **near)
    assert list(found.joints) == list(MPII.joints)
    assert list(found.joints.values()) == pytest.approx(golden["pckh_0_50_per_joint"], **near)
    assert found.hits.tolist() == golden["pckh_0_50_count_per_joint"]
    assert found.labels.tolist() == golden["visible_per_joint"]


def test_the_published_row(published):
    """As printed beside the published predictions."""
    _, found = published
    row = "Head 95.80 Shoulder 94.57 Elbow 88.12 Wrist 83.31 Hip 86.24 Knee 80.88 Ankle 77.44"
    assert " ".join(f"{name} {value:.2f}" for name, value in found.groups.items()) == row
    assert (f"{found.unweighted_mean:.2f}", f"{found.mean:.2f}") == ("86.76", "87.30")


def test_the_table_shows_the_published_row(published):
    """Both readings of Mean@0.1 stand below it; the curve's golden numbers are printed to two digits."""
    golden, found = published
    headings, row, caption = drawn(found)
    assert headings == ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Mean", "Mean@0.1"]
    assert headings == list(golden["table"])
    assert row == [f"{value:.2f}" for value in golden["table"].values()]
    assert f"at 0.10 it is {golden['mean_at_0_10']:.2f}." in caption
    assert f"Area under the curve up to 0.5: {found.area:.2f}." in caption


def test_people_of_the_json_score_the_same_to_its_rounding(published, shared):
    """0.0001 pixels may move a joint over the border: one hit is 0.003 % of the mean."""
    folder = shared / "data" / "mpii"
    content, heads = json.loads((folder / "annot/valid.json").read_text()), folder / "annot/gt_valid.mat"
    people = mpii.parse(content, "valid.json", "", mpii.head_sizes(heads))
    found = pckh(read_predictions(folder / "predictions/hg_s2_b1.mat"), truth_of(people))
    np.testing.assert_array_equal(found.labels, published[1].labels)
    assert np.abs(found.hits - published[1].hits).sum() <= 1


# --- PCKh: made up ------------------------------------------------------------------------------------------------


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    labelled = rng.random((40, 16)) < 0.7
    labelled[:30, 4] = False  # left knee: other numbers of joints, so that weights count
    return Truth(rng.uniform(0, 300, (40, 16, 2)), labelled, rng.uniform(20, 60, 40))


def off_by(truth, share):
    """Predictions that are so many head sizes (or ``(people, 16)`` of them) off, in directions all around."""
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, truth.labelled.shape)
    step = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return truth.joints + step * (np.broadcast_to(share, angle.shape) * truth.heads[:, None])[..., None]


def test_every_number_against_a_loop(truth):
    predictions = off_by(truth, np.random.default_rng(2).uniform(0, 0.8, (40, 16)))
    found = pckh(predictions, truth)
    hits = np.zeros((51, 16))
    for person in range(40):
        for joint in range(16):
            error = math.dist(predictions[person, joint], truth.joints[person, joint]) / truth.heads[person]
            for step in range(51):
                hits[step, joint] += truth.labelled[person, joint] and error <= step / 100
    labels = truth.labelled.sum(axis=0)
    share = 100 * hits[50] / labels
    curve = [100 * (sum(hit) - hit[6] - hit[7]) / (sum(labels) - labels[6] - labels[7]) for hit in hits]
    name = {joint: place for place, joint in enumerate(MPII.joints)}
    np.testing.assert_allclose(found.curve, curve)
    np.testing.assert_array_equal(found.thresholds, [float(f"0.{step:02d}") for step in range(51)])
    assert found.area == pytest.approx(sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 50)
    assert (found.mean_at_10_hundredths, found.mean_at_11_hundredths) == pytest.approx((curve[10], curve[11]))
    assert found.mean_at_10_hundredths < found.mean_at_11_hundredths
    assert found.mean == pytest.approx(curve[50])
    assert found.unweighted_mean == pytest.approx(np.delete(share, [6, 7]).mean())
    assert abs(found.mean - found.unweighted_mean) > 0.1
    assert found.groups["Knee"] == pytest.approx((share[name["left_knee"]] + share[name["right_knee"]]) / 2)
    assert found.groups["Head"] == pytest.approx(share[name["head_top"]])


def test_perfect_and_hopeless_predictions(truth):
    for share, percent in ((0, 100), (0.51, 0)):
        found = pckh(off_by(truth, share), truth)
        assert (found.mean, found.unweighted_mean, found.area) == (percent,) * 3
        assert set(found.groups.values()) == {percent} == set(found.joints.values())


def test_a_joint_at_exactly_half_a_head_is_right():
    """Whole pixels and a head of 40: exact in binary. One that is 20.0000001 off is wrong."""
    truth = Truth(np.zeros((1, 16, 2)), np.ones((1, 16), bool), np.array([40.0]))
    predictions = np.zeros((1, 16, 2))
    predictions[..., 0] = 12
    predictions[..., 1] = 16
    assert pckh(predictions, truth).mean == 100
    predictions[:, 0, 0] += 1e-7
    assert pckh(predictions, truth).joints["right_ankle"] == 0


def test_joints_that_are_not_labelled_or_counted_change_nothing(truth):
    found = pckh(off_by(truth, ~truth.labelled * 9.0), truth)
    assert (found.mean, found.area) == (100, 100)
    pelvis_and_thorax = np.zeros(16)
    pelvis_and_thorax[[6, 7]] = 9
    found = pckh(off_by(truth, pelvis_and_thorax), truth)
    assert (found.mean, found.unweighted_mean, found.joints["pelvis"], found.joints["thorax"]) == (100, 100, 0, 0)


def test_a_joint_that_nobody_has_is_none(truth):
    labelled = truth.labelled.copy()
    labelled[:, MPII.joints.index("left_hip")] = False
    found = pckh(off_by(truth, 0.2), Truth(truth.joints, labelled, truth.heads))
    assert (found.joints["left_hip"], found.groups["Hip"], found.joints["right_hip"]) == (None, None, 100)
    assert (found.mean, found.unweighted_mean, found.groups["Knee"]) == (100, 100, 100)


def test_numbers_ready_for_json(truth):
    """Left hip is in no label: null. All that the result holds is there, a list for each table."""
    labelled = truth.labelled.copy()
    labelled[:, 3] = False
    truth = Truth(truth.joints, labelled, truth.heads)
    found = pckh(off_by(truth, np.random.default_rng(2).uniform(0, 0.8, (40, 16))), truth)
    numbers = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    def percent(shares):
        return pytest.approx(100 * np.array(shares), rel=1e-14)

    assert list(numbers["groups"]) == list(found.groups)
    assert found.groups["Knee"] == percent(numbers["groups"]["Knee"])
    assert (numbers["groups"]["Hip"], numbers["joints"]["left_hip"]) == (None, {"pckh": None, "hits": 0, "labels": 0})
    assert found.curve[10:12] == percent([numbers["mean_at_0.10"], numbers["mean_at_0.11"]])
    assert [found.mean, found.unweighted_mean, found.area] == percent(
        [numbers[name] for name in ("mean", "unweighted_mean", "area")]
    )
    assert found.curve == percent(numbers["curve"])
    assert numbers["curve"][-1] == numbers["mean"]
    assert numbers["thresholds"] == [float(f"0.{step:02d}") for step in range(51)]
    for name, hits, labels in zip(MPII.joints, found.hits, found.labels, strict=True):
        joint = numbers["joints"][name]
        assert (joint["hits"], joint["labels"]) == (hits, labels)
        assert labels == 0 or found.joints[name] == percent(joint["pckh"])
    headings, row, _ = drawn(found)
    assert (row[headings.index("Hip")], row[headings.index("Mean")]) == ("-", f"{found.mean:.2f}")


def test_scores_beside_the_predictions_are_not_looked_at(truth):
    predictions = np.concatenate([off_by(truth, 0.3), np.full((40, 16, 1), 999)], axis=-1)
    assert pckh(predictions, truth).mean == 100


def test_files_count_from_one(tmp_path):
    rng = np.random.default_rng(3)
    joints, preds = rng.uniform(1, 99, (16, 2, 5)), rng.uniform(1, 99, (5, 16, 2))
    missing, boxes = rng.integers(0, 2, (16, 5)), np.stack([np.zeros((2, 5)), [[3.0] * 5, [4.0] * 5]])
    savemat(tmp_path / "gt.mat", {"jnt_missing": missing, "pos_gt_src": joints, "headboxes_src": boxes})
    savemat(tmp_path / "preds.mat", {"preds": preds})
    truth = read_truth(tmp_path / "gt.mat")
    assert truth.joints[4, 2].tolist() == (joints[2, :, 4] - 1).tolist()
    np.testing.assert_array_equal(truth.labelled, missing.T == 0)
    np.testing.assert_allclose(truth.heads, 3)
    np.testing.assert_array_equal(read_predictions(tmp_path / "preds.mat"), preds - 1)


def test_people_are_a_truth():
    people = parse(record(joints_vis=[0, *[1] * 15]), record(scale=2))
    found = pckh(people.keypoints, truth_of(people))
    assert isinstance(found, PCKhResult)
    assert (found.mean, found.labels.tolist()) == (100, [1, *[2] * 15])
    moved = people.keypoints[..., :2] + [[[20.0, 0]], [[25.0, 0]]]  # half a head is 9.4 and 25
    assert pckh(moved, truth_of(people)).hits.tolist() == [1] * 16


# --- PCKh: wrong --------------------------------------------------------------------------------------------------


def test_wrong_predictions_are_refused(truth):
    for wrong in (np.zeros((39, 16, 2)), np.zeros((40, 14, 2)), np.zeros((40, 16, 4)), np.zeros((16, 2, 40))):
        with pytest.raises(InputError, match=r"predictions have shape .*, expected \(40, 16, 2\)"):
            pckh(wrong, truth)
    broken = off_by(truth, 0)
    broken[17, 3, 1] = np.nan
    with pytest.raises(InputError, match="prediction of person 17 is not finite"):
        pckh(broken, truth)
    with pytest.raises(InputError, match="no labelled joint"):
        pckh(off_by(truth, 0), Truth(truth.joints, np.zeros_like(truth.labelled), truth.heads))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0.0}, "person 17 has a head size that is not a positive number"),
        ({"heads": -3.0}, "person 17 has a head size"),
        ({"heads": np.nan}, "person 17 has a head size"),
        ({"heads": np.inf}, "person 17 has a head size"),
        ({"joints": np.nan}, "person 17 has a labelled joint that is not a finite number"),
    ],
)
def test_a_truth_that_cannot_be_is_refused(change, message, truth):
    ((name, value),) = change.items()
    tables = {**vars(truth), name: getattr(truth, name).copy(), "labelled": np.ones((40, 16), bool)}
    tables[name][17] = value
    with pytest.raises(InputError, match=f"The truth of {message}"):
        Truth(**tables)


def test_a_joint_that_is_not_labelled_may_be_unknown(truth):
    joints = np.where(truth.labelled[..., None], truth.joints, np.nan)
    found = pckh(off_by(truth, 0.195), Truth(joints, truth.labelled, truth.heads))
    assert (found.mean, found.curve[10], found.area) == (100, 0, pytest.approx(61))


def test_tables_of_a_truth_that_do_not_fit_are_refused(truth):
    for change in ({"heads": truth.heads[:39]}, {"joints": truth.joints[:, :14]}, {"labelled": truth.labelled[1:]}):
        with pytest.raises(InputError, match=r"The truth has joints of shape .*; give \(people, 16, 2\)"):
            Truth(**{**vars(truth), **change})


def test_hidden_joints_count():
    """MPII's release tells them; the published numbers are over all that are labelled."""
    people = parse(record())
    people.keypoints[0, :5, 2] = 1
    assert pckh(people.keypoints, truth_of(people)).labels.tolist() == [1] * 16


def test_nobody_has_no_number():
    nobody = Truth(np.zeros((0, 16, 2)), np.zeros((0, 16), bool), np.zeros(0))
    with pytest.raises(InputError, match="no labelled joint"):
        pckh(np.zeros((0, 16, 2)), nobody)
    pelvis = Truth(np.zeros((1, 16, 2)), np.arange(16)[None] == MPII.joints.index("pelvis"), np.ones(1))
    with pytest.raises(InputError, match="no labelled joint that PCKh counts"):
        pckh(np.zeros((1, 16, 2)), pelvis)


def test_people_with_other_joints_are_refused():
    people = parse(record())
    fourteen = People(**{**vars(people), "skeleton": LSP, "keypoints": people.keypoints[:, :14]})
    with pytest.raises(InputError, match="made up has the joints of lsp; PCKh needs MPII's 16"):
        truth_of(fourteen)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "preds.mat is not there"),
        (b"nothing", "preds.mat cannot be read as a MATLAB file"),
        ({"points": np.ones((5, 16, 2))}, "preds.mat has no table of numbers 'preds'"),
        ({"preds": np.array(["a", "b"], object)}, "preds.mat has no table of numbers 'preds'"),
        ({"preds": np.ones((5, 2, 16))}, r"preds.mat: preds has shape \(5, 2, 16\), expected \(people, 16, 2\)"),
        ({"preds": np.full((5, 16, 2), np.nan)}, "preds.mat: preds has a value that is not a finite number"),
    ],
)
def test_wrong_prediction_files_are_named(content, message, tmp_path):
    file = tmp_path / "preds.mat"
    if content is not None:
        file.write_bytes(content) if isinstance(content, bytes) else savemat(file, content)
    with pytest.raises(InputError, match=message):
        read_predictions(file)


def test_tables_of_different_length_are_named(tmp_path):
    tables = {"jnt_missing": np.zeros((16, 4)), "pos_gt_src": np.ones((16, 2, 5))}
    savemat(tmp_path / "gt.mat", tables | {"headboxes_src": np.arange(20.0).reshape(2, 2, 5)})
    with pytest.raises(InputError, match=r"5 people in pos_gt_src, 4 in jnt_missing and 5 in headboxes_src"):
        read_truth(tmp_path / "gt.mat")
