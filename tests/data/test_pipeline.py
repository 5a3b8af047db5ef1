"""The pipeline: what it yields, in which order, the same again, and what it says of a broken image."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_mrpose import geometry
from keras_mrpose.codecs import GaussianCodec, UDPCodec
from keras_mrpose.data import augmentation as augment
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton

SIZE = (64, 48)  # height, width
THREE = Skeleton("three", ("nose", "left_eye", "right_eye"), ((1, 2),))
SIZES = ((70, 90), (81, 60), (50, 100))  # of the images: height, width
STRONG = Augmentation(
    scale=0.3, rotation=40, rotation_probability=0.8, flip_probability=0.5, shift_probability=0.5, shift=0.1
)
SEEN = [[2, 1, 2], [2, 2, 0], [0, 2, 1], [2, 2, 2], [1, 1, 1], [0, 0, 0], [2, 0, 2]]  # flags of seven people


def blobs(size, places):
    """A red, a green and a blue blob, between pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (
        np.stack([250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8) for x, y in places], axis=-1)
        .round()
        .astype(np.uint8)
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Seven people in three images that are not square; PNG, so that pixels are exact."""
    folder = tmp_path_factory.mktemp("images")
    keypoints, paths = np.zeros((7, 3, 3)), []
    for number, (height, width) in enumerate(SIZES):
        places = np.array([[0.45, 0.4], [0.6, 0.3], [0.35, 0.55]]) * (width, height) + 0.3
        paths.append(folder / f"{number}.png")
        Image.fromarray(blobs((height, width), places)).save(paths[-1])
        keypoints[number::3, :, :2] = places
    keypoints[..., 2] = SEEN
    image = np.arange(7) % 3
    sides = np.array(SIZES)[image, ::-1]
    boxes = np.concatenate([0.15 * sides, 0.6 * sides], axis=1) + np.arange(7)[:, None] * (0.5, 0.3, 1, 0.7)
    return People(
        source="seven blobs",
        skeleton=THREE,
        image_paths=paths,
        image_ids=range(3),
        image_index=image,
        ids=range(100, 107),
        boxes=boxes,
        keypoints=keypoints,
        reference_length=np.linspace(20, 50, 7),
        areas=np.linspace(20, 50, 7) ** 2,
    )


def taken(dataset, count):
    """The first batches as two arrays."""
    images, targets = zip(*dataset.take(count).as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(targets)


def training(people, batch_size=3, augmentation=STRONG, **options):
    return pipeline.batches(people, SIZE, batch_size, augmentation=augmentation, **options)


# --- what it yields -----------------------------------------------------------------------------------------------


def test_still_batches_hold_everybody_once_in_order(people):
    """Joints and lengths in heatmap pixels, against float64; float32 positions are good to 1e-4."""
    batches = list(pipeline.batches(people, SIZE, 3))
    assert [images.shape for images, _ in batches] == [(n, *SIZE, 3) for n in (3, 3, 1)]
    assert all(images.dtype == targets.dtype == tf.float32 for images, targets in batches)
    targets = np.concatenate([targets for _, targets in batches])
    centres, widths = geometry.crop_window(people.boxes, SIZE)
    for person, matrix in enumerate(geometry.crop_matrix(centres, widths, SIZE)):
        labelled = people.keypoints[person, :, 2] > 0
        points = geometry.transform(matrix, people.keypoints[person, :, :2]) / 4
        np.testing.assert_allclose(targets[person, :, :2], points * labelled[:, None], atol=1e-4)
        np.testing.assert_array_equal(targets[person, :, 2], labelled)
        np.testing.assert_allclose(
            targets[person, :, 3], people.reference_length[person] * 48 / widths[person] / 4, rtol=1e-6
        )


def test_the_codec_scales_the_targets(people):
    """UDP's are longer by (side - 1) / (map side - 1) / 4, in x and in y by its own; a length by their mean."""
    (plain,), (udp,) = (
        [targets.numpy() for _, targets in pipeline.batches(people, SIZE, 7, codec=codec)]
        for codec in (None, UDPCodec())
    )
    x, y = 11 / 47 * 4, 15 / 63 * 4
    np.testing.assert_allclose(udp, plain * (x, y, 1, np.sqrt(x * y)), rtol=1e-6)


