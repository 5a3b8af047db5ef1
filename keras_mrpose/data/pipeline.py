"""The input pipeline from the `People` table to batches of crops and targets: one short `tf.data` graph.

`dataset` is for `model.fit`; `batches`, which a training can enter at any step, is what `train` takes.

No Python runs for a plain image (`images` says which those are), unless it cannot be read and is skipped.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tensorflow.experimental.numpy as tnp

from keras_mrpose import geometry
from keras_mrpose.codecs import Codec, GaussianCodec
from keras_mrpose.data import augmentation as augment
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.image_tensors import OpenedImage, awaited_at_exit, decoded_image, open_image
from keras_mrpose.data.images import why_unreadable
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import joint_map

_LOG = logging.getLogger(__name__)
ON_BAD_RECORD = ("stop", "skip")
AHEAD = 2  # batches that wait while one is computed with
SKIPPED = "skipped.json"

# No function of a graph here branches on a tensor, and AutoGraph takes two seconds to see that.
_not_converted = tf.autograph.experimental.do_not_convert


class Skipped:
    """List of the people whose image could not be read, each once, however often a training came to them."""

    def __init__(self):
        self._reasons: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()  # the pipeline reads in several threads

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, image: str, person: int, reason: str) -> None:
        """List a person: image file, record number, what was wrong with the file."""
        with self._lock:
            self._reasons.setdefault((image, person), reason)

    def records(self) -> list[dict]:
        """``image``, ``person`` and ``reason`` of each, sorted by image and person."""
        with self._lock:
            found = sorted(self._reasons.items())
        return [{"image": image, "person": person, "reason": reason} for (image, person), reason in found]

    def sentence(self) -> str:
        """One line for the end of a training; empty if all images could be read."""
        if not self._reasons:
            return ""
        images = {image for image, _ in self._reasons}
        return f"skipped {len(self)} people: {len(images)} images cannot be read, the first is {min(images)}"

    def write(self, folder: Path) -> None:
        """Write ``skipped.json`` into a run folder, together with those that an earlier part of the run listed."""
        file = folder / SKIPPED
        if file.exists():
            for record in json.loads(file.read_text()):
                self.add(**record)
        part = folder / f"part-{SKIPPED}"
        part.write_text(json.dumps(self.records(), indent=1) + "\n")
        part.replace(file)


@_not_converted
def dataset(
    people: People,
    model: keras.Model,
    batch_size: int = 32,
    *,
    augment: bool | Augmentation = False,
    shuffle: bool | None = None,
    seed: int = 0,
    on_bad_record: str = "stop",
) -> tf.data.Dataset:
    """Batches of ``(images, targets)`` for ``model.fit``, ``evaluate`` and ``predict``, on every backend of Keras.

    Size of the crops, joints and codec are the model's. A pass ends; the next one (``epochs=10`` are ten) has the
    people in another order and with another augmentation, which depend only on the seed and on how many passes there
    were before: a program that runs again sees the same crops.

    People with other joints get those of the model, by name (`People.with_skeleton`).

    Args:
        people: whose image files exist; `keras_mrpose.data.load` reads them.
        model: made by `keras_mrpose.build`.
        batch_size: people per batch.
        augment: vary the crops: True by the defaults of `Augmentation`, or as one of your own says.
        shuffle: whether each pass has an order of its own. Then batches are whole, and people that do not fill one sit
            this pass out; else the last batch is as it falls. None: shuffled where crops vary, as for training.
        seed: of order and augmentation.
        on_bad_record: see `batches`.

    Returns:
        Dataset of images ``(batch, height, width, 3)`` float32 RGB 0..255, and targets ``(batch, joints, 4)`` float32,
        see `batches`.

    Raises:
        InputError: nobody, people and model without a joint in common, a model of somebody else, or a mirroring of
            joints that are not known to be left or right.
    """
    if not hasattr(model, "codec") or not hasattr(model, "skeleton"):
        raise InputError(f"{model!r} is not a model made by keras_mrpose.build; give one, it says what crops to make.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; give a whole number of at least 1.")
    if not isinstance(augment, bool | Augmentation):
        raise InputError(f"augment is {augment!r}; give True, False or a keras_mrpose.Augmentation.")
    augmentation = Augmentation() if augment is True else augment or None
    shuffle = augmentation is not None if shuffle is None else shuffle
    _check(people, augmentation, on_bad_record)
    people = with_joints_of(model, people)
    size = min(batch_size, len(people)) if shuffle else batch_size
    order = _one_pass(len(people), len(people) // size * size, shuffle, seed)
    crops = _Crops(people, tuple(model.input_shape[1:3]), model.codec, augmentation, seed, on_bad_record, None)
    return crops.batched(order, size, whole=shuffle)


@_not_converted
def batches(
    people: People,
    input_size: tuple[int, int],
    batch_size: int,
    *,
    codec: Codec | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
    on_bad_record: str = "stop",
    skipped: Skipped | None = None,
    shard: tuple[int, int] = (0, 1),
    whole: bool = False,
    crops: tuple[int, ...] | None = None,
) -> tf.data.Dataset:
    """Batches of ``(images, targets)``.

    Without `augmentation`: everybody once, in order, the last batch as it falls. With it: endless epochs, each in an
    order and with an augmentation of its own that depend only on (seed, epoch, person), so that training can go on
    from any step of any epoch; people that do not fill a batch sit this epoch out.

    The data set says of itself (`PoseModel.fit` reads it; what `map`, `prefetch` or the like make of it does not):
    ``codec``; ``reference_length``, what the targets' fourth column is; ``steps_per_epoch``, of endless ones.

    Args:
        people: whose image files exist.
        input_size: ``(height, width)`` of the crops, multiples of 4.
        batch_size: people per batch.
        codec: says where in the heatmaps a point of the crop lies; `GaussianCodec()` if None.
        augmentation: how far crops may vary; None leaves them still.
        seed: of order and augmentation.
        first_epoch: where an endless pipeline begins.
        first_step: how many batches of that epoch it leaves out, without reading their images.
        on_bad_record: ``"stop"``: an image that cannot be read, or has another size than annotated, stops the pipeline
            (`explain_failure` names it);
            ``"skip"``: its people become black crops without labelled joints, of which nothing is learnt.
        skipped: gets the people who were skipped.
        shard: ``(index, count)`` of this process among those that share every batch: this pipeline has the index-th
            part of each, and its batches are `whole`.
        whole: the last batch, too, has `batch_size` people: it is filled up with some without labelled joints, and a
            third value ``(batch,)``, the weight of the samples, makes a mean over all of them the mean over those who
            are there. Keras needs it where devices or processes share the batches: it takes the mean over the replicas
            of the first batch of a validation, which fails unless their shares are of one shape (Keras 3.15).
        crops: with `augmentation`, of people of several sources: how many an epoch has of each, whole batches in all.
            Everybody of a source has been taken as often as the others or once less, over the epochs too.

    Returns:
        Dataset of images ``(batch, height, width, 3)`` float32 RGB 0..255, and targets ``(batch, joints, 4)``
        float32: x, y (heatmap pixels), weight (1 labelled, 0 not), reference length (heatmap pixels); of people of
        several sources ``(batch, joints, 5)``, the fifth is the source's number.
    """
    _check(people, augmentation, on_bad_record)
    present, count = len(people), shard[1]
    whole = whole or count > 1
    if augmentation is not None:
        order = _order(people, batch_size, crops, seed, first_epoch).skip(first_step * batch_size)
        order = _share(order, batch_size, shard)
        order = order.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    else:
        people = _filled_up(people, -present % batch_size if whole else 0)
        order = tf.data.Dataset.range(len(people)).map(lambda person: (tf.constant(0, tf.int64), person))
        order = _share(order, batch_size, shard)
        order = order.apply(tf.data.experimental.assert_cardinality(len(people) // count))  # so Keras knows it
    weight = None if len(people) == present else len(people) / present
    of_people = _Crops(people, input_size, codec or GaussianCodec(), augmentation, seed, on_bad_record, skipped)
    data = of_people.batched(order, batch_size // count, whole or augmentation is not None, weight)
    if augmentation is not None:
        data.steps_per_epoch = (len(people) if crops is None else sum(crops)) // batch_size
    return data


def _check(people: People, augmentation: Augmentation | None, on_bad_record: str) -> None:
    if on_bad_record not in ON_BAD_RECORD:
        raise InputError(f"on_bad_record is {on_bad_record!r}; give one of {', '.join(ON_BAD_RECORD)}.")
    if len(people) == 0:
        raise InputError(f"{people.source} has no people to make batches of; choose another file or split.")
    if augmentation is not None and augmentation.flip_probability:
        people.skeleton.check_mirroring("Augmentation by mirroring", "flip_probability=0")


def with_joints_of(model: keras.Model, people: People) -> People:
    """The people with a model's joints, by name; labels that it has no heatmap for are warned of."""
    own = joint_map(model.skeleton, people.skeleton)
    left_out = [name for name, index in zip(people.skeleton.joints, own, strict=True) if index < 0]
    found = people.with_skeleton(model.skeleton)
    if left_out:
        _LOG.warning(
            "%s labels %s, which %s does not find: build it with skeleton=people.skeleton if they matter.",
            people.source,
            ", ".join(left_out),
            model.name,
        )
    return found


