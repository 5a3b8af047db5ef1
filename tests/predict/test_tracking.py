"""Tracking of figures that move, whose truth is exact: people keep their numbers, joints tremble less."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from keras_mrpose.predict import tracking
from keras_mrpose.predict.results import Pose, nobody
from keras_mrpose.predict.tracking import OneEuroFilter, Tracker
from keras_mrpose.skeletons import COCO

# A standing person, in statures: COCO's joints around the middle of the body.
BODY = np.array(
    [
        (0, -0.45), (0.02, -0.47), (-0.02, -0.47), (0.05, -0.46), (-0.05, -0.46), (0.12, -0.32), (-0.12, -0.32),
        (0.16, -0.15), (-0.16, -0.15), (0.17, 0), (-0.17, 0), (0.08, 0), (-0.08, 0), (0.09, 0.25), (-0.09, 0.25),
        (0.1, 0.48), (-0.1, 0.48),
    ]
)  # fmt: skip
SWING = {7: 0.08, 9: 0.16, 8: -0.08, 10: -0.16, 13: -0.08, 15: -0.2, 14: 0.08, 16: 0.2}  # of elbows, wrists, knees


def figure(x, y, stature, phase=0.0):
    """Joints ``(17, 2)`` of somebody who walks."""
    body = BODY.copy()
    for joint, width in SWING.items():
        body[joint, 0] += width * np.sin(phase)
    return stature * body + (x, y)


def crossing(fps, stature, pace, seconds=3.0):
    """Joints ``(frames, 2, 17, 2)`` of two who pass each other, with so many statures a second each."""
    time = np.arange(round(fps * seconds)) / fps
    along = pace * stature * (time - seconds / 2)
    return np.array(
        [
            [figure(400 + d, 300, stature, 6 * t), figure(400 - d, 310, 0.95 * stature, 6 * t + 1)]
            for d, t in zip(along, time, strict=True)
        ]
    )


def boxed(joints, scores=0.8, **about):
    """`Pose` of people ``(n, 17, 2)``, in boxes around their joints."""
    joints = np.reshape(joints, (-1, 17, 2))
    low, high = joints.min(axis=1, initial=1e9), joints.max(axis=1, initial=-1e9)
    margin = 0.1 * (high - low)
    boxes = np.concatenate([low - margin, high - low + 2 * margin], axis=1)
    keypoints = np.concatenate([joints, np.full((*joints.shape[:2], 1), scores)], axis=2)
    return Pose(keypoints, boxes, np.ones(len(joints)), COCO, **about)


def switches(truth, fps, noise=0.0, missed=0.0, hidden=0.0, seed=0):
    """How often a person's number changes, and how many numbers there are.

    Args:
        truth: ``(frames, people, 17, 2)``.
        fps: frames a second.
        noise: of each joint, in statures.
        missed: share of the frames in which somebody is not found.
        hidden: statures from the first person within which the second is not seen.
        seed: of the noise.
    """
    rng, tracker = np.random.default_rng(seed), Tracker()
    before, changes, numbers = {}, 0, set()
    for frame, people in enumerate(truth):
        stature = np.ptp(people[0, :, 1])
        seen = [
            person
            for person in rng.permutation(len(people))
            if rng.random() >= missed
            and not (person == 1 and abs(people[0, 11, 0] - people[1, 11, 0]) < hidden * stature)
        ]
        joints = people[seen] + rng.normal(0, noise * stature, people[seen].shape)
        found = tracker.update(boxed(joints), frame / fps)
        for person, number in zip(seen, found.track_ids.tolist(), strict=True):
            changes += before.get(person, number) != number
            before[person] = number
            numbers.add(number)
    return changes, len(numbers)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [10, 25])
@pytest.mark.parametrize("pace", [0.75, 2.0])
def test_who_pass_each_other_keep_their_numbers(pace, fps):
    """Walkers and runners, with joints that are off by 1 % of the stature (COCO's annotators: about 2 %)."""
    for seed in range(3):
        assert switches(crossing(fps, 200, pace), fps, noise=0.01, seed=seed) == (0, 2)


def test_who_is_hidden_behind_somebody_keeps_the_number():
    """And is missed in every tenth frame, with three times the noise; of 8 sequences at most one fails."""
    truth = crossing(25, 200, 2.0)
    runs = [switches(truth, 25, noise=0.03, missed=0.1, hidden=0.15, seed=seed) for seed in range(8)]
    assert sum(changes > 0 for changes, _ in runs) <= 1
    assert all(count == 2 for _, count in runs)


def test_without_speed_they_would_change(monkeypatch):
    """What the expected place is for: without it the sequence of above has changes."""
    monkeypatch.setattr(tracking, "_speed", lambda track, found, time: None)
    assert sum(switches(crossing(25, 200, 2.0), 25, noise=0.01, seed=seed)[0] for seed in range(3)) > 0


def test_the_most_similar_pair_first_is_as_good_as_the_best_assignment(monkeypatch):
    """Here, with two people, it changes nothing; the best assignment takes SciPy."""

    def best(similarity):
        table = np.array(similarity, np.float64)
        if not table.size:
            return {}
        rows, columns = linear_sum_assignment(table * (table >= tracking.MIN_SIMILARITY), maximize=True)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {row: column for row, column in pairs if table[row, column] >= tracking.MIN_SIMILARITY}

    def changes():
        truth = crossing(10, 200, 2.0)
        return sum(switches(truth, 10, noise=0.03, missed=0.1, hidden=0.15, seed=seed)[0] for seed in range(4))

    greedy = changes()
    monkeypatch.setattr(tracking, "_pairs", best)
    assert greedy <= changes() + 2


def numbers_of(times, places, tracker=None):
    """Numbers of somebody who stands at places ``(frames, 2)`` at these times; None: nobody is found."""
    tracker, found = tracker or Tracker(), []
    for time, place in zip(times, places, strict=True):
        pose = nobody(COCO) if place is None else boxed([figure(*place, 200)])
        found.append(tracker.update(pose, time).track_ids.tolist())
    return found


def test_who_comes_back_within_a_second_keeps_the_number():
    def away(seconds):
        times = [0, 0.04, 0.08, *np.arange(0.12, 0.08 + seconds, 0.04), 0.08 + seconds]
        places = [(300, 200)] * 3 + [None] * (len(times) - 4) + [(310, 200)]
        return numbers_of(times, places)[-1]

    assert away(0.5) == away(0.98) == [0]
    assert away(1.02) == away(3) == [1]


def test_who_turns_back_out_of_sight_keeps_the_number():
    """Out of the image to the right, and in again."""
    times = np.arange(30) * 0.04
    x = 600 + 150 * np.minimum(times, 1.16 - times)
    places = [(x, 200) if x < 650 else None for x in x]
    found = numbers_of(times, places)
    assert None in places and {number for numbers in found for number in numbers} == {0}


def test_others_get_numbers_of_their_own():
    tracker = Tracker()
    people = [figure(x, 300, 200) for x in (100, 300, 500)]
    assert tracker.update(boxed(people[:2]), 0.0).track_ids.tolist() == [0, 1]
    assert tracker.update(boxed(people[::-1]), 0.04).track_ids.tolist() == [2, 1, 0]
    assert tracker.update(boxed(people[1:]), 0.08).track_ids.tolist() == [1, 2]
    assert tracker.update(nobody(COCO), 0.12).track_ids.shape == (0,)
    assert tracker.update(boxed([figure(900, 300, 200)]), 0.16).track_ids.tolist() == [3]  # nobody was there


def test_boxes_alone_when_joints_are_unlikely():
    tracker = Tracker()
    tracker.update(boxed([figure(100, 300, 200), figure(300, 300, 200)], scores=0.1), 0.0)
    found = tracker.update(boxed([figure(302, 300, 200), figure(98, 300, 200)], scores=0.1), 0.04)
    assert found.track_ids.tolist() == [1, 0]


def test_what_a_pose_has_stays():
    pose = boxed([figure(100, 300, 200)], source="a.mp4", frame=3)
    found = Tracker().update(pose, 0.0)
    np.testing.assert_array_equal(found.keypoints, pose.keypoints)
    assert (found.source, found.frame, pose.track_ids) == ("a.mp4", 3, None)


# --- smoothing --------------------------------------------------------------------------------------------------------


def by_loops(points, scores, times, size, min_cutoff, beta, speed_cutoff):
    """The filter written out for single numbers, after the paper; the score weighs what is taken of each value."""

    def share(cutoff, step):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau / step)

    out = np.zeros_like(points)
    for joint in range(points.shape[1]):
        place, speed = points[0, joint].copy(), np.zeros(2)
        out[0, joint] = place
        for frame in range(1, len(points)):
            step, weight = times[frame] - times[frame - 1], scores[frame, joint]
            for axis in (0, 1):
                now = (points[frame, joint, axis] - place[axis]) / step
                speed[axis] = speed[axis] + weight * share(speed_cutoff, step) * (now - speed[axis])
            cutoff = min_cutoff + beta * (speed[0] ** 2 + speed[1] ** 2) ** 0.5 / size
            for axis in (0, 1):
                place[axis] += weight * share(cutoff, step) * (points[frame, joint, axis] - place[axis])
            out[frame, joint] = place
    return out


