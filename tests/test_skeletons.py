"""Skeletons: the data sets' own orders, pairs and constants; what cannot be a skeleton is refused."""

import dataclasses
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
    assert [skeleton.joints[i] for i in skeleton.flip_indices] == [mirrored_name(name) for name in skeleton.joints]


@by_name
def test_limbs_are_symmetric_and_reach_every_joint(skeleton):
    edges = {frozenset(pair) for pair in skeleton.edges}
    assert {frozenset(skeleton.flip_indices[i] for i in limb) for limb in edges} == edges
    assert len(edges) == len(skeleton.edges)
    assert set().union(*edges) == set(range(skeleton.num_joints))


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


def test_orders_are_the_published_ones(golden_dir, shared):
    readme = (golden_dir / "README.md").read_text()
    line = " ".join(readme.split())
    spoken = [name.replace("right_", "r ").replace("left_", "l ").replace("_", " ") for name in MPII.joints]
    assert f"MPII order: {', '.join(spoken)} (16)" in line
    pairs = np.load(golden_dir / "decode.npz")
    for skeleton in (COCO, MPII):
        assert sorted(skeleton.flip_pairs) == sorted(map(tuple, pairs[f"{skeleton.name}_pairs"].tolist()))
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
    assert (five.num_joints, five.flip_indices, five.edges, five.torso) == (5, (0, 1, 2, 3, 4), (), None)
    assert five.sigmas == (0.05,) * 5
    for joint in ("right_hip", "left_shoulder"):
        assert Skeleton("mine", (joint, "head")).torso is None


def test_sequences_become_tuples():
    given = Skeleton("mine", ["a", "b", "c"], [[0, 2]], [[0, 1]], [0.1, 0.2, 0.3])
    assert given == Skeleton("mine", ("a", "b", "c"), ((0, 2),), ((0, 1),), (0.1, 0.2, 0.3))
    assert given.flip_indices == (2, 1, 0)
    assert len({given, given}) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"flip_pairs": ((0, 3),)}, r"flip_pairs has \(0, 3\)"),
        ({"flip_pairs": ((0, -1),)}, r"flip_pairs has \(0, -1\)"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "a joint twice"),
        ({"flip_pairs": ((1, 1),)}, "a joint twice"),
        ({"edges": ((0, 1, 2),)}, r"edges has \(0, 1, 2\)"),
        ({"edges": ((0, 1.5),)}, r"edges has \(0, 1\.5\)"),
        ({"edges": (("a", "b"),)}, "edges has"),
        ({"torso": (0, 3)}, r"torso has \(0, 3\)"),
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


def test_who_said_the_pairs_is_saved():
    """Names did, or somebody: equal skeletons, of which the first may not be mirrored if the names say too little."""
    joints = ("a", "left_b", "c")
    for pairs, named in ((None, True), ((), False), (((0, 2),), False)):
        there = Skeleton("mine", joints, pairs)
        back = Skeleton.from_dict(json.loads(json.dumps(there.to_dict())))
        assert back == there and back.pairs_from_names == there.pairs_from_names == named
        assert dataclasses.replace(there, name="other").pairs_from_names == named
    assert Skeleton("mine", joints) == Skeleton("mine", joints, ())


def test_earlier_versions_did_not_say_whence_pairs_are():
    """Without pairs the names may not have been understood; with some, somebody has made sure of them."""
    old = {"name": "mine", "joints": ["lhip", "rhip", "lfin"], "edges": [], "sigmas": [0.1] * 3, "torso": None}
    unread = Skeleton.from_dict({**old, "flip_pairs": []})
    assert unread.flip_pairs == ((0, 1),) and unread.pairs_from_names and unread.one_sided == ("lfin",)
    given = Skeleton.from_dict({**old, "swap_pairs": [[0, 2]]})
    assert given.flip_pairs == ((0, 2),) and not given.pairs_from_names and given.one_sided == ()


# --- a user's own -------------------------------------------------------------------------------------------------

OWN = {"name": "climber", "joints": ["head", "left_hand", "right_hand", "hips"]}


def written(folder, **changes):
    file = folder / "own.json"
    file.write_text(json.dumps({key: value for key, value in {**OWN, **changes}.items() if value is not ...}))
    return file


def test_a_file_needs_a_name_and_joints_only(tmp_path):
    """Pairs come from the names; the default sigma is about the middle of COCO's as ratios go: sqrt(0.025 * 0.107)."""
    found = skeletons.load(written(tmp_path))
    assert found == Skeleton("climber", tuple(OWN["joints"]), ((1, 2),), (), (0.05,) * 4, None)
    low, high = min(COCO.sigmas), max(COCO.sigmas)
    assert abs(skeletons.DEFAULT_SIGMA / (low * high) ** 0.5 - 1) < 0.05