def test_batches_of_four_are_four_batches_of_one(people):
    together, alone = (taken(pipeline.batches(people, SIZE, size), count) for size, count in ((4, 2), (1, 7)))
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [3, 7, 9])
def test_whole_batches_are_filled_up_with_people_who_count_for_nothing(people, size):
    whole = pipeline.batches(people, SIZE, size, whole=True)
    assert whole.cardinality() == -(-7 // size)  # as Keras asks it
    assert all(part.shape[0] == size for part in whole.element_spec)
    images, targets, *weights = (np.concatenate(parts) for parts in zip(*whole.as_numpy_iterator(), strict=True))
    (still_images, still_targets), *_ = pipeline.batches(people, SIZE, 7).as_numpy_iterator()
    np.testing.assert_array_equal(images[:7], still_images)
    np.testing.assert_array_equal(targets[:7], still_targets)
    assert not targets[7:, :, :3].any()
    if size == 7:
        assert not weights
    else:  # the mean over all is then the one over seven
        np.testing.assert_allclose(weights[0], len(images) / 7, rtol=1e-7)


@pytest.mark.parametrize("augmented", [False, True])
def test_joints_sit_on_their_pixels(people, augmented):
    """In every crop the centroid of each joint's colour is at the target; a mirrored one shows blue as the left eye.

    A blob reaches 8 px around its joint; those that leave the crop have no whole centroid and are left out. The
    centroid is good to 0.05 crop pixels, see test_augment.
    """
    dataset = training(people) if augmented else pipeline.batches(people, SIZE, 3)
    images, targets = taken(dataset, 14 if augmented else 3)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    checked = mirrored = 0
    for image, target in zip(images.astype(np.float64), targets, strict=True):
        mass = image.sum(axis=(0, 1))
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).max(axis=0)
        centroids = np.stack([np.tensordot(columns, image, 2), np.tensordot(rows, image, 2)], axis=-1) / mass[:, None]
        if (edge > 0).any() or not target[:, 2].any():
            continue
        error = {
            order: abs(centroids[list(order)] / 4 - target[:, :2])[target[:, 2] > 0].max()
            for order in ((0, 1, 2), (0, 2, 1))
        }
        assert min(error.values()) < 0.05 / 4
        checked += 1
        mirrored += error[0, 2, 1] < 0.05 / 4 < error[0, 1, 2]
    assert checked >= (8 if augmented else 3)
    assert bool(mirrored) == augmented


def test_unlabelled_joints_stay_zero(people):
    _, targets = taken(training(people), 20)
    unlabelled = targets[..., 2] == 0
    assert unlabelled.any() and not unlabelled.all()
    assert not targets[unlabelled][:, :3].any()
    assert (targets[..., 3] > 0).all()


def test_labelled_joints_outside_the_crop_keep_their_place(people):
    """The codec takes them out of the loss; the metrics count them as missed."""
    aside = People(**{**vars(people), "boxes": people.boxes + np.array([100, 0, 0, 0])})
    _, targets = taken(pipeline.batches(aside, SIZE, 7), 1)
    np.testing.assert_array_equal(targets[..., 2], people.keypoints[..., 2] > 0)
    assert (targets[targets[..., 2] > 0][:, 0] < 0).all()


@pytest.mark.parametrize("augmentation", [None, STRONG])
def test_the_end_of_a_process_does_not_wait_for_tuning(people, augmentation):
    """TensorFlow's tuning thread cannot be told to stop: it was seen to take two minutes to end with a pipeline."""
    assert pipeline.batches(people, SIZE, 4, augmentation=augmentation).options().autotune.enabled is False


# --- the same again -----------------------------------------------------------------------------------------------


def test_same_seed_same_batches(people):
    """Another seed has another order and other draws: those of (seed, epoch, person), as the lengths tell."""
    first, again, other = (taken(training(people, seed=seed), 5) for seed in (4, 4, 5))
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert (one != different).any()

    def scale(epoch, person):
        return person, augment.draw(pipeline._fold(5, epoch, person), STRONG).scale

    person, scales = next(iter(pipeline._endless_order(7, 6, 5, 0).map(scale).batch(15)))
    lengths = people.reference_length * 48 / geometry.crop_window(people.boxes, SIZE)[1] / 4
    np.testing.assert_allclose(other[1][:, 0, 3], lengths[person] / scales, rtol=1e-5)
    np.testing.assert_array_equal(pipeline.rows(people, 3, 5, 1, 1), person[9:12])
    many = people.take(np.arange(100) % 7)
    assert pipeline.rows(many, 50, 4, 0, 0).tolist() != pipeline.rows(many, 50, 5, 0, 0).tolist()


