"""OKS-NMS against the published lists, against loops written out here, and its invariants."""

import math

import numpy as np
import pytest

from keras_mrpose import nms
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO

SIGMAS = COCO.sigmas


@pytest.fixture(scope="module")
def golden(golden_dir):
    return dict(np.load(golden_dir / "oks_nms.npz"))


def groups(facts):
    """Index, keypoints, areas and scores of each group, without the padding."""
    for i, count in enumerate(facts["count"]):
        yield i, *(facts[key][i, :count] for key in ("keypoints", "area", "score"))


def people(count=9, joints=5, seed=0):
    """Some people, each of the first three also found a second and a third time, a little off."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 300, (count, 1, 2)) + rng.uniform(-40, 40, (count, joints, 2))
    places[3:] = places[np.arange(3, count) % 3] + rng.normal(0, 4, (count - 3, joints, 2))
    keypoints = np.concatenate([places, rng.uniform(0, 1, (count, joints, 1))], axis=-1)
    return keypoints, rng.uniform(1000, 9000, count), rng.uniform(0.1, 1, count)


def reference_oks(kept, candidate, kept_area, candidate_area, sigmas):
    """Joint by joint."""
    total = 0.0
    for j, sigma in enumerate(sigmas):
        squared = (kept[j, 0] - candidate[j, 0]) ** 2 + (kept[j, 1] - candidate[j, 1]) ** 2
        total += math.exp(-squared / (2 * (2 * sigma) ** 2 * (kept_area + candidate_area) / 2))
    return total / len(sigmas)


def oks_matrix(keypoints, areas, sigmas):
    """Everybody with everybody, ``(n, n)``."""
    keypoints, areas = np.asarray(keypoints, float), np.asarray(areas, float)
    return nms.pair_oks(keypoints[:, None], keypoints[None], (areas[:, None] + areas[None]) / 2, sigmas)


# --- published numbers --------------------------------------------------------------------------------------------


def test_oks_is_the_published_one(golden):
    for i, keypoints, areas, _ in list(groups(golden))[:8]:
        wanted = golden["oks_none"][i, : len(areas), : len(areas)]
        np.testing.assert_allclose(oks_matrix(keypoints, areas, SIGMAS), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_kept_people_are_the_published_ones(golden, threshold):
    kept, found = 0, 0
    for i, keypoints, areas, scores in groups(golden):
        wanted = golden[f"keep_none_{threshold}"][i]
        wanted = wanted[wanted >= 0]
        indices = nms.oks_nms(keypoints, areas, scores, SIGMAS, threshold)
        np.testing.assert_array_equal(indices, wanted)
        kept, found = kept + len(wanted), found + len(scores)
    assert 0 < kept < found


def test_the_published_threshold_is_the_default(golden):
    for i, keypoints, areas, scores in groups(golden):
        wanted = golden["keep_none_0.9"][i]
        np.testing.assert_array_equal(nms.oks_nms(keypoints, areas, scores, SIGMAS), wanted[wanted >= 0])


# --- float64 reference --------------------------------------------------------------------------------------------


def test_oks_joint_by_joint():
    keypoints, areas, _ = people()
    sigmas = (0.03, 0.05, 0.08, 0.06, 0.1)
    found = oks_matrix(keypoints, areas, sigmas)
    wanted = np.zeros_like(found)
    for i, j in np.ndindex(*found.shape):
        wanted[i, j] = reference_oks(keypoints[i], keypoints[j], areas[i], areas[j], sigmas)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-15)
    assert (found == found.T).all()
    assert not (np.diag(found) == 0).any()


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9])
def test_soft_nms_by_a_loop(threshold):
    """Bodla's algorithm with lists: take the best out, lower the others, sort again."""
    keypoints, areas, scores = people()
    sigmas = (0.05,) * 5
    left = [(score, person) for person, score in enumerate(scores)]
    wanted = []
    while left:
        left.sort(reverse=True)
        score, best = left.pop(0)
        wanted.append((best, score))
        for place, (score, person) in enumerate(left):
            oks = reference_oks(keypoints[best], keypoints[person], areas[best], areas[person], sigmas)
            left[place] = score * math.exp(-(oks**2) / threshold), person
    order, lowered = nms.soft_oks_nms(keypoints, areas, scores, sigmas, threshold)
    np.testing.assert_array_equal(order, [person for person, _ in wanted])
    np.testing.assert_allclose(lowered, [score for _, score in wanted], rtol=1e-12)
    assert (np.diff(lowered) <= 0).all()
    assert (order != np.argsort(-scores)).any()  # somebody fell behind


# --- invariants ---------------------------------------------------------------------------------------------------


