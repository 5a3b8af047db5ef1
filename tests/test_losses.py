"""The loss and its gradient against the published numbers and float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.losses import HeatmapMSE

SIZE = (16, 12)


class GivenHeatmaps(GaussianCodec):
    """Encodes nothing: gives what it was made with, so that the loss sees exactly the golden target."""

    def __init__(self, heatmaps, weights):
        super().__init__()
        self.given = heatmaps, weights

    def encode(self, points, weights, size):
        assert size == self.given[0].shape[1:3]
        return self.given


def sample(seed=0, people=4, joints=5):
    rng = np.random.default_rng(seed)
    target = np.zeros((people, joints, 4), np.float32)
    target[..., :2] = rng.uniform(0, SIZE[::-1], (people, joints, 2))
    target[..., 2] = rng.integers(0, 2, (people, joints))
    target[..., 3] = 7
    return target, rng.normal(0, 0.5, (people, *SIZE, joints)).astype(np.float32)


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
def test_loss_and_gradient_are_the_published_ones(golden_dir, case, weighted):
    """The gradient is weight^2 * (output - target) / count: some six float32 roundings of 6e-8 each, so 1e-6 relative.

    The golden numbers weight output and target before they subtract: each product is rounded to 2^-24 of itself,
    which is much of a small difference.
    """
    facts = np.load(golden_dir / "loss.npz")
    output, wanted = (np.moveaxis(facts[f"case{case}_{key}_njhw"], 1, -1) for key in ("output", "target"))
    weights = facts[f"case{case}_weight_nj"] if weighted else np.ones_like(facts[f"case{case}_weight_nj"])
    loss = HeatmapMSE(GivenHeatmaps(tf.constant(wanted), tf.constant(weights)))
    heatmaps = tf.constant(output)
    with tf.GradientTape() as tape:
        tape.watch(heatmaps)
        value = loss(np.zeros((*weights.shape, 4)), heatmaps)
    name = "weighted" if weighted else "unweighted"
    np.testing.assert_allclose(value, facts[f"case{case}_{name}_loss"], rtol=1e-6)
    gradient = np.moveaxis(tape.gradient(value, heatmaps).numpy(), -1, 1)
    wanted_gradient = facts[f"case{case}_{name}_grad_njhw"]
    size = np.moveaxis(abs(output) + abs(wanted), -1, 1)
    rounding = 2.0**-24 * np.square(weights)[..., None, None] * size / output.size
    assert (abs(gradient - wanted_gradient) <= 1e-6 * abs(wanted_gradient) + rounding).all()


def test_per_sample_in_float64():
    """A mean of 960 float32 terms: 1e-6 relative is generous."""
    target, heatmaps = sample()
    wanted, weights = (
        np.asarray(part, np.float64) for part in GaussianCodec().encode(target[..., :2], target[..., 2], SIZE)
    )
    expected = []
    for n in range(len(target)):
        total = 0.0
        for j in range(target.shape[1]):
            total += weights[n, j] ** 2 * ((heatmaps[n, :, :, j].astype(np.float64) - wanted[n, :, :, j]) ** 2).sum()
        expected.append(0.5 * total / heatmaps[n].size)
    np.testing.assert_allclose(HeatmapMSE().call(target, tf.constant(heatmaps)), expected, rtol=1e-6)
    np.testing.assert_allclose(HeatmapMSE()(target, heatmaps), np.mean(expected), rtol=1e-6)


def test_perfect_maps_cost_nothing_and_unlabelled_joints_do_not_count():
    target, noise = sample()
    wanted, _ = GaussianCodec().encode(target[..., :2], target[..., 2], SIZE)
    unlabelled = target[:, None, None, :, 2] == 0
    assert float(HeatmapMSE()(target, wanted + np.where(unlabelled, 100 * noise, 0))) == 0
    assert float(HeatmapMSE()(target, wanted + np.where(unlabelled, 0, 0.1 * noise))) > 0
    elsewhere = target.copy()
    elsewhere[..., 3] = 1e6
    elsewhere[target[..., 2] == 0, :2] = 1e6
    np.testing.assert_array_equal(
        HeatmapMSE().call(elsewhere, tf.constant(noise)), HeatmapMSE().call(target, tf.constant(noise))
    )


def hard(k, target, heatmaps):
    """Per sample: half the mean of the k highest of the joints' own losses, sorted out with plain loops."""
    wanted, weights = (
        np.asarray(part, np.float64) for part in GaussianCodec().encode(target[..., :2], target[..., 2], SIZE)
    )
    losses = []
    for n in range(len(target)):
        joints = [
            float(((weights[n, j] * (heatmaps[n, :, :, j].astype(np.float64) - wanted[n, :, :, j])) ** 2).mean())
            for j in range(target.shape[1])
        ]
        losses.append(0.5 * sum(sorted(joints)[-k:]) / k)
    return losses


