"""Coordinate transforms: person box -> crop window -> crop matrix -> points, and back.

Everything here is plain arithmetic. Functions that need `cos`, `stack` and the like take an array namespace
``xp`` (``numpy``, ``keras.ops`` or ``tensorflow.experimental.numpy``), so the same line of code runs on one person
in NumPy and inside a `tf.data` graph. For tables of boxes there are `crop_matrices` and, for the way back, `to_image`.

Matrices are ``(2, 3)`` and map source pixels to crop pixels; points are ``(x, y)``; pixel i has its centre at i.
The middle of the window goes to ``(width / 2, height / 2)`` of the crop, as in the published code (not to
``(width - 1) / 2``), and the crop's width alone sets the scale.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

PADDING = 1.25  # the published margin around a person box


def crop_window(box, size: tuple[int, int], padding: float = PADDING, pad_missing: bool = True, xp: ModuleType = np):
    """Centre and width of the window that is cropped for a box: filled up to the crop's aspect, then padded.

    Args:
        box: ``(..., 4)`` x, y, w, h in image pixels.
        size: ``(height, width)`` of the crop; only its aspect matters.
        padding: factor on the window's sides (published: 1.25).
        pad_missing: pad all boxes. False is the published rule: a box whose centre is at exactly x = -1, which marks a
            missing centre in MPII's files, gets no padding, whatever file it is from.
        xp: array namespace.

    Returns:
        centre ``(..., 2)`` and width ``(...)`` in image pixels; the window's height is width * size[0] / size[1].
    """
    height, width = size
    x, y, w, h = box[..., 0], box[..., 1], box[..., 2], box[..., 3]
    centre, filled = xp.stack([x + w * 0.5, y + h * 0.5], axis=-1), xp.maximum(w, h * (width / height))
    padded = filled * padding
    return centre, padded if pad_missing else xp.where(centre[..., 0] == -1, filled, padded)


def crop_matrix(centre, width, size: tuple[int, int], rotation=0.0, xp: ModuleType = np):
    """The similarity that maps a window of the image to the crop.

    Args:
        centre: ``(..., 2)`` middle of the window in image pixels.
        width: ``(...)`` width of the window in image pixels.
        size: ``(height, width)`` of the crop.
        rotation: ``(...)`` radians; positive turns the window clockwise on the screen.
        xp: array namespace.

    Returns:
        ``(..., 2, 3)``.
    """
    scale = size[1] / width
    a, b = scale * xp.cos(rotation), scale * xp.sin(rotation)
    x, y = centre[..., 0], centre[..., 1]
    return xp.stack(
        [
            xp.stack([a, b, size[1] / 2 - a * x - b * y], axis=-1),
            xp.stack([-b, a, size[0] / 2 + b * x - a * y], axis=-1),
        ],
        axis=-2,
    )


def crop_matrices(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upright crop matrices ``(n, 2, 3)`` of person boxes, from image pixels to crop pixels; plain NumPy.

    Args:
        boxes: ``(n, 4)`` x, y, w, h in image pixels.
        size: ``(height, width)`` of the crop.
    """
    centres, widths = crop_window(boxes, size)
    return crop_matrix(centres, widths, size, np.zeros(len(boxes)))


def to_image(points: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Points ``(n, joints, 2)`` in crop pixels back in image pixels; plain NumPy.

    Args:
        points: ``(n, joints, 2)`` x, y.
        matrices: ``(n, 2, 3)`` that made the crops (`crop_matrices`).
    """
    return transform_each(inverse(matrices), points)


def mirror(matrix, source_width, xp: ModuleType = np):
    """The matrix ``(..., 2, 3)`` that first mirrors the image (x -> source_width - 1 - x), then does `matrix`."""
    a, b, t = matrix[..., 0], matrix[..., 1], matrix[..., 2]
    return xp.stack([-a, b, t + a * (source_width - 1)], axis=-1)


def transform(matrix, points):
    """Points through a matrix: ``(2, 3)`` and ``(..., 2)`` -> ``(..., 2)``; any array type."""
    x, y = points[..., 0:1], points[..., 1:2]
    return matrix[:, 0] * x + matrix[:, 1] * y + matrix[:, 2]


def transform_each(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points through a matrix of their own: ``(n, 2, 3)`` and ``(n, joints, 2)`` -> ``(n, joints, 2)``; plain NumPy."""
    return np.einsum("nij,nkj->nki", matrices[..., :2], points) + matrices[:, None, :, 2]


def scale_of(matrix, xp: ModuleType = np):
    """How many crop pixels a source pixel measures; ``(..., 2, 3)`` -> ``(...)``."""
    return xp.sqrt(xp.abs(matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]))


def inverse(matrix, xp: ModuleType = np):
    """The matrix that undoes `matrix`; ``(..., 2, 3)`` -> ``(..., 2, 3)``."""
    a, b, tx = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
    c, d, ty = matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2]
    det = a * d - b * c
    return xp.stack(
        [
            xp.stack([d, -b, b * ty - d * tx], axis=-1) / det[..., None],
            xp.stack([-c, a, c * tx - a * ty], axis=-1) / det[..., None],
        ],
        axis=-2,
    )
