"""Renderer of drawn people: posed figures painted as clothed persons, and which of their joints are visible.

A `Canvas` is an image with, beside it, a map of surfaces: what is on top at every pixel. Everything solid is a convex
hull of discs: an arm or a leg has two, a trunk five. Coordinates are floats, pixel i has its centre at i, and OpenCV
gets them to 1/16 pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from keras_mrpose import skeletons
from keras_mrpose.synthetic.pose import AT, FACE, Figure

GROUND, OBJECT = 0, 255  # surfaces that are nobody's

_SHIFT = 4
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)

_LAYERS = np.array(((1.0, 0.0), (0.80, 0.16), (0.36, 0.38)))  # size, and shift towards the light, in radii

Colour = np.ndarray

PARTS = (
    "chest", "pelvis", "neck", "head", "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm",
    "left_thigh", "right_thigh", "left_shin", "right_shin",
)  # fmt: skip
TORSO_SLACK = 0.065  # statures that a shoulder or hip may lie behind its trunk's middle and still count as seen

# The parts that meet in a joint do not hide it.
_MEETING = {
    "nose": ("head",), "eye": ("head",), "ear": ("head",), "shoulder": ("chest", "neck", "{}_upper_arm"),
    "elbow": ("{}_upper_arm", "{}_forearm"), "wrist": ("{}_forearm",), "hip": ("pelvis", "{}_thigh"),
    "knee": ("{}_thigh", "{}_shin"), "ankle": ("{}_shin",),
}  # fmt: skip
MEETING = tuple(
    frozenset(PARTS.index(part.format(name.split("_")[0])) for part in _MEETING[name.split("_")[-1]])
    for name in skeletons.COCO.joints
)

# Points on the part of a unit sphere (left, up, forward) that hair covers: above and behind a slanting plane.
_SPHERE = np.array(
    [(np.sin(t) * np.sin(p), np.cos(t), np.sin(t) * np.cos(p)) for t in np.linspace(0, np.pi, 13) for p in ANGLES]
)
_SCALP = _SPHERE[_SPHERE @ (0.0, 0.75, -0.66) > 0.12]


# What legs wear: blues, greys, browns and black, as in any street.
TROUSERS = np.array(
    ((38, 52, 96), (70, 96, 150), (30, 30, 36), (92, 92, 98), (84, 62, 44), (190, 180, 156)), np.float64
)


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
        self.polygon(hull_outlines(centres[None], radii[None])[0], colour, surface)

    def solid(self, centres: np.ndarray, radii: np.ndarray, colour: Colour, surface: int) -> None:
        """A hull with a dark edge and a lit side: three layers, smaller and nearer to the light each time."""
        offsets = self.light * (radii[:, None] * _LAYERS[:, 1, None, None])
        dark, middle, lit = hull_outlines(centres + offsets, radii * _LAYERS[:, :1])
        self.polygon(dark, 0.72 * colour, surface)
        self.polygon(middle, colour)
        self.polygon(lit, np.minimum(1.10 * colour + 8, 255))


def hull_outlines(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Convex hulls of discs: centres (hulls, n, 2), radii (hulls, n) -> corners (hulls, 24, 2), in order.

    A hull's corner in each of 24 directions is the corner there of the disc that reaches farthest in that direction.
    """
    farthest = (centres @ CIRCLE.T + radii[..., None]).argmax(axis=1)
    hull = np.arange(len(centres))[:, None]
    return centres[hull, farthest] + radii[hull, farthest][..., None] * CIRCLE


@dataclass(frozen=True)
class Clothing:
    """Colours ``(3,)`` 0..255 and clothes of one person; `sleeves`: 0 none, 1 short, 2 long."""

    skin: Colour
    hair: Colour
    shirt: Colour
    accent: Colour
    trousers: Colour
    shoes: Colour
    sleeves: int
    shorts: bool
    pattern: str
    long_hair: bool


