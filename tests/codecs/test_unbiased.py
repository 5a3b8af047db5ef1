"""DARK and UDP: against loops in float64, what is drawn is found again, flipped or not, and noise does no harm."""

import math

import keras
import numpy as np
import on_jax
import pytest
import tensorflow as tf

from keras_mrpose.codecs import DarkCodec, UDPCodec, peaks
from keras_mrpose.skeletons import COCO

SIZE = (40, 28)  # height, width
CROP = (160, 112)
KINDS = (DarkCodec, UDPCodec)


def encode(codec, points, size=SIZE):
    return np.asarray(codec.encode(points, np.ones(points.shape[:2]), size)[0])


def decode(codec, heatmaps):
    return tuple(np.asarray(part) for part in codec.decode(heatmaps))


def points_inside(margin, count=20, seed=0):
    """Sub-pixel positions at least so many cells from the map's border."""
    return np.random.default_rng(seed).uniform(margin, np.array(SIZE[::-1]) - 1 - margin, (count, 17, 2))


# --- float64 reference --------------------------------------------------------------------------------------------


def reference_encode(points, weights, size, sigma):
    """Cell by cell."""
    count, joints = weights.shape
    heatmaps, weights = np.zeros((count, *size, joints)), weights.copy()
    for n, j in np.ndindex(count, joints):
        px, py = points[n, j]
        if not (-3 * sigma <= px <= size[1] - 1 + 3 * sigma and -3 * sigma <= py <= size[0] - 1 + 3 * sigma):
            weights[n, j] = 0
        if weights[n, j] > 0.5:
            for y, x in np.ndindex(*size):
                heatmaps[n, y, x, j] = math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
    return heatmaps, weights


def smoothed(one, sigma):
    """A whole map, by a kernel that is cut at three sigma and sums to 1; zero outside the map."""
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        one = np.apply_along_axis(lambda line: np.convolve(line, kernel / kernel.sum())[reach:-reach], axis, one)
    return one


def reference_decode(one, sigma):
    """Point of one map as the paper has it, and how far from zero both eigenvalues of its Hessian are."""
    height, width = one.shape
    y, x = divmod(int(one.argmax()), width)
    if one[y, x] <= 0:
        return np.zeros(2), math.inf
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return np.array([x, y], float), math.inf
    m = np.log(np.maximum(smoothed(one.astype(np.float64), sigma), 1e-10))
    gradient = np.array([m[y, x + 1] - m[y, x - 1], m[y + 1, x] - m[y - 1, x]]) / 2
    xx, yy = (m[y, x + 2] - 2 * m[y, x] + m[y, x - 2]) / 4, (m[y + 2, x] - 2 * m[y, x] + m[y - 2, x]) / 4
    xy = (m[y + 1, x + 1] - m[y - 1, x + 1] - m[y + 1, x - 1] + m[y - 1, x - 1]) / 4
    hessian = np.array([[xx, xy], [xy, yy]])
    eigenvalues = np.linalg.eigvalsh(hessian)
    offset = -np.linalg.inv(hessian) @ gradient if (eigenvalues < 0).all() else np.zeros(2)
    return np.array([x, y]) + offset.clip(-1, 1), abs(eigenvalues).min()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [1, 1.5, 2, 3])
