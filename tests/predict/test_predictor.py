"""Predictions: joints come out where they are in the image, whatever the box; sources and mistakes."""

import shutil

import dots
import keras
import numpy as np
import pytest

import keras_mrpose
from keras_mrpose import geometry
from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.errors import InputError
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.models import fuse, hardware, networks
from keras_mrpose.models.normalization import BatchNorm
from keras_mrpose.predict.predictor import Predictor, check_boxes

SIZE = (96, 64)  # height, width of the crops
PICTURE = (170, 330)
# Boxes of four people far from each other: small and large, wide and tall, the last two partly outside.
BOXES = np.array([[20, 30, 40, 60], [120.5, 20.25, 60, 110], [-12, 100, 50, 45], [230, 40, 120, 70.5]])


def people(seed=0):
    """(4, 3, 2) dots at sub-pixel places, in the inner part of each box's visible piece."""
    low = np.maximum(BOXES[:, :2], 0)
    high = np.minimum(BOXES[:, :2] + BOXES[:, 2:], (PICTURE[1], PICTURE[0]))
    share = np.random.default_rng(seed).uniform(0.25, 0.75, (4, 3, 2))
    return low[:, None] + share * (high - low)[:, None]


@pytest.fixture(scope="module")
def network():
    return dots.network(SIZE)


@pytest.fixture(scope="module")
def random_model():
    """A real network for COCO's joints, whose heatmaps differ from zero: the head's first weights are tiny."""
    keras.utils.set_random_seed(0)
    model = keras_mrpose.build("simplebaseline", backbone="tiny_v1b", input_shape=(*SIZE, 3))
    for weight in model.trainable_weights:
        if weight.path.endswith("kernel") and np.std(weight) < 0.005:
            weight.assign(weight * 100)
    return model


# --- geometry -----------------------------------------------------------------------------------------------------


def test_crop_and_back_is_the_identity():
    matrices = crop_matrices(BOXES, SIZE)
    points = np.random.default_rng(0).uniform(-50, 400, (4, 7, 2))
    crop = np.stack([geometry.transform(matrix, p) for matrix, p in zip(matrices, points, strict=True)])
    np.testing.assert_allclose(to_image(crop, matrices), points, atol=1e-10)


def test_the_crop_shows_the_box():
    """The box's centre is in the middle of the crop, its filled side takes 1 / 1.25 of it."""
    for box, matrix in zip(BOXES, crop_matrices(BOXES, SIZE), strict=True):
        x, y, w, h = box
        np.testing.assert_allclose(geometry.transform(matrix, np.array([x + w / 2, y + h / 2])), (32, 48))
        corners = geometry.transform(matrix, np.array([[x, y], [x + w, y + h]]))
        assert max((corners[1] - corners[0]) * 1.25 / (64, 96)) == pytest.approx(1)


@pytest.mark.parametrize("flip_test", [False, True])
def test_dots_are_found_where_they_are(network, flip_test):
    """In heatmap pixels a peak moved by a quarter is off by at most 1/4 in x and in y, for symmetric dots.

    The mirror image's maps are 1/4 too far right (`GaussianCodec.flip_shift`), their mean with the others 1/8: then
    at most 3/8 in x. The crops' interpolation adds less than 0.02.
    """
    predictor = Predictor(network, flip_test=flip_test)
    scale = geometry.scale_of(crop_matrices(BOXES, SIZE)) / 4
    errors = []
    for seed in range(5):
        truth = people(seed)
        joints = predictor(dots.picture(PICTURE, truth), BOXES)
        assert joints.shape == (4, 3, 3) and joints.dtype == np.float64
        errors.append((joints[..., :2] - truth) * scale[:, None, None])
        assert (joints[..., 2] > 0.2).all() and (joints[..., 2] <= 1).all()
    bound = np.array([3 / 8 if flip_test else 1 / 4, 1 / 4]) + 0.02
    assert (np.abs(errors) <= bound).all(), np.abs(errors).max(axis=(0, 1, 2))
    assert np.abs(errors).max() > 0.15  # the bound is not idle


def errors_in_heatmap_pixels(predictor):
    scale = geometry.scale_of(crop_matrices(BOXES, SIZE)) / 4
    found = [(predictor(dots.picture(PICTURE, people(seed)), BOXES)[..., :2], people(seed)) for seed in range(5)]
    return np.abs([(joints - truth) * scale[:, None, None] for joints, truth in found])