def sample_clothing(rng: np.random.Generator, ground: Colour) -> Clothing:
    """Random clothing; clothes keep their distance from `ground`, the mean colour behind the person."""

    def cloth(colours: np.ndarray) -> Colour:
        far = np.abs(colours - ground).mean(axis=1)
        return colours[np.argmax(far > 60) if (far > 60).any() else np.argmax(far)]

    light, dark = np.array((242, 204, 178)), np.array((96, 62, 44))
    hairs = np.array(((35, 26, 22), (92, 58, 34), (178, 138, 82), (150, 148, 146), (140, 62, 32)))
    return Clothing(
        skin=light + rng.random() * (dark - light) + rng.normal(0, 5, 3),
        hair=np.clip(hairs[rng.integers(len(hairs))] + rng.normal(0, 8, 3), 5, 250),
        shirt=cloth(_bright(rng, 4)),
        accent=rng.uniform(0, 255, 3),
        trousers=cloth(TROUSERS[rng.permutation(len(TROUSERS))] + rng.normal(0, 10, 3)).clip(5, 250),
        shoes=rng.choice((25.0, 235.0)) + rng.normal(0, 12, 3),
        sleeves=int(np.searchsorted((0.45, 0.9), rng.random())),
        shorts=bool(rng.random() < 0.25),
        pattern=("plain", "hoops", "stripes", "yoke")[rng.integers(4)],
        long_hair=bool(rng.random() < 0.22),
    )