def test_encode_cell_by_cell(kind, sigma):
    """Positions up to 36 are good to 2e-6 in float32; the steepest slope is 0.6 / sigma. Weights are exact."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-12, np.array([12, 16]) + 12, (5, 17, 2))
    weights = rng.choice([0.0, 0.3, 0.7, 1.0], (5, 17))
    heatmaps, kept = kind(sigma).encode(points, weights, (16, 12))
    wanted, wanted_weights = reference_encode(points, weights, (16, 12), sigma)
    assert heatmaps.dtype == kept.dtype == "float32"
    np.testing.assert_allclose(heatmaps, wanted, rtol=0, atol=2e-6)
    np.testing.assert_allclose(kept, wanted_weights, rtol=1e-7)
    assert 0 < (np.asarray(kept) > 0).sum() < (weights > 0).sum()


def some_maps():
    """Six people: Gaussians, spoiled ones, noise, turned ellipses, peaks near every border, nothing and holes."""
    rng = np.random.default_rng(1)
    maps = np.zeros((6, *SIZE, 17))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for j, (x, y) in enumerate(rng.uniform(3, np.array(SIZE[::-1]) - 4, (17, 2))):
        maps[0, ..., j] = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
        maps[1, ..., j] = maps[0, ..., j] + rng.normal(0, 0.1, SIZE)
        u, v = columns - x, rows - y
        maps[3, ..., j] = 0.7 * np.exp(-(u**2 / 30 + v**2 / 6 - u * v / 9 * rng.uniform(-1, 1)))
    maps[2] = rng.uniform(0, 1, maps[2].shape)
    maps[4] = maps[0] / 10
    for j, (x, y) in enumerate((x, y) for x in (0, 1, 2, 13) for y in (0, 1, 2, 20)):
        maps[4, y, x, j] = maps[4, -1 - y, -1 - x, 16] = 1 + 0.01 * j
    maps[5, ..., :8] = -rng.uniform(0, 1, (*SIZE, 8))
    for j in range(8, 17):  # the highest cell stands in a hole: the parabola has a lowest point, no summit
        distance = np.hypot(columns - 13.3, rows - 18.8 - 0.1 * j)
        maps[5, ..., j] = 0.9 * np.exp(-((distance - 6) ** 2) / 4)
        maps[5, 19, 13, j] = 1
    return maps.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [1, 2])
def test_decode_map_by_map(kind, sigma):
    """The log of a float32 sum is good to about 1e-6; a Hessian's inverse makes 1 / eigenvalue of it, twice.

    Maps with a smaller eigenvalue than 0.02, which two codes may hold for positive or negative, are left out.
    """
    maps = some_maps()
    points, scores = decode(kind(sigma), maps)
    moved = told = 0
    for n, j in np.ndindex(6, 17):
        wanted, eigenvalue = reference_decode(maps[n, ..., j], sigma)
        if eigenvalue > 0.02:
            np.testing.assert_allclose(points[n, j], wanted, rtol=0, atol=2e-4, err_msg=f"{n} {j}")
            told += 1
            moved += abs(wanted % 1).max() > 0.01
    assert told > 80 and moved > 40
    np.testing.assert_array_equal(scores, maps.max(axis=(1, 2)))


# --- what is drawn is found again ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [1, 1.5, 2, 3])
def test_decode_undoes_encode(kind, sigma):
    """To 2e-4 cells: only the tail of the smoothing kernel beyond three sigma is missing in the parabola.

    Smoothing multiplies two Gaussians into one of sigma / sqrt(2) at half way to the peak, at most 0.75 cells away for
    the gradient's cells. Of it, 0.5 erfc((3 sigma + 0.5 - 0.75) / sigma) lie beyond the kernel: 5e-5 for sigma 1, less
    for others. Half of that is the gradient's error, divided by the Hessian 1 / (2 sigma^2): 5e-5 cells for sigma 1.
    The Hessian's cells, 1.25 away, miss 2e-4 for sigma 1, a quarter of that counts; times half a cell: as much again.
    """
    points = points_inside(3 * sigma + 1)
    found, scores = decode(kind(sigma), encode(kind(sigma), points))
    np.testing.assert_allclose(found, points, rtol=0, atol=2e-4)
    nearest = np.exp(-np.square(points - np.rint(points)).sum(axis=-1) / (2 * sigma**2))
    np.testing.assert_allclose(scores, nearest, atol=2e-6)  # of the map as it is, not of the smoothed one


def test_weights_and_maps_treat_all_sides_alike():
    points = np.random.default_rng(2).uniform(-8, np.array(SIZE[::-1]) + 8, (40, 17, 2))
    last = np.array(SIZE[::-1]) - 1
    heatmaps, kept = (np.asarray(part) for part in DarkCodec().encode(points, np.ones((40, 17)), SIZE))
    turned, turned_kept = (np.asarray(part) for part in DarkCodec().encode(last - points, np.ones((40, 17)), SIZE))
    np.testing.assert_array_equal(kept, turned_kept)
    np.testing.assert_allclose(heatmaps, turned[:, ::-1, ::-1], atol=3e-6)
    np.testing.assert_array_equal(heatmaps.any(axis=(1, 2)), kept > 0)
    for x, weight in ((-6.1, 0), (-5.9, 1), (32.9, 1), (33.1, 0)):  # columns 0 and 27, reach 6
        assert DarkCodec().encode(np.array([[[x, 5.0]]]), np.ones((1, 1)), SIZE)[1] == weight


def test_far_and_senseless_points_weigh_nothing():
    points = np.array([[[1e9, 5], [-1e30, 5], [5, np.inf], [np.nan, 5], [5, 5]]])
    heatmaps, weights = (np.asarray(part) for part in DarkCodec().encode(points, np.ones((1, 5)), SIZE))
    np.testing.assert_array_equal(weights, [[0, 0, 0, 0, 1]])
    assert np.isfinite(heatmaps).all() and heatmaps[..., :4].max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_noise_moves_a_peak_by_a_cell_at_most(kind):
    rng = np.random.default_rng(3)
    maps = np.stack([rng.normal(size=(*SIZE, 17)), rng.normal(size=(*SIZE, 17)) ** 9, rng.integers(-1, 2, (*SIZE, 17))])
    maps = np.concatenate([maps, 1e-30 * maps, 1e12 * maps, np.ones((1, *SIZE, 17)), np.zeros((1, *SIZE, 17))])
    maps[:3, 20, 14] = 1e4  # one cell above all others
    points, scores = decode(kind(), maps.astype(np.float32))
    at_peak = np.asarray(peaks(maps.astype(np.float32))[0])
    assert np.isfinite(points).all() and np.isfinite(scores).all()
    assert 0 < abs(points - at_peak).max() <= 1


# --- flip test ----------------------------------------------------------------------------------------------------


def merged(codec, points):
    """Target maps of joints and of the same joints in the mirrored crop, x' = W - 1 - x and sides changed, merged."""
    scale = codec.scale(CROP)
    there = points / scale * (-1, 1) + (CROP[1] - 1, 0)
    flipped_heatmaps = encode(codec, there[:, COCO.flip_indices] * scale)
    return np.asarray(codec.merge_flipped(encode(codec, points), flipped_heatmaps, COCO.flip_indices))


