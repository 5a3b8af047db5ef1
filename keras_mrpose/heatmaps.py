"""Codecs: how a joint's position becomes a heatmap, and a heatmap a position again.

A codec owns both directions and the rule that merges a flip test, because the three only fit together.
Positions are in heatmap pixels, ``(x, y)``, the centre of the top-left pixel at (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_mrpose.errors import InputError


def peaks(heatmaps):
    """Positions and values of the highest cells: the first maximum of each map in row-major order.

    Args:
        heatmaps: ``(batch, height, width, joints)``.

    Returns:
        points ``(batch, joints, 2)`` in heatmap pixels, whole numbers, (0, 0) where the maximum is not positive; and
        the maxima ``(batch, joints)``; float32.
    """
    heatmaps = ops.cast(heatmaps, "float32")
    _, height, width, joints = heatmaps.shape
    flat = ops.reshape(heatmaps, (-1, height * width, joints))
    index = ops.argmax(flat, axis=1)
    maxima = ops.take_along_axis(flat, index[:, None, :], axis=1)[:, 0]
    points = ops.cast(ops.stack([index % width, index // width], axis=-1), "float32")
    return ops.where(maxima[..., None] > 0, points, 0.0), maxima


@keras.saving.register_keras_serializable("keras_mrpose")
class GaussianCodec:
    """The published codec: a Gaussian around the nearest pixel, decoded at the peak plus a quarter pixel.

    Args:
        sigma: standard deviation in heatmap pixels (2 for 64x48 maps, 3 for 96x72).
        flip_shift: in a flip test, move the maps of the mirrored image, mirrored back, one column to the right.
            A joint at column c = x / 4 of a map of width W has x' = 4 W - 1 - x in the mirrored image, which is
            column W - 1/4 - c; mirroring the map back sends that to c - 3/4. The published protocol rounds the
            3/4 column to one; for joints at whole image pixels that undoes the encoder's own rounding exactly.
        published_border: do at the map's border what the published code does, which treats top and left unlike bottom
            and right: positions between -3/2 and -1/2 are rounded to 0; a joint whose patch ends just before the map
            keeps its weight, with an empty map; a peak in column or row 1 is not moved by a quarter pixel; and
            column 0 of the shifted maps of a flip test keeps its own value. False treats all four sides alike.

    Source: Tran et al. 2021 and its published code (after Xiao et al. 2018, *Simple Baselines*).
    """

    def __init__(self, sigma: float = 2.0, flip_shift: bool = True, published_border: bool = True):
        if not sigma > 0:
            raise InputError(f"GaussianCodec: sigma is {sigma}; give a positive number of heatmap pixels.")
        self.sigma = float(sigma)
        self.flip_shift = bool(flip_shift)
        self.published_border = bool(published_border)

    def get_config(self) -> dict:
        """The arguments that make this codec again."""
        return {"sigma": self.sigma, "flip_shift": self.flip_shift, "published_border": self.published_border}

    @classmethod
    def from_config(cls, config: dict) -> GaussianCodec:
        """The inverse of `get_config`."""
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), *self.get_config().values()))

    def __repr__(self):
        border = f"published_border={self.published_border}"
        return f"GaussianCodec(sigma={self.sigma:g}, flip_shift={self.flip_shift}, {border})"

    def encode(self, points, weights, size: tuple[int, int]):
        """Heatmaps of joints, and which of them count.

        The centre is rounded to a pixel, the Gaussian is cut at three sigma and has peak 1. With the published border,
        rounding is ``trunc(x + 0.5)``, toward zero, else ``floor(x + 0.5)``.

        Args:
            points: ``(batch, joints, 2)`` positions in heatmap pixels, float32 or float64; rounded in this precision.
            weights: ``(batch, joints)``; a joint of weight <= 0.5 is not drawn.
            size: ``(height, width)`` of the heatmaps.

        Returns:
            heatmaps ``(batch, height, width, joints)`` float32 in 0..1, and weights ``(batch, joints)``, zero where
            the joint's patch does not touch the map. (With the published border that test is one cell generous at the
            top and left: a centre at -(3 sigma + 1) keeps its weight, with an empty map.)
        """
        height, width = size
        reach = 3 * self.sigma
        weights = ops.cast(weights, "float32")
        whole = ops.trunc if self.published_border else ops.floor
        centre = ops.cast(whole(ops.add(points, 0.5)), "float32")
        last = ops.convert_to_tensor([width - 1, height - 1], "float32")
        generous = 1 if self.published_border else 0
        on_map = ops.all((centre - reach <= last) & (centre + reach + generous >= 0), axis=-1)
        weights = weights * ops.cast(on_map, "float32")

        def profile(centre, length):
            offset = ops.arange(length, dtype="float32") - centre[..., None]
            return ops.where(ops.abs(offset) <= reach, ops.exp(-ops.square(offset) / (2 * self.sigma**2)), 0.0)

        rows = profile(centre[..., 1], height) * ops.cast(weights > 0.5, "float32")[..., None]
        return ops.einsum("bjh,bjw->bhwj", rows, profile(centre[..., 0], width)), weights

    def decode(self, heatmaps):
        """Positions and scores of the peaks.

        A peak (`peaks` gives them as they are) is moved a quarter pixel towards the higher neighbour in x and in y when
        1 < x < width - 1 and 1 < y < height - 1; without the published border when 0 < x and 0 < y, so that column 1
        moves as column width - 2 does. A map whose maximum is not positive gives position (0, 0) and keeps its
        maximum as score.

        Args:
            heatmaps: ``(batch, height, width, joints)``.

        Returns:
            points ``(batch, joints, 2)`` in heatmap pixels and scores ``(batch, joints)``, float32.
        """
        heatmaps = ops.cast(heatmaps, "float32")
        _, height, width, joints = heatmaps.shape
        points, scores = peaks(heatmaps)
        x, y = (ops.cast(points[..., axis], "int32") for axis in (0, 1))
        flat = ops.reshape(heatmaps, (-1, height * width, joints))

        def value(x, y):
            index = ops.clip(y * width + x, 0, height * width - 1)
            return ops.take_along_axis(flat, index[:, None, :], axis=1)[:, 0]

        slope = ops.stack([value(x + 1, y) - value(x - 1, y), value(x, y + 1) - value(x, y - 1)], axis=-1)
        edge = 1 if self.published_border else 0
        inner = (x > edge) & (x < width - 1) & (y > edge) & (y < height - 1)
        return points + ops.where(inner[..., None], 0.25 * ops.sign(slope), 0.0), scores

    def merge_flipped(self, heatmaps, of_mirrored, mirrored: Sequence[int]):
        """The mean of the heatmaps of an image and those of its mirror image.

        Args:
            heatmaps: ``(batch, height, width, joints)`` of the images.
            of_mirrored: the same for the images mirrored left to right.
            mirrored: for each joint the joint that it becomes in a mirrored image (`Skeleton.mirrored`).

        Returns:
            ``(batch, height, width, joints)``.
        """
        back = ops.take(ops.flip(of_mirrored, axis=2), ops.convert_to_tensor(list(mirrored), "int32"), axis=3)
        if self.flip_shift:  # nothing moves into column 0: as published it keeps its own value, else it takes no part
            first = back if self.published_border else heatmaps
            back = ops.concatenate([first[:, :, :1], back[:, :, :-1]], axis=2)
        return (heatmaps + back) * 0.5
