"""The bodies of drawn people: a 3-D skeleton with bone lengths and joint angles, posed at random and projected.

Body axes: x to the person's own left, y up, z forward; lengths in statures (a standing person is 1 high).
Image axes: x right, y down, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np

from keras_mrpose import skeletons

POINTS = (
    *skeletons.COCO.joints, "neck", "head", "left_waist", "right_waist", "left_hand", "right_hand", "left_toe",
    "right_toe",
)  # fmt: skip
AT = {name: i for i, name in enumerate(POINTS)}

# Where the face lies on the head, in semi-axes (left, up, forward); the nose and the ears stand out a little.
FACE = {
    "nose": (0.0, -0.12, 1.08),
    "left_eye": (0.40, 0.16, 0.90),
    "right_eye": (-0.40, 0.16, 0.90),
    "left_ear": (1.04, 0.0, -0.05),
    "right_ear": (-1.04, 0.0, -0.05),
}
VIEW_DISTANCE = 6.0  # statures from the viewer to the hips: a slight perspective


@dataclass(frozen=True)
class Figure:
    """One posed body.

    Args:
        points: (25, 3) float64, the places of `POINTS` in image axes, statures, the middle of the hips at 0.
        head: (3, 3), the head's semi-axes left, up and forward as columns, in image axes and statures.
        girth: factor on all radii.
        sits: whether the pose asks for something to sit on.
    """

    points: np.ndarray
    head: np.ndarray
    girth: float
    sits: bool

    @property
    def depth(self) -> np.ndarray:
        """(25,) how much nearer to the viewer than the hips each point is, in statures."""
        return self.points[:, 2]

    @property
    def zoom(self) -> np.ndarray:
        """(25,) how much larger than at the hips the perspective shows each point."""
        return VIEW_DISTANCE / (VIEW_DISTANCE - self.points[:, 2])

    @property
    def facing(self) -> np.ndarray:
        """(3,) how much the head's left, up and forward directions point at the viewer, -1..1."""
        return (self.head / np.linalg.norm(self.head, axis=0))[2]

    def project(self, stature: float) -> np.ndarray:
        """(25, 2) places in pixels relative to the middle of the hips, for a body `stature` pixels high."""
        return self.points[:, :2] * (stature * self.zoom)[:, None]


