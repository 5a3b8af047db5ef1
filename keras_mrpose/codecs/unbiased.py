"""DARK and UDP, the codecs that round nothing: `decode` inverts `encode` to a thousandth of a heatmap pixel.

Nearer to the map's border than 2.5 sigma, where much of a Gaussian is missing, it is found too far inside, as by the
authors' own decoders: with sigma 2 by 0.007 cells at four cells from the border and by 0.2 at two.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from keras_mrpose.codecs.base import HEATMAP_STRIDE, Codec, gaussian_1d, peaks


class UnbiasedCodec(Codec):
    """A Gaussian around the exact position, decoded at the summit of the Gaussian that fits around the peak.

    Source: Zhang et al. 2020, *Distribution-Aware Coordinate Representation for Human Pose Estimation*.
    """

    def encode(self, points, weights, size: tuple[int, int]):
        """Encode joints as heatmaps (`Codec.encode`); the Gaussians are neither rounded nor cut."""
        return self._draw(points, weights, size, math.inf)

    def decode(self, heatmaps):
        """Decode heatmaps to positions and scores (`Codec.decode`).

        Around a peak the log of the map, first smoothed by a Gaussian of the codec's sigma, is taken for a parabola
        with gradient D and Hessian H; its summit is at -H^-1 D from the peak. The peak is left where it is when it is
        less than two cells from the border or when H has no summit. The score is the height of the map as it is.

        No summit is moved further than one cell in x and in y. This limit is ours: the peak is the highest cell, and
        a summit beyond its neighbours is noise.
        """
        heatmaps = ops.cast(heatmaps, "float32")
        _, height, width, _ = heatmaps.shape
        points, scores = peaks(heatmaps)
        x, y = points[..., 0], points[..., 1]
        inner = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
        offset = _summit(ops.log(ops.maximum(self._smoothed(heatmaps, points), 1e-10)))
        return points + ops.where(inner[..., None], ops.clip(offset, -1.0, 1.0), 0.0), scores

    def _smoothed(self, heatmaps, points):
        """The 5x5 cells around each point of the smoothed maps, ``(batch, joints, 5, 5)``: the others are not needed.

        Smoothing is a weighted sum over the rows and one over the columns. The weights of a cell of the result are the
        Gaussian around it; what lies outside the map counts as zero.
        """
        radius = math.ceil(3 * self.sigma)
        total = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * self.sigma**2)).sum()
        cells = ops.expand_dims(points, -1) + ops.arange(-2, 3, dtype="float32")  # (batch, joints, 2, 5)
        rows = gaussian_1d(cells[:, :, 1], heatmaps.shape[1], self.sigma, radius) / total
        columns = gaussian_1d(cells[:, :, 0], heatmaps.shape[2], self.sigma, radius) / total
        return ops.einsum("bjrw,bjcw->bjrc", ops.einsum("bjrh,bhwj->bjrw", rows, heatmaps), columns)


@keras.saving.register_keras_serializable("keras_mrpose")
class DarkCodec(UnbiasedCodec):
    """DARK: exact positions at a quarter of the crop's.

    Args:
        sigma: standard deviation in heatmap pixels (2 for 64x48 maps, 3 for 96x72).
        flip_shift: in a flip test, move the maps of the mirrored image, mirrored back, 3/4 column to the right.
            A joint at column c = x / 4 of a map of width W has x' = 4 W - 1 - x in the mirrored image, which is
            column W - 1/4 - c; mirroring the map back sends that to c - 3/4. The moved map is read 3/4 column
            further left, between two columns: 1/4 m[c] + 3/4 m[c - 1]. Column 0 would need what lies outside the map;
            there the image alone decides.

    Source: Zhang et al. 2020, *Distribution-Aware Coordinate Representation for Human Pose Estimation*.
    """

    def __init__(self, sigma: float = 2.0, flip_shift: bool = True):
        super().__init__(sigma)
        self.flip_shift = bool(flip_shift)

    def get_config(self) -> dict:
        """Arguments that recreate this codec."""
        return {**super().get_config(), "flip_shift": self.flip_shift}

    def _shifted(self, back, heatmaps):
        if not self.flip_shift:
            return back
        return ops.concatenate([heatmaps[:, :, :1], 0.25 * back[:, :, 1:] + 0.75 * back[:, :, :-1]], axis=2)


@keras.saving.register_keras_serializable("keras_mrpose")
class UDPCodec(UnbiasedCodec):
    """UDP with DARK's heatmaps: lengths are counted between the centres of pixels, so that mirrored maps fit.

    The centres of the first and of the last pixel of a crop of width W are W - 1 apart, those of its map of width w
    are w - 1: the crop's x is at x (w - 1) / (W - 1), and y likewise. A joint at column c = x (w - 1) / (W - 1) has
    x' = W - 1 - x in the mirrored image, which is column w - 1 - c; mirroring the map back sends that to c. So a flip
    test needs no shift.

    A network learns where its maps lie: one that was trained with another codec's scale cannot be decoded with this
    one, nor the other way round. UDP's other half, a crop without rounding, every codec has: a crop is one affine
    warp whose matrix also moves the joints.

    Args:
        sigma: standard deviation in heatmap pixels (2 for 64x48 maps, 3 for 96x72).

    Source: Huang et al. 2020, *The Devil is in the Details: Delving into Unbiased Data Processing for Human Pose
    Estimation*.
    """

    def scale(self, input_size: tuple[int, int]) -> np.ndarray:
        """`Codec.scale`: (map side - 1) / (crop side - 1)."""
        sides = np.array(input_size[::-1])
        return (sides // HEATMAP_STRIDE - 1) / (sides - 1)


def _summit(m):
    """How far the summits of parabolas through 5x5 values lie from the middle: ``(..., 5, 5)`` -> x, y ``(..., 2)``.

    (0, 0) where the parabola has none, that is where its Hessian is not negative definite.
    """
    dx, dy = (m[..., 2, 3] - m[..., 2, 1]) / 2, (m[..., 3, 2] - m[..., 1, 2]) / 2
    dxx = (m[..., 2, 4] - 2 * m[..., 2, 2] + m[..., 2, 0]) / 4
    dyy = (m[..., 4, 2] - 2 * m[..., 2, 2] + m[..., 0, 2]) / 4
    dxy = (m[..., 3, 3] - m[..., 1, 3] - m[..., 3, 1] + m[..., 1, 1]) / 4
    determinant = dxx * dyy - dxy * dxy
    summit = (dxx < 0) & (determinant > 0)
    away = ops.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=-1)
    return ops.where(summit[..., None], away / ops.where(summit, determinant, 1.0)[..., None], 0.0)