def test_going_on_from_an_epoch_continues_exactly(people):
    """Seven people in batches of three: two steps an epoch."""
    from_start = taken(training(people, seed=1), 8)
    for epoch in (1, 3):
        for one, other in zip(
            from_start, taken(training(people, seed=1, first_epoch=epoch), 8 - 2 * epoch), strict=True
        ):
            np.testing.assert_array_equal(one[6 * epoch :], other)


def test_everything_on_is_the_same_again(people):
    """Half bodies, colours and erasing too depend on (seed, epoch, person) alone; pixels stay in 0 to 255."""
    labelled = People(**{**vars(people), "keypoints": np.where([0, 0, 1], 2, people.keypoints)})
    everything = Augmentation(
        half_body_probability=0.5, half_body_labelled=0, shift_probability=0.5, colour_probability=0.8,
        erasing_probability=0.8, erasing_rectangles=2,
    )  # fmt: skip
    images, targets = taken(training(labelled, augmentation=everything), 6)
    later = taken(training(labelled, augmentation=everything, first_epoch=2), 2)
    for one, again in zip((images, targets), later, strict=True):
        np.testing.assert_array_equal(one[12:], again)
    assert images.dtype == np.float32 and images.min() >= 0 and images.max() <= 255
    assert (targets[..., 2] == 1).all()  # erased or not


def test_half_bodies_fill_their_crops(people):
    """Who has all three joints labelled is cropped to 1.5 times their bounding box; the others stay whole."""
    half = Augmentation(0, 0, 0, 0, half_body_probability=1)
    _, targets = taken(training(people, augmentation=half, seed=1), 4)
    complete = (targets[..., 2] == 1).all(axis=1)
    assert 0 < complete.sum() < len(complete)
    low, high = targets[complete, :, :2].min(axis=1), targets[complete, :, :2].max(axis=1)
    np.testing.assert_allclose(((high - low) * 4 / (48, 64)).max(axis=1), 1 / 1.5, rtol=1e-5)
    np.testing.assert_allclose((low + high) / 2 * 4, [[24, 32]] * len(low), atol=1e-3)
    for target in targets[~complete]:
        seen = target[target[:, 2] > 0, :2]
        assert len(seen) == 0 or (np.ptp(seen, axis=0) * 4 / (48, 64)).max() < 0.5


def test_appearance_leaves_targets_alone(people):
    look = replace(STRONG, colour_probability=1, erasing_probability=1, erasing_rectangles=3, erasing_area=0.3)
    plain, changed = (taken(training(people, augmentation=kind), 6) for kind in (STRONG, look))
    np.testing.assert_array_equal(plain[1], changed[1])
    assert (plain[0] != changed[0]).any(axis=(1, 2, 3)).all()


def perimeter(points, length):
    """Of the triangle of joints, in units of the reference_length: no crop changes it, so it tells who somebody is."""
    return sum(np.linalg.norm(points[..., i, :] - points[..., i - 1, :], axis=-1) for i in range(3)) / length


def test_every_epoch_is_another_one(people):
    """In order, in who sits it out, and in how the same person is cropped."""
    everybody = People(**{**vars(people), "keypoints": np.where([0, 0, 1], 2, people.keypoints)})
    known = perimeter(everybody.keypoints[..., :2], everybody.reference_length)
    assert np.diff(np.sort(known)).min() > 1e-2
    crops, orders = {}, []
    images, targets = taken(training(everybody), 2 * 12)
    for image, target in zip(images, targets, strict=True):
        name = int(np.argmin(abs(perimeter(target[:, :2], target[0, 3]) - known)))
        crops.setdefault(name, []).append(image.tobytes())
        orders.append(name)
    orders = [tuple(orders[begin : begin + 6]) for begin in range(0, 72, 6)]
    assert all(len(set(order)) == 6 for order in orders)  # nobody twice in an epoch
    assert len(set(orders)) == 12
    assert set(crops) == set(range(7))  # everybody has a turn
    assert all(len(set(images)) == len(images) for images in crops.values())


