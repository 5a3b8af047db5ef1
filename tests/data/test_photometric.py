"""What a crop looks like: colours and rectangles against slow references, their distribution, and 0 to 255."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mrpose.data import augmentation as augment
from keras_mrpose.data.augmentation import Augmentation

DRAWS = 4000
JITTER = {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "channel_gain": 0.2}
STRONG = Augmentation(**JITTER, colour_probability=0.7, erasing_probability=0.4, erasing_rectangles=2, erasing_area=0.3)


def picture(size=(7, 5), seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (*size, 3)).astype(np.float32)


def draws(augmentation):
    """Colours and rectangles of many seeds."""
    looks = tf.data.Dataset.range(DRAWS).map(
        lambda number: tuple(augment.draw_photometric(tf.stack([number, tf.constant(3, tf.int64)]), augmentation))
    )
    return [values.numpy() for values in next(iter(looks.batch(DRAWS)))]


def near(share, wanted, count=DRAWS):
    """Within five standard deviations of a share of coins."""
    return abs(share - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / count)


# --- colours ------------------------------------------------------------------------------------------------------


def recoloured(crop, *colours):
    return augment.apply_photometric(
        tf.constant(crop), augment.PhotometricParams(colours=tf.constant(colours, tf.float32))
    ).numpy()


def reference_colours(crop, brightness, contrast, saturation, *gains):
    """One step after the other, in float64."""
    luma = np.array([0.299, 0.587, 0.114])
    crop = crop.astype(np.float64) * brightness * np.array(gains)
    mean = (crop @ luma).mean()
    crop = mean + contrast * (crop - mean)
    grey = (crop @ luma)[..., None]
    return grey + saturation * (crop - grey)


def test_colours_are_those_of_plain_steps():
    """Ten float32 roundings of numbers up to 255 * 1.3 * 1.4 * 1.5 * 1.2: 1e-3 is ample."""
    rng, clipped = np.random.default_rng(0), 0
    for seed in range(50):
        crop = picture(seed=seed)
        colours = rng.uniform((0.7, 0.6, 0.5, 0.8, 0.8, 0.8), (1.3, 1.4, 1.5, 1.2, 1.2, 1.2))
        wanted = reference_colours(crop, *colours)
        np.testing.assert_allclose(recoloured(crop, *colours), wanted.clip(0, 255), rtol=0, atol=1e-3)
        clipped += (wanted < 0).any() and (wanted > 255).any()
    assert clipped > 10


def test_extremes():
    crop, ones = picture(), (1, 1, 1)
    np.testing.assert_array_equal(recoloured(crop, 1, 1, 1, *ones), crop)  # every bit
    np.testing.assert_array_equal(recoloured(crop, 0, 1, 1, *ones), np.zeros_like(crop))
    assert np.ptp(recoloured(crop, 1, 0, 1, *ones)) < 1e-3  # the mean grey
    assert np.ptp(recoloured(crop, 1, 1, 0, *ones), axis=-1).max() < 1e-3  # a black and white photograph
    red = recoloured(crop, 1, 1, 1, 0.5, 1, 1)
    np.testing.assert_allclose(red, crop * (0.5, 1, 1), rtol=1e-6)
    bright = recoloured(crop, 100, 1, 1, *ones)
    assert bright.max() == 255 and bright.min() >= 0 and bright.dtype == np.float32


def test_factors_follow_their_distribution():
    colours, _ = draws(STRONG)
    changed = colours[(colours != 1).any(axis=1)]
    assert near(len(changed) / DRAWS, 0.7)
    reach = np.array([0.3, 0.4, 0.5, 0.2, 0.2, 0.2])
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        reached = (changed < 1 + reach * (2 * share - 1)).mean(axis=0)
        assert all(near(value, share, len(changed)) for value in reached), share
    assert (abs(changed - 1) <= reach + 1e-6).all()
    off_diagonal = np.corrcoef(changed.T) - np.eye(6)
    assert abs(off_diagonal).max() < 5 / np.sqrt(len(changed))


# --- rectangles ---------------------------------------------------------------------------------------------------


def reference_erased(crop, rectangles):
    """Pixel by pixel: whose centre is inside takes the colour, of the last rectangle in the end."""
    crop, (height, width) = crop.copy(), crop.shape[:2]
    for top, left, h, w, *colour in rectangles:
        for y, x in np.ndindex(height, width):
            if top <= (y + 0.5) / height < top + h and left <= (x + 0.5) / width < left + w:
                crop[y, x] = colour
    return crop


@pytest.mark.parametrize("size", [(7, 5), (12, 31)], ids=str)
def test_rectangles_are_filled_pixel_by_pixel(size):
    """Every bit, outside and inside; in the given order."""
    rng, covered = np.random.default_rng(0), []
    for seed in range(25):
        crop, sides = picture(size, seed), rng.uniform(0, 0.8, (3, 2))
        rectangles = np.hstack([rng.random((3, 2)) * (1 - sides), sides, rng.uniform(0, 255, (3, 3))])
        rectangles = rectangles.astype(np.float32)
        found = augment.apply_photometric(
            tf.constant(crop), augment.PhotometricParams(rectangles=tf.constant(rectangles))
        ).numpy()
        np.testing.assert_array_equal(found, reference_erased(crop, rectangles))
        covered.append((found != crop).all(axis=-1).mean())
    assert min(covered) < 0.3 < 0.6 < max(covered)


def test_a_rectangle_may_be_empty_or_everything():
    crop = picture()
    for sides, wanted in (((0, 0), crop), ((0.9, 0), crop), ((1, 1), np.full_like(crop, 9))):
        rectangles = tf.constant([[0, 0, *sides, 9, 9, 9]], tf.float32)
        np.testing.assert_array_equal(
            augment.apply_photometric(crop, augment.PhotometricParams(rectangles=rectangles)), wanted
        )


def test_rectangles_follow_their_distribution():
    """Area uniform up to 0.3, height over width from 1/2 to 2 and as often above 1 as below, inside the crop."""
    _, rectangles = draws(STRONG)
    assert rectangles.shape == (DRAWS, 2, 7)
    area = rectangles[..., 2] * rectangles[..., 3]
    there = (area > 0).any(axis=1)
    assert near(there.mean(), 0.4)
    assert (area[there] > 0).all() and (area[~there] == 0).all()
    some, area = rectangles[there].reshape(-1, 7), area[there].ravel()
    for share in (0.1, 0.5, 0.9):
        assert near((area < 0.3 * share).mean(), share, len(some))
        assert near((some[:, 4:] < 255 * share).mean(), share, some[:, 4:].size)
    assert some[:, 4:].max() <= 255
    ratio = some[:, 2] / some[:, 3]
    assert 0.499 < ratio.min() < 0.52 and 1.95 < ratio.max() < 2.001
    assert near((ratio < 1).mean(), 0.5, len(some))
    assert (some[:, :2] >= 0).all() and (some[:, :2] + some[:, 2:4] <= 1 + 1e-6).all()
    room = some[:, :2] / (1 - some[:, 2:4])
    assert near((room < 0.25).mean(), 0.25, room.size)


# --- both ---------------------------------------------------------------------------------------------------------


def test_colours_and_rectangles_are_independent():
    colours, rectangles = draws(STRONG)
    changed, erased = (colours != 1).any(axis=1), (rectangles[..., 2] > 0).any(axis=1)
    assert abs(np.corrcoef(changed, erased)[0, 1]) < 5 / np.sqrt(DRAWS)


def test_crops_that_are_spared_keep_every_bit():
    never = Augmentation(colour_probability=1e-12, erasing_probability=1e-12)
    crop, look = picture((64, 48)), augment.draw_photometric(tf.constant([1, 2], tf.int64), never)
    assert None not in look
    np.testing.assert_array_equal(augment.apply_photometric(tf.constant(crop), look), crop)


def test_fills_stay_as_drawn():
    """The rectangles come after the colours."""
    look = augment.PhotometricParams(tf.constant([0.5, 1, 1, 1, 1, 1]), tf.constant([[0, 0, 1, 1, 10.0, 20, 30]]))
    np.testing.assert_array_equal(augment.apply_photometric(picture(), look)[3, 2], [10, 20, 30])


def test_strongest_values_stay_in_range_and_traced_agrees():
    """Whole numbers are as good as others in a config; float32 sums in another order differ by 1e-3 at most."""
    most = Augmentation(
        colour_probability=1, brightness=1, contrast=1, saturation=1, channel_gain=1,
        erasing_probability=1, erasing_rectangles=4, erasing_area=0.5,
    )  # fmt: skip
    crop = picture((31, 20))

    def look_at(crop, seed):
        return augment.apply_photometric(crop, augment.draw_photometric(seed, most))

    graph = tf.function(look_at)
    for number in range(5):
        arguments = tf.constant(crop), tf.constant([number, 2], tf.int64)
        eager, traced = look_at(*arguments).numpy(), graph(*arguments).numpy()
        assert eager.min() >= 0 and eager.max() <= 255 and eager.shape == crop.shape
        np.testing.assert_allclose(eager, traced, rtol=0, atol=1e-3)
