"""The published codec."""

from __future__ import annotations

import keras
from keras import ops

from keras_mrpose.codecs.base import Codec, gather_at, peaks


@keras.saving.register_keras_serializable("keras_mrpose")
class GaussianCodec(Codec):
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
        super().__init__(sigma)
        self.flip_shift = bool(flip_shift)
        self.published_border = bool(published_border)

    def get_config(self) -> dict:
        """Arguments that recreate this codec."""
        return {**super().get_config(), "flip_shift": self.flip_shift, "published_border": self.published_border}

    def encode(self, points, weights, size: tuple[int, int]):
        """Encode joints as heatmaps, and say which of them count.

        The centre is rounded to a pixel, the Gaussian is cut at three sigma and has peak 1. With the published border,
        rounding is ``trunc(x + 0.5)``, toward zero, else ``floor(x + 0.5)``.

        Args:
            points: ``(batch, joints, 2)`` positions in heatmap pixels, float32 or float64; rounded in this precision.
            weights: ``(batch, joints)``; a joint of weight <= 0.5 is not drawn.
            size: ``(height, width)`` of the heatmaps.

        Returns:
            heatmaps ``(batch, height, width, joints)`` float32 in 0..1, and weights ``(batch, joints)``, zero where
            the joint's patch does not touch the map. (With the published border that test has a margin of one cell at
            the top and left: a centre at -(3 sigma + 1) keeps its weight, with an empty map.)
        """
        whole = ops.trunc if self.published_border else ops.floor
        border_margin = 1 if self.published_border else 0
        return self._draw(whole(ops.add(points, 0.5)), weights, size, 3 * self.sigma, border_margin)

    def decode(self, heatmaps):
        """Decode heatmaps to positions and scores.

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
        _, height, width, _ = heatmaps.shape
        points, scores = peaks(heatmaps)
        x, y = (ops.cast(points[..., axis], "int32") for axis in (0, 1))

        # right, below, left, above
        beside_x = ops.clip(ops.stack([x + 1, x, x - 1, x], axis=1), 0, width - 1)
        beside_y = ops.clip(ops.stack([y, y + 1, y, y - 1], axis=1), 0, height - 1)
        beside = gather_at(heatmaps, beside_x, beside_y)
        slope = ops.swapaxes(beside[:, :2] - beside[:, 2:], 1, 2)
        edge = 1 if self.published_border else 0
        inner = (x > edge) & (x < width - 1) & (y > edge) & (y < height - 1)
        return points + ops.where(inner[..., None], 0.25 * ops.sign(slope), 0.0), scores

    def _shifted(self, back, heatmaps):
        if not self.flip_shift:
            return back
        # Nothing moves into column 0: as published it keeps its own value, else it takes no part.
        first = back if self.published_border else heatmaps
        return ops.concatenate([first[:, :, :1], back[:, :, :-1]], axis=2)
