"""The coordinate ladder against the published numbers and against arithmetic written out in float64."""

import math

import keras
import numpy as np
import pytest
import tensorflow.experimental.numpy as tnp

from keras_mrpose import geometry

NAMESPACES = {"numpy": np, "keras": keras.ops, "tensorflow": tnp}
SIZE = (256, 192)


@pytest.fixture(scope="module")
def affine(golden_dir):
    return dict(np.load(golden_dir / "affine.npz"))


def reference_matrix(centre, width, size, angle):
    """Move the centre to the origin, scale, turn, move to the middle of the crop: four 3x3 matrices."""
    k, c, s = size[1] / width, math.cos(angle), math.sin(angle)
    to_origin = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1]])
    scale = np.diag([k, k, 1])
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    to_middle = np.array([[1, 0, size[1] / 2], [0, 1, size[0] / 2], [0, 0, 1]])
    return (to_middle @ turn @ scale @ to_origin)[:2]


def people(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-50, 500, (count, 2)), rng.uniform(20, 600, count), rng.uniform(-math.pi, math.pi, count)


# --- published numbers --------------------------------------------------------------------------------------------


def test_matrices_are_the_published_ones(affine):
    """Forward and inverse, as near as the golden solver's float32 points allow.

    It solves for three of them, each rounded to 2^-24 of its own size: the source coordinates are up to |centre| +
    window, the crop's up to its side. Near the box that adds up to three times the sum of the two. It is at most
    1e-4 px of the image for all inverses and for most matrices less than 1e-4 px of the crop; where the crop
    magnifies a small box far from the origin it grows with the scale, to 1.2e-3 px.
    """
    worst = {0: 0.0, 1: 0.0}
    for i, wanted in enumerate(affine["matrix"]):
        width, height = affine["output_size_wh"][i]
        window = 200 * affine["scale"][i, 0]
        matrix = geometry.crop_matrix(affine["center"][i], window, (height, width), math.radians(affine["rot_deg"][i]))
        found = geometry.inverse(matrix) if affine["inv"][i] else matrix
        np.testing.assert_allclose(found[:, :2], wanted[:, :2], rtol=1e-5, atol=1e-5 * abs(wanted[:, :2]).max())
        np.testing.assert_allclose(found[:, 2], wanted[:, 2], rtol=0, atol=0.06)  # at the origin, far from the box
        error = abs(geometry.transform(found, affine["points"][i]) - affine["points_out"][i]).max()
        rounding = 2.0**-24 * (abs(affine["center"][i]).max() + window + window)  # in image pixels
        assert error < 3 * rounding * (1 if affine["inv"][i] else width / window)
        worst[affine["inv"][i]] = max(worst[affine["inv"][i]], error)
    assert worst[1] < 1e-4 and worst[0] < 2e-3
    assert {0, 1} == set(affine["inv"]) == set(affine["inputs_float32"])