@pytest.mark.parametrize("k", [1, 3, 5])
def test_hard_keypoints_in_float64(k):
    """Means of 192 float32 terms: 1e-6 relative is generous; five of five joints are the plain loss."""
    target, heatmaps = sample()
    found = HeatmapMSE(ohkm_topk=k).call(target, tf.constant(heatmaps))
    assert found.shape == (4,)  # `MirroredStrategy` needs a loss for each sample
    np.testing.assert_allclose(found, hard(k, target, heatmaps), rtol=1e-6)
    if k == 5:
        np.testing.assert_allclose(found, HeatmapMSE().call(target, tf.constant(heatmaps)), rtol=1e-6)


def test_only_hard_keypoints_have_a_gradient():
    """Each person's own; a joint without a label never, even if it is far off and there are fewer labels than k."""
    target, heatmaps = sample()
    target[..., 2] = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    heatmaps *= np.array([[1, 2, 3, 4, 5], [5, 4, 3, 9, 9], [1, 9, 9, 9, 9], [9, 9, 9, 9, 9]])[:, None, None]
    heatmaps = tf.constant(heatmaps)
    with tf.GradientTape() as tape:
        tape.watch(heatmaps)
        value = HeatmapMSE(ohkm_topk=2)(target, heatmaps)
    moved = np.abs(tape.gradient(value, heatmaps).numpy()).sum(axis=(1, 2)) > 0
    wanted = [[0, 0, 0, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(moved, wanted)


@pytest.mark.parametrize("codec", [GaussianCodec(sigma=1), DarkCodec(), UDPCodec(3)], ids=repr)
def test_codec_decides_the_target(codec):
    target, _ = sample()
    target[..., 2] = 1
    wanted, _ = codec.encode(target[..., :2], target[..., 2], SIZE)
    assert float(HeatmapMSE(codec)(target, wanted)) == 0
    assert float(HeatmapMSE()(target, wanted)) > 0


def test_low_precision_output_is_compared_in_float32():
    target, heatmaps = sample()
    low = tf.cast(heatmaps, "bfloat16")
    value = HeatmapMSE()(target, low)
    assert value.dtype == tf.float32
    np.testing.assert_array_equal(value, HeatmapMSE()(target, tf.cast(low, "float32")))


def test_fit_learns_and_reports_the_mean_over_samples():
    """Six people in batches of 4 and 2: Keras' average is that of the people, not of the batches."""
    target, heatmaps = sample(people=6)
    constant = keras.Sequential([keras.layers.Input((*SIZE, 5)), keras.layers.Identity()])
    constant.compile(loss=HeatmapMSE(), optimizer="sgd", jit_compile=False)
    reported = constant.evaluate(heatmaps, target, batch_size=4, verbose=0)
    assert reported == pytest.approx(float(np.mean(HeatmapMSE().call(target, tf.constant(heatmaps)))), rel=1e-6)


def test_config_and_serialization():
    loss = HeatmapMSE(DarkCodec(3, flip_shift=False), ohkm_topk=3, name="mine", reduction="sum")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, HeatmapMSE)
    assert (again.codec, again.ohkm_topk, again.name, again.reduction) == (loss.codec, 3, "mine", "sum")
    assert keras.losses.deserialize(keras.losses.serialize(loss)).get_config() == loss.get_config()
    assert HeatmapMSE().codec == GaussianCodec()
