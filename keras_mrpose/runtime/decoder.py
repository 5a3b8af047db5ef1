"""From a box to a crop, from heatmaps to joints: everything around the network, in NumPy alone.

A copy of this file lies beside every exported model, to be read and ported (Kotlin, Swift, C++). Run there,
``python decoder.py``, it checks itself against the reference case; a port should reproduce the same numbers.

Pixel i has its centre at coordinate i. Sizes are (height, width), points (x, y). All arithmetic is in double precision;
the network's input and output are float32.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CROP_LIMIT, JOINTS_LIMIT = 0.6, 0.01  # grey levels and image pixels that a port may be off in the reference case


def crop_matrix(box, size, padding):
    """The (2, 3) matrix from image to crop pixels of a box (x, y, w, h), widened to the crop's aspect and padded."""
    x, y, w, h = box
    height, width = size
    scale = width / (padding * max(w, h * width / height))
    return np.array(
        [[scale, 0, width / 2 - scale * (x + w / 2)], [0, scale, height / 2 - scale * (y + h / 2)]], np.float64
    )


def crop(image, matrix, size):
    """The crop (height, width, 3) float32, 0..255, of an RGB image (h, w, 3) uint8: bilinear, black outside."""
    columns, rows = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    x, y = (columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    total = np.zeros((*size, 3))
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - right - (x - left)) * np.abs(1 - down - (y - top))
            row = np.clip(top + down + 1, 0, padded.shape[0] - 1)
            column = np.clip(left + right + 1, 0, padded.shape[1] - 1)
            total += weight[..., None] * padded[row, column]
    return total.astype(np.float32)


def peaks(heatmaps):
    """Columns, rows and values of the first highest cell of each of the maps (height, width, joints)."""
    height, width, joints = heatmaps.shape
    flat = heatmaps.reshape(height * width, joints)
    index = flat.argmax(axis=0)
    return index % width, index // width, flat[index, np.arange(joints)]


def decode_gaussian(heatmaps, codec):
    """The peak, moved by a quarter cell towards the higher neighbour in x and in y, except near the border."""
    height, width, _ = heatmaps.shape
    edge = 1 if codec["published_border"] else 0
    found = []
    for joint, (x, y, value) in enumerate(zip(*peaks(heatmaps), strict=True)):
        point, m = np.array([x, y], np.float64), heatmaps[:, :, joint]
        if value <= 0:
            point[:] = 0
        elif edge < x < width - 1 and edge < y < height - 1:
            point += 0.25 * np.sign([m[y, x + 1] - m[y, x - 1], m[y + 1, x] - m[y - 1, x]])
        found.append([*point, value])
    return np.array(found)


def decode_unbiased(heatmaps, codec):
    """The summit of the parabola through the log of the smoothed map around the peak, at most one cell away (DARK)."""
    height, width, _ = heatmaps.shape
    radius = int(np.ceil(3 * codec["sigma"]))
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * codec["sigma"] ** 2))
    kernel /= kernel.sum()
    band = np.array([np.convolve(np.eye(5)[i], kernel) for i in range(5)])  # each row: the kernel, one further
    margin = radius + 2
    padded = np.pad(heatmaps, ((margin, margin), (margin, margin), (0, 0)))
    found = []
    for joint, (x, y, value) in enumerate(zip(*peaks(heatmaps), strict=True)):
        point = np.array([x, y], np.float64) * (value > 0)
        if value > 0 and 1 < x < width - 2 and 1 < y < height - 2:
            around = padded[y : y + 2 * margin + 1, x : x + 2 * margin + 1, joint].astype(np.float64)
            m = np.log(np.maximum(band @ around @ band.T, 1e-10))
            dx, dy = (m[2, 3] - m[2, 1]) / 2, (m[3, 2] - m[1, 2]) / 2
            dxx, dyy = (m[2, 4] - 2 * m[2, 2] + m[2, 0]) / 4, (m[4, 2] - 2 * m[2, 2] + m[0, 2]) / 4
            dxy = (m[3, 3] - m[1, 3] - m[3, 1] + m[1, 1]) / 4
            det = dxx * dyy - dxy * dxy
            if dxx < 0 and det > 0:
                point += np.clip([(dxy * dy - dyy * dx) / det, (dxy * dx - dxx * dy) / det], -1, 1)
        found.append([*point, value])
    return np.array(found)


DECODERS = {"gaussian": decode_gaussian, "dark": decode_unbiased, "udp": decode_unbiased}


def joints(heatmaps, matrix, codec, calibration=None):
    """Joints (joints, 3): x, y in image pixels, score; of heatmaps (height, width, joints) and the crop's matrix.

    With a calibration the score is a probability: the peak's height, linear between its knots.
    """
    found = DECODERS[codec["name"]](heatmaps, codec)
    found[:, :2] = (found[:, :2] / codec["scale"] - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
    if calibration:
        found[:, 2] = np.interp(found[:, 2], calibration["scores"], calibration["probabilities"])
    return found


def person(heatmaps, calibration):
    """Probability that a person is in the crop, by the mean height of the peaks; None if the network cannot tell."""
    fitted = (calibration or {}).get("person")
    return fitted and float(np.interp(peaks(heatmaps)[2].mean(), fitted["scores"], fitted["probabilities"]))


def check(folder):
    """The largest differences to the reference case in a folder: of the crop in grey levels, of joints in pixels."""
    about = json.loads(Path(folder, "model.json").read_text())
    case = np.load(Path(folder, "reference.npz"))
    matrix = crop_matrix(case["box"], about["input"]["size"], about["crop"]["padding"])
    crop_off = np.abs(crop(case["image"], matrix, about["input"]["size"]) - case["crop"]).max()
    found = joints(case["heatmaps"], matrix, about["codec"], about.get("calibration"))
    joints_off = np.abs(found - case["joints"]).max()
    if "person" in case:
        joints_off = max(joints_off, abs(person(case["heatmaps"], about["calibration"]) - case["person"]))
    return float(crop_off), float(joints_off)


if __name__ == "__main__":
    crop_off, joints_off = check(Path(__file__).parent)
    print(f"crop: {crop_off:.4f} grey levels off, joints: {joints_off:.6f} pixels off")
    raise SystemExit(0 if crop_off < CROP_LIMIT and joints_off < JOINTS_LIMIT else 1)