def test_points_go_through_a_matrix_as_published(affine):
    for matrix, points, wanted in zip(affine["matrix"], affine["points"], affine["points_out"], strict=True):
        np.testing.assert_allclose(geometry.transform(matrix, points), wanted, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("size", [(256, 192), (256, 256)], ids=["256x192", "256x256"])
def test_windows_are_the_published_ones(affine, size):
    """Also of boxes with zero and negative sides; 1e-6 is some ten roundings of the golden float32, in units of 200 px.

    The published rule does not pad a box whose centre is at x = -1; ours does unless it is told not to.
    """
    name = f"{size[1]}x{size[0]}"
    wanted = affine[f"bbox_scale_{name}"].astype(np.float64) * 200
    centre, width = geometry.crop_window(affine["bbox_xywh"], size, pad_missing=False)
    np.testing.assert_allclose(centre, affine[f"bbox_center_{name}"], rtol=1e-6)
    np.testing.assert_allclose(width, wanted[:, 0], rtol=1e-6)
    np.testing.assert_allclose(width * size[0] / size[1], wanted[:, 1], rtol=1e-6)
    missing = affine[f"bbox_center_{name}"][:, 0] == -1
    assert missing.sum() in range(1, 16)
    _, padded = geometry.crop_window(affine["bbox_xywh"], size)
    np.testing.assert_array_equal(padded[~missing], width[~missing])
    np.testing.assert_array_equal(padded[missing], width[missing] * geometry.PADDING)


# --- float64 reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 192), (64, 160)])
def test_crop_matrix_one_by_one_and_all_at_once(size):
    centres, widths, angles = people()
    wanted = [reference_matrix(*person) for person in zip(centres, widths, [size] * 20, angles, strict=True)]
    at_once = geometry.crop_matrix(centres, widths, size, angles)
    one_by_one = [geometry.crop_matrix(c, w, size, a) for c, w, a in zip(centres, widths, angles, strict=True)]
    np.testing.assert_allclose(at_once, wanted, rtol=1e-12, atol=1e-10)
    np.testing.assert_array_equal(at_once, one_by_one)
    upright = geometry.crop_matrix(centres, widths, size)
    np.testing.assert_array_equal(upright, geometry.crop_matrix(centres, widths, size, np.zeros(20)))


@pytest.mark.parametrize("size", [(256, 192), (64, 160)])
def test_window_is_the_padded_box_filled_up_to_the_crop_aspect(size):
    rng = np.random.default_rng(1)
    for x, y, w, h in rng.uniform(1, 300, (50, 4)):
        centre, width = geometry.crop_window(np.array([x, y, w, h]), size)
        height = width * size[0] / size[1]
        np.testing.assert_allclose(centre, (x + w / 2, y + h / 2))
        assert min(width / w, height / h) == pytest.approx(1.25)  # one side fits, the other has room


def test_middle_and_turning_sense():
    """The window's middle goes to (width / 2, height / 2). At +90 degrees the top of the crop is the image's right."""
    matrix = geometry.crop_matrix(np.array([70.0, 30.0]), 48.0, SIZE, math.pi / 2)
    np.testing.assert_allclose(geometry.transform(matrix, np.array([70.0, 30.0])), (96, 128))
    np.testing.assert_allclose(geometry.transform(matrix, np.array([75.0, 30.0])), (96, 128 - 5 * 4), atol=1e-12)


def test_inverse_undoes():
    centres, widths, angles = people()
    matrices = geometry.crop_matrix(centres, widths, SIZE, angles)
    points = np.random.default_rng(2).uniform(-100, 700, (17, 2))
    backs = geometry.inverse(matrices)
    for matrix, back in zip(matrices, backs, strict=True):
        np.testing.assert_allclose(geometry.transform(back, geometry.transform(matrix, points)), points, atol=1e-9)
        np.testing.assert_allclose(back, np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2], rtol=1e-9, atol=1e-9)


def test_mirror_is_mirroring_first_and_twice_is_nothing():
    matrix = reference_matrix((70, 30), 48, SIZE, 0.3)
    points = np.random.default_rng(3).uniform(0, 140, (17, 2))
    flipped = points * (-1, 1) + (140 - 1, 0)
    mirrored = geometry.mirror(matrix, 140)
    np.testing.assert_allclose(geometry.transform(mirrored, points), geometry.transform(matrix, flipped), atol=1e-10)
    np.testing.assert_allclose(geometry.mirror(mirrored, 140), matrix, atol=1e-12)


def test_scale_is_how_distances_grow_also_in_a_mirror():
    for centre, width, angle in zip(*people(), strict=True):
        matrix = geometry.crop_matrix(centre, width, SIZE, angle)
        ends = geometry.transform(geometry.mirror(matrix, 333), np.array([[3.0, 4.0], [6.0, 8.0]]))
        assert geometry.scale_of(matrix) == pytest.approx(math.dist(*ends) / 5)
        assert geometry.scale_of(geometry.mirror(matrix, 333)) == pytest.approx(192 / width)


@pytest.mark.parametrize("name", NAMESPACES)
def test_every_array_namespace_gives_the_same(name):
    """float32 holds 24 bits: the translation, up to 1e4 here, is good to 1e-3; the rest relatively to 1e-6."""
    xp = NAMESPACES[name]
    boxes = np.random.default_rng(4).uniform(20, 300, (6, 4))
    boxes[0, :3] = -21, 7, 40  # the centre is at x = -1
    angles = np.linspace(-1, 1, 6)

    def ladder(xp, boxes, angles):
        centre, width = geometry.crop_window(boxes, SIZE, xp=xp)
        matrix = geometry.crop_matrix(centre, width, SIZE, angles, xp=xp)
        mirrored = geometry.mirror(matrix, 301, xp=xp)
        _, some_padded = geometry.crop_window(boxes, SIZE, pad_missing=False, xp=xp)
        return matrix, mirrored, geometry.inverse(mirrored, xp=xp), geometry.scale_of(mirrored, xp=xp), some_padded

    with_xp = ladder(xp, *(xp.array(v.astype("float32")) for v in (boxes, angles)))
    for found, wanted in zip(with_xp, ladder(np, boxes, angles), strict=True):
        assert str(found.dtype).endswith("float32'>") or str(found.dtype) == "float32"
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=1e-3)