@dataclass(frozen=True)
class _Crops:
    """How a row of a table of people becomes a crop and its target; the arguments are those of `batches`."""

    people: People
    input_size: tuple[int, int]
    codec: Codec
    augmentation: Augmentation | None
    seed: int
    on_bad_record: str
    skipped: Skipped | None

    def batched(self, order: tf.data.Dataset, size: int, whole: bool, weight: float | None = None) -> tf.data.Dataset:
        """Batches of ``(epoch, person)`` pairs; all whole ones if asked for, and with a weight for each sample."""
        data = order.map(self._sample(), num_parallel_calls=os.cpu_count(), deterministic=True)
        data = data.batch(size, drop_remainder=whole)
        if weight is not None:
            weights = tf.fill([size], weight)
            data = data.map(lambda images, targets: (images, targets, weights))
        data = data.prefetch(AHEAD).with_options(_no_autotuning())
        data.codec, data.reference_length = self.codec, _reference_length(self.people)
        return data

    def _sample(self) -> Callable:
        """A graph function from an epoch and a row of the table to a crop and its target."""
        people, augmentation, input_size = self.people, self.augmentation, self.input_size
        boxes = tf.constant(people.boxes, tf.float32)
        reference_length = tf.constant(people.reference_length, tf.float32)
        flip_indices, upper_body = people.skeleton.flip_indices, people.skeleton.upper_body
        sources = tf.constant(people.source_index, tf.float32) if people.num_sources > 1 else None
        scale = self.codec.scale(input_size)
        keypoints, paths = tf.constant(people.keypoints, tf.float32), tf.constant(people.image_paths)
        sizes, image_of = tf.constant(people.image_sizes, tf.int32), tf.constant(people.image_index)

        def sample_of(image: OpenedImage, points, epoch, person):
            params, box = augment.IDENTITY, boxes[person]
            if augmentation is not None:
                params = augment.draw(_fold(self.seed, epoch, person), augmentation)
                box = augment.moved_box(box, points, params, augmentation, upper_body)
            matrix = augment.crop_matrix(box, params, image.sides[0], input_size)
            joints = augment.move_joints(points, matrix, params.flip, flip_indices)
            length = geometry.scale_of(matrix, xp=tnp) * reference_length[person]
            crop = augment.apply_photometric(augment.warp_opened(image, matrix, input_size), params.photometric)
            return crop, target(joints, length, scale, sources if sources is None else sources[person])

        def sample(epoch, person):
            image = open_image(paths[image_of[person]], sizes[image_of[person]])
            return sample_of(image, keypoints[person], epoch, person)

        if self.on_bad_record == "stop":
            return sample
        if not any(map(os.path.isfile, people.paths())):  # a wrong folder is no bad record
            people.require_images()
        list_skipped = _lister(people, Skipped() if self.skipped is None else self.skipped)

        def black(epoch, person):
            image = decoded_image(tf.zeros((1, 1, 3), tf.uint8))
            return sample_of(image, keypoints[person] * list_skipped(person), epoch, person)

        return _first_that_works(sample, black)


