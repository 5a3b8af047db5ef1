"""Upper bound of a codec: annotated joints become heatmaps, are decoded again, and are scored.

What is lost on the way is the codec's: the finer the heatmap and the less biased the codec, the less.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_mrpose.codecs import CODECS, Codec
from keras_mrpose.codecs.base import HEATMAP_STRIDE
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import PROTOCOLS
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.evaluation.provenance import Settings
from keras_mrpose.geometry import crop_matrices, to_image, transform_each

CHUNK = 256  # people at a time
SIDES = (128, 256, 384)  # heights of the crops
ASPECT = {"ap": 3 / 4}  # width / height of a protocol's crops; 1 for the others


def sizes(protocol: str) -> list[tuple[int, int]]:
    """Usual crop sizes ``(height, width)`` of a protocol, the smallest first."""
    return [(side, round(side * ASPECT.get(protocol, 1))) for side in SIDES]


def codec_for(name: str, input_size: tuple[int, int]) -> Codec:
    """Codec with the usual sigma: 1 for crops of height 128, 2 for 256, 3 for 384."""
    return CODECS[name](input_size[0] / 128)


def upper_bound(
    people: People,
    codec: Codec,
    input_size: tuple[int, int],
    *,
    flip_test: bool = False,
    noise: float = 0.0,
    seed: int = 0,
    protocol: str | None = None,
) -> float:
    """Metric (AP, PCKh@0.5 or PCK) that a network without error reaches with a codec.

    Nobody is suppressed, so that the codec alone is seen. A joint outside the crop is lost with every codec.

    Args:
        people: annotated; their images are not needed.
        codec: encodes and decodes.
        input_size: ``(height, width)`` of the crops, multiples of 4.
        flip_test: draw the joints of the mirrored crop as well and merge the maps.
        noise: standard deviation of white noise that is added to the heatmaps, whose peaks are 1.
        seed: of the noise.
        protocol: key of `PROTOCOLS`; None is that of the data set (`protocol_of`).

    Returns:
        0..1.
    """
    settings = Settings(suppression="none")
    keypoints = {settings.decoding: encode_decode(people, codec, input_size, flip_test, noise, seed)}
    predictions = Predictions.of(people, input_size, keypoints)
    return PROTOCOLS[protocol or protocol_of(people)].score_fn(predictions, people, settings).value


def encode_decode(
    people: People,
    codec: Codec,
    input_size: tuple[int, int],
    flip_test: bool = False,
    noise: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Keypoints after encoding annotated joints as heatmaps of the people's crops and decoding them again.

    Args:
        people: annotated.
        codec: encodes and decodes.
        input_size: ``(height, width)`` of the crops, multiples of 4.
        flip_test: draw the joints of the mirrored crop as well and merge the maps.
        noise: standard deviation of white noise that is added to the heatmaps, whose peaks are 1.
        seed: of the noise.

    Returns:
        ``(people, joints, 3)`` x, y in image pixels, score.
    """
    if len(people) == 0:
        raise InputError(f"{people.source} has no people; choose another file or split.")
    rng = np.random.default_rng(seed)
    matrices = crop_matrices(people.boxes, input_size)
    in_crops = transform_each(matrices, people.keypoints[..., :2])
    found = []
    for begin in range(0, len(people), CHUNK):
        rows = slice(begin, begin + CHUNK)
        labelled = people.keypoints[rows, :, 2] > 0
        maps = _heatmaps(in_crops[rows], labelled, people.skeleton.flip_indices, codec, input_size, flip_test)
        if noise:
            maps = maps + noise * rng.standard_normal(maps.shape, np.float32)
        points, scores = (keras.ops.convert_to_numpy(part) for part in codec.decode(maps))
        points = to_image(points / codec.scale(input_size), matrices[rows])
        found.append(np.concatenate([points, scores[..., None]], axis=-1))
    return np.concatenate(found)


def _heatmaps(points, labelled, flip_indices, codec: Codec, input_size: tuple[int, int], flip_test: bool) -> np.ndarray:
    """Heatmaps that a network without error makes of crops with joints at ``(n, joints, 2)`` crop pixels."""
    height, width = input_size
    size, scale = (height // HEATMAP_STRIDE, width // HEATMAP_STRIDE), codec.scale(input_size)

    def maps(points, labelled):
        return codec.encode((points * scale).astype(np.float32), labelled.astype(np.float32), size)[0]

    direct = maps(points, labelled)
    if flip_test:
        order = list(flip_indices)
        turned = points[:, order] * (-1, 1) + (width - 1, 0)
        direct = codec.merge_flipped(direct, maps(turned, labelled[:, order]), flip_indices)
    return keras.ops.convert_to_numpy(direct)
