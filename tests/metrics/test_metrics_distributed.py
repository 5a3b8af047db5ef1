"""The Keras metrics inside `fit` and `evaluate`: one device or two replicas, any batches, any order, the same numbers.

Counts are whole numbers, so nothing here has a tolerance: the same people must give the same floats.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_metrics import CODEC, JOINTS, SIGMAS, SIZE, TORSO, decoded, pck, people

from keras_mrpose import metrics
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.training.distributed import devices

BINS = 4096  # of OKSAP


def strategy(replicas):
    """As many of the devices that conftest.py makes."""
    return devices("mirrored" if replicas == 2 else "none", batch_size=4)


@functools.cache
def compiled(replicas):
    """A 1x1 convolution that hands its input on: the heatmaps that it is fed are those that it predicts."""
    with strategy(replicas).scope():
        inputs = keras.Input((*SIZE, JOINTS))
        layer = keras.layers.Conv2D(JOINTS, 1, use_bias=False)
        model = keras.Model(inputs, layer(inputs))
        layer.set_weights([np.eye(JOINTS, dtype="float32")[None, None]])
        model.compile(
            keras.optimizers.SGD(0.0),
            HeatmapMSE(CODEC),
            metrics=[metrics.PCK(torso=TORSO), metrics.OKSAP(SIGMAS), metrics.PCKh(CODEC)],
            weighted_metrics=[metrics.OKSAP(SIGMAS, name="weighted_oks_ap")],
        )
    return model


@functools.cache
def given(count, seed):
    """Heatmaps, targets (unlabelled joints at 0, not NaN: the loss reads all), and sample weights with some of 0."""
    target, heatmaps = people(count, seed)
    return heatmaps, np.nan_to_num(target), (np.arange(count) % 4 != 2) * 0.5


def batches(data, batch_size, order=slice(None)):
    return tf.data.Dataset.from_tensor_slices(tuple(part[order] for part in data)).batch(batch_size)


def expected(data):
    """What the logs must be: the pure functions on everybody at once, or on those of positive weight."""
    heatmaps, target, weight = data
    points, joint_scores = (part.astype("float32") for part in decoded(heatmaps))
    truth, weights, lengths = target[..., :2], target[..., 2], target[:, 0, 3]
    similarity = metrics.oks(points, truth, weights, lengths, SIGMAS).numpy()
    hits = (similarity >= np.array(metrics.OKS_THRESHOLDS, "float32")[:, None]).astype(int)
    in_bin = (metrics.person_score(joint_scores).numpy() * BINS).astype(int)[:, None] == np.arange(BINS)
    in_bin &= (weights > 0).any(axis=1)[:, None]

    def oks_ap(kept):
        return keras.ops.mean(metrics.average_precision(hits[:, kept] @ in_bin[kept], in_bin[kept].sum(axis=0)))

    values = {
        "pck": pck(points, truth, weights, metrics.torso_length(truth, weights, TORSO)),
        "oks_ap": oks_ap(np.full(len(target), True)),
        "pckh": pck(points, truth, weights, lengths, threshold=0.5, exclude=metrics.PELVIS_AND_THORAX),
        "weighted_oks_ap": oks_ap(weight > 0),
    }
    values = {name: float(value) for name, value in values.items()}
    assert all(0.05 < value < 0.95 for value in values.values()) and len(set(values.values())) == len(values)
    return values


def test_the_last_batch_leaves_a_replica_without_anybody():
    """What the tests below rest on: 29 people in batches of 4 end with one person on the first replica."""
    parts = strategy(2).experimental_distribute_dataset(batches(given(29, 2), 4))
    shares = [tuple(len(part) for part in target.values) for _, target, _ in parts]
    assert shares == [(2, 2)] * 7 + [(1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_fit_counts_everybody_once_in_each_epoch(replicas):
    train, validation = given(7, 7), given(29, 2)  # the last batches: 3 people, 2 + 1 on two replicas; one, 1 + 0
    data = {"x": batches(train, 4), "validation_data": batches(validation, 4)}
    history = compiled(replicas).fit(**data, epochs=2, shuffle=False, verbose=0).history
    for name, value in expected(train).items():
        assert history[name] == [value] * 2
    for name, value in expected(validation).items():
        assert history[f"val_{name}"] == [value] * 2


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_evaluate_takes_any_batches_in_any_order(replicas):
    people = given(29, 2)
    for batch_size in (2, 4, 28):  # the last batch has one person each time
        order = np.random.default_rng(batch_size).permutation(29)
        logs = compiled(replicas).evaluate(batches(people, batch_size, order), verbose=0, return_dict=True)
        assert {name: logs[name] for name in expected(people)} == expected(people)


def test_counters_of_two_replicas_are_those_of_one():
    counters = []
    for replicas in (1, 2):
        compiled(replicas).evaluate(batches(given(29, 2), 4), verbose=0)
        counters.append({v.path: v.numpy() for m in compiled(replicas)._compile_metrics.metrics for v in m.variables})
    assert len(counters[0]) == 8
    for name, values in counters[0].items():
        assert values.dtype == counters[1][name].dtype == np.int64 and values.sum() > 0
        np.testing.assert_array_equal(values, counters[1][name], err_msg=name)
