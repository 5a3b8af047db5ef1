"""The published codec against the published numbers, against loops in float64, and its invariants; what all share."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mrpose import geometry
from keras_mrpose.codecs import CODECS, DarkCodec, GaussianCodec, UDPCodec, peaks
from keras_mrpose.codecs import codec as codec_of
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO

SIZE = (16, 12)  # height, width
PUBLISHED = GaussianCodec()
SOUND_BORDER = GaussianCodec(published_border=False)


@pytest.fixture(scope="module")
def golden(golden_dir):
    def load(name):
        return dict(np.load(golden_dir / f"{name}.npz"))

    return load


def channels_last(heatmaps_njhw):
    return np.moveaxis(heatmaps_njhw, 1, -1)


def encode(points, weights, size, codec=PUBLISHED):
    return tuple(np.asarray(part) for part in codec.encode(points, weights, size))


def decode(heatmaps, codec=PUBLISHED):
    return tuple(np.asarray(part) for part in codec.decode(heatmaps))


def some_points(count=5, joints=17, size=SIZE, seed=0):
    """Positions on and around the map, none so near to half a pixel that float32 and float64 could differ."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-10, np.array(size[::-1]) + 10, (count, joints, 2))
    points += 1e-3 * (abs(points % 1 - 0.5) < 1e-3)
    return points, rng.choice([0.0, 0.3, 0.7, 1.0], (count, joints))


def reference_encode(points, weights, size, sigma):
    """Cell by cell in float64."""
    count, joints = weights.shape
    heatmaps, weights = np.zeros((count, *size, joints)), weights.copy()
    reach = 3 * sigma
    for n, j in np.ndindex(count, joints):
        cx, cy = (math.trunc(value + 0.5) for value in points[n, j])
        if cx - reach > size[1] - 1 or cy - reach > size[0] - 1 or cx + reach + 1 < 0 or cy + reach + 1 < 0:
            weights[n, j] = 0
        if weights[n, j] > 0.5:
            for y, x in np.ndindex(*size):
                if abs(x - cx) <= reach and abs(y - cy) <= reach:
                    heatmaps[n, y, x, j] = math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return heatmaps, weights


def reference_decode(heatmaps):
    """Map by map in float64."""
    count, height, width, joints = heatmaps.shape
    points, scores = np.zeros((count, joints, 2)), np.zeros((count, joints))
    for n, j in np.ndindex(count, joints):
        one = heatmaps[n, :, :, j].astype(np.float64)
        y, x = divmod(int(one.argmax()), width)  # the first in row-major order
        scores[n, j] = one[y, x]
        if one[y, x] > 0:
            points[n, j] = x, y
            if 1 < x < width - 1 and 1 < y < height - 1:
                points[n, j] += 0.25 * np.sign((one[y, x + 1] - one[y, x - 1], one[y + 1, x] - one[y - 1, x]))
    return points, scores


