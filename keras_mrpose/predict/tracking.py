"""From frame to frame: people keep their numbers, and keypoints are smoothed.

- `Tracker` gives people of one frame the numbers that they had in the frames before.
- `OneEuroFilter` smooths coordinates: strongly where they rest, hardly where they move fast.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from keras_mrpose.nms import pair_oks
from keras_mrpose.predict.predictor import overlap
from keras_mrpose.predict.results import JOINT_THRESHOLD, Pose

MIN_SIMILARITY = 0.3  # of two people who may be one; of strangers beside each other it is below 0.1
MEMORY = 1.0  # seconds that somebody may be out of sight and keep the number


@dataclass
class _Track:
    number: int
    keypoints: np.ndarray
    box: np.ndarray
    time: float
    filter: OneEuroFilter


class Tracker:
    """Numbers for people in the frames of a video.

    A person of a frame is the one of before whose keypoints and box are most alike: the mean of OKS (over joints that
    are likely in both) and of the boxes' overlap, the most similar pair first. Who is not found keeps the number for a
    second.

    Args:
        smooth: filter keypoints with `OneEuroFilter`, weighted by their scores.
        memory: seconds that somebody may be out of sight.
    """

    def __init__(self, smooth: bool = True, memory: float = MEMORY):
        self.smooth, self.memory = smooth, memory
        self._tracks: list[_Track] = []
        self._next = 0

    def update(self, pose: Pose, time: float) -> Pose:
        """The people of the next frame with `track_ids`, and smoothed.

        Args:
            pose: of the frame.
            time: of the frame in seconds, later than the one before.
        """
        self._tracks = [track for track in self._tracks if time - track.time <= self.memory]
        similarity = np.array(
            [[self._similarity(pose, row, track) for track in self._tracks] for row in range(len(pose))]
        )
        taken: dict[int, _Track] = {}
        left = similarity.reshape(len(pose), len(self._tracks)).copy()
        while left.size and left.max() >= MIN_SIMILARITY:
            row, column = np.unravel_index(left.argmax(), left.shape)
            taken[int(row)] = self._tracks[column]
            left[row], left[:, column] = -1, -1
        keypoints = pose.keypoints.copy()
        for row in range(len(pose)):
            track = taken.get(row)
            if track is None:
                track = _Track(self._next, keypoints[row], pose.boxes[row], time, OneEuroFilter())
                self._next += 1
                self._tracks.append(track)
                taken[row] = track
            if self.smooth:
                size = max(float(np.sqrt(np.prod(pose.boxes[row, 2:]))), 1.0)
                keypoints[row, :, :2] = track.filter(keypoints[row, :, :2], keypoints[row, :, 2], time, size)
            track.keypoints, track.box, track.time = keypoints[row], pose.boxes[row], time
        numbers = np.array([taken[row].number for row in range(len(pose))], np.int64)
        return replace(pose, keypoints=keypoints, track_ids=numbers)

    def _similarity(self, pose: Pose, row: int, track: _Track) -> float:
        both = (pose.keypoints[row, :, 2] >= JOINT_THRESHOLD) & (track.keypoints[:, 2] >= JOINT_THRESHOLD)
        boxes = float(overlap(pose.boxes[row], track.box))
        if both.sum() < 3:
            return boxes
        area = np.array((np.prod(pose.boxes[row, 2:]) + np.prod(track.box[2:])) / 2)
        sigmas = np.array(pose.skeleton.sigmas)[both] * 2  # people move between two frames
        oks = pair_oks(track.keypoints[both], pose.keypoints[row, both], area, sigmas)
        return (float(oks) + boxes) / 2


class OneEuroFilter:
    """A low-pass filter whose cutoff rises with the speed: still joints do not tremble, fast ones do not lag.

    A keypoint's score weighs its measurement: one with a score of 0 stays where it was.

    Args:
        min_cutoff: Hz, of a joint at rest; lower is smoother.
        beta: Hz for a speed of one body size a second; higher lags less.
        speed_cutoff: Hz, of the filter of the speed.

    Source: Casiez, Roussel and Vogel, CHI 2012, *1 Euro Filter*.
    """

    def __init__(self, min_cutoff: float = 1.5, beta: float = 6.0, speed_cutoff: float = 1.0):
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self._time = self._points = self._speed = None

    def __call__(self, points: np.ndarray, scores: np.ndarray, time: float, size: float = 1.0) -> np.ndarray:
        """Smoothed points.

        Args:
            points: ``(joints, 2)``.
            scores: ``(joints,)`` 0..1.
            time: in seconds, later than the one before.
            size: of the body, in the points' unit. It scales the speed alone: a box that changes moves no joint.
        """
        if self._points is None or time <= self._time:
            self._time, self._points, self._speed = time, points.copy(), np.zeros_like(points)
            return points.copy()
        step = time - self._time
        weight = np.clip(scores, 0, 1)[:, None]
        speed = (points - self._points) / step
        self._speed += weight * _share(step, self.speed_cutoff) * (speed - self._speed)
        cutoff = self.min_cutoff + self.beta * np.linalg.norm(self._speed, axis=1, keepdims=True) / size
        self._points += weight * _share(step, cutoff) * (points - self._points)
        self._time = time
        return self._points.copy()


def _share(step: float, cutoff):
    """How much of a new value a first-order low-pass filter takes."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