def turn(axis: int, degrees: float) -> np.ndarray:
    """(3, 3) rotation about body axis 0, 1 or 2 (right-handed)."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    if axis == 0:
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == 1:
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def sample(rng: np.random.Generator) -> Figure:
    """A random body in a random pose, seen from a random side."""
    u, n = rng.uniform, rng.normal
    bone = np.exp(n(0, 0.05, 9))  # individual bone lengths
    pose = rng.choice(("stand", "walk", "lunge", "crouch", "sit"), p=(0.42, 0.34, 0.08, 0.07, 0.09))
    p: dict[str, np.ndarray] = {}

    lean = {"crouch": u(10, 45), "sit": u(-5, 25), "lunge": u(0, 30)}.get(pose, n(3, 8))
    loin = turn(2, n(0, 4)) @ turn(0, lean / 2)
    spine = turn(2, n(0, 6)) @ turn(0, lean) @ turn(1, n(0, 10))
    waist = loin @ (0, 0.11 * bone[0], 0)
    p["neck"] = waist + spine @ (0, 0.205 * bone[1], 0)
    skull = spine @ turn(1, n(0, 18)) @ turn(0, n(-0.6 * lean, 9)) @ turn(2, n(0, 6))
    p["head"] = p["neck"] + skull @ (0, 0.086, 0.012)
    head = skull * (np.array((0.053, 0.072, 0.062)) * bone[2])
    for name, place in FACE.items():
        p[name] = p["head"] + head @ place

    legs, arms = _leg_angles(rng, pose), (_arm_angles(rng), _arm_angles(rng))
    swap = 1 if u() < 0.5 else -1  # which leg is ahead
    for side, s in (("left", 1), ("right", -1)):
        p[f"{side}_hip"] = np.array((0.060 * s * bone[3], 0, 0))
        p[f"{side}_waist"] = waist + loin @ (0.045 * s, 0, 0)
        flexion, spread, knee, ankle = legs[0 if s == swap else 1]
        thigh = turn(2, s * spread) @ turn(0, -flexion)
        shin = thigh @ turn(0, knee)
        p[f"{side}_knee"] = p[f"{side}_hip"] + thigh @ (0, -0.245 * bone[4], 0)
        p[f"{side}_ankle"] = p[f"{side}_knee"] + shin @ (0, -0.240 * bone[5], 0)
        p[f"{side}_toe"] = p[f"{side}_ankle"] + shin @ turn(0, -ankle) @ turn(1, s * 12) @ (0, -0.025, 0.10)
        flexion, spread, twist, elbow = arms[0 if s == 1 else 1]
        upper = spine @ turn(2, s * spread) @ turn(0, -flexion)
        fore = upper @ turn(1, -s * twist) @ turn(0, -elbow)
        p[f"{side}_shoulder"] = waist + spine @ (0.112 * s * bone[6], 0.19 * bone[1], 0)
        p[f"{side}_elbow"] = p[f"{side}_shoulder"] + upper @ (0, -0.165 * bone[7], 0)
        p[f"{side}_wrist"] = p[f"{side}_elbow"] + fore @ (0, -0.150 * bone[8], 0)
        p[f"{side}_hand"] = p[f"{side}_wrist"] + fore @ (0, -0.035, 0)

    view = np.diag((1.0, -1.0, 1.0)) @ turn(0, u(-5, 20)) @ turn(2, n(0, 4)) @ turn(1, _yaw(rng))
    points = np.stack([p[name] for name in POINTS]) @ view.T
    return Figure(points, view @ head, girth=u(1.0, 1.35), sits=pose == "sit")


def _yaw(rng: np.random.Generator) -> float:
    """Degrees about the vertical: 0 faces the viewer, 180 shows the back, +-90 a profile."""
    middle, spread = ((0, 24), (180, 24), (90, 20), (-90, 20))[int(np.searchsorted((0.82, 0.94, 0.97), rng.random()))]
    return rng.normal(middle, spread)


def _leg_angles(rng: np.random.Generator, pose: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(hip flexion, spread, knee flexion, ankle flexion) in degrees of the leading and of the trailing leg."""
    u = rng.uniform
    if pose == "stand":
        return tuple((u(-4, 10), u(0, 14), u(0, 12), 0.0) for _ in range(2))
    if pose == "walk":
        stride = u(12, 38)
        return (stride, u(0, 6), u(2, 25), 0.0), (-0.7 * stride, u(0, 6), u(8, 55), -15.0)
    if pose == "lunge":
        return (u(35, 75), u(0, 25), u(35, 85), 0.0), (u(-35, -5), u(5, 30), u(5, 40), -20.0)
    flexion, knee = (u(55, 95), u(70, 110)) if pose == "crouch" else (u(65, 90), u(60, 95))
    return tuple((flexion + u(-8, 8), u(2, 24), knee + u(-8, 8), knee - flexion + 5) for _ in range(2))


def _arm_angles(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """(shoulder flexion, spread, inward twist, elbow flexion) in degrees of one arm."""
    u, kind = rng.uniform, rng.random()
    if kind < 0.56:  # hanging or swinging
        return rng.normal(5, 18), u(4, 22), u(0, 40), u(2, 50)
    if kind < 0.66:  # hand towards the hip
        return u(-25, 5), u(25, 50), u(50, 90), u(70, 115)
    if kind < 0.76:  # forward
        return u(35, 95), u(0, 25), u(-10, 50), u(5, 100)
    if kind < 0.88:  # sideways
        return u(-10, 20), u(55, 105), u(-95, 40), u(0, 90)
    return u(-10, 30), u(115, 170), u(-90, 30), u(0, 80)  # raised
