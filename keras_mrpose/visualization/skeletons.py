"""Images of what goes in and comes out: skeletons on photographs, heatmaps, loss curves.

Every function returns a new uint8 RGB image and leaves its inputs alone. The person's left is orange, the right is
blue and the middle white: colours (Okabe and Ito's) that people of every colour vision tell apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton, side_of

LEFT, RIGHT, MIDDLE = (230, 159, 0), (86, 180, 233), (250, 250, 250)
OUTLINE, CROSS, CAPTION = (25, 25, 25), (240, 60, 160), (235, 235, 235)
SHIFT = 4  # OpenCV draws at 1 / 2^SHIFT of a pixel
QUARTER = (0.25, 0.25)  # scale of all codecs but UDP's
TILE_SIDE = 160  # tiles below this width are enlarged, so that their captions can be read


# --- skeletons ----------------------------------------------------------------------------------------------------


def draw_skeleton(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    *,
    threshold: float = 0.2,
    visibility: bool = False,
) -> np.ndarray:
    """Draw people's skeletons on an image.

    Sure joints are discs and the edges between them solid; uncertain joints are rings, and their edges thin and dashed.
    Sizes follow each person's size. Joints that are NaN or outside the image are left out, with their edges.

    Args:
        image: ``(height, width, 3)`` uint8 RGB.
        keypoints: ``(people, joints, 3)``: x, y in image pixels, score.
        skeleton: names and connects the joints.
        threshold: joints with a lower score are uncertain.
        visibility: the third column is a label's visibility, not a score: 0 is not drawn, 1 (hidden) is drawn as
            uncertain, 2 as confident.

    Returns:
        A new image like the given one.

    Raises:
        InputError: image or keypoints have another shape or type.
    """
    image, keypoints = _image(image), np.asarray(keypoints, float)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (skeleton.num_joints, 3):
        raise InputError(
            f"The keypoints have shape {keypoints.shape}; give (people, {skeleton.num_joints}, 3) for the "
            f"{skeleton.name} skeleton: x, y, score."
        )
    canvas = image.copy()
    sides = np.array(image.shape[1::-1])
    for person in keypoints:
        points, scores = person[:, :2], person[:, 2]
        drawn = np.isfinite(person).all(axis=1) & (points >= -0.5).all(axis=1) & (points < sides - 0.5).all(axis=1)
        if visibility:
            drawn &= scores > 0
        if drawn.any():
            confident = scores >= (2 if visibility else threshold)
            _draw_person(canvas, points, drawn, confident, skeleton)
    return canvas


def _draw_person(canvas, points, drawn, confident, skeleton) -> None:
    extent = np.ptp(points[drawn], axis=0).max()
    radius = np.clip(extent / 55, 2.0, max(2.0, max(canvas.shape[:2]) / 80))
    ring = max(1.5 * radius, 4.0)  # outer radius; a smaller one has no hole
    colours = [_side_colour(skeleton, joint) for joint in range(skeleton.num_joints)]
    edges = [limb for limb in skeleton.edges if drawn[list(limb)].all()]
    for a, b in sorted(edges, key=lambda limb: confident[list(limb)].all()):  # solid ones lie on top
        # a edge ends at the edge of a ring, which stays hollow
        start, end = _shortened(points[a], points[b], *(0 if confident[j] else ring for j in (a, b)))
        _draw_limb(canvas, start, end, radius, _side_colour(skeleton, a, b), bool(confident[a] and confident[b]))
    edge = max(0.8, radius / 4)
    for joint in sorted(np.flatnonzero(drawn), key=lambda joint: confident[joint]):
        hole = 0.0 if confident[joint] else ring - max(1.2, radius / 2.2)
        outer = radius if confident[joint] else ring
        _disc(canvas, points[joint], outer + edge, OUTLINE, max(0.0, hole - edge))
        _disc(canvas, points[joint], outer, colours[joint], hole)


def _side_colour(skeleton, *joints) -> tuple[int, int, int]:
    """Of a joint or edge: left or right if it touches that side and not the other."""
    left, right = (any(side_of(skeleton.joints[j]) == side for j in joints) for side in ("left", "right"))
    return MIDDLE if left == right else LEFT if left else RIGHT


def _shortened(start, end, at_start, at_end):
    """The part of a line that is left when so many pixels are cut off its ends."""
    length = np.hypot(*(end - start))
    direction = (end - start) / max(length, 1e-9)
    at_start, at_end = min(at_start, length / 2), min(at_end, length / 2)
    return start + at_start * direction, end - at_end * direction


def _draw_limb(canvas, start, end, radius, colour, solid) -> None:
    if solid:
        width, pieces, gap = 0.9 * radius, 1, 0.0
    else:
        width = max(0.6 * radius, 1.0)
        pieces = max(1, round(np.hypot(*(end - start)) / (7 * width)))
        gap = 0.5  # of a piece
    cuts = [start + (end - start) * (i + side * (1 - gap)) / (pieces - gap) for i in range(pieces) for side in (0, 1)]
    for paint, extra in ((OUTLINE, max(1.0, radius / 2.5)), (colour, 0.0)):
        for a, b in zip(cuts[::2], cuts[1::2], strict=True):
            _strip(canvas, a, b, width + extra, paint)


def _strip(canvas, start, end, width, colour) -> None:
    """A straight line of any width, not only whole pixels as OpenCV's own."""
    along = (end - start) / max(np.hypot(*(end - start)), 1e-9)
    across = np.array([-along[1], along[0]]) * width / 2
    corners = np.array([start + across, end + across, end - across, start - across])
    cv2.fillConvexPoly(canvas, np.round(corners * 2**SHIFT).astype(np.int32), colour, cv2.LINE_AA, SHIFT)