def test_an_oks_of_exactly_the_threshold_is_kept():
    """Two joints right, two hopelessly far: OKS 1/2."""
    keypoints = np.zeros((2, 4, 3))
    keypoints[1, 2:, 0] = 1e6
    arguments = keypoints, [100, 100], [0.3, 0.8], (0.1,) * 4
    assert oks_matrix(*arguments[:2], arguments[3])[0, 1] == 0.5
    np.testing.assert_array_equal(nms.oks_nms(*arguments, threshold=0.5), [1, 0])
    np.testing.assert_array_equal(nms.oks_nms(*arguments, threshold=0.49), [1])


def test_of_equal_scores_the_later_row_goes_first():
    keypoints = np.zeros((4, 3, 3))
    keypoints[[1, 3], :, 0] = 500
    arguments = keypoints, np.full(4, 50.0), np.full(4, 0.5), (0.05,) * 3
    np.testing.assert_array_equal(nms.oks_nms(*arguments), [3, 2])
    order, scores = nms.soft_oks_nms(*arguments, threshold=0.9)
    np.testing.assert_array_equal(order, [3, 2, 1, 0])
    np.testing.assert_allclose(scores, [0.5, 0.5, 0.5 * math.exp(-1 / 0.9), 0.5 * math.exp(-1 / 0.9)])


def soft_keeps(*arguments, **options):
    return nms.soft_oks_nms(*arguments, **options)[0]


@pytest.mark.parametrize("suppress", [nms.oks_nms, soft_keeps])
def test_images_together_are_the_images_one_by_one(suppress):
    """People of images of 1, 2 and 9 in one shuffled list, with ids that float64 could not tell apart."""
    keypoints, areas, scores = people(12)
    image_ids = 2**53 + np.random.default_rng(2).permutation([0, *[1] * 9, 2, 2])
    options = {"sigmas": (0.05,) * 5, "threshold": 0.2}
    wanted = []
    for image in dict.fromkeys(image_ids.tolist()):
        rows = np.flatnonzero(image_ids == image)
        wanted.extend(rows[suppress(keypoints[rows], areas[rows], scores[rows], **options)])
    np.testing.assert_array_equal(suppress(keypoints, areas, scores, image_ids=image_ids, **options), wanted)
    assert len(suppress(keypoints, areas, scores, **options)) < len(wanted) < 12 or suppress is soft_keeps


def test_the_order_of_people_does_not_matter_and_arguments_stay_as_they_are():
    keypoints, areas, scores = people()
    before = scores.copy()
    shuffled = np.random.default_rng(1).permutation(len(scores))
    for suppress in (nms.oks_nms, soft_keeps):
        kept = suppress(keypoints, areas, scores, (0.05,) * 5)
        again = suppress(keypoints[shuffled], areas[shuffled], scores[shuffled], (0.05,) * 5)
        np.testing.assert_array_equal(shuffled[again], kept)
    np.testing.assert_array_equal(scores, before)


def test_nobody_and_people_without_area():
    nobody = np.zeros((0, 17, 3)), [], []
    assert nms.oks_nms(*nobody, SIGMAS).tolist() == []
    assert [part.tolist() for part in nms.soft_oks_nms(*nobody, SIGMAS)] == [[], []]
    points = np.zeros((3, 17, 3))
    points[2, :, 0] = 1
    np.testing.assert_array_equal(nms.oks_nms(points, [0, 0, 0], [3, 2, 1], SIGMAS), [0, 2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"keypoints": np.zeros((3, 17, 2))}, r"keypoints of shape \(3, 17, 2\); give \(people, joints, 3\)"),
        ({"areas": [1, 2]}, r"areas of shape \(2,\) .* one number for each person"),
        ({"scores": [1, 2, 3, 4]}, r"scores of shape \(4,\) .* one number for each person"),
        ({"image_ids": [1, 2]}, r"image_ids of shape \(2,\) .* one number for each person"),
        ({"sigmas": (0.1,) * 16}, r"sigmas of shape \(16,\) .* one number for each joint"),
        ({"scores": [1, np.nan, 2]}, "scores that are not finite"),
        ({"keypoints": np.full((3, 17, 3), np.inf)}, "keypoints that are not finite"),
    ],
)
def test_mistakes_are_told(changed, message):
    arguments = {"keypoints": np.zeros((3, 17, 3)), "areas": [1, 2, 3], "scores": [1, 2, 3], "sigmas": SIGMAS}
    for suppress in (nms.oks_nms, nms.soft_oks_nms):
        with pytest.raises(InputError, match=message):
            suppress(**{**arguments, **changed})


@pytest.mark.parametrize("threshold", [0, -1, math.nan])
def test_impossible_soft_threshold_is_refused(threshold):
    with pytest.raises(InputError, match=r"threshold of soft OKS-NMS is .*; give a positive number"):
        nms.soft_oks_nms(*people(), (0.05,) * 5, threshold)
