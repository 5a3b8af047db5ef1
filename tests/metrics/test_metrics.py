"""Metrics against float64 NumPy written out here, and OKS-AP against pycocotools."""

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment

from keras_mrpose import geometry, metrics, skeletons
from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.data import coco as coco_data
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.coco import results_json
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models.networks import precision

SIZE = (32, 24)  # heatmaps, height and width
JOINTS = 17
TORSO = skeletons.COCO.torso
COLUMN = "reference_length"  # the target's fourth column
SIGMAS = skeletons.COCO.sigmas
CODEC = GaussianCodec()


def people(count, seed=0):
    """Targets and heatmaps of predictions that are off by up to a few pixels, with peaks of 0 to 1."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, SIZE[::-1], (count, JOINTS, 2))
    weights = rng.integers(0, 2, (count, JOINTS)).astype(float)
    weights[:, list(TORSO)] = rng.random((count, 2)) < 0.8
    weights[1::10] = 0  # nobody to see
    lengths = rng.uniform(3, 9, count)
    target = np.concatenate([points, weights[..., None], np.tile(lengths[:, None, None], (1, JOINTS, 1))], axis=-1)
    target[..., :2][weights == 0] = np.nan  # must not matter
    quality = rng.exponential(0.7, (count, 1, 1))
    predicted = np.clip(points + quality * rng.normal(size=points.shape), 0, np.array(SIZE[::-1]) - 1)
    heatmaps = np.array(CODEC.encode(predicted, np.ones((count, JOINTS)), SIZE)[0])
    heatmaps *= (rng.uniform(0.3, 1, (count, 1)) * rng.uniform(0, 1, (count, JOINTS)))[:, None, None, :]
    return target.astype("float32"), heatmaps.astype("float32")


def decoded(heatmaps):
    points, scores = CODEC.decode(heatmaps)
    return np.array(points, "float64"), np.array(scores, "float64")


def reference_correct(target, heatmaps, threshold, torso=None, exclude=()):
    """correct and counted joints by a loop over people, in float64."""
    points, _ = decoded(heatmaps)
    correct, counted = (np.zeros(target.shape[:2], bool) for _ in range(2))
    for n, person in enumerate(target.astype("float64")):
        length = person[0, 3]
        if torso:
            if not all(person[j, 2] > 0 for j in torso):
                continue
            length = np.hypot(*(person[torso[0], :2] - person[torso[1], :2]))
        for j in range(JOINTS):
            if person[j, 2] > 0 and j not in exclude:
                error = np.hypot(*(points[n, j] - person[j, :2]))
                assert abs(error - threshold * length) > 1e-5  # float32 cannot decide otherwise
                correct[n, j], counted[n, j] = error <= threshold * length, True
    return correct, counted


def reference_oks(target, points, scores):
    """OKS and score of each person with labelled joints, float64."""
    similarities, ranks = [], []
    for person, predicted, score in zip(target.astype("float64"), points, scores, strict=True):
        seen = person[:, 2] > 0
        if not seen.any():
            continue
        squared = ((predicted - person[:, :2]) ** 2).sum(-1)
        each = np.exp(-squared / (2 * (2 * np.array(SIGMAS)) ** 2 * person[0, 3] ** 2))
        similarities.append(each[seen].mean())
        ranks.append(score[score > 0.2].mean() if (score > 0.2).any() else 0.0)
    return np.array(similarities), np.array(ranks)


def reference_ap(hits, scores):
    """Average precision by sorting, one detection for each person."""
    tp = np.cumsum(hits[np.argsort(-scores, kind="stable")])
    recall, precision = tp / len(hits), tp / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return np.mean([envelope[i] if i < len(hits) else 0.0 for i in first])


def exact_ap(found, truth, areas):
    """COCO's AP by pycocotools of joints ``(people, 17, 3)`` and their annotations, everybody alone in an image."""
    records = []
    for n, (joints, area, points) in enumerate(zip(truth.tolist(), areas.tolist(), found[..., :2], strict=True)):
        # a person without labelled joints is ignored, and with them who is found in their box
        box = [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]
        record = {"id": n + 1, "image_id": n + 1, "category_id": 1, "iscrowd": 0, "area": area, "bbox": box}
        labelled = sum(flag > 0 for _, _, flag in joints)
        records.append({**record, "keypoints": np.ravel(joints).tolist(), "num_keypoints": labelled})
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": record["id"]} for record in records],
        "annotations": records,
        "categories": [{"id": 1, "name": "person"}],
    }
    coco.createIndex()
    confident = [joints[joints[:, 2] > 0.2, 2] for joints in found.astype("float64")]
    scores = [scores.mean() if len(scores) else 0.0 for scores in confident]
    evaluation = COCOeval(coco, coco.loadRes(results_json(found, np.arange(len(found)) + 1, scores)), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    # index 0 is people of all sizes; pycocotools calls people "large" or "medium" by pixels
    return evaluation.eval["precision"][:, :, 0, 0, 0].mean()


def pck(*arguments, threshold=0.2, exclude=(), axis=None):
    """Share of the counted joints that `correct_joints` finds correct, float32; 0 where nothing is counted."""
    masks = metrics.correct_joints(*arguments, threshold, exclude)
    correct, counted = (np.array(mask).sum(axis=axis).astype("float32") for mask in masks)
    return correct / np.maximum(counted, np.float32(1))


def all_metrics():
    return metrics.PCK(threshold=0.25, torso=COLUMN), metrics.PCK(torso=TORSO), metrics.PCKh(), metrics.OKSAP(SIGMAS)


# --- pure functions


def test_distances_is_the_euclidean_distance_without_broadcast():
    np.testing.assert_allclose(metrics.distances([[3.0, 4.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]), [5.0, 0.0])


def test_torso_length_is_zero_without_both_joints():
    points = np.array([[[0, 0], [3, 4], [9, 9]]] * 2, "float32")
    np.testing.assert_allclose(metrics.torso_length(points, np.array([[1, 1, 0], [1, 0, 1]]), (0, 1)), [5, 0])


def test_pck_counts_the_border_and_leaves_out_unlabelled_joints_and_people_without_length():
    truth = np.zeros((3, 3, 2), "float32")
    # errors 2, 2.01 and anything at an unlabelled joint; torso 10: 2 is allowed
    points = np.array([[[2, 0], [0, 2.01], [99, 99]], [[0, 0], [0, -2], [0, 0]], [[0, 0]] * 3], "float32")
    weights = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    arguments = points, truth, weights, np.array([10.0, 10.0, 0.0])
    assert float(pck(*arguments)) == pytest.approx(4 / 5)
    np.testing.assert_allclose(pck(*arguments, axis=0), [1, 0.5, 1])
    np.testing.assert_allclose(pck(*arguments, axis=1), [0.5, 1, 0])
    np.testing.assert_allclose(pck(*arguments, exclude=(1,)), 1)


def test_pckh_leaves_out_mpii_pelvis_and_thorax():
    truth = np.zeros((1, 16, 2), "float32")
    points = truth.copy()
    points[0, [6, 7, 8]] = 5.1
    points[0, 9] = (3, 4)  # 5 <= 0.5 x 10
    weights, head = np.ones((1, 16)), np.array([10.0])
    pckh = metrics.PCKh()
    arguments = {"threshold": pckh.threshold, "exclude": pckh.exclude}
    assert float(pck(points, truth, weights, head, **arguments)) == pytest.approx(13 / 14)
    assert float(pck(points, truth, weights, head, **arguments | {"exclude": ()})) == pytest.approx(13 / 16)


def test_published_accuracy_is_the_published_one(golden_dir):
    facts = np.load(golden_dir / "decode.npz")
    target, output = (np.moveaxis(facts[f"acc_{name}_njhw"], 1, -1) for name in ("target", "output"))
    mean, shares = metrics.published_accuracy(target, output)
    np.testing.assert_allclose([mean, *shares], facts["acc_result"], rtol=1e-6)
    np.testing.assert_allclose([mean, (shares >= 0).numpy().sum()], facts["acc_avg_cnt"], rtol=1e-6)
    assert (facts["acc_result"] == -1).any()


def test_published_accuracy_by_a_loop():
    """Heights divide x and widths y: in maps of 64 x 48, three cells are within half a tenth in x, two in y."""
    rng = np.random.default_rng(10)
    target, found = np.zeros((2, 12, 64, 48, JOINTS), "float32")
    correct, counted = np.zeros(JOINTS), np.zeros(JOINTS)
    for n, j in np.ndindex(12, JOINTS - 1):  # the last joint is drawn nowhere
        x, y = rng.integers(1, 6, 2)
        to_x, to_y = rng.integers(0, 9, 2)
        target[n, y, x, j] = found[n, to_y, to_x, j] = 1
        if x > 1 and y > 1:
            counted[j] += 1
            correct[j] += math.hypot((to_x - x) / 6.4, (to_y - y) / 4.8) < 0.5
    mean, shares = metrics.published_accuracy(target, found)
    assert 0.1 < correct.sum() / counted.sum() < 0.9
    np.testing.assert_allclose(shares[:-1], correct[:-1] / counted[:-1], rtol=1e-6)
    assert float(shares[-1]) == -1
    assert float(mean) == pytest.approx((correct[:-1] / counted[:-1]).mean(), rel=1e-6)


def test_published_accuracy_of_nothing_is_zero():
    mean, shares = metrics.published_accuracy(np.zeros((2, *SIZE, 3)), np.ones((2, *SIZE, 3)))
    assert float(mean) == 0
    np.testing.assert_array_equal(shares, [-1, -1, -1])


def test_oks_of_one_joint_off_by_its_own_tolerance():
    # d = 2 sigma sqrt(area) gives exp(-1/2); the other labelled joint is exact, the third does not count
    truth = np.array([[4, 5], [6, 7], [np.nan, np.nan]], "float32")
    points = truth + np.array([[2 * 0.05 * 30, 0], [0, 0], [0, 0]], "float32")
    similarity = metrics.oks(points, truth, np.array([1, 2, 0]), 30.0, (0.05, 0.1, 0.1))
    assert float(similarity) == pytest.approx((np.exp(-0.5) + 1) / 2, rel=1e-6)
    assert float(metrics.oks(points, truth, np.zeros(3), 30.0, (0.05, 0.1, 0.1))) == 0.0
    assert float(metrics.oks(truth, truth, np.array([1, 1, 0]), 0.0, (0.05, 0.1, 0.1))) == 1.0


def test_person_score_is_the_mean_of_confident_joints():
    np.testing.assert_allclose(metrics.person_score([[0.1, 0.5, 0.9], [0.1, 0.2, 0.0]]), [0.7, 0.0], rtol=1e-6)


def test_average_precision_by_hand():
    # scores high to low: hit, miss, hit -> precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3; envelope 1, 2/3, 2/3.
    # Recalls 0 .. 0.33 read 1 (34 of them), 0.34 .. 0.66 read 2/3 (33), the other 34 nothing.
    ap = metrics.average_precision(np.array([[1, 0, 1], [1, 1, 1]]), np.array([1, 1, 1]))
    np.testing.assert_allclose(ap, [(34 + 33 * 2 / 3) / 101, 1.0], rtol=1e-6)


def test_average_precision_reads_a_recall_that_is_exactly_reached():
    # 29 of 100 people found first: recalls 0 .. 0.29 are reached with precision 1, then nothing more is found
    true_positives = np.array([0] * 71 + [1] * 29)
    assert float(metrics.average_precision(true_positives, np.ones(100, int))) == pytest.approx(30 / 101)


def test_average_precision_takes_the_people_of_a_bin_together():
    # a hit and a miss with one score: precision 1/2 at recalls 0 .. 0.5, whoever came first; the other is never found
    assert float(metrics.average_precision(np.array([0, 1]), np.array([0, 2]))) == pytest.approx(51 / 2 / 101)


def test_average_precision_does_not_depend_on_empty_bins():
    dense, sparse = np.array([1, 0, 1, 1]), np.zeros(64, int)
    sparse[[3, 17, 18, 60]] = dense
    detections = (np.arange(64) == np.array([3, 17, 18, 60])[:, None]).sum(0)
    expected = metrics.average_precision(dense, np.ones(4, int))
    assert float(metrics.average_precision(sparse, detections)) == float(expected) > 0


# --- Keras metrics


@pytest.mark.parametrize("threshold, torso, exclude", [(0.2, TORSO, ()), (0.25, COLUMN, ()), (0.1, TORSO, (3, 4))])
def test_pck_equals_reference(threshold, torso, exclude):
    target, heatmaps = people(60)
    correct, counted = reference_correct(target, heatmaps, threshold, None if torso == COLUMN else torso, exclude)
    metric = metrics.PCK(threshold=threshold, torso=torso, exclude=exclude)
    assert 0.05 < correct.sum() / counted.sum() < 0.95
    assert float(metric(target, heatmaps)) == pytest.approx(correct.sum() / counted.sum(), rel=1e-6)
    assert (int(metric.correct), int(metric.counted)) == (correct.sum(), counted.sum())


def test_pckh_equals_reference():
    target, heatmaps = people(60, seed=1)
    correct, counted = reference_correct(target, heatmaps, 0.5, exclude=(6, 7))
    assert float(metrics.PCKh()(target, heatmaps)) == pytest.approx(correct.sum() / counted.sum(), rel=1e-6)


def test_oks_ap_equals_sorting():
    target, heatmaps = people(166)
    similarities, scores = reference_oks(target, *decoded(heatmaps))
    expected = np.mean([reference_ap(similarities >= t, scores) for t in np.linspace(0.5, 0.95, 10)])
    assert 0.05 < expected < 0.95
    assert len(np.unique((scores * 2**17).astype(int))) == len(scores)  # so fine bins rank as sorting does
    exact = metrics.OKSAP(SIGMAS, bins=2**17)
    assert float(exact(target, heatmaps)) == pytest.approx(expected, abs=1e-6)
    assert float(metrics.OKSAP(SIGMAS)(target, heatmaps)) == pytest.approx(expected, abs=0.002)


def test_oks_ap_equals_pycocotools():
    target, heatmaps = people(166, seed=3)
    truth = np.where(target[..., 2:3] > 0, np.concatenate([target[..., :2], 2 * target[..., 2:3]], axis=-1), 0)
    points, joint_scores = decoded(heatmaps)
    expected = exact_ap(np.concatenate([points, joint_scores[..., None]], axis=-1), truth, target[:, 0, 3] ** 2)
    assert 0.05 < expected < 0.95
    assert float(metrics.OKSAP(SIGMAS, bins=2**17)(target, heatmaps)) == pytest.approx(expected, abs=1e-6)
    assert float(metrics.OKSAP(SIGMAS)(target, heatmaps)) == pytest.approx(expected, abs=0.002)


def test_an_oks_of_exactly_the_threshold_is_a_match():
    points = np.full((3, JOINTS, 2), 5.0)
    target = np.concatenate([points, np.zeros((3, JOINTS, 1)), np.full((3, JOINTS, 1), 2.0)], axis=-1)
    target[:, :2, 2] = 1
    target[:, 1, 0] = 1e4  # one joint right, one hopeless: OKS 0.5, true for the lowest of the ten thresholds only
    heatmaps = np.zeros((3, *SIZE, JOINTS))
    heatmaps[:, 5, 5] = 1
    assert float(metrics.OKSAP(SIGMAS)(target, heatmaps)) == pytest.approx(0.1)


def test_perfect_predictions_score_one():
    points = np.random.default_rng(0).integers(0, SIZE[::-1], (8, JOINTS, 2)).astype("float32")
    target = np.concatenate([points, np.full((8, JOINTS, 2), (1, 10))], axis=-1).astype("float32")
    # a single hot pixel has equal neighbours: it decodes to exactly the pixel
    x, y = points.astype(int).transpose(2, 0, 1)
    heatmaps = (np.arange(SIZE[0])[:, None, None] == y[:, None, None]) & (
        np.arange(SIZE[1])[:, None] == x[:, None, None]
    )
    for metric in all_metrics():
        assert float(metric(target, heatmaps.astype("float32"))) == 1.0


def test_batches_add_up_in_any_order():
    target, heatmaps = people(60, seed=2)
    for make in range(4):
        whole, parts = all_metrics()[make], all_metrics()[make]
        expected = float(whole(target, heatmaps))
        for part in (slice(20, 60), slice(0, 1), slice(1, 20)):
            parts.update_state(target[part], heatmaps[part])
        assert float(parts.result()) == expected
        parts.reset_state()
        assert float(parts.result()) == 0.0
        assert all(np.all(v.numpy() == 0) for v in parts.variables)


def test_samples_of_weight_zero_do_not_count():
    target, heatmaps = people(40, seed=4)
    weight = (np.arange(40) % 3 > 0) * 0.5
    for kept, weighted, column in zip(all_metrics(), all_metrics(), all_metrics(), strict=True):
        expected = float(kept(target[weight > 0], heatmaps[weight > 0]))
        assert float(weighted(target, heatmaps, sample_weight=weight)) == expected
        assert float(column(target, heatmaps, sample_weight=weight[:, None])) == expected
        assert expected != float(all_metrics()[0](target, heatmaps))


def test_nothing_counted_is_zero_and_a_diverged_network_is_counted():
    target, heatmaps = people(12, seed=5)
    nobody = target.copy()
    nobody[..., 2] = 0
    for metric in all_metrics():
        assert float(metric(nobody, heatmaps)) == 0.0
    for metric in all_metrics():
        assert 0 <= float(metric(target, np.full_like(heatmaps, np.nan))) < 0.2
    assert int(np.sum(metric.detections)) == (target[..., 2] > 0).any(axis=1).sum()


def test_counts_stay_exact_beyond_float32():
    target, heatmaps = people(2)
    target[..., 2] = 0
    target[0, 0] = (5, 5, 1, 1e9)  # one labelled joint, whatever is predicted is near enough
    pck, ap = metrics.PCK(torso=COLUMN), metrics.OKSAP(SIGMAS, bins=8)
    for variable in (pck.correct, pck.counted, ap.detections):
        variable.assign(variable + 2**24)
    pck.update_state(target, heatmaps)
    ap.update_state(target, heatmaps)
    assert int(pck.correct) == int(pck.counted) == 2**24 + 1  # float32 would stay at 2^24
    assert int(np.sum(ap.detections)) == 8 * 2**24 + 1


def test_scores_outside_zero_to_one_stay_in_the_last_bins():
    target, heatmaps = people(40, seed=6)
    metric = metrics.OKSAP(SIGMAS, bins=16)
    metric.update_state(target, heatmaps * 50)
    metric.update_state(target, -heatmaps)
    labelled = (target[..., 2] > 0).any(axis=1).sum()
    detections = metric.detections.numpy()
    assert detections.sum() == 2 * labelled
    assert detections[0] >= labelled and detections[-1] > 0.5 * labelled


def test_config_round_trip():
    codec = GaussianCodec(sigma=3.0, flip_shift=False)
    for metric in (
        metrics.PCK(codec, 0.1, (2, 5), (1,), name="a"),
        metrics.PCKh(codec, 0.4, (), name="b"),
        metrics.OKSAP((0.1, 0.2), codec, bins=64, name="c"),
    ):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert type(again) is type(metric) and again.codec == codec
        assert again.get_config() == metric.get_config()
        assert [v.shape for v in again.variables] == [v.shape for v in metric.variables]


def test_a_pck_without_torso_in_a_file_of_old():
    """It divided by the target's fourth column, and is loaded as one that does so by name."""
    old = {**metrics.PCK(CODEC, torso=TORSO).get_config(), "torso": None}
    assert metrics.PCK.from_config(old).get_config()["torso"] == COLUMN


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: metrics.PCK(threshold=0), "threshold is 0"),
        (lambda: metrics.PCK(torso=(3, 3)), "two different joints"),
        (lambda: metrics.PCK(torso="ab"), "two different joints"),
        (lambda: metrics.PCK(CODEC), r"'pck' has no torso to divide by; give torso=skeleton\.torso"),
        (lambda: metrics.OKSAP((0.1, 0.0)), "positive one for each joint"),
        (lambda: metrics.OKSAP((0.1, 0.2))(*people(2)), "2 sigmas for 17 joints"),
        (lambda: metrics.PCK(torso=TORSO)(people(2)[0], people(2)[1][..., :5]), "17 joints and 5 heatmaps"),
        (lambda: metrics.PCK(torso=TORSO)(people(2)[0][..., :3], people(2)[1]), r"\(2, 17, 3\)"),
    ],
)
def test_mistakes_are_told(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- OKSAP of the joints that were predicted in 538 images of COCO, one person for each crop


class JointsAsMaps:
    """A codec for joints that are known: their "heatmaps" are ``(batch, 1, 3, joints)``, x, y and score as they are."""

    def decode(self, maps):
        return np.moveaxis(maps[:, 0, :2], 1, 2), maps[:, 0, 2]


@pytest.fixture(scope="module")
def crops(shared):
    """Joints found and annotated ``(1354, 17, 3)`` in image pixels, and the target and found joints in 64x48 heatmaps.

    Every person gets a prediction of their image, in the way that the sum of OKS is largest; who gets none (there were
    fewer than people) random joints in the box. So nearly every score is different, and ranks are not a matter of luck.
    """
    facts = np.load(shared / "golden" / "coco_eval.npz")
    annotations = json.loads((shared / "golden" / "coco_eval_gt_538.json").read_text())
    persons = coco_data.parse(annotations, "the 538 images", "")
    rng = np.random.default_rng(0)
    found = rng.random((len(persons.ids), JOINTS, 3))
    found[..., :2] = persons.boxes[:, None, :2] + found[..., :2] * persons.boxes[:, None, 2:]
    for row, image in enumerate(persons.image_ids):
        mine, theirs = np.flatnonzero(persons.image_index == row), facts["preds"][facts["image_id"] == image]
        squared = np.square(theirs[None, ..., :2] - persons.keypoints[mine, None, :, :2]).sum(-1)
        each = np.exp(-squared / (8 * np.square(SIGMAS) * persons.areas[mine, None, None]))
        similarity = np.mean(each, axis=-1, where=persons.keypoints[mine, None, :, 2] > 0)
        person, prediction = linear_sum_assignment(similarity, maximize=True)
        found[mine[person]] = theirs[prediction]
    matrices = crop_matrices(persons.boxes, (256, 192))

    def in_heatmap(joints):
        return np.stack([geometry.transform(m, each) for m, each in zip(matrices, joints[..., :2], strict=True)]) / 4

    lengths = np.repeat(persons.reference_length * geometry.scale_of(matrices) / 4, JOINTS).reshape(-1, JOINTS, 1)
    target = np.concatenate([in_heatmap(persons.keypoints), persons.keypoints[..., 2:], lengths], axis=-1)
    return SimpleNamespace(
        found=found,
        truth=persons.keypoints,
        areas=persons.areas,
        target=target.astype("float32"),
        joints=np.concatenate([in_heatmap(found), found[..., 2:]], axis=-1).astype("float32"),
        to_image=lambda points: to_image(points * 4, matrices),
    )


def oks_ap(crops, maps_of, codec=CODEC):
    metric = metrics.OKSAP(SIGMAS, codec)
    for begin in range(0, len(crops.target), 200):
        part = slice(begin, begin + 200)
        metric.update_state(crops.target[part], maps_of(crops.joints[part]))
    return float(metric.result())


def test_oks_ap_of_538_images_is_the_exact_one_up_to_the_bins(crops):
    """1e-6 for float32. Everything else is people of one bin who enter together, as if the misses were ranked first."""
    value = oks_ap(crops, lambda joints: np.moveaxis(joints, 1, 2)[:, None], JointsAsMaps())
    similarities, scores = reference_oks(crops.target, crops.joints[..., :2], crops.joints[..., 2])
    bins = np.floor(scores * 4096)
    hits = [similarities >= threshold for threshold in np.linspace(0.5, 0.95, 10)]
    assert value == pytest.approx(np.mean([reference_ap(hit, bins - 0.5 * hit) for hit in hits]), abs=1e-6)
    exact = exact_ap(crops.found, crops.truth, crops.areas)
    assert -1e-6 < exact - value < 0.0002  # measured: 0.3896 and 0.00009 less; the issue asks for 0.002
    assert exact > 0.3 and len(np.unique(bins)) < len(bins) - 100


@pytest.mark.slow
def test_heatmaps_drawn_at_the_joints_of_538_images_cost_what_drawing_costs(crops):
    """The codec rounds what it draws to whole heatmap pixels; the joints that it reads back have this exact AP."""

    def draw(joints):
        return CODEC.encode(joints[..., :2], np.ones(joints.shape[:2]), (64, 48))[0] * joints[:, None, None, :, 2]

    drawn = [decoded(draw(half)) for half in np.split(crops.joints, 2)]
    points, scores = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    again = exact_ap(np.concatenate([crops.to_image(points), scores[..., None]], -1), crops.truth, crops.areas)
    assert -1e-6 < again - oks_ap(crops, draw) < 0.0002
    loss = exact_ap(crops.found, crops.truth, crops.areas) - again
    assert 0.018 < loss < 0.020  # measured: 0.0190. A network's own heatmaps are not drawn, and lose nothing here


# --- in a compiled model


@pytest.fixture
def mixed_precision():
    with precision("mixed_bfloat16"):
        yield


def compiled_model():
    """A 1x1 convolution that hands its input on, so that the fed heatmaps are the predicted ones."""
    inputs = keras.Input((*SIZE, JOINTS))
    layer = keras.layers.Conv2D(JOINTS, 1, use_bias=False, dtype="float32", name="heatmaps")
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([np.eye(JOINTS, dtype="float32")[None, None]])
    model.compile(
        keras.optimizers.SGD(0.0),
        HeatmapMSE(CODEC),
        metrics=[metrics.PCK(torso=TORSO), metrics.OKSAP(SIGMAS)],
        weighted_metrics=[metrics.PCKh(CODEC)],
    )
    return model


def batches(target, heatmaps, batch_size, weight=None):
    target = np.nan_to_num(target)  # the loss, unlike the metrics, reads every position
    parts = (heatmaps, target) if weight is None else (heatmaps, target, weight)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size)