def _disc(canvas, centre, radius, colour, hole=0.0) -> None:
    """A disc, or a ring around a hole, each pixel by the share that is covered. (OpenCV's small rings are filled.)"""
    low = np.maximum(np.floor(centre - radius - 1), 0).astype(int)
    high = np.ceil(centre + radius + 2).astype(int)
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    rows, columns = np.ogrid[: patch.shape[0], : patch.shape[1]]
    distance = np.hypot(columns + low[0] - centre[0], rows + low[1] - centre[1])
    cover = np.minimum(radius - distance, distance - hole if hole else radius) + 0.5
    cover = cover.clip(0, 1)[..., None]
    patch[:] = np.round(patch * (1 - cover) + cover * np.array(colour))


def contact_sheet(images: np.ndarray, keypoints: np.ndarray, skeleton: Skeleton, captions: Sequence[str]) -> np.ndarray:
    """Crops of people with their labelled joints, side by side.

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
        canvas, factor = _enlarged(_image(image))
        points[:, :2] = (points[:, :2] + 0.5) * factor - 0.5
        tiles.append(_captioned(draw_skeleton(canvas, points[None], skeleton, visibility=True), caption))
    return _grid(tiles)


# --- heatmaps -----------------------------------------------------------------------------------------------------


def heatmap_grid(
    image: np.ndarray,
    heatmaps: np.ndarray,
    skeleton: Skeleton,
    *,
    scale: tuple[float, float] = QUARTER,
    columns: int | None = None,
) -> np.ndarray:
    """One tile per joint: its heatmap over the dimmed crop, its name and its highest value.

    Args:
        image: ``(height, width, 3)`` uint8 RGB, the crop that the network saw.
        heatmaps: ``(h, w, joints)``; values from 0 (clear) to 1 (bright), others go to the nearest end.
        skeleton: names the joints.
        scale: heatmap pixels per crop pixel in x and y, the codec's.
        columns: tiles in a row; None makes the grid about as wide as high.

    Returns:
        A new image; crops less than 160 pixels wide are enlarged by a whole factor.

    Raises:
        InputError: image or heatmaps have another shape or type.
    """
    image, heatmaps = _image(image), _heatmaps(heatmaps, skeleton)
    canvas, factor = _enlarged(image)
    tiles = [
        _captioned(_heat(canvas, factor, heatmaps[..., joint], scale), f"{name} {heatmaps[..., joint].max():.2f}")
        for joint, name in enumerate(skeleton.joints)
    ]
    return _grid(tiles, columns)


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
    """A row of four images: the crop; all target heatmaps; all predicted ones; predicted skeleton and true joints.

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
    image = _image(image)
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
            _strip(overlay, true[:2], found[:2], 1.5, CROSS)
    overlay = draw_skeleton(overlay, predicted[None], skeleton, threshold=threshold)
    arm = max(2.5, max(canvas.shape[:2]) / 90)
    for true in truth:
        if true[2] > 0 and np.isfinite(true).all():
            for colour, width, length in ((OUTLINE, 2.6, arm + 0.6), (CROSS, 1.4, arm)):
                for diagonal in (np.array([1, 1]), np.array([1, -1])):
                    _strip(overlay, true[:2] - length * diagonal, true[:2] + length * diagonal, width, colour)
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