def _bright(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 3) vivid colours: one channel high, one low, one anywhere."""
    channels = np.stack([rng.uniform(190, 250, count), rng.uniform(10, 110, count), rng.uniform(10, 250, count)], -1)
    return rng.permuted(channels, axis=1)


class DrawnPerson:
    """One figure in the image: where it is, how it is painted, what of it can be seen.

    Args:
        figure: the posed body.
        clothing: its colours and clothes.
        stature: its standing height in pixels.
        place: (2,) x, y of the middle of the hips in pixels.
        number: 0, 1, 2... in the image; distinguishes the people in the map of surfaces.
    """

    def __init__(self, figure: Figure, clothing: Clothing, stature: float, place: np.ndarray, number: int) -> None:
        self.figure, self.clothing, self.number = figure, clothing, number
        self.points = figure.project(stature) + place
        self.pixels = stature * figure.zoom  # per stature, at each point
        self.stature = stature

    @property
    def joints(self) -> np.ndarray:
        """(17, 2) the COCO joints in pixels, wherever they lie."""
        return self.points[: skeletons.COCO.num_joints]

    @property
    def first_surface(self) -> int:
        """The number of this person's first part in the map of surfaces; the others follow."""
        return 1 + self.number * len(PARTS)

    def paint(self, canvas: Canvas) -> None:
        """Paint the parts, the farthest first."""
        for _, paint in sorted(self._parts(), key=lambda part: part[0]):
            paint(canvas)

    def visibility(self, surface: np.ndarray) -> np.ndarray:
        """(17,) COCO visibility from the finished map: 2 seen, 1 hidden, 0 outside the image."""
        height, width = surface.shape
        v = np.zeros(len(MEETING))
        depth, first = self.figure.depth, self.first_surface
        for j, name in enumerate(skeletons.COCO.joints):
            x, y = self.points[j]
            if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                continue
            part = int(surface[round(y), round(x)]) - first
            seen = part in MEETING[j]
            if name in FACE:
                seen = seen and self._faces(name)
            elif seen and PARTS[part] in ("chest", "pelvis"):
                middle = 0.5 * (depth[j] + depth[skeletons.COCO.flip_indices[j]])
                seen = middle - depth[j] < TORSO_SLACK * self.figure.girth * (1 if "shoulder" in name else 0.7)
            v[j] = 2 if seen else 1
        return v

    def _faces(self, name: str) -> bool:
        """Whether that part of the face is on the viewer's side of the head, and not under hair."""
        towards = FACE[name] @ self.figure.facing
        if name.endswith("ear"):  # stands out: its rim is seen round the cheek until the head has turned 30 degrees
            return not self.clothing.long_hair and towards > -0.5
        return towards > (0.05 if name == "nose" else 0.15)

    def _parts(self) -> Iterator[tuple[float, Callable[[Canvas], None]]]:
        """(depth, paint) of every part."""
        clothing = self.clothing
        trousers, skin = clothing.trousers, clothing.skin
        yield self._depth("left_shoulder", "right_shoulder", "left_waist", "right_waist"), self._chest
        yield (
            self._depth("left_hip", "right_hip", "left_waist", "right_waist"),
            self._hulls(
                "pelvis",
                (("left_waist", 0.054), ("right_waist", 0.054), ("left_hip", 0.052), ("right_hip", 0.052), trousers),
            ),
        )
        yield self._depth("neck") - 0.03, self._hulls("neck", (("neck", 0.032), ("head", 0.028), skin))
        yield self._depth("head") + 0.02, self._head
        if clothing.long_hair:
            yield self._depth("head") - 0.9 * self.figure.head[2, 2], self._mane
        for side in ("left", "right"):
            shoulder, elbow, wrist, hand, hip, knee, ankle, toe = (
                f"{side}_{name}" for name in ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "toe")
            )
            sleeve = clothing.shirt if clothing.sleeves else skin
            yield (
                self._depth(shoulder, elbow) + 0.03,
                self._hulls(f"{side}_upper_arm", ((shoulder, 0.035), (elbow, 0.026), sleeve)),
            )
            yield (
                self._depth(elbow, hand) + 0.035,
                self._hulls(
                    f"{side}_forearm",
                    ((wrist, 0.018), (hand, 0.023), skin),
                    ((elbow, 0.026), (wrist, 0.019), clothing.shirt if clothing.sleeves == 2 else skin),
                ),
            )
            yield self._depth(hip, knee), self._hulls(f"{side}_thigh", ((hip, 0.052), (knee, 0.037), trousers))
            shin = ((knee, 0.036), (ankle, 0.023), skin if clothing.shorts else trousers)
            foot = ((ankle, 0.026), (toe, 0.019), clothing.shoes)
            both = (shin, foot) if self._depth(toe) > self._depth(ankle) else (foot, shin)
            yield self._depth(knee, ankle) - 0.005, self._hulls(f"{side}_shin", *both)

    def _depth(self, *names: str) -> float:
        return sum(self.figure.depth[AT[name]] for name in names) / len(names)

    def _discs(self, *discs: tuple[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """Centres (n, 2) and radii (n,) in pixels of discs given as point names and radii in statures."""
        index = [AT[name] for name, _ in discs]
        return self.points[index], np.array([r for _, r in discs]) * self.pixels[index] * self.figure.girth

    def _hulls(self, part: str, *hulls: tuple) -> Callable[[Canvas], None]:
        """A painter of one part made of solid hulls; each is its discs and, last, its colour."""
        surface = self.first_surface + PARTS.index(part)

        def paint(canvas: Canvas) -> None:
            for *discs, colour in hulls:
                canvas.solid(*self._discs(*discs), colour, surface)

        return paint

    def _chest(self, canvas: Canvas) -> None:
        clothing = self.clothing
        names = ("left_shoulder", "right_shoulder", "left_waist", "right_waist")
        centres, radii = self._discs(*zip(names, (0.042, 0.042, 0.055, 0.055), strict=True))
        girdle = np.append(radii, 0.066 * self.stature * self.figure.girth)
        middle = centres.mean(axis=0)
        canvas.solid(np.vstack([centres, middle]), girdle, clothing.shirt, self.first_surface + PARTS.index("chest"))
        left, right, left_low, right_low = centres
        line = radii[:1].repeat(2)
        if clothing.pattern == "hoops":
            for t in (0.1, 0.4, 0.7):
                ends = np.stack([left + t * (left_low - left), right + t * (right_low - right)])
                canvas.hull(ends, 0.42 * line, clothing.accent)
        elif clothing.pattern == "stripes":
            for t in (0.0, 0.33, 0.67, 1.0):
                ends = np.stack([left + t * (right - left), left_low + t * (right_low - left_low)])
                canvas.hull(ends, 0.25 * line, clothing.accent)
        elif clothing.pattern == "yoke":
            canvas.hull(np.stack([left, right]), 0.85 * line, clothing.accent)
        if self.figure.head[2, 2] > 0 and abs(left[0] - right[0]) > radii[0]:  # an open collar, on the front only
            neck = self.points[AT["neck"]]
            collar = np.stack(
                [neck + 0.35 * (left - neck), neck + 0.35 * (right - neck), neck + 0.45 * (middle - neck)]
            )
            canvas.polygon(collar, 0.9 * clothing.skin)

    def _on_head(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, 2) and depth (n,) in statures above the head's middle, of places (n, 3) in its semi-axes."""
        offsets = np.asarray(places) @ self.figure.head.T
        return self.points[AT["head"]] + offsets[:, :2] * self.pixels[AT["head"]], offsets[:, 2]

    def _head(self, canvas: Canvas) -> None:
        clothing, surface = self.clothing, self.first_surface + PARTS.index("head")
        unit = 0.053 * self.pixels[AT["head"]]  # half a head's width
        facing = self.figure.facing

        def spots(places, radius: float, colour: Colour) -> None:
            centres, _ = self._on_head(np.array(places))
            canvas.hull(centres, np.full(len(centres), radius * unit), colour, surface)

        ears = [] if clothing.long_hair else [name for name in ("left_ear", "right_ear") if self._faces(name)]
        near = [name for name in ears if FACE[name] @ facing > 0.2]
        for name in ears:  # the near ones are painted again, over the hair
            spots([FACE[name]], 0.26, 0.8 * clothing.skin)
        self._ellipsoid(canvas, 1.0, 0.75 * clothing.skin, surface)
        self._ellipsoid(canvas, 0.88, clothing.skin, surface)
        scalp, depth = self._on_head(_SCALP * 1.04)
        if (depth > 0).sum() > 2:
            canvas.polygon(cv2.convexHull(scalp[depth > 0].astype(np.float32))[:, 0], clothing.hair, surface)
        for name in near:
            spots([FACE[name]], 0.26, 0.82 * clothing.skin)
        for s, eye in ((1, "left_eye"), (-1, "right_eye")):
            if self._faces(eye):
                spots([FACE[eye]], 0.20, np.array((240, 240, 240)))
                spots([FACE[eye]], 0.11, np.array((30, 25, 25)))
                spots([(0.60 * s, 0.40, 0.8), (0.22 * s, 0.42, 0.92)], 0.05, 0.7 * clothing.hair)
        if self._faces("nose"):
            spots([(0, 0.1, 1.0), FACE["nose"]], 0.12, 0.72 * clothing.skin)
            if facing[2] > 0.15:
                spots([(0.26, -0.5, 0.86), (-0.26, -0.5, 0.86)], 0.09, 0.55 * clothing.skin + (60, 0, 0))

    def _ellipsoid(self, canvas: Canvas, size: float, colour: Colour, surface: int) -> None:
        # The shadow of the ellipsoid A.unit-sphere is the ellipse C.unit-circle with C C' = the upper left of A A'.
        axes = self.figure.head[:2] * (size * self.pixels[AT["head"]])
        canvas.polygon(self.points[AT["head"]] + CIRCLE @ np.linalg.cholesky(axes @ axes.T).T, colour, surface)

    def _mane(self, canvas: Canvas) -> None:
        centres, _ = self._on_head(
            np.array(((0.55, -0.1, -0.4), (-0.55, -0.1, -0.4), (0.5, -1.6, -0.7), (-0.5, -1.6, -0.7)))
        )
        surface = self.first_surface + PARTS.index("head")
        canvas.solid(
            centres, np.array((0.6, 0.6, 0.4, 0.4)) * 0.053 * self.pixels[AT["head"]], self.clothing.hair, surface
        )