def test_one_euro_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.2, 30))
    points, scores = np.cumsum(rng.normal(0, 8, (30, 4, 2)), axis=0), rng.uniform(0, 1, (30, 4))
    smooth = OneEuroFilter(1.2, 3.0, 0.8)
    found = [smooth(*frame, time, 90.0) for *frame, time in zip(points, scores, times, strict=True)]
    np.testing.assert_allclose(found, by_loops(points, scores, times, 90.0, 1.2, 3.0, 0.8), atol=1e-9)


def test_a_score_of_zero_keeps_the_place():
    smooth, points = OneEuroFilter(), np.array([[10.0, 20], [30, 40]])
    smooth(points, np.ones(2), 0.0)
    found = smooth(points + 50, np.array([0.0, 1]), 0.04)
    np.testing.assert_array_equal(found[0], points[0])
    assert (found[1] > points[1] + 10).all()
    np.testing.assert_array_equal(points, [[10, 20], [30, 40]])


def test_a_box_that_changes_moves_no_joint():
    """The body's size scales the speed alone."""
    tracker, joints = Tracker(), figure(5000, 300, 200)
    pose = boxed([joints])
    for frame in range(20):
        pose.boxes[0, 2:] = (100 + 30 * (frame % 2), 220)
        found = tracker.update(pose, frame / 25)
        np.testing.assert_allclose(found.keypoints, pose.keypoints, atol=1e-9)


