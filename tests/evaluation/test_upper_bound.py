"""What codecs lose: nothing, for the unbiased ones; with the published one it is the rounding, most on small maps."""

import json

import numpy as np
import pytest

from keras_mrpose.codecs import CODECS
from keras_mrpose.data import coco as coco_data
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.upper_bound import codec_for, encode_decode, sizes, upper_bound
from keras_mrpose.skeletons import LSP

SIZES = [(128, 96), (256, 192)]
WINDOW = 1.25 * 67.5, 1.25 * 90  # of a sprinter: the box has the aspect of the crop's when it is 67.5 wide


@pytest.fixture(scope="module")
def sprinters():
    """Twenty made-up people of LSP's joints, 60 x 90 pixels, all joints well inside their boxes, at no round place."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 200, (20, 1, 2))
    points = corners + rng.uniform((6, 9), (54, 81), (20, 14, 2))
    keypoints = np.concatenate([points, rng.integers(0, 3, (20, 14, 1))], axis=-1)
    keypoints[:, LSP.torso, 2] = 2
    return People(
        source="sprinters",
        skeleton=LSP,
        image_paths=[f"{number}.jpg" for number in range(20)],
        image_ids=range(20),
        image_index=range(20),
        ids=range(20),
        boxes=np.concatenate([corners[:, 0], np.full((20, 1), 60), np.full((20, 1), 90)], axis=1),
        keypoints=keypoints,
        reference_length=np.full(20, 50),
        areas=np.full(20, 5400),
    )


def errors(people, name, size, **options):
    """How far labelled joints are found from where they are, in heatmap pixels."""
    found = encode_decode(people, codec_for(name, size), size, **options)
    distances = np.linalg.norm(found[..., :2] - people.keypoints[..., :2], axis=-1)
    return distances[people.keypoints[..., 2] > 0] * size[1] / WINDOW[0] / 4


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_unbiased_codecs_lose_nothing(sprinters, size, flip_test):
    """float32 is good for 1e-3 heatmap pixels; DARK's flip test reads between two columns, which costs a hundredth."""
    assert errors(sprinters, "udp", size, flip_test=flip_test).max() < 1e-3
    assert errors(sprinters, "dark", size, flip_test=flip_test).max() < (0.02 if flip_test else 1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_the_published_codec_loses_its_rounding(sprinters, size):
    """At most half a pixel in x and in y; places within the pixel are even, which is 0.38 in the mean."""
    lost = errors(sprinters, "gaussian", size)
    assert lost.max() <= np.sqrt(0.5) + 1e-3
    assert lost.mean() == pytest.approx(0.3826, abs=0.04)  # of 200 joints, standard deviation 0.14: 4 sigma
    merged = errors(sprinters, "gaussian", size, flip_test=True)
    assert merged.max() <= np.sqrt(0.5) + 1e-3


def test_noise_is_that_of_the_seed_and_the_codec_smooths_it(sprinters):
    size = SIZES[1]
    noisy = {name: errors(sprinters, name, size, noise=0.1) for name in CODECS}
    assert np.median(noisy["dark"]) < 0.25 * np.median(noisy["gaussian"])
    assert np.median(noisy["udp"]) < 0.25 * np.median(noisy["gaussian"])
    np.testing.assert_array_equal(errors(sprinters, "dark", size, noise=0.1), noisy["dark"])
    assert (errors(sprinters, "dark", size, noise=0.1, seed=1) != noisy["dark"]).any()
    unlabelled = sprinters.keypoints[..., 2] == 0
    assert encode_decode(sprinters, codec_for("dark", size), size)[unlabelled][:, 2].max() == 0  # nothing is drawn


def test_a_crowd_is_no_more_than_its_people(sprinters):
    """More people than are done at once."""
    codec, size = codec_for("udp", SIZES[0]), SIZES[0]
    crowd = sprinters.take(np.tile(np.arange(20), 14))
    np.testing.assert_allclose(
        encode_decode(crowd, codec, size)[-20:], encode_decode(sprinters, codec, size), atol=1e-4
    )


@pytest.mark.slow
def test_gain_on_coco_is_most_on_small_maps(shared):
    """People of 200 real images: what is lost to the unbiased codecs are joints outside the crop."""
    file = shared / "golden" / "coco_eval_gt_538.json"
    people = coco_data.parse(json.loads(file.read_text()), str(file), "images")
    people = people.of_images(people.image_ids[:200])
    values = {
        (size, name): upper_bound(people, codec_for(name, size), size, noise=0.1)
        for size in sizes("ap")[:2]
        for name in CODECS
    }
    for name in ("dark", "udp"):
        gains = [values[size, name] - values[size, "gaussian"] for size in sizes("ap")[:2]]
        assert gains[0] > 0.1 and gains[0] > gains[1] > 0.03, (name, gains)
        assert values[(256, 192), name] > 0.95


def test_sizes_are_the_protocols():
    assert sizes("ap") == [(128, 96), (256, 192), (384, 288)]
    assert sizes("pckh") == sizes("pck") == [(128, 128), (256, 256), (384, 384)]
    assert [codec_for("dark", size).sigma for size in sizes("ap")] == [1, 2, 3]


def test_nobody_is_refused(sprinters):
    with pytest.raises(InputError, match="sprinters has no people"):
        upper_bound(sprinters.take(slice(0)), codec_for("dark", (128, 96)), (128, 96))
