"""Augmentation: the published samples from the published random numbers, the published distribution, exact pixels."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from keras_mrpose import geometry, skeletons
from keras_mrpose.config import Augmentation
from keras_mrpose.data import augment, pipeline
from keras_mrpose.heatmaps import GaussianCodec

SIZE = (96, 64)  # height, width
DRAWS = 4000


def outcome(scale=1.0, degrees=0.0, flip=False):
    return augment.Draw(
        tf.constant(scale, tf.float32), tf.constant(math.radians(degrees), tf.float32), tf.constant(flip)
    )


# --- published samples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_samples_are_the_published_ones(shared, name):
    """Matrix, joints, weights and heatmap sums.

    The golden matrix starts from the mirrored image, ours from the given one. A published window is
    (centre, 200 * scale); the box that gives it is 1.25 times smaller.
    """
    prefix = f"{name}_item_"
    facts = np.load(shared / "golden" / "augment.npz")
    facts = {key.removeprefix(prefix): facts[key] for key in facts if key.startswith(prefix)}
    size = (256, 192) if name == "coco" else (256, 256)
    mirrored = skeletons.get(name).mirrored
    assert 0 < facts["flipped"].sum() < len(facts["flipped"])
    for i, flipped in enumerate(facts["flipped"] > 0):
        width = facts["image_wh"][i, 0]
        sides = 200 * facts["in_scale"][i] / 1.25
        box = np.concatenate([facts["in_center"][i] - sides / 2, sides])
        drawn = outcome(facts["scale_factor"][i], facts["rotation_deg"][i], bool(flipped))
        matrix = augment.crop_matrix(tf.constant(box, tf.float32), drawn, tf.constant(int(width)), size)
        from_given = facts["matrix"][i]
        if flipped:
            from_given = geometry.mirror(from_given, width)
        np.testing.assert_allclose(matrix[:, :2], from_given[:, :2], rtol=1e-5, atol=1e-5)

        keypoints = np.concatenate([facts["in_joints_xy"][i], facts["in_vis"][i][:, None]], axis=1)
        joints = augment.move_joints(tf.constant(keypoints, tf.float32), matrix, drawn.flip, mirrored)
        seen = facts["out_vis"][i] > 0
        np.testing.assert_array_equal(joints[:, 2], facts["out_vis"][i])
        np.testing.assert_allclose(joints.numpy()[seen, :2], facts["out_joints_xy"][i][seen], rtol=0, atol=2e-3)

        target = pipeline.target(joints, tf.constant(1.0))[None]
        heatmaps, weights = GaussianCodec().encode(target[..., :2], target[..., 2], (size[0] // 4, size[1] // 4))
        np.testing.assert_array_equal(weights[0], facts["target_weight"][i])
        np.testing.assert_allclose(np.sum(heatmaps, axis=(0, 1, 2)), facts["target_sum"][i], atol=1e-4)


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_mirroring_is_the_published_one(shared, name):
    facts = np.load(shared / "golden" / "augment.npz")
    identity = np.eye(2, 3)
    for i, width in enumerate(facts[f"{name}_flip_width"]):
        keypoints = np.concatenate(
            [facts[f"{name}_flip_joints_in"][i], facts[f"{name}_flip_vis_in"][i][:, None]], axis=1
        )
        matrix = tf.constant(geometry.mirror(identity, int(width)), tf.float32)
        joints = augment.move_joints(
            tf.constant(keypoints, tf.float32), matrix, tf.constant(True), skeletons.get(name).mirrored
        )
        target = pipeline.target(joints, tf.constant(1.0)).numpy()
        np.testing.assert_allclose(target[:, :2] * 4, facts[f"{name}_flip_joints_out"][i], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(target[:, 2], facts[f"{name}_flip_vis_out"][i])


def test_flip_twice_is_nothing():
    keypoints = np.random.default_rng(0).uniform(0, 2, (17, 3)).astype(np.float32)
    matrix = tf.constant(geometry.mirror(np.eye(2, 3), 90), tf.float32)
    once, twice = keypoints, []
    for _ in range(2):
        once = augment.move_joints(once, matrix, tf.constant(True), skeletons.COCO.mirrored)
        twice.append(once.numpy())
    np.testing.assert_allclose(twice[1], keypoints, atol=1e-5)
    assert abs(twice[0] - keypoints).max() > 1


# --- distribution -------------------------------------------------------------------------------------------------


def draws(augmentation, seed=0):
    """Scale, degrees and flip of many seeds."""
    seeds = tf.data.Dataset.range(DRAWS).map(
        lambda i: augment.draw(tf.stack([tf.constant(seed, tf.int64), i]), augmentation)
    )
    scale, rotation, flip = next(iter(seeds.batch(DRAWS)))
    return scale.numpy(), np.degrees(rotation.numpy()), flip.numpy()


def near(share, wanted):
    """Within five standard deviations of a share of DRAWS coins: one seed in two million fails, and ours is fixed."""
    return abs(share - wanted) <= 5 * math.sqrt(max(wanted * (1 - wanted), 1 / DRAWS) / DRAWS)


def test_draws_follow_the_published_distribution():
    scale, degrees, flip = draws(Augmentation())
    for z in (-0.9, -0.5, 0, 0.5, 0.9):
        assert near((scale < 1 + 0.3 * z).mean(), norm.cdf(z)), z
    assert near((scale == np.float32(1.3)).mean(), norm.sf(1))  # what the clip has gathered
    assert (scale.min(), scale.max()) == (pytest.approx(0.7), pytest.approx(1.3))
    rotated = degrees[degrees != 0]
    assert near(len(rotated) / DRAWS, 0.6)
    for z in (-1.9, -1, 0, 1, 1.9):
        share = (rotated < 40 * z).mean()
        assert abs(share - norm.cdf(z)) <= 5 * math.sqrt(0.25 / len(rotated)), z
    assert abs(degrees).max() == pytest.approx(80)
    assert near(flip.mean(), 0.5)


def test_draws_are_independent_of_each_other():
    """A correlation of independent numbers has a standard deviation of 1 / sqrt(n)."""
    scale, degrees, flip = draws(Augmentation(rotation_probability=1))
    table = np.corrcoef([scale, degrees, flip, abs(degrees), scale > 1, degrees > 0])
    for i, j in ((0, 1), (0, 2), (1, 2), (2, 3), (4, 5), (0, 3)):
        assert abs(table[i, j]) < 5 / math.sqrt(DRAWS), (i, j)
    _, degrees, flip = draws(Augmentation(rotation_probability=0.5))
    assert abs(np.corrcoef(degrees != 0, flip)[0, 1]) < 5 / math.sqrt(DRAWS)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_never_and_always(probability):
    scale, degrees, flip = draws(Augmentation(0, 30, probability, probability))
    assert (flip == bool(probability)).all()
    assert ((degrees != 0) == bool(probability)).all()
    assert (scale == 1).all()


def test_a_draw_depends_on_its_seed_alone():
    first, again, other = (draws(Augmentation(), seed) for seed in (0, 0, 1))
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != different).any()


# --- pixels -------------------------------------------------------------------------------------------------------


def reference_warp(image, matrix, size):
    """Bilinear at the exact place, 0 outside, in float64, pixel by pixel."""
    height, width = image.shape[:2]
    padded = np.zeros((height + 2, width + 2, 3))
    padded[1:-1, 1:-1] = image
    crop = np.zeros((*size, 3))
    back = geometry.inverse(np.asarray(matrix, np.float64))
    for y, x in np.ndindex(*size):
        u, v = geometry.transform(back, np.array([x, y], np.float64)) + 1
        i, j = math.floor(v), math.floor(u)
        if 0 <= i <= height and 0 <= j <= width:
            fv, fu = v - i, u - j
            four = padded[i : i + 2, j : j + 2]
            crop[y, x] = (1 - fv) * ((1 - fu) * four[0, 0] + fu * four[0, 1]) + fv * (
                (1 - fu) * four[1, 0] + fu * four[1, 1]
            )
    return crop


def test_warp_is_that_of_opencv(shared):
    """OpenCV 5 rounds to whole grey levels, and it and we round once more inside."""
    facts = np.load(shared / "golden" / "warp.npz")
    for i in range(4):
        image = facts[f"src{i}_bgr"]
        wanted = facts[f"out{i}"].astype(int) + facts[f"cv5_minus_cv4_{i}"]
        for matrix, out in zip(facts[f"matrix{i}"], wanted, strict=True):
            crop = augment.warp(image, tf.constant(matrix, tf.float32), (256, 192)).numpy()
            assert abs(crop - out).max() <= 1.01


def test_warp_golden_matrices_are_ours(shared):
    facts = np.load(shared / "golden" / "warp.npz")
    for i, case in enumerate(json.loads((shared / "golden" / "warp.json").read_text())):
        for made, matrix in zip(case["transforms"], facts[f"matrix{i}"], strict=True):
            width = 200 * made["scale"][0]
            found = geometry.crop_matrix(np.array(made["center"]), width, (256, 192), math.radians(made["rot_deg"]))
            np.testing.assert_allclose(found[:, :2], matrix[:, :2], rtol=1e-5, atol=1e-5)


WINDOWS = {
    "inside": ([20.3, 15.2, 30, 40], {}),
    "over the edge": ([-20, 30, 60, 50], {"degrees": 33}),
    "whole image": ([0, 0, 90, 70], {"scale": 1.3, "flip": True}),
    "mirrored and turned": ([30, 10, 40, 50], {"degrees": -71, "flip": True}),
    "tiny": ([40.2, 30.7, 1.5, 0.5], {"degrees": 10}),
    "outside": ([400, 10, 20, 20], {}),
    "outside above": ([30, -300, 20, 20], {"degrees": 45}),
    "half a pixel outside": ([-40.4, -10, 32, 96], {}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_warp_pixel_by_pixel(name):
    """Neighbours differ by up to 255 and positions are good to about 1e-4 px, so values to 0.05."""
    box, drawn = WINDOWS[name]
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3)).astype(np.uint8)
    matrix = augment.crop_matrix(tf.constant(box, tf.float32), outcome(**drawn), tf.constant(90), SIZE)
    crop = augment.warp(tf.constant(image), matrix, SIZE)
    assert (crop.dtype, crop.shape) == (tf.float32, (*SIZE, 3))
    np.testing.assert_allclose(crop, reference_warp(image, matrix, SIZE), rtol=0, atol=0.05)
    assert (np.max(crop) == 0) == name.startswith("outside")


def test_warp_does_not_truncate():
    """Half a pixel between 0 and 255 is 127.5."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 255
    half = tf.constant([[1, 0, 0.5], [0, 1, 0]], tf.float32)
    np.testing.assert_allclose(augment.warp(image, half, (4, 6))[2, :, 0], [0, 0, 0, 127.5, 255, 255])