# --- published numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sigma"), [("coco_192x256", 2), ("mpii_256x256", 2), ("coco_288x384", 3)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_encode_is_the_published_one(golden, name, sigma, dtype):
    """Values to 1e-6, weights exact.

    The golden positions are float64. A few lie 1e-9 before half a cell, where float32, which the pipeline gives, is on
    the other side already: these are left out there.
    """
    facts = {key.removeprefix(f"{name}_"): value for key, value in golden("targets").items() if key.startswith(name)}
    wanted = np.zeros(facts["target_shape_NJHW"], np.float32)
    wanted.flat[np.cumsum(facts["nz_step"])] = facts["values"][facts["nz_code"]]
    cells = facts["joints_xy"] / 4
    told = (np.trunc(cells + 0.5) == np.trunc(cells.astype(dtype) + dtype(0.5))).all(axis=-1)
    assert (~told).sum() == (0 if dtype == np.float64 else 6 if sigma == 3 else 4)
    heatmaps, weights = encode(cells.astype(dtype), facts["vis"], wanted.shape[2:], GaussianCodec(sigma))
    assert heatmaps.dtype == weights.dtype == np.float32
    heatmaps = np.moveaxis(heatmaps, -1, 1)
    np.testing.assert_allclose(heatmaps[told], wanted[told], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(heatmaps[told] > 0, wanted[told] > 0)
    np.testing.assert_array_equal(weights[told], facts["target_weight"][told])
    empty = (facts["target_weight"] > 0) & (wanted.max(axis=(2, 3)) == 0)
    assert empty.any()  # the quirk is among the facts: weight kept, nothing drawn


def to_image(points, centres, scales, size):
    """Heatmap pixels ``(n, joints, 2)`` to image pixels, in float64; golden scales are in units of 200 px."""
    backs = geometry.inverse(geometry.crop_matrix(centres.astype(np.float64), 200.0 * scales[:, 0], size, np.zeros(1)))
    return np.stack([geometry.transform(b, p.astype(np.float64)) for b, p in zip(backs, points, strict=True)])


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_decode_is_the_published_one(golden, name):
    """Peaks and maxima exactly; in image pixels, with and without the quarter, to 1e-3 px."""
    facts = {key.removeprefix(f"{name}_"): value for key, value in golden("decode").items() if key.startswith(name)}
    heatmaps = channels_last(facts["heatmaps_njhw"])
    window = facts["center"], facts["scale"], heatmaps.shape[1:3]
    at_peak, maxima = (np.asarray(part) for part in peaks(heatmaps))
    np.testing.assert_array_equal(at_peak, facts["argmax_xy"])
    np.testing.assert_array_equal(maxima, facts["maxvals"])
    np.testing.assert_allclose(to_image(at_peak, *window), facts["final_xy_no_shift"], rtol=0, atol=1e-3)
    points, scores = decode(heatmaps)
    np.testing.assert_array_equal(scores, facts["maxvals"])
    assert set(np.unique(points - facts["argmax_xy"])) == {-0.25, 0, 0.25}
    np.testing.assert_allclose(to_image(points, *window), facts["final_xy"], rtol=0, atol=1e-3)


def mirrored_by(pairs, joints):
    mirrored = np.arange(joints)
    for left, right in pairs:
        mirrored[[left, right]] = right, left
    return mirrored


@pytest.mark.parametrize("name", ["coco", "mpii"])
@pytest.mark.parametrize("test", ["noflip", "noshift", "shift"])
def test_flip_test_is_the_published_one(golden, name, test):
    """Maps exactly: a mean of two float32 numbers has one rounding, however it is done. Predictions to 1e-3 px.

    A published box is (centre, scale, area, score): the area is that of the window, scale alone being its sides / 200.
    """
    facts = {key.removeprefix(f"{name}_"): value for key, value in golden("decode").items() if key.startswith(name)}
    merged = channels_last(facts["ft_out"])
    size = merged.shape[1:3]
    if test != "noflip":
        mirrored = mirrored_by(facts["pairs"], merged.shape[-1])
        codec = GaussianCodec(flip_shift=test == "shift")
        merged = codec.merge_flipped(merged, channels_last(facts["ft_out_of_mirrored"]), mirrored)
    np.testing.assert_array_equal(merged, channels_last(facts[f"ft_{test}_merged_njhw"]))
    points, scores = decode(merged)
    wanted = facts[f"ft_{test}_preds_xyv"]
    np.testing.assert_array_equal(scores, wanted[..., 2])
    image_points = to_image(points, facts["ft_center"], facts["ft_scale"], size)
    np.testing.assert_allclose(image_points, wanted[..., :2], rtol=0, atol=1e-3)

    sides = 200 * facts["ft_scale"].astype(np.float64) / geometry.PADDING
    box = np.concatenate([facts["ft_center"] - sides / 2, sides], axis=1)
    centre, width = geometry.crop_window(box, size)
    height = width * size[0] / size[1]
    boxes = np.column_stack([centre, width / 200, height / 200, width * height, facts["ft_box_score"]])
    np.testing.assert_allclose(boxes, facts["ft_all_boxes"], rtol=1e-6)  # float32 scales


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_mirroring_back_is_the_published_one(golden, name):
    """Twice the mean of nothing and the map is the mirrored map itself."""
    facts = golden("decode")
    given = channels_last(facts[f"{name}_flip_in_njhw"])
    mirrored = mirrored_by(facts[f"{name}_pairs"], given.shape[-1])
    found = 2 * np.asarray(GaussianCodec(flip_shift=False).merge_flipped(np.zeros_like(given), given, mirrored))
    np.testing.assert_array_equal(found, channels_last(facts[f"{name}_flip_back_njhw"]))


# --- float64 reference --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1, 1.5, 2, 3])
def test_encode_cell_by_cell(sigma):
    """A product of two float32 exponentials of size 1 is good to about 3 * 6e-8."""
    points, weights = some_points()
    heatmaps, kept = encode(points, weights, SIZE, GaussianCodec(sigma))
    wanted, wanted_weights = reference_encode(points, weights, SIZE, sigma)
    np.testing.assert_allclose(heatmaps, wanted, rtol=0, atol=3e-7)
    np.testing.assert_allclose(kept, wanted_weights, rtol=1e-7)
    assert 0 < (kept > 0).sum() < (weights > 0).sum()  # both cases are among the points


def test_decode_map_by_map():
    rng = np.random.default_rng(0)
    heatmaps = rng.integers(-3, 4, (6, *SIZE, 17)).astype(np.float32)  # few values: ties everywhere
    heatmaps[0] = -1
    heatmaps[0, 5, 4, :8] = 0  # a maximum of exactly 0 is not positive either
    heatmaps[1, ..., :9] = 0
    heatmaps[2] = 1
    for y in (0, 1, 2, 14, 15):  # a peak at each distance from each border
        for j, x in enumerate((0, 1, 2, 9, 10, 11)):
            heatmaps[3 + y % 3, y, x, j] = 9
    points, scores = decode(heatmaps)
    wanted_points, wanted_scores = reference_decode(heatmaps)
    np.testing.assert_array_equal(points, wanted_points)
    np.testing.assert_array_equal(scores, wanted_scores)


# --- invariants ---------------------------------------------------------------------------------------------------


def inside_points(count=40):
    rng = np.random.default_rng(1)
    return rng.uniform(-0.49, np.array(SIZE[::-1]) - 0.51, (count, 17, 2))


def test_decode_undoes_encode_within_half_a_pixel():
    """Encoding rounds to the nearest pixel; its maps are symmetric, so decoding adds no quarter."""
    points = inside_points()
    found, scores = decode(encode(points, np.ones(points.shape[:2]), SIZE)[0])
    assert abs(found - points).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(found, np.rint(found))
    np.testing.assert_array_equal(scores, 1)


def test_decode_of_true_gaussians_is_off_by_a_quarter_at_most():
    """The nearest pixel is off by up to 1/2; a step of 1/4 towards the higher side leaves at most 1/4."""
    points = np.random.default_rng(2).uniform(2, np.array(SIZE[::-1]) - 3, (40, 17, 2))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]][..., None]
    x, y = points[:, None, None, :, 0], points[:, None, None, :, 1]
    found, _ = decode(np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8).astype(np.float32))
    assert abs(found - points).max() <= 0.25 + 1e-6