# --- wrong --------------------------------------------------------------------------------------------------------


def with_image(people, path):
    return People(**{**vars(people), "image_paths": [*people.image_paths[:2], str(path)]})


def failure(people):
    with pytest.raises(tf.errors.OpError) as caught:
        list(pipeline.batches(people, SIZE, 3))
    return pipeline.explain_failure(people, caught.value)


def jpeg(size=(83, 61), seed=0):
    """A JPEG whose sides are no multiple of its blocks, colours at half resolution."""
    smooth = cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8), (0, 0), 3)
    return cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@pytest.mark.parametrize(
    "content",
    [jpeg()[: len(jpeg()) // 2], jpeg()[:100], b"", b"<html>not found</html>", b"GIF89a"],
    ids=["half", "head", "empty", "html", "gif"],
)
def test_a_broken_image_is_named(people, content, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(content)
    broken = with_image(people, tmp_path / "broken.jpg")
    explained = failure(broken)
    assert isinstance(explained, InputError)
    assert str(explained).startswith(f"The image {tmp_path / 'broken.jpg'} cannot be read (")
    assert "{{" not in str(explained) and "[Op" not in str(explained)  # where in TensorFlow's graph is nobody's concern
    assert "\n" not in str(explained)


def test_an_image_that_vanished_is_named(people, tmp_path):
    explained = failure(with_image(people, tmp_path / "gone.jpg"))
    assert isinstance(explained, InputError)
    assert f"The image {tmp_path / 'gone.jpg'} cannot be read" in str(explained)


def test_a_failure_of_another_kind_stays_what_it_is(people):
    """A bug of ours must not be told to the user as a mistake of theirs; an image that nobody needs stops nothing."""
    error = tf.errors.InvalidArgumentError(None, None, "shapes do not fit")
    assert pipeline.explain_failure(people, error) is error
    unused = with_image(people, "gone.jpg").take(people.image_index < 2)
    assert pipeline.explain_failure(unused, error) is error


def test_too_few_people_are_refused(people):
    with pytest.raises(InputError, match="seven blobs has no people"):
        pipeline.batches(people.take([]), SIZE, 3)
    with pytest.raises(InputError, match="7 people, less than one batch of 8"):
        training(people, batch_size=8)
    assert taken(pipeline.batches(people, SIZE, 8), 1)[0].shape[0] == 7
    assert training(people, batch_size=7).element_spec[0].shape[0] == 7


# --- reading ------------------------------------------------------------------------------------------------------


def seen(people, paths, sizes):
    """The people with other image files: crops and targets."""
    table = People(**{**vars(people), "image_paths": [str(path) for path in paths], "image_sizes": sizes})
    return taken(pipeline.batches(table, SIZE, 7), 1)


def test_turned_photographs_give_the_crops_of_upright_ones(people, tmp_path):
    """Labels are of upright pixels, the stored ones lie; PNG keeps them exactly. So do pixels as they are stored."""
    sizes, turned, lying = [], [], []
    for number, path in enumerate(people.image_paths):
        upright = Image.open(path)
        sizes.append(upright.size)
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.append(tmp_path / f"turned{number}.png")
        upright.transpose(Image.Transpose.ROTATE_90).save(turned[-1], exif=exif)
        lying.append(tmp_path / f"lying{number}.png")
        upright.save(lying[-1], exif=exif)
    wanted = seen(people, people.image_paths, sizes)
    for paths in (turned, lying):
        for one, other in zip(seen(people, paths, sizes), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_another_size_than_annotated_stops_or_is_skipped(people):
    sizes = [(width, height) for height, width in SIZES]
    sizes[1] = (60, 80)
    table = People(**{**vars(people), "image_sizes": sizes})
    error = failure(table)
    message = f"The image {people.image_paths[1]} has 60x81 pixels, its annotations say 60x80; get the one that was"
    assert isinstance(error, InputError) and str(error).startswith(message)
    listed = pipeline.Skipped()
    images, targets = taken(pipeline.batches(table, SIZE, 7, on_bad_record="skip", skipped=listed), 1)
    other = people.image_index == 1
    np.testing.assert_array_equal(~images.any(axis=(1, 2, 3)), other)
    assert not targets[other][..., 2].any()
    assert [(one["person"], one["reason"][:16]) for one in listed.records()] == [
        (101, "has 60x81 pixels"),
        (104, "has 60x81 pixels"),
    ]


# --- for `model.fit` ----------------------------------------------------------------------------------------------


def network(skeleton=THREE, codec=None, size=SIZE):
    """What a data set asks of a network."""
    return SimpleNamespace(
        name="network", skeleton=skeleton, codec=codec or GaussianCodec(), input_shape=(None, *size, 3)
    )


def test_a_data_set_takes_size_codec_and_joints_from_the_model(people):
    """Without augmentation it is everybody in order; the model's joints are in another order, and one nobody labels."""
    other = Skeleton("other", ("right_eye", "nose", "left_ear"), ())
    data = pipeline.dataset(people, network(other, UDPCodec(), (32, 64)), 3)
    (images, targets), *more = data.as_numpy_iterator()
    assert [len(images), *(len(images) for images, _ in more)] == [3, 3, 1] and data.cardinality() == 3
    wanted_images, wanted = taken(pipeline.batches(people, (32, 64), 3, codec=UDPCodec()), 1)
    np.testing.assert_array_equal(images, wanted_images)
    np.testing.assert_array_equal(targets[:, :2], wanted[:, [2, 0]])
    assert not targets[:, 2, :3].any() and data.codec == UDPCodec()
    assert data.reference_length == "square root of the area"


@pytest.mark.slow
def test_each_pass_is_the_next_epoch_of_a_training(people):
    """Two whole batches of three; who runs the program again sees the same."""
    first, again, other = (pipeline.dataset(people, network(), 3, augment=STRONG, seed=seed) for seed in (5, 5, 6))
    assert first.cardinality() == 2
    passes = [taken(first, 9) for _ in range(3)]
    for epoch, (images, targets) in enumerate(passes):
        wanted_images, wanted = taken(training(people, seed=5, first_epoch=epoch), 2)
        np.testing.assert_array_equal(images, wanted_images)
        np.testing.assert_array_equal(targets, wanted)
    np.testing.assert_array_equal(taken(again, 9)[1], passes[0][1])
    assert not np.array_equal(taken(other, 9)[1], passes[0][1])


def test_order_and_augmentation_are_chosen_apart(people):
    """Crops that vary in the people's order, the last batch as it falls; and still ones shuffled."""
    still = Augmentation(flip_probability=0)  # else mirroring exchanges labels
    ordered = pipeline.dataset(people, network(), 4, augment=still, shuffle=False)
    (images, targets), (more, _) = ordered.as_numpy_iterator()
    assert (len(images), len(more), ordered.cardinality()) == (4, 3, 2)
    np.testing.assert_array_equal(targets[:, :, 2], np.array(SEEN)[:4] > 0)
    assert not np.array_equal(next(ordered.as_numpy_iterator())[0], images)
    shuffled = pipeline.dataset(people, network(), 100, shuffle=True)  # more than there are: one batch of seven
    (still, _), (one, _), (two, _) = (taken(data, 9) for data in (pipeline.dataset(people, network()), *[shuffled] * 2))
    sums = [np.round(images.sum(axis=(1, 2, 3)), 3).tolist() for images in (still, one, two)]
    assert sums[1] != sums[0] != sums[2] != sums[1] and sorted(sums[0]) == sorted(sums[1]) == sorted(sums[2])


def test_labels_that_the_model_does_not_find_are_warned_of(people, caplog):
    pipeline.dataset(people, network(Skeleton("one", ("nose",))))
    assert "seven blobs labels left_eye, right_eye, which network does not find" in caplog.text


def test_a_data_set_names_what_is_wrong(people):
    for arguments, words in (
        ((people, SimpleNamespace(name="plain")), "is not a model made by keras_mrpose.build"),
        ((people, network(), 0), "batch_size is 0"),
        ((people.take([]), network()), "has no people"),
        ((people, network(Skeleton("none", ("tail",)))), "none of which is in the skeleton none"),
    ):
        with pytest.raises(InputError, match=words):
            pipeline.dataset(*arguments)
    with pytest.raises(InputError, match="augment is 'yes'; give True, False"):
        pipeline.dataset(people, network(), augment="yes")