def test_udp_flip_is_exact():
    points = points_inside(7)
    np.testing.assert_allclose(merged(UDPCodec(), points), encode(UDPCodec(), points), rtol=0, atol=3e-6)


@pytest.mark.parametrize("sigma", [1.5, 2, 3])
def test_dark_flip_is_off_by_the_skew_of_its_interpolation(sigma):
    """Reading between two columns mixes a map with itself one column on, 1/4 to 3/4: mean exact, third moment 3/32.

    A smoothed Gaussian of variance 2 sigma^2 with such a skew has its summit 3/32 / (2 * 2 sigma^2) to the right;
    half the merged map is so: 3/256 / sigma^2, 0.003 cells for sigma 2. Higher moments are an order less.
    """
    points = points_inside(3 * sigma + 2)
    error = decode(DarkCodec(sigma), merged(DarkCodec(sigma), points))[0] - points
    skew = 3 / 256 / sigma**2
    np.testing.assert_allclose(error, np.broadcast_to([skew, 0], error.shape), rtol=0, atol=skew / 5)


def test_dark_flip_unshifted_lies_to_the_left():
    """Two Gaussians 3/4 of a cell apart: their summit is in the middle, 3/8 to the left."""
    points = points_inside(8)
    error = decode(DarkCodec(), merged(DarkCodec(flip_shift=False), points))[0] - points
    np.testing.assert_allclose(error, np.broadcast_to([-3 / 8, 0], error.shape), rtol=0, atol=1e-3)


def test_dark_flip_column_by_column():
    """Nothing wraps around: column 0 is the image's own."""
    heatmaps, flipped_heatmaps = np.random.default_rng(4).normal(size=(2, 3, *SIZE, 17)).astype(np.float32)
    found = np.asarray(DarkCodec().merge_flipped(heatmaps, flipped_heatmaps, COCO.flip_indices))
    np.testing.assert_array_equal(found[:, :, 0], heatmaps[:, :, 0])
    for c in range(1, SIZE[1]):
        here, before = (flipped_heatmaps[:, :, SIZE[1] - 1 - column][..., COCO.flip_indices] for column in (c, c - 1))
        np.testing.assert_allclose(found[:, :, c], (heatmaps[:, :, c] + 0.25 * here + 0.75 * before) / 2, atol=1e-6)


def test_scales():
    np.testing.assert_array_equal(DarkCodec().scale((256, 192)), (0.25, 0.25))
    np.testing.assert_array_equal(UDPCodec().scale((256, 192)), (47 / 191, 63 / 255))  # x, y: the last pixels meet


# --- as an object, and where it runs ------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [DarkCodec(1.5, flip_shift=False), UDPCodec(1.5)], ids=repr)
def test_config_equality_and_serialization(codec):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(codec))
    assert again == codec and hash(again) == hash(codec)
    assert again.get_config() == codec.get_config()
    assert codec != type(codec)(1.5001)
    assert DarkCodec(1.5) != DarkCodec(1.5, flip_shift=False)
    shift = ", flip_shift=False" if isinstance(codec, DarkCodec) else ""
    assert repr(codec) == f"{type(codec).__name__}(sigma=1.5{shift})"


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_traced_and_in_low_precision(kind):
    """Sums in another order differ by float32 roundings, see `test_decode_map_by_map`; bfloat16 has 8 bits."""
    codec, points = kind(), points_inside(7, count=4)
    maps = encode(codec, points) + np.random.default_rng(5).normal(0, 0.02, (4, *SIZE, 17)).astype(np.float32)
    found, _ = decode(codec, maps)
    for n in range(4):
        np.testing.assert_allclose(decode(codec, maps[n : n + 1])[0][0], found[n], atol=1e-4)
    traced = tf.function(codec.decode, input_signature=[tf.TensorSpec((None, *SIZE, 17))], jit_compile=True)
    np.testing.assert_allclose(traced(maps)[0], found, atol=1e-4)
    low, scores = codec.decode(tf.cast(encode(codec, points), "bfloat16"))
    assert low.dtype == scores.dtype == tf.float32
    np.testing.assert_allclose(low, points, atol=0.1)


@pytest.mark.slow
def test_on_jax():
    on_jax.passed(__file__, "map_by_map and 2-UDPCodec or column_by_column", 2)
