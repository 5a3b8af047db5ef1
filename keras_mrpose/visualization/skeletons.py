"""Skeletons drawn on images.

Every function returns a new uint8 RGB image and leaves its inputs alone. The person's left is orange, the right is
blue and the middle white: colours (Okabe and Ito's) that people of every colour vision can tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import cv2
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton
from keras_mrpose.skeletons import get as get_skeleton

LEFT, RIGHT, MIDDLE = (230, 159, 0), (86, 180, 233), (250, 250, 250)
OUTLINE = (25, 25, 25)
# Of people, where there are several in one image: Okabe and Ito's other colours first, then paler ones.
PEOPLE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (250, 250, 250), (160, 220, 160), (220, 180, 250),
)  # fmt: skip
FACE = {"nose", "eye", "ear", "mouth", "chin"}  # words of joints whose edges are drawn thin
SHIFT = 4  # OpenCV draws at 1 / 2^SHIFT of a pixel


def draw(image: np.ndarray, people, skeleton: str | Skeleton | None = None, *, threshold: float = 0.2) -> np.ndarray:
    """Draw people's skeletons on an image: found ones, annotated ones, or keypoints of your own.

    Args:
        image: ``(height, width, 3)`` uint8 RGB; `keras_mrpose.read_image` reads a file.
        people: a `Pose`, a `People` table of this image (its hidden joints are drawn as uncertain), or keypoints
            ``(people, joints, 3)``: x, y in image pixels, score.
        skeleton: names and connects the joints of keypoints, its name will do.
        threshold: found joints with a lower score are drawn as uncertain.

    Returns:
        A new image like the given one.

    Raises:
        InputError: keypoints without a skeleton, or image or keypoints of another shape or type.
    """
    skeleton = skeleton or getattr(people, "skeleton", None)
    if skeleton is None:
        raise InputError("The keypoints have no skeleton; give its name, such as skeleton='coco', or a Skeleton.")
    keypoints, labels = getattr(people, "keypoints", people), hasattr(people, "image_index")
    return draw_skeleton(image, keypoints, get_skeleton(skeleton), threshold=threshold, visibility=labels)


def draw_skeleton(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    *,
    threshold: float = 0.2,
    visibility: bool = False,
) -> np.ndarray:
    """Draw people's skeletons on an image.

    Confident joints are discs with solid edges between them; uncertain joints are rings with thin, dashed edges. Sizes
    follow each person's size. Joints that are NaN or outside the image are left out, with their edges.

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
    canvas = check_image(image).copy()
    for person in _checked(keypoints, skeleton):
        points, scores = person[:, :2], person[:, 2]
        drawn = _is_drawn(person, canvas)
        if visibility:
            drawn &= scores > 0
        if drawn.any():
            confident = scores >= (2 if visibility else threshold)
            _draw_person(canvas, points, drawn, confident, skeleton)
    return canvas


def draw_people(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    numbers: Iterable[int] | None = None,
    boxes: np.ndarray | None = None,
    *,
    threshold: float = 0.2,
) -> np.ndarray:
    """Draw people's skeletons as `draw_skeleton` does, with a colour and a number for each, and boxes.

    Args:
        image: ``(height, width, 3)`` uint8 RGB.
        keypoints: ``(people, joints, 3)`` x, y in image pixels, score.
        skeleton: names and connects the joints.
        numbers: ``(people,)`` not negative, set colour and label; None: left and right have their colours.
        boxes: ``(people, 4)`` x, y, w, h that are drawn too; None draws none.
        threshold: joints with a lower score are uncertain.

    Returns:
        A new image like the given one.
    """
    canvas = check_image(image).copy()
    keypoints = _checked(keypoints, skeleton)
    size = max(0.4, max(canvas.shape[:2]) / 1600)  # of the labels: they can be read in the image as a whole
    numbers = [None] * len(keypoints) if numbers is None else list(numbers)
    colours = [None if number is None else PEOPLE[number % len(PEOPLE)] for number in numbers]
    for box, colour in zip([] if boxes is None else boxes, colours, strict=boxes is not None):
        x, y, w, h = box
        corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], float)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            draw_line(canvas, a, b, 2.5 * size, colour or MIDDLE)
    labels = []
    for person, number, colour in zip(keypoints, numbers, colours, strict=True):
        drawn = _is_drawn(person, canvas)
        if drawn.any():
            _draw_person(canvas, person[:, :2], drawn, person[:, 2] >= threshold, skeleton, colour)
            if colour is not None:
                points = person[drawn, :2]
                labels.append((str(number), points[points[:, 1].argmin()] - (0, 24 * size), colour))
    for text, at, colour in labels:  # above everybody's lines
        _label(canvas, text, at, size, colour)
    return canvas


def _checked(keypoints, skeleton: Skeleton) -> np.ndarray:
    """Keypoints ``(people, joints, 3)`` of a skeleton, or an `InputError`."""
    keypoints = np.asarray(keypoints, float)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (skeleton.num_joints, 3):
        raise InputError(
            f"The keypoints have shape {keypoints.shape}; give (people, {skeleton.num_joints}, 3) for the "
            f"{skeleton.name} skeleton: x, y, score."
        )
    return keypoints