def _reference_length(people: People) -> str:
    """What the reference length of people is, in the words of the metrics; empty if there are several sources."""
    if people.num_sources > 1:
        return ""
    return "head size" if protocol_of(people) == "pckh" else "square root of the area"


def _no_autotuning() -> tf.data.Options:
    """Options without TensorFlow's autotuning: no faster here, and a process can wait a minute for it at its end."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def rows(
    people: People, batch_size: int, seed: int, first_epoch: int, first_step: int, crops: tuple[int, ...] | None = None
) -> np.ndarray:
    """Rows ``(batch,)`` of the table in the first batch of `batches` with augmentation."""
    order = _order(people, batch_size, crops, seed, first_epoch)
    part = order.skip(first_step * batch_size).take(batch_size)
    return np.array([person for _, person in part.as_numpy_iterator()])


def target(
    joints: tf.Tensor, reference_length: tf.Tensor, scale=(0.25, 0.25), source: tf.Tensor | None = None
) -> tf.Tensor:
    """The target tensor of one person: joints ``(joints, 3)`` and a length, both in crop pixels -> ``(joints, 4)``,
    with the number of the person's source ``(joints, 5)``.

    Unlabelled joints become zeros; labelled ones keep their place even outside the crop (the codec knows what to do).
    `scale` is the codec's, ``(2,)`` heatmap pixels per crop pixel; a length has no direction: it takes the geometric
    mean of the two.
    """
    labelled = tf.cast(joints[:, 2:] > 0, tf.float32)
    length = tf.fill(tf.shape(labelled), reference_length * float(np.sqrt(np.prod(scale))))
    columns = [joints[:, :2] * tf.constant(scale, joints.dtype) * labelled, labelled, length]
    if source is not None:
        columns.append(tf.fill(tf.shape(labelled), source))
    return tf.concat(columns, axis=1)


def explain_failure(people: People, error: tf.errors.OpError) -> Exception:
    """The error to raise for a failed batch: it names the unreadable image, which TensorFlow's message does not.

    Returns:
        An `InputError` that names the first unreadable image, or `error` itself when all can be read: that is a bug.
    """
    for image in np.unique(people.image_index):
        if reason := why_unreadable(people.image_paths[image], people.image_sizes[image].tolist()):
            return InputError(f"The image {people.image_paths[image]} {reason}.")
    return error


def _lister(people: People, skipped: Skipped) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function that lists a row of `people` among the skipped, and returns 0.0."""

    @awaited_at_exit
    def skip(person: np.ndarray) -> np.float32:
        image = people.image_index[person]
        path = str(people.image_paths[image])
        reason = why_unreadable(path, people.image_sizes[image].tolist()) or "could not be read at that moment"
        skipped.add(path, int(people.ids[person]), reason)
        return np.float32(0)

    return lambda person: tf.ensure_shape(tf.numpy_function(skip, [person], tf.float32), ())


