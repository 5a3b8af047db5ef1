"""A image and, beside it, a map of surfaces that knows what is on top at every pixel.

Everything solid is a convex hull of discs: a edge has two, a trunk five. Coordinates are floats, pixel i has its
centre at i, and OpenCV gets them to 1/16 pixel.
"""

from __future__ import annotations

import cv2
import numpy as np

GROUND, OBJECT = 0, 255  # surfaces that are nobody's

_SHIFT = 4
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)

_LAYERS = np.array(((1.0, 0.0), (0.80, 0.16), (0.36, 0.38)))  # size, and shift towards the light, in radii

Colour = np.ndarray


class Canvas:
    """An RGB image and its map of surfaces.

    Args:
        image: (h, w, 3) uint8, the background; painted in place.
        light: (2,) unit vector in the image towards the light.
    """

    def __init__(self, image: np.ndarray, light: np.ndarray) -> None:
        self.image = image
        self.surface = np.full(image.shape[:2], GROUND, np.uint8)
        self.light = light

    def polygon(self, corners: np.ndarray, colour: Colour, surface: int | None = None) -> None:
        """Fill a convex polygon (n, 2); `surface` None is a mark on whatever is there."""
        fixed = np.rint(np.asarray(corners) * (1 << _SHIFT)).astype(np.int32)
        cv2.fillConvexPoly(self.image, fixed, colour.tolist(), cv2.LINE_AA, _SHIFT)
        if surface is not None:
            cv2.fillConvexPoly(self.surface, fixed, surface, cv2.LINE_8, _SHIFT)

    def hull(self, centres: np.ndarray, radii: np.ndarray, colour: Colour, surface: int | None = None) -> None:
        """Fill the convex hull of discs: (n, 2) centres, (n,) radii in pixels."""
        self.polygon(outlines(centres[None], radii[None])[0], colour, surface)

    def solid(self, centres: np.ndarray, radii: np.ndarray, colour: Colour, surface: int) -> None:
        """A hull with a dark edge and a lit side: three layers, smaller and nearer to the light each time."""
        offsets = self.light * (radii[:, None] * _LAYERS[:, 1, None, None])
        dark, middle, lit = outlines(centres + offsets, radii * _LAYERS[:, :1])
        self.polygon(dark, 0.72 * colour, surface)
        self.polygon(middle, colour)
        self.polygon(lit, np.minimum(1.10 * colour + 8, 255))


def outlines(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Convex hulls of discs: centres (hulls, n, 2), radii (hulls, n) -> corners (hulls, 24, 2), in order.

    A hull's corner in each of 24 directions is the corner there of the disc that reaches farthest in that direction.
    """
    farthest = (centres @ CIRCLE.T + radii[..., None]).argmax(axis=1)
    hull = np.arange(len(centres))[:, None]
    return centres[hull, farthest] + radii[hull, farthest][..., None] * CIRCLE