def _enlarged(image) -> tuple[np.ndarray, int]:
    """The image enlarged by a whole factor, and the factor; the centre of pixel i goes to (i + 0.5) * factor - 0.5."""
    factor = math.ceil(TILE_SIDE / image.shape[1])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR), factor


def _heat(canvas, factor, heatmap, scale) -> np.ndarray:
    """One heatmap ``(h, w)`` over the dimmed canvas, the better to be seen the higher its value."""
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


def _grid(tiles, columns=None) -> np.ndarray:
    """Tiles of one size in rows, filled up with black."""
    height, width = tiles[0].shape[:2]
    columns = columns or max(1, min(len(tiles), round(math.sqrt(len(tiles) * height / width))))
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _image(image) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"The image has shape {image.shape} and type {image.dtype}; give (height, width, 3) uint8 RGB."
        )
    return image


def _heatmaps(heatmaps, skeleton) -> np.ndarray:
    heatmaps = np.asarray(heatmaps, np.float32)
    if heatmaps.ndim != 3 or heatmaps.shape[2] != skeleton.num_joints or not heatmaps.size:
        raise InputError(
            f"The heatmaps have shape {heatmaps.shape}; give (height, width, {skeleton.num_joints}) for the "
            f"{skeleton.name} skeleton."
        )
    return heatmaps


# --- curves -------------------------------------------------------------------------------------------------------


def loss_curve(history: dict[str, list[float]], path: str | Path) -> None:
    """Draw a training's losses (logarithmic) and its scores between 0 and 1 over the epochs.

    Args:
        history: as Keras keeps it, a list for each name with one value per epoch; ``val_`` names the validation's. A
            shorter list (``validation_freq``) is spread over the epochs. Learning rate and speed are not drawn.
        path: the image's file, by its ending PNG, SVG or PDF; folders above it are made.

    Raises:
        InputError: there is no loss in the history.
    """
    if not history.get("loss"):
        raise InputError(f"The history has no 'loss' to draw, only {', '.join(history) or 'nothing'}.")
    epochs = len(history["loss"])
    losses = [name for name in ("loss", "val_loss") if history.get(name)]
    scores = [
        name
        for name, values in history.items()
        if name not in (*losses, "learning_rate", "lr") and values and all(not v < 0 and not v > 1 for v in values)
    ]
    figure = Figure(figsize=(5.5 * (1 + bool(scores)), 3.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, 1 + bool(scores), squeeze=False)[0]
    for axes, names, label in zip(panels, (losses, scores), ("loss", "score"), strict=False):
        for name in names:
            values = np.asarray(history[name], float)
            at = np.arange(1, len(values) + 1) * max(1, epochs // len(values))
            validation = name.startswith("val_")
            colour = f"C{names.index(name.removeprefix('val_')) if name.removeprefix('val_') in names else 9}"
            marker = "." if epochs < 40 else None
            axes.plot(at, values, "-" if validation else "--", color=colour, marker=marker, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if any(value > 0 for name in losses for value in history[name]):
        panels[0].set_yscale("log")
    if scores:
        panels[1].set_ylim(0, 1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lstrip(".") or "png")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(buffer.getvalue())  # in one piece: an error above leaves no half file