def test_a_file_can_say_all(tmp_path):
    all_of_it = {"edges": [["head", "hips"]], "sigmas": [0.03, 0.06, 1, 0.1], "torso": ["hips", "head"]}
    found = skeletons.load(str(written(tmp_path, **all_of_it, swap=[["head", "hips"]])))
    assert found == Skeleton("climber", tuple(OWN["joints"]), ((0, 3),), ((0, 3),), (0.03, 0.06, 1, 0.1), (3, 0))
    assert skeletons.load(written(tmp_path, swap=[])).flip_indices == (0, 1, 2, 3)
    assert Skeleton.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_fields_have_two_names(tmp_path):
    """What drawings connect and what a mirror exchanges, as in other libraries and as here before."""
    pair = [["head", "hips"]]
    found = skeletons.load(written(tmp_path, edges=pair, flip_pairs=pair))
    assert found == skeletons.load(written(tmp_path, limbs=pair, swap=pair))
    assert found.edges == found.flip_pairs == ((0, 3),)
    for old, new in (("limbs", "edges"), ("swap", "flip_pairs")):
        with pytest.raises(InputError, match=f"both {new} and {old}"):
            skeletons.load(written(tmp_path, **{old: pair, new: pair}))
    values = found.to_dict()
    old_names = {"swap_pairs": values.pop("flip_pairs"), "limbs": values.pop("edges")}
    assert Skeleton.from_dict({**values, **old_names}) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ...}, "name is None; give the skeleton a name"),
        ({"name": 3}, "name is 3"),
        ({"name": "COCO"}, "name is 'COCO', which is built in"),
        ({"joints": ...}, "joints is None; give a list of names"),
        ({"joints": []}, r"joints is \[\]"),
        ({"joints": "head"}, "joints is 'head'"),
        ({"joints": ["head", 3]}, r"joints is \['head', 3\]"),
        ({"joints": ["head", "head"]}, "a joint name twice"),
        ({"edges": [["head", "tail"]]}, r"edges has \['head', 'tail'\]; give pairs of names that are among the joints"),
        ({"edges": [["head"]]}, r"edges has \['head'\]"),
        ({"edges": 5}, "edges has 5"),
        ({"edges": [[0, 1]]}, r"edges has \[0, 1\]"),
        ({"swap": [["head", "tail"]]}, "swap has"),
        ({"flip_pairs": [["head", "tail"]]}, "flip_pairs has"),
        ({"limbs": [["head", "tail"]]}, "limbs has"),
        ({"swap": [["head", "hips"], ["head", "left_hand"]]}, "a joint twice"),
        ({"torso": ["head"]}, "torso has"),
        ({"torso": "head"}, "torso has 'head'"),
        ({"sigmas": [0.1, 0.1]}, "one for each of 4 joints"),
        ({"sigmas": [0.1, 0.1, 0.1, -1]}, "a positive one"),
        ({"sigmas": [0.1, 0.1, 0.1, True]}, "sigmas is .*give a list of numbers"),
        ({"sigmas": 0.1}, "sigmas is 0.1; give a list"),
        ({"sigma": [0.1]}, "unknown field 'sigma'; a skeleton has name and joints"),
    ],
)
def test_wrong_files_are_named_with_their_field(change, message, tmp_path):
    file = written(tmp_path, **change)
    with pytest.raises(InputError, match=message) as caught:
        skeletons.load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_skeleton_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"own\.json is not there; give a skeleton file"):
        skeletons.load(tmp_path / "own.json")
    for content, message in (
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read"),
        (b"[1]", "holds a list"),
        (b"[" * 10**5, "cannot be read"),
    ):
        (tmp_path / "own.json").write_bytes(content)
        with pytest.raises(InputError, match=rf"own\.json {message}"):
            skeletons.load(tmp_path / "own.json")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("LeftEye", "RightEye"),
        ("eyeLeft", "eyeRight"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("lefteye", "righteye"),
        ("left eye 2", "right eye 2"),
        ("l_eye", "r_eye"),
        ("eye_l", "eye_r"),
        ("eye.L", "eye.R"),
        ("LEye", "REye"),
        ("lEye", "rEye"),
        ("eyeL", "eyeR"),
        ("L1", "R1"),
        ("left", "right"),
    ],
)
def test_left_and_right_are_found_in_names(left, right):
    assert skeletons.flip_pairs_of(["nose", right, "upright", left]) == ((1, 3),)
    assert (skeletons.side_of(left), skeletons.side_of(right)) == ("left", "right")


@pytest.mark.parametrize(
    "joints",
    [
        ["bleft", "bright"],
        ["left_eye", "right_ear"],
        ["tail", "tair"],
        ["leg", "reg"],
        ["l_eye", "right_eye"],
        ["eyeLid", "eyeRid"],
    ],
)
def test_other_names_stay_themselves(joints):
    assert skeletons.flip_pairs_of(joints) == ()


def test_a_name_with_both_sides_has_none():
    assert [skeletons.side_of(joint) for joint in ("left_of_right_eye", "eye")] == [None, None]


@by_name
def test_the_pairs_of_the_known_skeletons_are_in_their_names(skeleton):
    assert skeletons.flip_pairs_of(skeleton.joints) == skeleton.flip_pairs