def _first_that_works(function: Callable, substitute: Callable) -> Callable:
    """A graph function of the same tensors that returns what `substitute` does where `function` fails.

    A graph has no "try", but a data set can leave out elements that fail (`ignore_errors`): what the function makes of
    a data set of one element, followed by the substitute, and of both the first one that is there. A Python function
    for each image would be shorter; but it takes about 1 ms more. So only unreadable images call Python.
    """

    def first(*tensors):
        one = tf.data.Dataset.from_tensors(tensors)
        return one.map(function).ignore_errors().concatenate(one.map(substitute)).take(1).get_single_element()

    return first


def _filled_up(people: People, more: int) -> People:
    """The table with so many people more, who have no labelled joints."""
    if not more:
        return people
    rows = np.minimum(np.arange(len(people) + more), len(people) - 1)
    keypoints = people.keypoints[rows]
    keypoints[len(people) :] = 0
    return replace(people.take(rows), keypoints=keypoints)


def _per_epoch(people: People, batch_size: int) -> tuple[int, int]:
    """How many people there are, and how many of them whole batches take."""
    if len(people) < batch_size:
        raise InputError(
            f"{people.source} has {len(people)} people, less than one batch of {batch_size}; make batches smaller."
        )
    return len(people), len(people) // batch_size * batch_size


