"""Skeletons: the data sets' own orders, pairs and constants; what cannot be a skeleton is refused."""

import json

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from keras_mrpose import skeletons
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton

ALL = list(skeletons.SKELETONS.values())
by_name = pytest.mark.parametrize("skeleton", ALL, ids=lambda skeleton: skeleton.name)


def mirrored_name(name):
    return name.replace("left_", "?_").replace("right_", "left_").replace("?_", "right_")


@by_name
def test_mirroring_exchanges_left_and_right(skeleton):
    assert [skeleton.joints[i] for i in skeleton.mirrored] == [mirrored_name(name) for name in skeleton.joints]


@by_name
def test_limbs_are_symmetric_and_reach_every_joint(skeleton):
    limbs = {frozenset(pair) for pair in skeleton.limbs}
    assert {frozenset(skeleton.mirrored[i] for i in limb) for limb in limbs} == limbs
    assert len(limbs) == len(skeleton.limbs)
    assert set().union(*limbs) == set(range(skeleton.num_joints))


@by_name
def test_torso_is_right_hip_to_left_shoulder(skeleton):
    assert tuple(skeleton.joints[i] for i in skeleton.torso) == ("right_hip", "left_shoulder")


@by_name
def test_round_trip_through_json(skeleton):
    again = Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict())))
    assert again == skeleton
    assert hash(again) == hash(skeleton)


def test_coco_constants_are_those_of_the_official_evaluation():
    np.testing.assert_allclose(COCO.sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-15)


def test_other_skeletons_take_coco_constants_by_name():
    of_coco = dict(zip(COCO.joints, COCO.sigmas, strict=True))
    for skeleton in (MPII, LSP):
        for name, sigma in zip(skeleton.joints, skeleton.sigmas, strict=True):
            assert sigma == of_coco.get(name, of_coco["left_shoulder"]), name


def test_orders_are_the_published_ones(shared):
    readme = (shared / "golden" / "README.md").read_text()
    line = " ".join(readme.split())
    spoken = [name.replace("right_", "r ").replace("left_", "l ").replace("_", " ") for name in MPII.joints]
    assert f"MPII order: {', '.join(spoken)} (16)" in line
    pairs = np.load(shared / "golden" / "decode.npz")
    for skeleton in (COCO, MPII):
        assert sorted(skeleton.swap_pairs) == sorted(map(tuple, pairs[f"{skeleton.name}_pairs"].tolist()))
    facts = " ".join((shared / "data" / "README.md").read_text().split()).lower()
    assert (
        ", ".join(name.replace("right_", "r ").replace("left_", "l ").replace("_", " ") for name in LSP.joints) in facts
    )


def test_get():
    assert skeletons.get("MPII") is MPII
    mine = Skeleton("mine", ("a", "b"))
    assert skeletons.get(mine) is mine
    for unknown in ("hand", None, 17):
        with pytest.raises(InputError, match=r"Unknown skeleton .*coco, mpii, lsp"):
            skeletons.get(unknown)


def test_for_joint_count():
    assert [skeletons.for_joint_count(n) for n in (17, 16, 14)] == [COCO, MPII, LSP]
    five = skeletons.for_joint_count(5)
    assert (five.num_joints, five.mirrored, five.limbs, five.torso) == (5, (0, 1, 2, 3, 4), (), None)
    assert five.sigmas == (0.05,) * 5


def test_sequences_become_tuples():
    given = Skeleton("mine", ["a", "b", "c"], [[0, 2]], [[0, 1]], [0.1, 0.2, 0.3])
    assert given == Skeleton("mine", ("a", "b", "c"), ((0, 2),), ((0, 1),), (0.1, 0.2, 0.3))
    assert given.mirrored == (2, 1, 0)
    assert len({given, given}) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"swap_pairs": ((0, 3),)}, r"swap_pairs has \(0, 3\)"),
        ({"swap_pairs": ((0, -1),)}, r"swap_pairs has \(0, -1\)"),
        ({"swap_pairs": ((0, 1), (1, 2))}, "a joint twice"),
        ({"swap_pairs": ((1, 1),)}, "a joint twice"),
        ({"limbs": ((0, 1, 2),)}, r"limbs has \(0, 1, 2\)"),
        ({"limbs": ((0, 1.5),)}, r"limbs has \(0, 1\.5\)"),
        ({"limbs": (("a", "b"),)}, "limbs has"),
        ({"sigmas": (0.1, 0.1)}, "one for each of 3 joints"),
        ({"sigmas": (0.1, 0.1, 0.0)}, "positive"),
        ({"sigmas": (0.1, 0.1, float("nan"))}, "positive"),
        ({"joints": ("a", "b", "a")}, "a joint name twice"),
    ],
)
def test_impossible_skeletons_are_refused(wrong, message):
    with pytest.raises(InputError, match=message) as caught:
        Skeleton(**{"name": "mine", "joints": ("a", "b", "c"), **wrong})
    assert "'mine'" in str(caught.value)
