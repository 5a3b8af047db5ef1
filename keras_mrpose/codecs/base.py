"""Base class of the codecs, and the peaks of heatmaps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from keras_mrpose.errors import InputError

HEATMAP_STRIDE = 4  # of the networks: input sides / heatmap sides


def peaks(heatmaps):
    """Positions and values of the highest cells: the first maximum of each map in row-major order.

    Args:
        heatmaps: ``(batch, height, width, joints)``.

    Returns:
        points ``(batch, joints, 2)`` in heatmap pixels, whole numbers, (0, 0) where the maximum is not positive; and
        the maxima ``(batch, joints)``; float32.
    """
    heatmaps = ops.cast(heatmaps, "float32")
    width = heatmaps.shape[2]
    y = _first_maximum(ops.max(heatmaps, axis=2))[:, None]  # the row of the peak; small from here on
    row = gather_at(heatmaps, ops.arange(width)[:, None], y)
    points = ops.cast(ops.stack([_first_maximum(row), y[:, 0]], axis=-1), "float32")
    maxima = ops.max(row, axis=1)
    return ops.where(maxima[..., None] > 0, points, 0.0), maxima


def _first_maximum(values):
    """Index ``(batch, joints)`` int32 of the first maximum along n of ``(batch, n, joints)``.

    The argmax is one of whole numbers: Keras' own of floats looks at the sign bit of zeros, for which LiteRT has no
    operation.
    """
    return ops.argmax(ops.cast(ops.equal(values, ops.max(values, axis=1, keepdims=True)), "int32"), axis=1)


def gather_at(heatmaps, x, y):
    """Values of maps ``(batch, height, width, joints)`` at columns x and rows y, both int32 ``(batch, n, joints)``.

    One gather from the flat array: `take_along_axis` would copy all maps.
    """
    _, height, width, joints = heatmaps.shape
    map_of = ops.arange(ops.shape(heatmaps)[0])[:, None, None]
    index = ((map_of * height + y) * width + x) * joints + ops.arange(joints)
    return ops.take(ops.reshape(heatmaps, (-1,)), index)


class Codec:
    """Points to heatmaps, heatmaps to points, and the merging of a flip test.

    Args:
        sigma: standard deviation of the Gaussians in heatmap pixels (2 for 64x48 maps, 3 for 96x72).
    """

    def __init__(self, sigma: float = 2.0):
        if not 0 < sigma < math.inf:
            raise InputError(f"{type(self).__name__}: sigma is {sigma}; give a positive number of heatmap pixels.")
        self.sigma = float(sigma)

    def get_config(self) -> dict:
        """Arguments that recreate this codec."""
        return {"sigma": self.sigma}

    @classmethod
    def from_config(cls, config: dict) -> Codec:
        """Codec from what `get_config` returned."""
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), *self.get_config().values()))

    def __repr__(self):
        config = self.get_config()
        arguments = (f"{key}={value:g}" if key == "sigma" else f"{key}={value}" for key, value in config.items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    def scale(self, input_size: tuple[int, int]) -> np.ndarray:
        """Heatmap pixels per crop pixel in x and y, ``(2,)`` float64: the crop's point p is at ``p * scale``.

        Args:
            input_size: ``(height, width)`` of the crop, multiples of 4.
        """
        return np.full(2, 1 / HEATMAP_STRIDE)

    def encode(self, points, weights, size: tuple[int, int]):
        """Encode joints as heatmaps, and say which of them count.

        Args:
            points: ``(batch, joints, 2)`` positions in heatmap pixels, float32 or float64.
            weights: ``(batch, joints)``; a joint of weight <= 0.5 is not drawn.
            size: ``(height, width)`` of the heatmaps.

        Returns:
            heatmaps ``(batch, height, width, joints)`` float32 in 0..1, and weights ``(batch, joints)``, zero where
            the joint's patch of three sigma to each side does not touch the map.
        """
        raise NotImplementedError

    def decode(self, heatmaps):
        """Decode heatmaps to positions and scores. Maps without a positive value decode to (0, 0).

        Args:
            heatmaps: ``(batch, height, width, joints)``.

        Returns:
            points ``(batch, joints, 2)`` in heatmap pixels and scores ``(batch, joints)``, the maxima; float32.
        """
        raise NotImplementedError

    def merge_flipped(self, heatmaps, flipped_heatmaps, flip_indices: Sequence[int]):
        """Merge a flip test: the mean of the heatmaps of an image and those of its mirror image.

        Args:
            heatmaps: ``(batch, height, width, joints)`` of the images.
            flipped_heatmaps: the same for the images mirrored left to right.
            flip_indices: for each joint the joint that it becomes in a mirrored image (`Skeleton.flip_indices`).

        Returns:
            ``(batch, height, width, joints)``.
        """
        back = ops.take(ops.flip(flipped_heatmaps, axis=2), ops.convert_to_tensor(list(flip_indices), "int32"), axis=3)
        heatmaps = ops.convert_to_tensor(heatmaps)  # PyTorch adds no tensor to an array
        return (heatmaps + self._shifted(back, heatmaps)) * 0.5

    def _shifted(self, back, heatmaps):
        """Move the maps of the mirrored image, already mirrored back, to where those of the image are."""
        return back

    def _draw(self, centres, weights, size, radius: float, border_margin: int = 0):
        """`encode` with Gaussians of peak 1 around `centres`, cut at `radius`; see `GaussianCodec.encode`."""
        height, width = size
        patch = 3 * self.sigma
        centres, weights = ops.cast(centres, "float32"), ops.cast(weights, "float32")
        last = ops.convert_to_tensor([width - 1, height - 1], "float32")
        on_map = ops.all((centres - patch <= last) & (centres + patch + border_margin >= 0), axis=-1)
        weights = weights * ops.cast(on_map, "float32")
        rows = gaussian_1d(centres[..., 1], height, self.sigma, radius) * ops.cast(weights > 0.5, "float32")[..., None]
        return ops.einsum("bjh,bjw->bhwj", rows, gaussian_1d(centres[..., 0], width, self.sigma, radius)), weights


def gaussian_1d(centres, length: int, sigma: float, radius: float):
    """Gaussians of peak 1 around `centres` ``(...)`` at 0..length - 1: ``(..., length)``, zero beyond `radius`."""
    offset = ops.arange(length, dtype="float32") - centres[..., None]
    return ops.where(ops.abs(offset) <= radius, ops.exp(-ops.square(offset) / (2 * sigma**2)), 0.0)