@pytest.mark.parametrize("flip_test", [False, True])
def test_dark_reads_a_published_network_without_its_quarter(network, flip_test):
    """Dots and their blur are Gaussians, so only what the crops' interpolation and 8 bits do is left, and the skew of
    the flip test's shift: 3/256 / sigma^2 in x, see test_unbiased, where a dot's sigma is at least 1/2 heatmap pixel.
    """
    error = errors_in_heatmap_pixels(Predictor(network, flip_test=flip_test, codec="dark"))
    assert error[..., 1].max() < 0.02
    assert error[..., 0].max() < 0.02 + (3 / 64 if flip_test else 0)


@pytest.mark.parametrize("flip_test", [False, True])
def test_dots_of_a_udp_network_are_found_where_they_are(flip_test):
    """With 4 instead of (side - 1) / (map side - 1) they would be off by up to 1/4 of a heatmap pixel on the right."""
    network = dots.network(SIZE, codec=UDPCodec(1.0))
    assert errors_in_heatmap_pixels(Predictor(network, flip_test=flip_test)).max() < 0.02


def test_codecs_at_test_time(network):
    assert Predictor(network).codec is network.codec
    assert Predictor(network, codec="dark").codec == DarkCodec(network.codec.sigma)
    sound = GaussianCodec(3.0, published_border=False)
    assert Predictor(network, codec=sound).codec is sound
    with pytest.raises(InputError, match=r"Unknown codec 'dart'\. Did you mean dark"):
        Predictor(network, codec="dart")
    for made, asked in ((network, "udp"), (dots.network(SIZE, codec=UDPCodec(1.0)), "gaussian")):
        with pytest.raises(InputError, match=r"cannot read the heatmaps of dots, which was made for .*Leave codec out"):
            Predictor(made, codec=asked)


def test_scores_are_the_heights_of_the_peaks(network):
    predictor = Predictor(network, flip_test=False)
    picture = dots.picture(PICTURE, people())
    strong, weak = predictor(picture, BOXES), predictor(picture // 2, BOXES)
    np.testing.assert_allclose(weak[..., 2], strong[..., 2] / 2, atol=0.5 / 255)  # // rounds by half a level on average


def test_nothing_to_see_gives_no_score(network):
    joints = Predictor(network)(np.zeros((*PICTURE, 3), np.uint8), BOXES)
    assert (joints[..., 2] == 0).all() and np.isfinite(joints).all()


def test_batches_change_nothing(network):
    picture = dots.picture(PICTURE, people())
    together = Predictor(network, batch_size=32)(picture, BOXES)
    predictor, sizes = Predictor(network, batch_size=3), []
    keypoints = predictor.keypoints
    predictor.keypoints = lambda crops: sizes.append(len(crops)) or keypoints(crops)
    np.testing.assert_allclose(predictor(picture, BOXES), together, atol=1e-6)
    assert sizes == [3, 1]
    alone = [predictor(picture, BOXES[i : i + 1]) for i in range(4)]
    np.testing.assert_allclose(np.concatenate(alone), together, atol=1e-6)


def test_without_a_box_one_person_is_looked_for_closer_and_closer(network):
    truth = np.array([[[60.3, 80.6], [100.2, 90.1], [90.7, 130.4]]])
    image = dots.picture((200, 150), truth)
    predictor = Predictor(network, flip_test=False)
    whole, found = predictor(image, [[0, 0, 150, 200]]), predictor(image)
    assert len(found) == 1 and found.person_scores[0] > whole.person_scores[0]
    assert np.abs(found[..., :2] - truth).max() < np.abs(whole[..., :2] - truth).max()
    x, y, w, h = found.boxes[0]
    assert x < 60 and y < 80 and x + w > 100 and y + h > 130 and w * h < 150 * 200 / 4
    assert len(predictor(np.zeros((60, 50, 3), np.uint8))) == 0  # nobody


def test_nobody_gives_nobody(network):
    assert Predictor(network)(np.zeros((*PICTURE, 3), np.uint8), np.zeros((0, 4))).shape == (0, 3, 3)


# --- flip test ----------------------------------------------------------------------------------------------------


def test_flip_test_is_the_mean_with_the_mirror_image(random_model):
    """Mirrored back, left and right joints swapped, moved one column to the right: written out in NumPy."""
    crops = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3)).astype(np.float32)
    plain = Predictor(random_model, flip_test=False)
    direct, mirrored = plain.heatmaps(crops), plain.heatmaps(crops[:, :, ::-1])
    assert direct.shape == (2, 24, 16, 17)
    expected = np.empty_like(direct)
    names = random_model.skeleton.joints
    for j, name in enumerate(names):
        side = {"left": "right", "right": "left"}.get(name.split("_")[0])
        other = names.index(name.replace(name.split("_")[0], side)) if side else j
        for column in range(16):
            source = mirrored[:, :, 15 - max(column - 1, 0), other]
            expected[:, :, column, j] = (direct[:, :, column, j] + source) / 2
    np.testing.assert_allclose(Predictor(random_model).heatmaps(crops), expected, atol=1e-7)
    assert np.abs(expected - direct).max() > 1e-4