def jitter(points):
    """Mean length of the second difference, ``(frames, joints, 2)``: motion at a steady speed has none."""
    return np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean()


def smoothed(truth, fps, noise, seed=0):
    """Joints ``(frames, 17, 2)`` of one person, as measured and as smoothed; noise in pixels."""
    rng, tracker = np.random.default_rng(seed), Tracker()
    measured = truth + rng.normal(0, noise, truth.shape)
    found = [tracker.update(boxed([joints]), frame / fps).keypoints[0] for frame, joints in enumerate(measured)]
    return measured, np.array(found)[..., :2]


def test_a_still_joint_trembles_less():
    """Noise of 1 % of the stature: 0.4 of it from frame to frame, 0.6 of the places' scatter."""
    truth = np.tile(figure(300, 300, 200), (75, 1, 1))
    measured, found = smoothed(truth, 25, noise=2.0)
    assert jitter(found[25:]) < 0.4 * jitter(measured[25:])
    assert np.std(found[25:] - truth[25:]) < 0.65 * np.std(measured[25:] - truth[25:])


def test_a_joint_that_swings_is_followed():
    """Wrists, 0.2 statures to and fro as in walking, with 1.5 times the error of the measurement; with the paper's
    speed cutoff of 1 Hz it would be three times.
    """
    phase = 2 * np.pi * 0.75 * np.arange(100) / 25
    truth = np.tile(figure(300, 300, 200), (100, 1, 1))
    truth[:, 9:11, 0] += 0.2 * 200 * np.sin(phase)[:, None]
    measured, found = smoothed(truth, 25, noise=2.0)
    errors = [np.sqrt(np.mean((points - truth)[25:, 9:11] ** 2)) for points in (found, measured)]
    assert errors[0] < 1.7 * errors[1]


@pytest.mark.parametrize("pace", [1.0, 3.0])
def test_a_fast_joint_hardly_lags(pace):
    """A filter that takes the share a of each new value is late by v step (1 - a) / a.

    a is the score times 1 / (1 + 1 / (2 pi cutoff step)), and the cutoff is above beta v / size, so that this is less
    than (size / (2 pi beta) + v step (1 - score)) / score.
    """
    fps, score, smooth, speed = 25, 0.8, OneEuroFilter(), pace * 200
    truth = np.array([figure(100 + speed * frame / fps, 300, 200) for frame in range(75)])
    _, found = smoothed(truth, fps, noise=0.0)
    size = np.sqrt(np.prod(boxed([truth[0]]).boxes[0, 2:]))
    late = truth[50:, :, 0] - found[50:, :, 0]
    bound = (size / (2 * np.pi * smooth.beta) + speed / fps * (1 - score)) / score
    assert late.min() > 0 and late.max() < bound
    assert bound < 0.05 * 200  # of the stature, also of a runner


def test_smoothing_can_be_left_out():
    pose, tracker = boxed([figure(100, 300, 200)]), Tracker(smooth=False)
    tracker.update(pose, 0.0)
    moved = boxed([figure(110, 300, 200)])
    np.testing.assert_array_equal(tracker.update(moved, 0.04).keypoints, moved.keypoints)
