"""Joints of the data sets: names, left/right pairs, edges, and how precisely people can label each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from keras_mrpose.errors import InputError, short_message
from keras_mrpose.joint_names import LOWER_BODY, UPPER_BODY, canonical_names, flip_pairs_of, one_sided, sides_and_rests
from keras_mrpose.joint_names import canonical as canonical  # also to be had from here
from keras_mrpose.joint_names import side_of as side_of

# Of a joint that nobody has measured: the middle of COCO's, from 0.025 (eyes) to 0.107 (hips), as ratios go.
DEFAULT_SIGMA = 0.05

# Fields of saved models, as earlier versions called them.
OLD_NAMES = {"swap_pairs": "flip_pairs", "limbs": "edges"}


@dataclass(frozen=True)
class Skeleton:
    """The joints of a data set, in its own order.

    Sequences become tuples, so that a skeleton can be compared, hashed and read back from JSON. A name or an index
    that cannot be is an `InputError`.

    Args:
        name: short name, for example ``"coco"``.
        joints: joint names in the order of the data set. "left" and "right" are the person's own.
        flip_pairs: index pairs that change places when an image is mirrored, ``()`` if each joint stays itself; None:
            those that the names say (`joint_names.flip_pairs_of`).
        edges: index pairs that a drawing connects.
        sigmas: per joint, the OKS constant of the COCO protocol (standard deviation of human labels as a
            fraction of the square root of the person's area); by default `DEFAULT_SIGMA` for each.
        torso: indices of the two joints whose distance PCK divides by; by default ``right_hip`` and ``left_shoulder``
            where there are such joints, else None: then there is no PCK.
        pairs_from_names: whether the pairs are those that the names say, and nobody has given them: then images are
            mirrored only if the names leave no side alone (`check_mirroring`). Set where `flip_pairs` is None.
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = None
    edges: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    torso: tuple[int, int] | None = None
    pairs_from_names: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.joints, str):
            raise InputError(f"Skeleton {self.name!r} has the joints {self.joints!r:.200}; give a list of names.")
        count = len(self.joints)
        object.__setattr__(self, "joints", tuple(self.joints))
        if len(set(self.joints)) != count:
            raise InputError(
                f"Skeleton {self.name!r} has a joint name twice in {self.joints!s:.500}; give each its own."
            )
        object.__setattr__(self, "sigmas", tuple(self.sigmas) or (DEFAULT_SIGMA,) * count)
        if self.flip_pairs is None:
            object.__setattr__(self, "flip_pairs", flip_pairs_of(self.joints))
            object.__setattr__(self, "pairs_from_names", True)
        for name in ("flip_pairs", "edges"):
            object.__setattr__(self, name, tuple(tuple(pair) for pair in getattr(self, name)))
        names = canonical_names(self.joints)
        if self.torso is None and {"right_hip", "left_shoulder"} <= set(names):
            object.__setattr__(self, "torso", (names.index("right_hip"), names.index("left_shoulder")))
        if self.torso is not None:
            object.__setattr__(self, "torso", tuple(self.torso))
        pairs = {"flip_pairs": self.flip_pairs, "edges": self.edges, "torso": (self.torso,) if self.torso else ()}
        for name, those in pairs.items():
            for pair in those:
                if len(pair) != 2 or not all(isinstance(i, int) and 0 <= i < count for i in pair):
                    raise InputError(
                        f"Skeleton {self.name!r}: {name} has {pair}; give pairs of joint indices below {count}."
                    )
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

    @cached_property
    def sides(self) -> tuple[str | None, ...]:
        """For each joint ``"left"`` or ``"right"``, as the names say; None if it is neither."""
        return tuple(side for side, _ in sides_and_rests(self.joints))

    @property
    def upper_body(self) -> tuple[int, ...]:
        """Indices of the joints above the hips, the others are below; empty if a name does not say where it belongs."""
        words = [set(rest.split("_")) for _, rest in sides_and_rests(self.joints)]
        if not all(word & (UPPER_BODY | LOWER_BODY) for word in words):
            return ()
        return tuple(joint for joint, word in enumerate(words) if not word & LOWER_BODY)

    @property
    def one_sided(self) -> tuple[str, ...]:
        """Joints whose name says a side and that have no partner, unless the pairs were given."""
        return one_sided(self.joints) if self.pairs_from_names else ()

    def mirrored(self) -> str:
        """What changes places in a mirrored image, in one line: ``left_eye/right_eye; unchanged: nose``."""
        pairs = ", ".join(f"{self.joints[a]}/{self.joints[b]}" for a, b in self.flip_pairs)
        unchanged = ", ".join(self.joints[joint] for joint, other in enumerate(self.flip_indices) if joint == other)
        return "; ".join(filter(None, (pairs, unchanged and f"unchanged: {unchanged}")))

    def check_mirroring(self, what: str, instead: str) -> None:
        """Raise an `InputError` unless it is known what each joint becomes in a mirrored image.

        It is if the pairs were given (`flip_pairs`, also none at all), or if the names have pairs and no side is left
        over.

        Args:
            what: that mirrors; the message begins with it.
            instead: the argument that does without.
        """
        if not self.pairs_from_names or (self.flip_pairs and not self.one_sided):
            return
        some = ", ".join(self.joints[:3]) + ", ..." * (self.num_joints > 3)
        alone = ", ".join(self.one_sided)
        problem = f"has no other side for {alone}" if alone else f"says of no joint which is left or right ({some})"
        raise InputError(
            f"{what} exchanges left and right, but the skeleton {self.name!r} {problem}; name joints as in left_hip "
            'and right_hip, or list the pairs in a skeleton file ("flip_pairs", [] if no joint changes places), or do '
            f"without: {instead}."
        )

    def to_dict(self) -> dict:
        """Strings, numbers and tuples (lists in JSON), for files and saved models."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Skeleton:
        """The inverse of `to_dict`, also after a way through JSON.

        Field names of earlier versions are accepted. These did not say where pairs came from: none at all may also be
        names that were not understood, and are read anew.
        """
        values = {OLD_NAMES.get(name, name): value for name, value in values.items()}
        if "pairs_from_names" not in values and not values.get("flip_pairs"):
            values["flip_pairs"] = None
        return cls(**values)


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


def list_skeletons() -> list[str]:
    """Names of the built-in skeletons, which `build(..., skeleton=...)` and experiments take."""
    return list(SKELETONS)


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
            ``flip_pairs`` change places in a mirrored image, by default found from the names
            (`joint_names.flip_pairs_of`), [] says that no joint changes;
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
        pairs = None if swap is None else indices(swap, "swap")
    return Skeleton(
        name=name,
        joints=joints,
        flip_pairs=pairs,
        edges=indices(edges, "edges") or indices(limbs, "limbs"),
        sigmas=sigmas,
        torso=None if torso is None else indices([torso], "torso")[0],
    )


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


def joint_map(source: Skeleton, target: Skeleton) -> tuple[int, ...]:
    """For each joint of the target the index of the same joint in the source, -1 if the source has none.

    Joints are the same if they have the same name (`canonical_names`): then all data sets known here label the same
    place. `NOT_THE_SAME` lists those that do not.

    Raises:
        InputError: two joints of one skeleton have the same name in one spelling.
    """
    if source.joints == target.joints:
        return tuple(range(target.num_joints))
    wanted, places = canonical_names(target.joints), {}
    for skeleton in (target, source):
        places = {}
        for index, name in enumerate(canonical_names(skeleton.joints)):
            other = places.setdefault(name, index)
            if other != index:
                raise InputError(
                    f"Skeleton {skeleton.name!r} has {skeleton.joints[other]!r} and {skeleton.joints[index]!r}, which "
                    "are one name in two spellings; rename one of them."
                )
    return tuple(places.get(name, -1) for name in wanted)


def for_joint_count(num_joints: int) -> Skeleton:
    """The built-in skeleton of that size (17 COCO, 16 MPII, 14 LSP, 19 body19), else numbered joints without pairs."""
    for skeleton in SKELETONS.values():
        if skeleton.num_joints == num_joints:
            return skeleton
    return Skeleton(name=f"joints{num_joints}", joints=tuple(f"joint_{i}" for i in range(num_joints)))
