"""Raw predictions in annotated or detected boxes, decoded in every way that can be chosen after a network has run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.checkpoints.state_dicts import read_npz
from keras_mrpose.codecs import Codec
from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.evaluation.provenance import Settings, decode_variants
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import Skeleton, joint_map

MIN_COMPILED = 500  # people: compiling the decoding takes as long as decoding so many uncompiled
_GRAPHS = WeakKeyDictionary()  # as long as their predictors are there: TensorFlow needs seconds for a large network's
COLUMNS = ("images", "ids", "image_ids", "boxes", "box_scores")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Raw predictions of a network, kept so that they can be scored again under other `Settings`.

    Attributes:
        input_size: ``(height, width)`` of the crops.
        images: ``(images,)`` ids of the images that are evaluated, also those without a box.
        ids: ``(people,)`` of the boxes' records.
        image_ids: ``(people,)``.
        boxes: ``(people, 4)`` x, y, w, h in image pixels.
        box_scores: ``(people,)``; 1 for annotated boxes.
        keypoints: `Settings.decoding` -> ``(people, joints, 3)`` x, y in image pixels, score, in the order of the
            people's skeleton; float32 holds a place in an image to 1e-4 pixels.
        known: ``(joints,)`` which joints the network finds, by default all; the others are zeros and do not count.
    """

    input_size: tuple[int, int]
    images: np.ndarray
    ids: np.ndarray
    image_ids: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    keypoints: dict[str, np.ndarray]
    known: np.ndarray = None

    def __post_init__(self) -> None:
        if self.known is None:
            object.__setattr__(self, "known", np.ones(next(iter(self.keypoints.values())).shape[1], bool))

    @classmethod
    def of(
        cls,
        people: People,
        input_size: tuple[int, int],
        keypoints: dict[str, np.ndarray],
        images: np.ndarray | None = None,
        skeleton: Skeleton | None = None,
    ) -> Predictions:
        """Predictions from keypoints found in people's boxes.

        Args:
            people: one for each row of the keypoints.
            input_size: ``(height, width)`` of the crops.
            keypoints: as in the class, but in the order of `skeleton`.
            images: ids of all images that are evaluated; None for those that `people` lists.
            skeleton: of the keypoints; None is that of the people.
        """
        index = np.array(joint_map(skeleton or people.skeleton, people.skeleton))
        known = index >= 0
        return cls(
            input_size=input_size,
            images=people.image_ids if images is None else images,
            ids=people.ids,
            image_ids=people.image_ids[people.image_index],
            boxes=people.boxes,
            box_scores=people.scores,
            keypoints={name: found[:, index] * known[:, None].astype(found.dtype) for name, found in keypoints.items()},
            known=known,
        )

    def read(self, settings: Settings) -> np.ndarray | None:
        """Keypoints ``(people, joints, 3)`` float64 as decoded by these settings; None if they were not kept."""
        found = self.keypoints.get(settings.decoding)
        return None if found is None else found.astype(np.float64)

    def save(self, path: str | Path) -> None:
        """Write as ``.npz``; the folder is made if it is missing."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        columns = {name: getattr(self, name) for name in COLUMNS}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, input_size=self.input_size, known=self.known, **columns, **self.keypoints)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what `save` wrote; an `InputError` names a file that is missing or another."""
        try:
            content = read_npz(Path(path))
            columns = {name: content.pop(name) for name in COLUMNS}
            size, known = tuple(content.pop("input_size").tolist()), content.pop("known").astype(bool)
            _check(size, columns, content, known)
        except FileNotFoundError:
            raise InputError(f"{path} is not there: the raw predictions lie beside their result file.") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} does not hold raw predictions ({short_message(error)}); evaluate again."
            ) from error
        return cls(input_size=size, **columns, keypoints=content, known=known)


def _check(size: tuple, columns: dict[str, np.ndarray], keypoints: dict[str, np.ndarray], known: np.ndarray) -> None:
    """Raise a ValueError for what `Predictions.save` does not write."""
    people = len(columns["ids"])
    shapes = {"images": columns["images"].shape[:1], "boxes": (people, 4)}
    for name, values in {**columns, **keypoints}.items():
        wanted = shapes.get(name, (people,)) if name in columns else (people, len(known), 3)
        if values.shape != wanted or values.dtype.kind not in "iuf" or not np.isfinite(values).all():
            raise ValueError(f"{name} is no table of finite numbers with shape {wanted}")
    if len(size) != 2 or min(size) <= 0:
        raise ValueError(f"the input size is {size}")


def check_tables(predictor: Predictor, people: People, truth: People) -> None:
    """Raise an `InputError` if a table has no joint that the network finds, or if there is nobody to look at."""
    for table in (people, truth):
        if max(joint_map(predictor.skeleton, table.skeleton)) < 0:
            raise InputError(
                f"{table.source} has {table.skeleton.num_joints} joints ({table.skeleton.name}), the network makes "
                f"{predictor.skeleton.num_joints} ({predictor.skeleton.name}), and no name is in both; evaluate on "
                "data with joints that the network knows."
            )
    if len(people) == 0:
        raise InputError(f"{people.source} has no boxes of people in these images; choose another file or split.")