def test_joints_are_the_decoded_heatmaps(random_model):
    crops = np.random.default_rng(0).uniform(0, 255, (2, *SIZE, 3)).astype(np.float32)
    predictor = Predictor(random_model)
    points, scores = predictor.keypoints(crops)
    expected, heights = predictor.codec.decode(predictor.heatmaps(crops))
    np.testing.assert_array_equal(points, np.asarray(expected) * 4.0)
    np.testing.assert_array_equal(scores, heights)


def test_crops_go_through_the_faster_network(random_model, monkeypatch):
    """Made once, with the same heatmaps as the network's own but for rounding; one in bfloat16 computes in that."""
    made, fused = [], fuse._fused
    monkeypatch.setattr(fuse, "_fused", lambda *how, **more: made.append(fused(*how, **more)) or made[-1])
    crops = np.random.default_rng(0).uniform(0, 255, (3, *SIZE, 3)).astype(np.float32)
    predictor, direct = Predictor(random_model, flip_test=False), random_model.predict_on_batch(crops)
    for found in (predictor.heatmaps(crops), np.concatenate([predictor.heatmaps(crop[None]) for crop in crops])):
        assert 0 < abs(found - direct).max() < 1e-5 * abs(direct).max()
    assert len(made) == 1
    assert not {type(layer) for layer in made[0].layers} & {BatchNorm, keras.layers.Conv2DTranspose}
    monkeypatch.setattr(hardware, "is_fast", lambda dtype: True)
    with networks.precision("mixed_bfloat16"):
        half = keras_mrpose.build("simplebaseline", backbone="tiny_v1b", input_shape=(*SIZE, 3))
    found, direct = Predictor(half, flip_test=False).heatmaps(crops), half.predict_on_batch(crops)
    assert abs(found - direct).max() < 0.05 * abs(direct).max()  # 8 bits, rounded in some 30 layers
    assert made[1].layers[-5].compute_dtype == "bfloat16" and made[1].output.dtype == "float32"


def _train(model):
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(np.ones((1, *SIZE, 3)), np.ones((1, 17, 4)))  # each joint at (1, 1), of weight 1


def _load(model):
    model.set_weights([weight * 1.1 for weight in model.get_weights()])


def _count_statistics(model):
    variance = [layer for layer in model.layers if isinstance(layer, BatchNorm)][-1].moving_variance
    variance.assign(2 * variance)


@pytest.mark.parametrize("change", [_train, _load, _count_statistics])
def test_it_follows_its_network(change):
    """Through a training, other weights and other statistics; its own copy is made anew then, and only then."""
    model = keras_mrpose.build("simplebaseline", backbone="tiny_v1b", input_shape=(*SIZE, 3))
    predictor = Predictor(model, flip_test=False)
    crops = np.random.default_rng(0).uniform(0, 255, (1, *SIZE, 3)).astype(np.float32)
    before, copy, batches = predictor.heatmaps(crops), predictor.network(), predictor.network(batches=True)
    assert predictor.network() is copy and predictor.network(batches=True) is batches
    change(model)
    direct = model.predict_on_batch(crops)
    assert abs(direct - before).max() > 1e-3 * abs(before).max()
    assert abs(predictor.heatmaps(crops) - direct).max() < 1e-5 * abs(direct).max()
    assert predictor.network() is predictor.network() is not copy
    assert predictor.network(batches=True) is predictor.network(batches=True) is not batches
    assert np.abs(predictor.network(batches=True)(crops) - direct).max() < 1e-5 * abs(direct).max()


