"""Joints of the data sets: names, left/right pairs, edges, and how precisely people can label each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from keras_mrpose.errors import InputError, short_message

# Of a joint that nobody has measured: the middle of COCO's, from 0.025 (eyes) to 0.107 (hips), as ratios go.
DEFAULT_SIGMA = 0.05

# Fields of saved models, as earlier versions called them.
OLD_NAMES = {"swap_pairs": "flip_pairs", "limbs": "edges"}

# Words of joint names that say which half of the body they belong to.
UPPER_BODY = {"nose", "eye", "ear", "mouth", "head", "neck", "thorax", "shoulder", "elbow", "wrist", "hand"}
LOWER_BODY = {"pelvis", "hip", "hips", "knee", "ankle", "heel", "toe", "foot"}


@dataclass(frozen=True)
class Skeleton:
    """The joints of a data set, in its own order.

    Sequences become tuples, so that a skeleton can be compared, hashed and read back from JSON. A name or an index
    that cannot be is an `InputError`.

    Args:
        name: short name, for example ``"coco"``.
        joints: joint names in the order of the data set. "left" and "right" are the person's own.
        flip_pairs: index pairs that change places when an image is mirrored.
        edges: index pairs that a drawing connects.
        sigmas: per joint, the OKS constant of the COCO protocol (standard deviation of human labels as a
            fraction of the square root of the person's area); by default `DEFAULT_SIGMA` for each.
        torso: indices of the two joints whose distance PCK divides by; by default ``right_hip`` and ``left_shoulder``
            where there are such joints, else None: then there is no PCK.
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    torso: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        count = len(self.joints)
        object.__setattr__(self, "joints", tuple(self.joints))
        object.__setattr__(self, "sigmas", tuple(self.sigmas) or (DEFAULT_SIGMA,) * count)
        for field in ("flip_pairs", "edges"):
            object.__setattr__(self, field, tuple(tuple(pair) for pair in getattr(self, field)))
        if self.torso is None and {"right_hip", "left_shoulder"} <= set(self.joints):
            object.__setattr__(self, "torso", (self.joints.index("right_hip"), self.joints.index("left_shoulder")))
        if self.torso is not None:
            object.__setattr__(self, "torso", tuple(self.torso))
        pairs = {"flip_pairs": self.flip_pairs, "edges": self.edges, "torso": (self.torso,) if self.torso else ()}
        for field, those in pairs.items():
            for pair in those:
                if len(pair) != 2 or not all(isinstance(i, int) and 0 <= i < count for i in pair):
                    raise InputError(
                        f"Skeleton {self.name!r}: {field} has {pair}; give pairs of joint indices below {count}."
                    )
        if len(set(self.joints)) != count:
            raise InputError(f"Skeleton {self.name!r} has a joint name twice in {self.joints}; give each its own.")
        if len(self.sigmas) != count or not all(sigma > 0 for sigma in self.sigmas):
            raise InputError(
                f"Skeleton {self.name!r} has the sigmas {self.sigmas}; give a positive one for each of {count} joints."
            )
        swapped = [joint for pair in self.flip_pairs for joint in pair]
        if len(set(swapped)) != len(swapped):
            raise InputError(
                f"Skeleton {self.name!r}: flip_pairs {self.flip_pairs} has a joint twice; it swaps with one other."
            )

    @property
    def num_joints(self) -> int:
        """Number of joints."""
        return len(self.joints)

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """For each joint, the index of the joint that it becomes in a mirrored image: a permutation for `take`."""
        order = list(range(self.num_joints))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @property
    def upper_body(self) -> tuple[int, ...]:
        """Indices of the joints above the hips, the others are below; empty if a name does not say where it belongs."""
        words = [set(map(str.lower, re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))) for name in self.joints]
        if not all(word & (UPPER_BODY | LOWER_BODY) for word in words):
            return ()
        return tuple(joint for joint, word in enumerate(words) if not word & LOWER_BODY)

    def to_dict(self) -> dict:
        """Strings, numbers and tuples (lists in JSON), for files and saved models."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Skeleton:
        """The inverse of `to_dict`, also after a way through JSON; field names of earlier versions are accepted."""
        return cls(**{OLD_NAMES.get(name, name): value for name, value in values.items()})


COCO = Skeleton(
    name="coco",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    edges=(
        (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
        (11, 13), (13, 15), (12, 14), (14, 16),
    ),
    # cocodataset.org, keypoint evaluation
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
        0.089, 0.089,
    ),
)  # fmt: skip

# MPII and LSP publish no OKS constants: joints of arms and legs take COCO's; pelvis, thorax, neck and head top take the
# shoulder's.
MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    edges=(
        (0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (7, 12), (12, 11), (11, 10),
        (7, 13), (13, 14), (14, 15),
    ),
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.079, 0.079, 0.079, 0.079, 0.062, 0.072, 0.079, 0.079, 0.072,
        0.062,
    ),
)  # fmt: skip

LSP = Skeleton(
    name="lsp",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
        "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    edges=(
        (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 12), (9, 12), (9, 10), (10, 11), (12, 13),
        (2, 8), (3, 9),
    ),
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079,
    ),
)  # fmt: skip

# COCO's joints, and the two of LSP that COCO has not: what a network for several data sets has.
BODY19 = Skeleton(
    name="body19",
    joints=(*COCO.joints, "neck", "head_top"),
    flip_pairs=COCO.flip_pairs,
    edges=(*COCO.edges, (0, 17), (17, 18), (5, 17), (6, 17)),
    sigmas=(*COCO.sigmas, 0.079, 0.079),
)

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, MPII, LSP, BODY19)}


def get(skeleton: str | Skeleton) -> Skeleton:
    """The skeleton of that name (``"coco"``, ``"mpii"``, ``"lsp"``, ``"body19"``), or the given one itself."""
    if isinstance(skeleton, Skeleton):
        return skeleton
    try:
        return SKELETONS[skeleton.lower()]
    except (KeyError, AttributeError):
        raise InputError(
            f"Unknown skeleton {skeleton!r}; give one of {', '.join(SKELETONS)} or a keras_mrpose.Skeleton."
        ) from None


def load(path: str | Path) -> Skeleton:
    """A custom skeleton from a small JSON file such as::

        {
          "name": "climber",
          "joints": ["head", "left_hand", "right_hand", "hips"],
          "edges": [["head", "hips"], ["head", "left_hand"], ["head", "right_hand"]],
          "flip_pairs": [["left_hand", "right_hand"]],
          "sigmas": [0.03, 0.06, 0.06, 0.1],
          "torso": ["head", "hips"]
        }

    Args:
        path: only ``name`` and ``joints`` must be in it. ``edges`` are what drawings connect, none by default;
            ``flip_pairs`` change places in a mirrored image, by default found from the names (`flip_pairs_of`);
            ``sigmas`` are one for each joint, by default `DEFAULT_SIGMA`; ``torso`` is what PCK divides by, see
            `Skeleton`. ``limbs`` and ``swap`` are accepted for ``edges`` and ``flip_pairs``.

    Raises:
        InputError: a file that is missing or no JSON, or a field that is unknown, missing or wrong, named.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is not there; give a skeleton file, JSON with name and joints.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({short_message(error)}); give a skeleton file.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; give a skeleton file, JSON with name and joints.")
    if unknown := set(values) - {"name", "joints", "edges", "limbs", "flip_pairs", "swap", "sigmas", "torso"}:
        raise InputError(f"{path} has an unknown field {min(unknown)!r}; a skeleton has {FIELDS}.")
    for old, new in (("limbs", "edges"), ("swap", "flip_pairs")):
        if {old, new} <= set(values):
            raise InputError(f"{path} has both {new} and {old}, which are the same; give {new} only.")
    try:
        return _from_names(**values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


FIELDS = "name and joints, and may have edges, flip_pairs, sigmas and torso"


def _from_names(
    name=None, joints=None, edges=(), limbs=(), flip_pairs=None, swap=None, sigmas=(), torso=None
) -> Skeleton:
    """A skeleton from the fields of a skeleton file, whose pairs are joint names."""
    if not isinstance(name, str) or not name:
        raise InputError(f"name is {name!r}; give the skeleton a name.")
    if name.lower() in SKELETONS:
        raise InputError(f"name is {name!r}, which is built in; give the skeleton a name of its own.")
    if not (isinstance(joints, list) and joints and all(isinstance(joint, str) and joint for joint in joints)):
        raise InputError(f"joints is {joints!r:.80}; give a list of names.")
    if not (isinstance(sigmas, list | tuple) and all(type(sigma) in (int, float) for sigma in sigmas)):
        raise InputError(f"sigmas is {sigmas!r:.80}; give a list of numbers, one for each joint.")

    def indices(pairs, field: str) -> list[tuple[int, ...]]:
        for pair in pairs if isinstance(pairs, list | tuple) else [pairs]:
            if not (isinstance(pair, list) and len(pair) == 2 and all(joint in joints for joint in pair)):
                raise InputError(f"{field} has {pair!r:.80}; give pairs of names that are among the joints.")
        return [tuple(map(joints.index, pair)) for pair in pairs]

    if flip_pairs is not None:
        pairs = indices(flip_pairs, "flip_pairs")
    else:
        pairs = flip_pairs_of(joints) if swap is None else indices(swap, "swap")
    return Skeleton(
        name=name,
        joints=joints,
        flip_pairs=pairs,
        edges=indices(edges, "edges") or indices(limbs, "limbs"),
        sigmas=sigmas,
        torso=None if torso is None else indices([torso], "torso")[0],
    )


# Left and right in a joint name: a whole word, the beginning of one (leftfoot), or a capital after a small letter
# (footLeft, footL); l and r alone only (l_foot, foot_l, LFoot).
SIDES = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
OTHER_SIDE = SIDES | {right: left for left, right in SIDES.items()}
_SIDE = re.compile(
    r"(?<![A-Za-z])(?:left|right|Left|Right|LEFT|RIGHT|[lrLR](?![A-Za-z])|[lrLR](?=[A-Z][a-z]))"
    r"|(?<=[a-z])(?:Left|Right|[LR](?![a-z]))"
)


def side_of(joint: str) -> str | None:
    """``"left"`` or ``"right"``, as the joint's name says; None if it says neither or both."""
    sides = {word.lower()[0] for word in _SIDE.findall(joint)}
    return {"l": "left", "r": "right"}[sides.pop()] if len(sides) == 1 else None


def flip_pairs_of(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Index pairs of joints whose names differ in left and right only."""
    flipped = [_SIDE.sub(lambda word: OTHER_SIDE[word[0]], joint) for joint in joints]
    return tuple((i, joints.index(name)) for i, name in enumerate(flipped) if name in joints[i + 1 :])


# Spellings of one joint, as `canonical` leaves them.
ALIASES = {
    "top_head": "head_top",
    "head_tip": "head_top",
    "headtop": "head_top",
    "top_of_head": "head_top",
    "crown": "head_top",
}

# Joints that sound alike and are labelled at other places of the body: never taken for each other.
NOT_THE_SAME = {
    "upper_neck": "MPII's upper neck is below the chin, LSP's neck between the collarbones",
    "thorax": "MPII's thorax is the middle of the shoulders' line, LSP's neck above it",
    "pelvis": "no other data set labels the middle between the hips",
    "head": "the middle of a head is neither nose nor head top",
    "hand": "a hand's middle is beyond the wrist",
    "foot": "a foot's middle is beyond the ankle",
    "heel": "a heel is below the ankle",
    "toe": "a toe is beyond the ankle",
}


def canonical(joint: str) -> str:
    """A joint's name in one spelling: ``LShoulder``, ``shoulder.l``, ``Left Shoulder`` are ``left_shoulder``."""
    side = side_of(joint)
    rest = _SIDE.sub(" ", joint) if side else joint
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", rest)
    name = "_".join(map(str.lower, words)) if joint.isascii() else rest.strip().lower()
    return f"{side}_{name}" if side else ALIASES.get(name, name)


def joint_map(source: Skeleton, target: Skeleton) -> tuple[int, ...]:
    """For each joint of the target the index of the same joint in the source, -1 if the source has none.

    Joints are the same if they have the same name (`canonical`): then all data sets known here label the same place.
    `NOT_THE_SAME` lists those that do not.

    Raises:
        InputError: two joints of one skeleton have the same name in one spelling.
    """
    if source.joints == target.joints:
        return tuple(range(target.num_joints))
    places = {}
    for skeleton in (source, target):
        places[skeleton] = {}
        for index, joint in enumerate(skeleton.joints):
            other = places[skeleton].setdefault(canonical(joint), index)
            if other != index:
                raise InputError(
                    f"Skeleton {skeleton.name!r} has {skeleton.joints[other]!r} and {joint!r}, which are one name in "
                    "two spellings; rename one of them."
                )
    return tuple(places[source].get(canonical(joint), -1) for joint in target.joints)


def for_joint_count(num_joints: int) -> Skeleton:
    """The built-in skeleton of that size (17 COCO, 16 MPII, 14 LSP, 19 body19), else numbered joints without pairs."""
    for skeleton in SKELETONS.values():
        if skeleton.num_joints == num_joints:
            return skeleton
    return Skeleton(name=f"joints{num_joints}", joints=tuple(f"joint_{i}" for i in range(num_joints)))