def test_one_by_one_eager_and_traced_agree():
    points, weights = some_points()
    heatmaps, kept = encode(points, weights, SIZE)
    spoiled = (heatmaps + np.random.default_rng(3).normal(size=heatmaps.shape)).astype(np.float32)
    found, scores = decode(spoiled)
    for n in range(len(points)):
        one, one_kept = encode(points[n : n + 1], weights[n : n + 1], SIZE)
        np.testing.assert_array_equal(one[0], heatmaps[n])
        np.testing.assert_array_equal(one_kept[0], kept[n])
        one_found, one_score = decode(spoiled[n : n + 1])
        np.testing.assert_array_equal(one_found[0], found[n])
        np.testing.assert_array_equal(one_score[0], scores[n])
    traced = tf.function(lambda points, weights: PUBLISHED.encode(points, weights, SIZE))(points, weights)
    np.testing.assert_allclose(traced[0], heatmaps, atol=2e-7)
    signature = tf.TensorSpec((None, *SIZE, 17))
    np.testing.assert_array_equal(tf.function(PUBLISHED.decode, input_signature=[signature])(spoiled)[0], found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_low_precision_maps_decode_to_float32(dtype):
    points = inside_points(3)
    heatmaps = tf.cast(encode(points, np.ones((3, 17)), SIZE)[0], dtype)
    found, scores = PUBLISHED.decode(heatmaps)
    assert found.dtype == scores.dtype == tf.float32
    assert abs(np.asarray(found) - points).max() <= 0.5 + 1e-6


def test_far_and_senseless_points_weigh_nothing():
    points = np.array([[[1e9, 5], [-1e30, 5], [5, np.inf], [np.nan, 5], [5, 5]]])
    heatmaps, weights = encode(points, np.ones((1, 5)), SIZE)
    np.testing.assert_array_equal(weights, [[0, 0, 0, 0, 1]])
    assert np.isfinite(heatmaps).all()
    assert heatmaps[..., :4].max() == 0


@pytest.mark.parametrize(
    ("x", "weight", "drawn"),
    [(-7.4, 1, True), (-7.5, 1, False), (-8.4, 1, False), (-8.5, 0, False), (17.4, 1, True), (17.5, 0, False)],
)
def test_weight_at_the_border_is_one_cell_generous_on_the_left(x, weight, drawn):
    """Reach 6: the patch around -6 still has column 0, the one around -7 none, yet it keeps its weight, as published.

    Truncation puts -7.4 at -6 and -8.4 at -7. On the right of a map of width 12, 17 is the last centre to touch.
    """
    heatmaps, kept = encode(np.array([[[x, 5.0]]]), np.ones((1, 1)), SIZE)
    assert (kept[0, 0], heatmaps.any()) == (weight, drawn)


# --- the border, sound --------------------------------------------------------------------------------------------


def test_sound_border_treats_all_sides_alike_when_encoding():
    """Of points and their mirror images, in x and in y; the published border does not."""
    points, weights = some_points(count=40)
    last = np.array(SIZE[::-1]) - 1
    heatmaps, kept = encode(points, weights, SIZE, SOUND_BORDER)
    turned, turned_kept = encode(last - points, weights, SIZE, SOUND_BORDER)
    np.testing.assert_array_equal(kept, turned_kept)
    np.testing.assert_array_equal(heatmaps, turned[:, ::-1, ::-1])
    drawn = heatmaps.any(axis=(1, 2))
    np.testing.assert_array_equal(drawn, kept > 0.5)
    assert (encode(points, weights, SIZE)[1] != encode(last - points, weights, SIZE)[1]).any()
    inside = ((points >= -0.5) & (points <= last)).all(axis=-1)
    np.testing.assert_array_equal(
        np.moveaxis(heatmaps, -1, 1)[inside], np.moveaxis(encode(points, weights, SIZE)[0], -1, 1)[inside]
    )


@pytest.mark.parametrize(("x", "column"), [(-0.6, -1), (-1.4, -1), (-1.6, -2), (-0.4, 0)])
def test_sound_border_rounds_to_the_nearest(x, column):
    """The map's first column is exp(-column^2 / 8); the published border has its peak there."""
    for codec, centre in ((SOUND_BORDER, column), (PUBLISHED, 0 if x > -1.5 else column + 1)):
        heatmaps, _ = encode(np.array([[[x, 5.0]]]), np.ones((1, 1)), SIZE, codec)
        assert heatmaps[0, 5, 0, 0] == pytest.approx(math.exp(-(centre**2) / 8), abs=1e-6)


def test_sound_border_moves_peaks_beside_all_sides():
    """With row and column 1 beside the border as well as the last but one; those on the border stay."""
    rng = np.random.default_rng(7)
    heatmaps = rng.uniform(0.1, 1, (3, *SIZE, 17)).astype(np.float32)
    for y in range(SIZE[0]):
        heatmaps[y % 3, y, rng.integers(0, SIZE[1]), rng.integers(0, 17)] = 2
    heatmaps[0, 1, 5, 0] = heatmaps[1, 7, 1, 0] = heatmaps[2, 1, 1, 0] = 3
    turned = heatmaps[:, ::-1, ::-1]
    last = np.array(SIZE[::-1]) - 1
    points, _ = decode(heatmaps, SOUND_BORDER)
    np.testing.assert_array_equal(decode(turned, SOUND_BORDER)[0], last - points)
    assert (decode(turned)[0] != last - decode(heatmaps)[0]).any()
    at_peak = np.asarray(peaks(heatmaps)[0])
    inner = ((at_peak > 0) & (at_peak < last)).all(axis=-1)
    np.testing.assert_array_equal(abs(points - at_peak), np.broadcast_to(0.25 * inner[..., None], points.shape))
    assert not inner.all()


def test_sound_border_leaves_the_mirrored_maps_out_of_column_0():
    """The shift moves nothing into it: there the image alone decides. All other columns are the published ones."""
    heatmaps, flipped_heatmaps = np.random.default_rng(8).normal(size=(2, 3, *SIZE, 17)).astype(np.float32)
    sound, published = (
        np.asarray(codec.merge_flipped(heatmaps, flipped_heatmaps, COCO.flip_indices))
        for codec in (SOUND_BORDER, PUBLISHED)
    )
    np.testing.assert_array_equal(sound[:, :, 0], heatmaps[:, :, 0])
    np.testing.assert_array_equal(sound[:, :, 1:], published[:, :, 1:])
    assert (published[:, :, 0] != heatmaps[:, :, 0]).all()


# --- flip test ----------------------------------------------------------------------------------------------------


def test_why_the_mirrored_maps_are_shifted():
    """Image column x = 4 c is 4 W - 1 - x in the mirror image: after mirroring the map back, c - 3/4, with any c."""
    width = SIZE[1]
    for c in np.linspace(0, width - 1, 23):
        in_mirror = (4 * width - 1 - 4 * c) / 4
        assert in_mirror == pytest.approx(width - 1 / 4 - c)
        assert width - 1 - in_mirror == pytest.approx(c - 3 / 4)


def both_views(pixels):
    """Target maps of joints at crop pixels, and of the same joints in the mirrored crop."""
    ones = np.ones(pixels.shape[:2])
    there = pixels * (-1, 1) + (4 * SIZE[1] - 1, 0)
    return encode(pixels / 4, ones, SIZE)[0], encode(there[:, COCO.flip_indices] / 4, ones, SIZE)[0]


def test_shifted_mirrored_targets_equal_the_targets_of_whole_pixels():
    """Except column 0, which keeps its own value."""
    pixels = np.random.default_rng(4).integers(16, np.array(SIZE[::-1]) * 4 - 16, (20, 17, 2)).astype(float)
    heatmaps, flipped_heatmaps = both_views(pixels)
    merged = np.asarray(PUBLISHED.merge_flipped(heatmaps, flipped_heatmaps, COCO.flip_indices))
    np.testing.assert_array_equal(merged[:, :, 1:], heatmaps[:, :, 1:])
    back = flipped_heatmaps[:, :, ::-1][..., COCO.flip_indices]
    np.testing.assert_array_equal(merged[:, :, 0], (heatmaps[:, :, 0] + back[:, :, 0]) / 2)


def test_unshifted_mirrored_targets_lie_to_the_left():
    pixels = np.random.default_rng(5).uniform(8, np.array(SIZE[::-1]) * 4 - 8, (60, 17, 2))
    heatmaps, flipped_heatmaps = both_views(pixels)
    back = 2 * np.asarray(
        GaussianCodec(flip_shift=False).merge_flipped(0 * heatmaps, flipped_heatmaps, COCO.flip_indices)
    )
    off = decode(back)[0][..., 0] - decode(heatmaps)[0][..., 0]
    assert off.mean() == pytest.approx(-3 / 4, abs=5 * float(off.std()) / math.sqrt(off.size))
    assert set(np.unique(off)) == {-1, 0}


def test_flip_twice_is_nothing():
    given = np.random.default_rng(6).normal(size=(2, *SIZE, 17)).astype(np.float32)
    codec = GaussianCodec(flip_shift=False)

    def flip(heatmaps):
        return 2 * np.asarray(codec.merge_flipped(np.zeros_like(heatmaps), heatmaps, COCO.flip_indices))

    np.testing.assert_array_equal(flip(flip(given)), given)
    assert (flip(given) != given).any()


# --- as an object -------------------------------------------------------------------------------------------------


def test_config_equality_and_serialization():
    codec = GaussianCodec(1.5, flip_shift=False)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(codec))
    assert again == codec
    assert hash(again) == hash(codec)
    assert codec != GaussianCodec(1.5)
    assert codec != GaussianCodec(2, flip_shift=False)
    assert SOUND_BORDER != PUBLISHED
    assert GaussianCodec.from_config({"sigma": 2.0, "flip_shift": True}) == PUBLISHED  # a model saved before the border
    assert GaussianCodec.from_config(codec.get_config()) == codec
    assert repr(codec) == "GaussianCodec(sigma=1.5, flip_shift=False, published_border=True)"


