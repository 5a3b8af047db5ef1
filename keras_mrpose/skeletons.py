"""Which joints a data set has: names, left/right pairs, limbs, and how precisely people can label each."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from keras_mrpose.errors import InputError


@dataclass(frozen=True)
class Skeleton:
    """The joints of a data set, in its own order.

    Sequences become tuples, so that a skeleton can be compared, hashed and read back from JSON. A name or an index
    that cannot be is an `InputError`.

    Args:
        name: short name, for example ``"coco"``.
        joints: joint names in the order of the data set. "left" and "right" are the person's own.
        swap_pairs: index pairs that change places when an image is mirrored.
        limbs: index pairs that a drawing connects.
        sigmas: per joint, the OKS constant of the COCO protocol (standard deviation of human labels as a
            fraction of the square root of the person's area).
    """

    name: str
    joints: tuple[str, ...]
    swap_pairs: tuple[tuple[int, int], ...] = ()
    limbs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.joints)
        object.__setattr__(self, "joints", tuple(self.joints))
        object.__setattr__(self, "sigmas", tuple(self.sigmas) or (0.05,) * count)
        for field in ("swap_pairs", "limbs"):
            object.__setattr__(self, field, tuple(tuple(pair) for pair in getattr(self, field)))
            for pair in getattr(self, field):
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
        swapped = [joint for pair in self.swap_pairs for joint in pair]
        if len(set(swapped)) != len(swapped):
            raise InputError(
                f"Skeleton {self.name!r}: swap_pairs {self.swap_pairs} has a joint twice; it swaps with one other."
            )

    @property
    def num_joints(self) -> int:
        """Number of joints."""
        return len(self.joints)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each joint, the index of the joint that it becomes in a mirrored image."""
        order = list(range(self.num_joints))
        for left, right in self.swap_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @property
    def torso(self) -> tuple[int, int] | None:
        """Indices of right hip and left shoulder, whose distance PCK divides by; None if there are no such joints."""
        if {"right_hip", "left_shoulder"} <= set(self.joints):
            return self.joints.index("right_hip"), self.joints.index("left_shoulder")
        return None

    def to_dict(self) -> dict:
        """Strings, numbers and tuples (lists in JSON), for files and saved models."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Skeleton:
        """The inverse of `to_dict`, also after a way through JSON."""
        return cls(**values)


COCO = Skeleton(
    name="coco",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    swap_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    limbs=(
        (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12),
        (11, 13), (13, 15), (12, 14), (14, 16),
    ),
    # cocodataset.org, keypoint evaluation
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
        0.089, 0.089,
    ),
)  # fmt: skip

# MPII and LSP publish no OKS constants: limbs take COCO's; pelvis, thorax, neck and head top take the shoulder's.
MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    swap_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    limbs=(
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
    swap_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    limbs=(
        (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 12), (9, 12), (9, 10), (10, 11), (12, 13),
        (2, 8), (3, 9),
    ),
    sigmas=(
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079,
    ),
)  # fmt: skip

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO, MPII, LSP)}


def get(skeleton: str | Skeleton) -> Skeleton:
    """The skeleton of that name (``"coco"``, ``"mpii"``, ``"lsp"``), or the given one itself."""
    if isinstance(skeleton, Skeleton):
        return skeleton
    try:
        return SKELETONS[skeleton.lower()]
    except (KeyError, AttributeError):
        raise InputError(
            f"Unknown skeleton {skeleton!r}; give one of {', '.join(SKELETONS)} or a keras_mrpose.Skeleton."
        ) from None


def for_joint_count(num_joints: int) -> Skeleton:
    """The known skeleton of that size (17 COCO, 16 MPII, 14 LSP), else numbered joints without pairs and limbs."""
    for skeleton in SKELETONS.values():
        if skeleton.num_joints == num_joints:
            return skeleton
    return Skeleton(name=f"joints{num_joints}", joints=tuple(f"joint_{i}" for i in range(num_joints)))
