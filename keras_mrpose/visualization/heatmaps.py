"""Tiles of crops: targets beside predictions, and contact sheets of labelled people.

Every function returns a new uint8 RGB image and leaves its inputs alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton
from keras_mrpose.visualization.skeletons import OUTLINE, check_image, draw_line, draw_skeleton

CROSS, CAPTION = (240, 60, 160), (235, 235, 235)
QUARTER = (0.25, 0.25)  # scale of all codecs but UDP's
TILE_SIDE = 160  # tiles below this width are enlarged, so that their captions can be read


def target_and_prediction(
    image: np.ndarray,
    target_points: np.ndarray,
    target_heatmaps: np.ndarray,
    predicted_heatmaps: np.ndarray,
    predicted_points: np.ndarray,
    skeleton: Skeleton,
    *,
    scale: tuple[float, float] = QUARTER,
    threshold: float = 0.2,
) -> np.ndarray:
    """Row of four images: the crop; all target heatmaps; all predicted ones; predicted skeleton and true joints.

    True joints are crosses, with a line to the prediction.

    Args:
        image: ``(height, width, 3)`` uint8 RGB, the crop that the network saw.
        target_points: ``(joints, 3 or more)``: x, y in heatmap pixels, weight; joints of weight 0 are not drawn.
        target_heatmaps: ``(h, w, joints)`` in 0..1.
        predicted_heatmaps: ``(h, w, joints)``.
        predicted_points: ``(joints, 3)``: x, y in heatmap pixels, score.
        skeleton: names and connects the joints.
        scale: heatmap pixels per crop pixel in x and y, the codec's.
        threshold: predicted joints with a lower score are uncertain.

    Returns:
        A new image; crops less than 160 pixels wide are enlarged by a whole factor.

    Raises:
        InputError: something has another shape or type.
    """
    image = check_image(image)
    target_heatmaps, predicted_heatmaps = (_heatmaps(maps, skeleton) for maps in (target_heatmaps, predicted_heatmaps))
    truth, predicted = (np.array(points, float)[:, :3] for points in (target_points, predicted_points))
    for points, what in ((truth, "target points"), (predicted, "predicted points")):
        if points.shape != (skeleton.num_joints, 3):
            raise InputError(
                f"The {what} have shape {points.shape}; give ({skeleton.num_joints}, 3) for the {skeleton.name} "
                "skeleton."
            )
    canvas, factor = _enlarged(image)
    for points in (truth, predicted):
        points[:, :2] = (points[:, :2] / scale + 0.5) * factor - 0.5
    overlay = canvas.copy()
    for true, found in zip(truth, predicted, strict=True):
        if true[2] > 0 and np.isfinite([*true, *found]).all():
            draw_line(overlay, true[:2], found[:2], 1.5, CROSS)
    overlay = draw_skeleton(overlay, predicted[None], skeleton, threshold=threshold)
    arm = max(2.5, max(canvas.shape[:2]) / 90)
    for true in truth:
        if true[2] > 0 and np.isfinite(true).all():
            for colour, width, length in ((OUTLINE, 2.6, arm + 0.6), (CROSS, 1.4, arm)):
                for diagonal in (np.array([1, 1]), np.array([1, -1])):
                    draw_line(overlay, true[:2] - length * diagonal, true[:2] + length * diagonal, width, colour)
    return np.hstack(
        [
            _captioned(canvas, "input"),
            _captioned(_heat(canvas, factor, target_heatmaps.max(axis=-1), scale), "target"),
            _captioned(
                _heat(canvas, factor, predicted_heatmaps.max(axis=-1), scale),
                f"predicted, peak {predicted_heatmaps.max():.2f}",
            ),
            _captioned(overlay, "prediction, x true"),
        ]
    )


def contact_sheet(images: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton, captions: Sequence[str]) -> np.ndarray:
    """Sheet of people's crops with their labelled joints, side by side.

    Args:
        images: ``(people, height, width, 3)`` uint8 RGB.
        keypoints: ``(people, joints, 3)``: x, y in crop pixels, visibility, as `draw_skeleton` takes them.
        skeleton: names and connects the joints.
        captions: of each person.

    Returns:
        A new image; crops less than 160 pixels wide are enlarged by a whole factor.

    Raises:
        InputError: an image or keypoints of another shape or type.
    """
    tiles = []
    for image, points, caption in zip(images, np.array(keypoints, float), captions, strict=True):
        canvas, factor = _enlarged(check_image(image))
        points[:, :2] = (points[:, :2] + 0.5) * factor - 0.5
        tiles.append(_captioned(draw_skeleton(canvas, points[None], skeleton, visibility=True), caption))
    return _grid(tiles)


def _enlarged(image) -> tuple[np.ndarray, int]:
    """Image enlarged by a whole factor, and the factor; the centre of pixel i goes to (i + 0.5) * factor - 0.5."""
    factor = math.ceil(TILE_SIDE / image.shape[1])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR), factor


def _heat(canvas, factor, heatmap, scale) -> np.ndarray:
    """One heatmap ``(h, w)`` over the dimmed canvas, more opaque where it is higher."""
    height, width = canvas.shape[:2]
    # Pixel centres are whole numbers and heatmap = crop * scale: a plain resize would be off by half a stride.
    x, y = scale
    middle = 0.5 / factor - 0.5  # the canvas' first pixel in the crop
    matrix = np.array([[x / factor, 0, x * middle], [0, y / factor, y * middle]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    heat = cv2.warpAffine(heatmap, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    heat = np.nan_to_num(heat).clip(0, 1)
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    gray = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY)[..., None] * 0.5
    heat = heat[..., None]
    return np.round(gray * (1 - heat) + colours * heat).astype(np.uint8)


def _captioned(tile, text) -> np.ndarray:
    """The tile with a line of text below, cut at the tile's width, and a thin frame."""
    bar = np.zeros((18, tile.shape[1], 3), np.uint8)
    cv2.putText(bar, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, CAPTION, 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(np.vstack([tile, bar]), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=OUTLINE)


def _grid(tiles) -> np.ndarray:
    """Tiles of one size in rows, filled up with black."""
    height, width = tiles[0].shape[:2]
    columns = max(1, min(len(tiles), round(math.sqrt(len(tiles) * height / width))))
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _heatmaps(heatmaps, skeleton) -> np.ndarray:
    heatmaps = np.asarray(heatmaps, np.float32)
    if heatmaps.ndim != 3 or heatmaps.shape[2] != skeleton.num_joints or not heatmaps.size:
        raise InputError(
            f"The heatmaps have shape {heatmaps.shape}; give (height, width, {skeleton.num_joints}) for the "
            f"{skeleton.name} skeleton."
        )
    return heatmaps