def test_codecs_of_old_files_are_read():
    """As `.keras` files hold it that were written when `heatmaps` was one module."""
    written = {
        "module": "keras_mrpose.codecs",
        "class_name": "GaussianCodec",
        "config": {"sigma": 1.5, "flip_shift": True, "published_border": True},
        "registered_name": "keras_mrpose>GaussianCodec",
    }
    assert keras.saving.deserialize_keras_object(written) == GaussianCodec(1.5)


@pytest.mark.parametrize("kind", CODECS.values())
@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf])
def test_impossible_sigma_is_refused(kind, sigma):
    with pytest.raises(InputError, match=rf"^{kind.__name__}: sigma is .*; give a positive number"):
        kind(sigma)


# --- by name ------------------------------------------------------------------------------------------------------


def test_codecs_by_name():
    assert codec_of("gaussian", 1.5) == GaussianCodec(1.5)
    assert codec_of("DARK", 3) == DarkCodec(3)
    assert codec_of("udp") == UDPCodec(2)
    assert codec_of(SOUND_BORDER, 7) is SOUND_BORDER
    assert len({GaussianCodec(2), DarkCodec(2), UDPCodec(2)}) == 3


@pytest.mark.parametrize(("name", "hint"), [("drak", "Did you mean dark"), ("", ""), (None, ""), (GaussianCodec, "")])
def test_unknown_names_are_one_sentence(name, hint):
    with pytest.raises(InputError, match=rf"^Unknown codec .*\.{' ' + hint if hint else ''}.* gaussian, dark, udp\.$"):
        codec_of(name, 2.0)