def _share(order: tf.data.Dataset, batch_size: int, shard: tuple[int, int]) -> tf.data.Dataset:
    """This process's part of each batch."""
    index, count = shard
    if count == 1:
        return order
    part = slice(index * (batch_size // count), (index + 1) * (batch_size // count))
    return order.batch(batch_size).map(lambda epochs, rows: (epochs[part], rows[part])).unbatch()


def _order(
    people: People, batch_size: int, crops: tuple[int, ...] | None, seed: int, first_epoch: int
) -> tf.data.Dataset:
    """``(epoch, person)`` pairs of a training without end; of several sources, as many of each as `crops` says."""
    if crops is None:
        return _endless_order(*_per_epoch(people, batch_size), seed, first_epoch)
    if sum(crops) % batch_size:
        raise InputError(f"An epoch of {sum(crops)} crops is no number of whole batches of {batch_size}.")
    counts = np.bincount(people.source_index, minlength=len(crops))
    if not np.array_equal(people.source_index, np.repeat(np.arange(len(crops)), counts)):
        raise InputError("The people of several sources must be in the order of their sources.")
    return _endless_mixture(counts.tolist(), crops, seed, first_epoch)


def _endless_mixture(counts: list[int], crops: tuple[int, ...], seed: int, first_epoch: int) -> tf.data.Dataset:
    """``(cycle, person)`` pairs, of each source so many in an epoch, shuffled anew in every epoch.

    A source goes through its people again and again, each time (a cycle) in another order, whatever part of a cycle an
    epoch takes: that depends on its number only, so that a training can go on from any epoch. Within a cycle a person
    comes once, so that cycle and person make a seed of their own for each crop.
    """
    firsts = np.cumsum([0, *counts[:-1]])

    def epoch_order(epoch):
        pairs = []
        for source, (first, count, of_epoch) in enumerate(zip(firsts, counts, crops, strict=True)):
            places = epoch * of_epoch + tf.range(of_epoch, dtype=tf.int64)
            cycles = places // count
            low = epoch * of_epoch // count

            def order_of(cycle, source=source, count=count):
                people = tf.range(count, dtype=tf.int64)
                return tf.random.experimental.stateless_shuffle(people, seed=_fold(seed, cycle, source))

            last = ((epoch + 1) * of_epoch - 1) // count
            orders = tf.map_fn(order_of, tf.range(low, last + 1, dtype=tf.int64))
            person = first + tf.gather_nd(orders, tf.stack([cycles - low, places % count], axis=1))
            pairs.append(tf.stack([cycles, person], axis=1))
        shuffled = _fold(seed, epoch, len(counts))
        pairs = tf.random.experimental.stateless_shuffle(tf.concat(pairs, axis=0), seed=shuffled)
        return tf.data.Dataset.from_tensor_slices((pairs[:, 0], pairs[:, 1]))

    return tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(epoch_order)


def _endless_order(people: int, per_epoch: int, seed: int, first_epoch: int) -> tf.data.Dataset:
    """``(epoch, person)`` pairs, shuffled anew in every epoch."""
    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    return epochs.flat_map(lambda epoch: _epoch_order(epoch, people, per_epoch, seed))


def _one_pass(people: int, per_pass: int, shuffle: bool, seed: int) -> tf.data.Dataset:
    """``(pass, person)`` pairs of one pass, another whenever they are gone through: the n-th is `_endless_order`'s."""
    passes = itertools.count()
    # Counted in Python: a variable would be one of the strategy's in its scope, and the seeds of `tf.data` are the
    # user's own, too.
    count = awaited_at_exit(lambda: np.int64(next(passes)))

    def number(_):
        return tf.ensure_shape(tf.numpy_function(count, [], tf.int64), ())

    def order(epoch):
        if shuffle:
            return _epoch_order(epoch, people, per_pass, seed)
        return tf.data.Dataset.range(people).map(lambda person: (epoch, person))

    found = tf.data.Dataset.from_tensors(0).map(number).flat_map(order)
    return found.apply(tf.data.experimental.assert_cardinality(per_pass if shuffle else people))


def _epoch_order(epoch: tf.Tensor, people: int, per_epoch: int, seed: int) -> tf.data.Dataset:
    """``(epoch, person)`` pairs of the people that whole batches take, shuffled for this epoch."""
    order = tf.random.experimental.stateless_shuffle(tf.range(people, dtype=tf.int64), seed=_fold(seed, epoch))
    return tf.data.Dataset.from_tensor_slices(order[:per_epoch]).map(lambda person: (epoch, person))


def _fold(seed: int, *numbers: tf.Tensor) -> tf.Tensor:
    """A stateless seed that depends on all of these."""
    folded = tf.constant([seed, 0], tf.int64)
    for number in numbers:
        folded = tf.random.fold_in(folded, number)
    return folded
