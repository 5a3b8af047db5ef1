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

MIN_SIMILARITY = 0.2  # of two people who may be one; of strangers beside each other it is below 0.1
MEMORY = 1.0  # seconds that somebody may be out of sight and keep the number
REACH = 2.0  # body sizes a second that a joint may be away from where it is expected
SHORT = 0.25  # seconds: of a longer absence only so much counts for the reach; who was away may have turned back
PACE = 0.2  # seconds over which the speed of a body is averaged


@dataclass
class _Track:
    number: int
    keypoints: np.ndarray  # as they were found, before smoothing
    box: np.ndarray
    time: float
    speed: np.ndarray | None  # (2,) pixels a second of the whole body; None after one frame
    filter: OneEuroFilter


class Tracker:
    """Numbers for people in the frames of a video.

    A person of a frame is the one of before who should be there by now, walking on as before: whose keypoints and box
    are most alike, by the mean of OKS (over joints that are likely in both) and of the boxes' overlap, the most similar
    pair first. Who is not found keeps the number for a second.

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
        taken = _pairs(
            [[self._similarity(pose, row, track, time) for track in self._tracks] for row in range(len(pose))]
        )
        keypoints, numbers = pose.keypoints.copy(), []
        for row, (found, box) in enumerate(zip(pose.keypoints, pose.boxes, strict=True)):
            if row in taken:
                track = self._tracks[taken[row]]
                track.speed = _speed(track, found, time)
            else:
                track = _Track(self._next, found, box, time, None, OneEuroFilter())
                self._next += 1
                self._tracks.append(track)
            track.keypoints, track.box, track.time = found, box, time
            numbers.append(track.number)
            if self.smooth:
                keypoints[row, :, :2] = track.filter(found[:, :2], found[:, 2], time, _size(box))
        return replace(pose, keypoints=keypoints, track_ids=np.array(numbers, np.int64))

    def _similarity(self, pose: Pose, row: int, track: _Track, time: float) -> float:
        """0..1, how much a person of this frame is like somebody of before."""
        away = time - track.time
        moved = [np.zeros(2) if track.speed is None else track.speed * away]
        if away > SHORT:
            moved.append(np.zeros(2))
        found, box = pose.keypoints[row], pose.boxes[row]
        both = (found[:, 2] >= JOINT_THRESHOLD) & (track.keypoints[:, 2] >= JOINT_THRESHOLD)
        area = np.array((np.prod(box[2:]) + np.prod(track.box[2:])) / 2)
        sigmas = np.hypot(pose.skeleton.sigmas, REACH / 2 * min(away, SHORT))[both]
        best = 0.0
        for shift in moved:
            overlapping = float(overlap(box, track.box + np.append(shift, (0, 0))))
            oks = pair_oks(track.keypoints[both, :2] + shift, found[both], area, sigmas) if both.sum() > 2 else None
            best = max(best, overlapping if oks is None else (float(oks) + overlapping) / 2)
        return best


def _pairs(similarity: list[list[float]]) -> dict[int, int]:
    """Column of each row that has one, the most similar pair first."""
    left, pairs = np.array(similarity, np.float64), {}
    while left.size and left.max() >= MIN_SIMILARITY:
        row, column = np.unravel_index(left.argmax(), left.shape)
        pairs[int(row)] = int(column)
        left[row], left[:, column] = -1, -1
    return pairs


def _size(box: np.ndarray) -> float:
    return max(float(np.sqrt(np.prod(box[2:]))), 1.0)


def _speed(track: _Track, found: np.ndarray, time: float) -> np.ndarray | None:
    """How fast a body moves after it is found again, averaged over what was before."""
    both = (found[:, 2] >= JOINT_THRESHOLD) & (track.keypoints[:, 2] >= JOINT_THRESHOLD)
    if not both.any() or time <= track.time:
        return track.speed
    speed = np.median(found[both, :2] - track.keypoints[both, :2], axis=0) / (time - track.time)
    if track.speed is None:
        return speed
    return track.speed + (1 - np.exp((track.time - time) / PACE)) * (speed - track.speed)


class OneEuroFilter:
    """A low-pass filter whose cutoff rises with the speed: still joints do not tremble, fast ones do not lag.

    A keypoint's score weighs its measurement: one with a score of 0 stays where it was.

    Args:
        min_cutoff: Hz, of a joint at rest; lower is smoother.
        beta: Hz for a speed of one body size a second; higher lags less.
        speed_cutoff: Hz, of the filter of the speed.

    The defaults leave 0.4 of what a still joint trembles from frame to frame, and follow a wrist that swings as in
    walking with 1.5 times the error of the measurement (25 frames a second, noise of 1 % of the stature).

    Source: Casiez, Roussel and Vogel, CHI 2012, *1 Euro Filter*.
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 12.0, speed_cutoff: float = 4.0):
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