def _is_drawn(person: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Which of the joints are numbers, and inside the image."""
    points, sides = person[:, :2], np.array(canvas.shape[1::-1])
    return np.isfinite(person).all(axis=1) & (points >= -0.5).all(axis=1) & (points < sides - 0.5).all(axis=1)


def _label(canvas, text: str, at: np.ndarray, size: float, colour: tuple[int, int, int]) -> None:
    """A number on a dark ground, its middle at a point, moved into the image."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, max(1, round(2 * size)))
    half = np.array([width, height]) / 2 + 4 * size
    middle = np.clip(at, half, np.array(canvas.shape[1::-1]) - half)
    low, high = np.round(middle - half).astype(int), np.round(middle + half).astype(int)
    cv2.rectangle(canvas, low.tolist(), high.tolist(), OUTLINE, -1)
    corner = np.round(middle + np.array([-width, height]) / 2).astype(int).tolist()
    cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, round(2 * size)), cv2.LINE_AA)


def _draw_person(canvas, points, drawn, confident, skeleton, colour=None) -> None:
    """One person; in one colour if it is given, else by left and right."""
    extent = np.ptp(points[drawn], axis=0).max()
    radius = np.clip(extent / 55, 2.0, max(2.0, max(canvas.shape[:2]) / 80))
    ring = max(1.5 * radius, 4.0)  # outer radius; a smaller one has no hole
    colours = [colour or _side_colour(skeleton, joint) for joint in range(skeleton.num_joints)]
    edges = [edge for edge in skeleton.edges if drawn[list(edge)].all()]
    for a, b in sorted(edges, key=lambda edge: confident[list(edge)].all()):  # solid ones lie on top
        # ends at the rim of a ring, which stays hollow
        start, end = _shortened(points[a], points[b], *(0 if confident[j] else ring for j in (a, b)))
        thick = radius / 2 if _in_face(skeleton, a) and _in_face(skeleton, b) else radius
        _draw_edge(
            canvas, start, end, thick, colour or _side_colour(skeleton, a, b), bool(confident[a] and confident[b])
        )
    outline = max(0.8, radius / 4)
    for joint in sorted(np.flatnonzero(drawn), key=lambda joint: confident[joint]):
        hole = 0.0 if confident[joint] else ring - max(1.2, radius / 2.2)
        outer = radius if confident[joint] else ring
        _disc(canvas, points[joint], outer + outline, OUTLINE, max(0.0, hole - outline))
        _disc(canvas, points[joint], outer, colours[joint], hole)


def _side_colour(skeleton, *joints) -> tuple[int, int, int]:
    """Colour of a joint or an edge: left or right if it touches that side and not the other."""
    left, right = (any(skeleton.sides[j] == side for j in joints) for side in ("left", "right"))
    return MIDDLE if left == right else LEFT if left else RIGHT


def _in_face(skeleton: Skeleton, joint: int) -> bool:
    """Whether a joint's name says that it is part of the face."""
    return not FACE.isdisjoint(re.split("[^a-z]+", skeleton.joints[joint].lower()))


def _shortened(start, end, at_start, at_end):
    """Ends of a line with so many pixels cut off them."""
    length = np.hypot(*(end - start))
    direction = (end - start) / max(length, 1e-9)
    at_start, at_end = min(at_start, length / 2), min(at_end, length / 2)
    return start + at_start * direction, end - at_end * direction


def _draw_edge(canvas, start, end, radius, colour, solid) -> None:
    if solid:
        width, pieces, gap = 0.9 * radius, 1, 0.0
    else:
        width = max(0.6 * radius, 1.0)
        pieces = max(1, round(np.hypot(*(end - start)) / (7 * width)))
        gap = 0.5  # of a piece
    cuts = [start + (end - start) * (i + side * (1 - gap)) / (pieces - gap) for i in range(pieces) for side in (0, 1)]
    for paint, extra in ((OUTLINE, max(1.0, radius / 2.5)), (colour, 0.0)):
        for a, b in zip(cuts[::2], cuts[1::2], strict=True):
            draw_line(canvas, a, b, width + extra, paint)


def draw_line(canvas, start, end, width, colour) -> None:
    """Draw a straight line of any width into the canvas, not only of whole pixels as OpenCV's own."""
    along = (end - start) / max(np.hypot(*(end - start)), 1e-9)
    across = np.array([-along[1], along[0]]) * width / 2
    corners = np.array([start + across, end + across, end - across, start - across])
    cv2.fillConvexPoly(canvas, np.round(corners * 2**SHIFT).astype(np.int32), colour, cv2.LINE_AA, SHIFT)


def _disc(canvas, centre, radius, colour, hole=0.0) -> None:
    """Draw a disc, or a ring around a hole, each pixel by its covered share. (OpenCV's small rings are filled.)"""
    low = np.maximum(np.floor(centre - radius - 1), 0).astype(int)
    high = np.ceil(centre + radius + 2).astype(int)
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    rows, columns = np.ogrid[: patch.shape[0], : patch.shape[1]]
    distance = np.hypot(columns + low[0] - centre[0], rows + low[1] - centre[1])
    cover = np.minimum(radius - distance, distance - hole if hole else radius) + 0.5
    cover = cover.clip(0, 1)[..., None]
    patch[:] = np.round(patch * (1 - cover) + cover * np.array(colour))


def check_image(image) -> np.ndarray:
    """The image as ``(height, width, 3)`` uint8 RGB, or an `InputError`."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"The image has shape {image.shape} and type {image.dtype}; give (height, width, 3) uint8 RGB."
        )
    return image
