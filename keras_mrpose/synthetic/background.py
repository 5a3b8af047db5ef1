"""Backgrounds of drawn people: textured grounds, and things in front of people or under them."""

from __future__ import annotations

import cv2
import numpy as np

from keras_mrpose.synthetic.render import OBJECT, Canvas


def background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Random background ``(h, w, 3)`` uint8: a gradient, perhaps a floor, patterns, clutter and noise of all scales."""
    height, width = size
    palette = _muted(rng.uniform(10, 245, (1, 6, 3)))[0]
    corners = np.clip(palette[0] + rng.normal(0, 30, (2, 2, 3)), 0, 255).astype(np.uint8)
    image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.6:  # a floor
        horizon = rng.uniform(0.45, 0.9) * height
        tilt = rng.normal(0, 0.03) * width
        floor = [(-9, horizon - tilt), (width + 9, horizon + tilt), (width + 9, height + 9), (-9, height + 9)]
        _fill(image, np.array(floor), palette[1])
    if rng.random() < 0.4:
        _stripes(rng, image, palette[2])
    for _ in range(rng.integers(3, 16)):
        _clutter(rng, image, palette[rng.integers(1, 6)] + rng.normal(0, 15, 3))
    weight = rng.uniform(0.1, 0.5)
    return cv2.addWeighted(image, 1.0, _muted(_noise(rng, size)), weight, -127.5 * weight)


def _muted(colours: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) nearer to grey, as places are, next to what people wear."""
    return cv2.transform(colours, np.full((3, 3), 0.2) + 0.4 * np.eye(3))


def camera_effects(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The finished image as through a camera: slight blur, a little noise, another exposure."""
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.8))
    grain = rng.integers(0, 256, image.shape, np.uint8)
    weight, gain = rng.uniform(0.01, 0.10), rng.uniform(0.75, 1.1)
    return cv2.addWeighted(image, gain, grain, weight, -127.5 * weight + rng.uniform(0, 12))


def add_occluder(rng: np.random.Generator, canvas: Canvas, middle: np.ndarray, extent: float) -> None:
    """A thing in front of what is painted: about `middle` (x, y), its length about `extent` pixels."""
    colour = rng.uniform(15, 240, 3)
    kind = rng.integers(4)
    if kind == 0:  # a pole
        thick, slant = extent * rng.uniform(0.03, 0.07), rng.normal(0, 0.1) * extent
        ends = np.array(((slant, -1.6 * extent), (-slant, 1.6 * extent))) + middle
        canvas.solid(ends, np.array((thick, thick)), colour, OBJECT)
    elif kind == 1:  # a ball
        canvas.solid(middle[None], np.array((extent * rng.uniform(0.15, 0.28),)), colour, OBJECT)
    elif kind == 2:  # a box
        draw_box(canvas, middle, extent * rng.uniform(0.3, 0.6), extent * rng.uniform(0.25, 0.5), colour)
    else:  # a table
        wide, high, thick = extent * rng.uniform(0.5, 1.0), extent * rng.uniform(0.3, 0.5), extent * 0.04
        for s in (-1, 1):
            leg = np.array(((0.45 * s * wide, 0), (0.45 * s * wide, high))) + middle
            canvas.solid(leg, np.array((thick, thick)), 0.8 * colour, OBJECT)
        draw_box(canvas, middle, wide, 3 * thick, colour)


def draw_box(canvas: Canvas, middle: np.ndarray, width: float, height: float, colour: np.ndarray) -> None:
    """A box seen a little from above: front and lid."""
    x, y = middle
    left, right, top, bottom, lid = x - width / 2, x + width / 2, y - height / 2, y + height / 2, 0.12 * width
    canvas.polygon(np.array(((left, top), (right, top), (right, bottom), (left, bottom))), 0.8 * colour, OBJECT)
    back = np.array(((left, top), (right, top), (right - lid, top - lid / 2), (left + lid, top - lid / 2)))
    canvas.polygon(back, np.minimum(1.15 * colour, 255), OBJECT)


def _noise(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 around 127: noise of cells of 48, 12 and 3 pixels, from coarse to fine grids."""
    height, width = size
    noise = np.full((2, 2, 3), 127, np.uint8)
    for cell, share in ((48, 0.55), (12, 0.40), (3, 0.30)):
        share *= rng.uniform(0.2, 1.0)
        fine = rng.integers(0, 256, (height // cell + 2, width // cell + 2, 3), np.uint8)
        coarse = cv2.resize(noise, fine.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        noise = cv2.addWeighted(coarse, 1.0, fine, share, -127.5 * share)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)


def _fill(image: np.ndarray, corners: np.ndarray, colour: np.ndarray) -> None:
    cv2.fillConvexPoly(image, np.rint(corners).astype(np.int32), tuple(map(float, colour)), cv2.LINE_8)


def _stripes(rng: np.random.Generator, image: np.ndarray, colour: np.ndarray) -> None:
    """Parallel lines across the image: planks, blinds, fences."""
    height, width = image.shape[:2]
    angle, gap, reach = rng.uniform(0, np.pi), rng.uniform(8, 50), height + width
    along = np.array((np.cos(angle), np.sin(angle)))
    across = np.array((-along[1], along[0]))
    thickness = int(rng.integers(1, max(2, int(gap / 2))))
    offsets = np.arange(-reach / 2, reach / 2, gap)[:, None] * across + (width / 2, height / 2)
    ends = np.stack([offsets - reach * along, offsets + reach * along], axis=1)
    cv2.polylines(image, list(np.rint(ends).astype(np.int32)), False, tuple(map(float, colour)), thickness)


def _clutter(rng: np.random.Generator, image: np.ndarray, colour: np.ndarray) -> None:
    """One shape: block, ellipse, triangle or line."""
    height, width = image.shape[:2]
    middle = rng.uniform(0, 1, 2) * (width, height)
    extent = rng.uniform(0.03, 0.22, 2) * height
    kind, angle = rng.integers(4), rng.uniform(0, 180)
    if kind == 0:
        _fill(image, cv2.boxPoints((middle.tolist(), extent.tolist(), angle)), colour)
    elif kind == 1:
        cv2.ellipse(image, (middle.tolist(), extent.tolist(), angle), tuple(map(float, colour)), -1)
    elif kind == 2:
        _fill(image, middle + rng.normal(0, 0.7, (3, 2)) * extent, colour)
    else:
        ends = np.rint(middle + rng.normal(0, 2.0, (2, 2)) * extent).astype(np.int32)
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), tuple(map(float, colour)), int(rng.integers(1, 9)))