# --- sources ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """A run folder with both checkpoints, of which the last one gives weaker heatmaps than the best."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "run").mkdir()
    network.save(folder / "run" / "best.keras")
    other = dots.network(SIZE)
    other.set_weights([weight / 2 for weight in other.get_weights()])
    other.save(folder / "run" / "last.keras")
    return folder


def test_a_model_its_file_and_its_run_predict_the_same(network, files):
    picture = dots.picture(PICTURE, people())
    expected = Predictor(network)(picture, BOXES)
    for source in (files / "run" / "best.keras", str(files / "run")):
        predictor = Predictor(source)
        assert (predictor.skeleton, predictor.input_size) == (dots.DOTS, SIZE)
        np.testing.assert_allclose(predictor(picture, BOXES), expected, atol=1e-6)


def test_a_run_without_a_best_network_gives_its_last(files, tmp_path):
    shutil.copy(files / "run" / "last.keras", tmp_path)
    one, other = Predictor(tmp_path).model, Predictor(files / "run" / "last.keras").model
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_sources_that_are_no_network_of_ours(files, tmp_path):
    broken = tmp_path / "broken.keras"
    broken.write_bytes((files / "run" / "best.keras").read_bytes()[:3000])
    foreign = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    foreign.save(tmp_path / "foreign.keras")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 photo")
    (tmp_path / "folder").mkdir()
    for source, words in (
        (tmp_path / "gone.keras", "is not there; give a .keras file, a .tflite file or the folder of a run"),
        (tmp_path / "folder", "has none of best.keras, last.keras"),
        (broken, "cannot be loaded|can be loaded"),
        (tmp_path / "photo.jpg", "cannot be loaded|can be loaded"),
        (tmp_path / "foreign.keras", "not one made by keras_mrpose.build"),
        (foreign, "not one made by keras_mrpose.build"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            Predictor(source)
        assert "\n" not in str(caught.value)
        if source is not foreign:
            assert str(source) in str(caught.value)


def test_batches_of_none_are_refused(network):
    with pytest.raises(InputError, match="batch_size is 0"):
        Predictor(network, batch_size=0)


# --- images and boxes that cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((20, 30), np.uint8),
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((1, 20, 30, 3), np.uint8),
        np.full((20, 30, 3), 0.5, np.float32),
        np.full((20, 30, 3), 256.0),
        np.full((20, 30, 3), np.nan),
        np.zeros((20, 30, 3), np.uint16),
        np.zeros((20, 30, 3), bool),
    ],
    ids=["grey", "alpha", "batch", "0..1", "above 255", "nan", "16 bits", "bool"],
)
def test_other_pictures_are_refused(network, image):
    words = r"The image has shape \(.*; give \(height, width, 3\) uint8 RGB|float values from .*; give RGB 0\.\.255"
    with pytest.raises(InputError, match=words):
        Predictor(network)(image)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[10, 10, 0, 20]], r"\[10.0, 10.0, 0.0, 20.0\] has no area"),
        ([[10, 10, 20, 20], [10, 10, 20, -1]], r"\[10.0, 10.0, 20.0, -1.0\] has no area"),
        ([[10, np.nan, 20, 20]], "has no area"),
        ([[10, 10, np.inf, 20]], "has no area"),
        ([[330, 10, 20, 20]], "lies outside the image of 330x170 pixels"),
        ([[10, 170, 20, 20]], "lies outside the image of 330x170 pixels"),
        ([[-20, 10, 20, 20]], "lies outside"),
        ([[10, -20, 20, 20]], "lies outside"),
        ([10, 10, 20, 20], r"shape \(4,\); give \(people, 4\)"),
        ([[10, 10, 20]], r"shape \(1, 3\)"),
        ([], r"shape \(0,\)"),
        ([[10, 10, 20, 20], [10, 10, 20]], "not a table of numbers"),
        ([["a", 10, 20, 20]], "not a table of numbers"),
    ],
)
def test_other_boxes_are_refused(network, boxes, words):
    with pytest.raises(InputError, match=words) as caught:
        Predictor(network)(np.zeros((*PICTURE, 3), np.uint8), boxes)
    assert "\n" not in str(caught.value)


def test_boxes_that_touch_the_picture_are_taken():
    boxes = [[329, 169, 5, 5], [-4, -4, 5, 5], [-100, -100, 900, 900]]
    assert check_boxes(boxes, (*PICTURE, 3)).dtype == np.float64
