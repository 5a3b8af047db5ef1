"""People whose left and right joints may be exchanged, found from the joints alone.

A full left/right swap without facial keypoints is undetectable: it is the same person seen from behind. Detectable is a
part of the body that contradicts another. The thresholds lie beyond what real poses reach:

- torso: the line between the shoulders and the line between the hips point against each other (more than 127 degrees
  apart, both at least 0.27 torso lengths long). Nobody's spine turns so far; in profile the lines are short.
- face: both eyes are visible (flag 2), so the face looks into the camera, and the left eye is on the left as seen from
  the hips upwards. Heads that hang beside or below the shoulders (more than 60 degrees off the spine) say nothing.
- bones: the two bones between two pairs of joints, such as both forearms, are together more than 2.5 times as long
  as they would be with one pair exchanged. Crossed arms and legs come to 2.
"""

from __future__ import annotations

import numpy as np

from keras_mrpose.joint_names import canonical_names
from keras_mrpose.skeletons import Skeleton

OPPOSED = -0.6  # cosine
BROAD = 0.27  # torso lengths
UPRIGHT = 0.5  # cosine
TURNED = 0.02  # of the squared distance between eyes and shoulders: which way an eye line goes
CROSSED = 2.5
BONES = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))


def suspects(keypoints: np.ndarray, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Which people may have left and right exchanged.

    Args:
        keypoints: ``(people, joints, 3)`` x, y, v.
        skeleton: names the joints; cues whose joints it lacks find nobody.

    Returns:
        Cue -> ``(people,)`` bool.
    """
    body = _Body(keypoints, skeleton)
    cues = {"torso": _torso(body), "face": _face(body)}
    for upper, lower in BONES:
        cues[f"{upper} to {lower}"] = _bones(body, upper, lower)
    return cues


class _Body:
    """Joints by their names, however spelled: ``(people, 2)`` points, and who has all that were asked for."""

    def __init__(self, keypoints: np.ndarray, skeleton: Skeleton):
        self.points, self.flags = keypoints[..., :2], keypoints[..., 2]
        self.rows = {name: row for row, name in enumerate(canonical_names(skeleton.joints))}

    def sides(self, *names: str, least: int = 1) -> tuple[np.ndarray, ...]:
        """Left and right of each name, and who has all of them with this flag; nobody if the skeleton lacks one."""
        rows = [self.rows.get(f"{side}_{name}") for name in names for side in ("left", "right")]
        if None in rows:
            return *np.zeros((len(rows), len(self.flags), 2)), np.zeros(len(self.flags), bool)
        return *self.points[:, rows].transpose(1, 0, 2), (self.flags[:, rows] >= least).all(axis=1)


def _torso(body: _Body) -> np.ndarray:
    left, right, left_hip, right_hip, whole = body.sides("shoulder", "hip")
    shoulders, hips = left - right, left_hip - right_hip
    torso = _length(left + right - left_hip - right_hip) / 2
    broad = np.minimum(_length(shoulders), _length(hips)) > BROAD * torso
    return whole & broad & (_dot(shoulders, hips) < OPPOSED * _length(shoulders) * _length(hips))


def _face(body: _Body) -> np.ndarray:
    left_eye, right_eye, visible = body.sides("eye", least=2)
    left, right, left_hip, right_hip, whole = body.sides("shoulder", "hip")
    down = (left + right - left_eye - right_eye) / 2
    spine = (left_hip + right_hip - left - right) / 2
    upright = _dot(down, spine) > UPRIGHT * _length(down) * _length(spine)
    eyes = left_eye - right_eye
    return visible & whole & upright & (eyes[:, 0] * down[:, 1] - eyes[:, 1] * down[:, 0] < -TURNED * _dot(down, down))


def _bones(body: _Body, upper: str, lower: str) -> np.ndarray:
    left_upper, right_upper, left_lower, right_lower, whole = body.sides(upper, lower)
    as_is = _length(left_upper - left_lower) + _length(right_upper - right_lower)
    exchanged = _length(left_upper - right_lower) + _length(right_upper - left_lower)
    return whole & (as_is > CROSSED * exchanged)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1)


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.hypot(vectors[..., 0], vectors[..., 1])