def predict(predictor: Predictor, people: People, truth: People | None = None) -> Predictions:
    """Run a network on people's boxes, mirrored too if the predictor does the flip test.

    Args:
        predictor: the network.
        people: whose boxes are cropped.
        truth: a table that lists all images to be evaluated; None if `people` does.

    Raises:
        InputError: an image that cannot be read, named; or heatmaps that are no numbers.
    """
    compiled = len(people) >= MIN_COMPILED and keras.backend.backend() == "tensorflow"
    find = _finder(predictor, compiled)
    parts = defaultdict(list)
    try:
        for crops, _ in pipeline.batches(people, predictor.input_size, predictor.batch_size):
            for name, found in find(crops).items():
                parts[name].append(found)
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError, tf.errors.DataLossError) as error:
        raise pipeline.explain_failure(people, error) from error
    matrices = crop_matrices(people.boxes, predictor.input_size)
    keypoints = {}
    for name, found in parts.items():
        found = np.concatenate(found)
        found[..., :2] = to_image(found[..., :2], matrices)
        keypoints[name] = found.astype(np.float32)
        if not np.isfinite(keypoints[name]).all():
            raise InputError(f"The heatmaps of {predictor.model.name} are not finite numbers; its weights are damaged.")
    images = None if truth is None else truth.image_ids
    return Predictions.of(people, predictor.input_size, keypoints, images, predictor.skeleton)


def _finder(predictor: Predictor, compiled: bool) -> Callable[[tf.Tensor], dict[str, np.ndarray]]:
    """Function of crops that returns keypoints ``(n, joints, 3)``, x, y in crop pixels and score, by decoding.

    A network that ends in keypoints has only one decoding.
    """
    codec, network = predictor.codec, predictor.network(batches=True)
    if predictor.ends_in_keypoints:
        own = next(name for name, (variant, _) in decode_variants(codec, flip_test=False).items() if variant is codec)
        return lambda crops: {own: network(crops.numpy())}
    flip = predictor.flip_test, predictor.skeleton.flip_indices
    if isinstance(predictor.model, keras.Model) and keras.backend.backend() == "tensorflow":
        if _GRAPHS.get(predictor, (None,))[0] is not network:
            _GRAPHS[predictor] = network, {}
        kept = _GRAPHS[predictor][1]
        if (key := (codec, *flip, compiled)) not in kept:
            kept[key] = _graph(network, *key)
        run = kept[key]
    else:
        run = partial(_one_by_one, network, decoder(codec, *flip, compiled), predictor.flip_test)
    variants = decode_variants(codec, predictor.flip_test)

    def find(crops):
        found = {}
        for name, (points, scores) in run(crops).items():
            points = keras.ops.convert_to_numpy(points) / variants[name][0].scale(predictor.input_size)
            found[name] = np.concatenate([points, keras.ops.convert_to_numpy(scores)[..., None]], axis=-1)
        return found

    return find


def _graph(
    network: Callable, codec: Codec, flip_test: bool, flip_indices: tuple[int, ...], compiled: bool
) -> Callable[[tf.Tensor], dict]:
    """From crops to joints in TensorFlow, crops and mirrored crops as one batch: heatmaps never leave it."""
    decode = decoder(codec, flip_test, flip_indices, compiled)

    @tf.function(autograph=False)
    def run(crops):
        heatmaps = network(tf.concat([crops, crops[:, :, ::-1]], 0) if flip_test else crops)
        return decode(*tf.split(heatmaps, 2)) if flip_test else decode(heatmaps, heatmaps)

    return run


def _one_by_one(network: Callable, decode: Callable, flip_test: bool, crops: tf.Tensor) -> dict:
    """The same with a network of another kind."""
    crops = crops.numpy()
    plain = network(crops)
    return decode(plain, network(crops[:, :, ::-1]) if flip_test else plain)


def decoder(codec: Codec, flip_test: bool, flip_indices: tuple[int, ...], compiled: bool) -> Callable:
    """Function of heatmaps and flipped heatmaps that returns points and scores of each of `decode_variants`.

    Args:
        codec: of the network.
        flip_test: whether there are mirrored crops; if not, anything may stand for their heatmaps.
        flip_indices: for each joint the joint that it becomes in a mirrored image.
        compiled: by TensorFlow, all variants as one: they share most of their work, and the maps are read once.
    """

    def decode(plain, flipped_heatmaps):
        found = {}
        for name, (variant, flip) in decode_variants(codec, flip_test).items():
            merged = variant.merge_flipped(plain, flipped_heatmaps, flip_indices) if flip else plain
            found[name] = variant.decode(merged)
        return found

    return tf.function(decode, autograph=False, jit_compile=True) if compiled else decode