@pytest.mark.parametrize("flip", [False, True], ids=["as it is", "mirrored"])
@pytest.mark.parametrize("degrees", [0, 25, -64])
def test_joints_sit_where_their_pixels_are(flip, degrees):
    """Nose, left and right eye are a red, a green and a blue blob between pixels of a non-square image.

    In the crop, each colour's centroid is found where `move_joints` says; in a mirrored one the left eye is blue.
    A blob of 2 px (5 in the crop) covers some 1,000 crop pixels, whose rounding to whole grey levels moves the centroid
    by less than 0.02 px; 0.05 is the limit, far below the pixel that a wrong convention costs.
    """
    places = np.array([[40.3, 31.7], [52.6, 22.4], [30.2, 44.1]])
    rows, columns = np.mgrid[:70, :90]
    image = np.stack([250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2**2)) for x, y in places], axis=-1)
    size = (160, 128)
    box = tf.constant([20, 12, 42, 40], tf.float32)
    drawn = outcome(1.1, degrees, flip)
    matrix = augment.crop_matrix(box, drawn, tf.constant(90), size)
    keypoints = tf.constant(np.column_stack([places, [2, 2, 2]]), tf.float32)
    joints = augment.move_joints(keypoints, matrix, drawn.flip, (0, 2, 1)).numpy()
    crop = augment.warp(image.round().astype(np.uint8), matrix, size).numpy().astype(np.float64)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for joint, colour in enumerate((0, 2, 1) if flip else (0, 1, 2)):
        mass = crop[..., colour]
        centroid = (mass * columns).sum() / mass.sum(), (mass * rows).sum() / mass.sum()
        np.testing.assert_allclose(joints[joint, :2], centroid, rtol=0, atol=0.05)


def test_eager_and_traced_agree():
    image = tf.constant(np.random.default_rng(1).integers(0, 256, (70, 90, 3)).astype(np.uint8))
    box = tf.constant([20, 10, 30, 50], tf.float32)

    def crop(box, image):
        drawn = augment.draw(tf.constant([3, 5], tf.int64), Augmentation())
        matrix = augment.crop_matrix(box, drawn, tf.shape(image)[1], SIZE)
        return matrix, augment.warp(image, matrix, SIZE)

    shape = [tf.TensorSpec((4,)), tf.TensorSpec((None, None, 3), tf.uint8)]
    for eager, traced in zip(crop(box, image), tf.function(crop, input_signature=shape)(box, image), strict=True):
        np.testing.assert_allclose(eager, traced, rtol=1e-5, atol=0.02)


def test_importing_starts_no_device():
    """A tensor made on import would start TensorFlow, after which memory growth or logical devices cannot be set."""
    assert not any(tf.is_tensor(value) for value in augment.STILL)
