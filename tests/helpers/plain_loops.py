"""From heatmaps to reported people as slow, plain loops, one person and one joint after the other, in float64.

The definitions of the published evaluation once more, written apart from the library: what the fast code is compared
with, and what `benchmarks/run.py evaluation` measures it against. NumPy only looks for the maximum of one map and
mirrors one map.
"""

import math

import numpy as np


def merge_flipped(heatmaps, flipped_heatmaps, pairs):
    """Mean of maps and mirrored-back maps moved one column to the right; ``(people, height, width, joints)`` all."""
    merged = np.zeros(heatmaps.shape)
    for n in range(len(heatmaps)):
        for j in range(heatmaps.shape[3]):
            partner = j
            for left, right in pairs:
                if j == left:
                    partner = right
                elif j == right:
                    partner = left
            back = flipped_heatmaps[n, :, ::-1, partner].astype(np.float64)
            moved = back.copy()  # column 0 keeps its own value
            moved[:, 1:] = back[:, :-1]
            merged[n, :, :, j] = (heatmaps[n, :, :, j] + moved) / 2
    return merged


def decode(heatmaps):
    """Peaks plus a quarter pixel ``(people, joints, 2)`` in heatmap pixels, and maxima ``(people, joints)``."""
    people, height, width, joints = heatmaps.shape
    points, scores = np.zeros((people, joints, 2)), np.zeros((people, joints))
    for n in range(people):
        for j in range(joints):
            one = heatmaps[n, :, :, j]
            y, x = divmod(int(one.argmax()), width)  # the first in row-major order
            scores[n, j] = one[y, x]
            if not one[y, x] > 0:
                continue
            points[n, j] = x, y
            if 1 < x < width - 1 and 1 < y < height - 1:
                points[n, j, 0] += 0.25 * np.sign(one[y, x + 1] - one[y, x - 1])
                points[n, j, 1] += 0.25 * np.sign(one[y + 1, x] - one[y - 1, x])
    return points, scores


def to_image(points, boxes, size):
    """Heatmap pixels of maps of ``(height, width)`` to pixels of the image that the boxes x, y, w, h are in."""
    height, width = size
    placed = np.zeros(points.shape)
    for n, (left, top, w, h) in enumerate(np.asarray(boxes, np.float64)):
        centre = left + w / 2, top + h / 2
        step = 1.25 * max(w, h * width / height) / width  # image pixels in a heatmap pixel
        for j in range(points.shape[1]):
            placed[n, j, 0] = centre[0] + step * (points[n, j, 0] - width / 2)
            placed[n, j, 1] = centre[1] + step * (points[n, j, 1] - height / 2)
    return placed


def rescored(keypoints, box_scores, joint_threshold=0.2):
    """Box score times the mean confidence of the joints above the threshold; keypoints ``(people, joints, 3)``."""
    scores = []
    for person, box_score in zip(keypoints, box_scores, strict=True):
        total, count = 0.0, 0
        for _, _, confidence in person:
            if confidence > joint_threshold:
                total, count = total + confidence, count + 1
        scores.append(box_score * (total / count if count else 0.0))
    return np.array(scores)


def oks(person, other, area, other_area, sigmas):
    """Object keypoint similarity of two people, over all joints, with the mean of their areas."""
    total = 0.0
    for (x, y, _), (other_x, other_y, _), sigma in zip(person, other, sigmas, strict=True):
        squared = (x - other_x) ** 2 + (y - other_y) ** 2
        total += math.exp(-squared / (2 * (2 * sigma) ** 2 * (area + other_area) / 2))
    return total / len(sigmas)


def select(keypoints, image_ids, areas, box_scores, sigmas, suppression="hard", oks_threshold=0.9, joint_threshold=0.2):
    """Rows that are reported, image after image, and their scores: `rescored`, then OKS-NMS in each image."""
    scores = rescored(keypoints, box_scores, joint_threshold)
    images = {}
    for row, image in enumerate(image_ids):
        images.setdefault(image, []).append(row)
    rows, final = [], []
    for people in images.values():
        left = [(scores[row], row) for row in people]
        while left:
            left.sort(reverse=True)  # of equal scores the later row first
            (score, best), others = left[0], left[1:]
            rows.append(best)
            final.append(score)
            left = []
            for score, row in others:
                similarity = oks(keypoints[best], keypoints[row], areas[best], areas[row], sigmas)
                if suppression == "soft":
                    left.append((score * math.exp(-(similarity**2) / oks_threshold), row))
                elif similarity <= oks_threshold:
                    left.append((score, row))
    return np.array(rows, int), np.array(final)