def expected_logs(target, heatmaps, weight=None):
    return {
        "pck": float(metrics.PCK(torso=TORSO)(target, heatmaps)),
        "oks_ap": float(metrics.OKSAP(SIGMAS)(target, heatmaps)),
        "pckh": float(metrics.PCKh()(target, heatmaps, sample_weight=weight)),
    }


# Keras 3.15 saves TensorFlow variables with np.array(variable), which NumPy 2 does not like
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_in_compiled_fit_and_after_loading(tmp_path):
    target, heatmaps = people(30, seed=7)
    weight = (np.arange(30) % 4 > 0).astype("float32")
    expected = expected_logs(target, heatmaps, weight)
    assert all(0.05 < value < 0.95 for value in expected.values())
    model = compiled_model()
    data = batches(target, heatmaps, 8, weight)
    history = model.fit(data, validation_data=data, epochs=2, shuffle=False, verbose=0).history
    for name, value in expected.items():
        np.testing.assert_allclose([history[name], history[f"val_{name}"]], value, rtol=1e-6, err_msg=name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logs = loaded.evaluate(data, verbose=0, return_dict=True)
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.usefixtures("mixed_precision")
def test_mixed_precision_changes_nothing():
    target, heatmaps = people(30, seed=7)
    bfloat16 = tf.cast(heatmaps, "bfloat16")
    rounded = tf.cast(bfloat16, "float32").numpy()
    for metric, reference in zip(all_metrics(), all_metrics(), strict=True):
        value = metric(target, bfloat16)
        assert value.dtype == "float32"
        assert float(value) == float(reference(target, rounded))
