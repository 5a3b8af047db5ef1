"""Learning from a teacher: the loss and its gradient against float64, joints by name, and that it is learnt."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mrpose import InputError, build
from keras_mrpose.codecs import DarkCodec
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models.distillation import Distillation
from keras_mrpose.optimizers import Adam
from keras_mrpose.skeletons import COCO, LSP, Skeleton

SIZE, MAPS = (64, 32), (16, 8)


def network(seed, skeleton=COCO, **options):
    keras.utils.set_random_seed(seed)
    model = build("simplebaseline", "tiny_v1b", (*SIZE, 3), skeleton=skeleton, **options)
    rng = np.random.default_rng(seed)
    for layer in model.head.layers:  # else all heatmaps are next to 0
        if hasattr(layer, "kernel"):
            layer.kernel.assign(rng.normal(0, 2 * np.prod(layer.kernel.shape[:3]) ** -0.5, layer.kernel.shape))
    return model


@pytest.fixture(scope="module")
def teacher():
    return network(1)


def batch(people=3, joints=17):
    rng = np.random.default_rng(0)
    target = np.ones((people, joints, 4), np.float32)
    target[..., :2] = rng.uniform(0, MAPS[::-1], (people, joints, 2))
    target[..., 2] = rng.integers(0, 2, (people, joints))
    return rng.uniform(0, 255, (people, *SIZE, 3)).astype(np.float32), target


def flip_tested(teacher, images):
    """The teacher's heatmaps in float64, by the definition of the flip test."""
    plain, mirrored = (np.float64(teacher(view, training=False)) for view in (images, images[:, :, ::-1]))
    assert np.abs(plain - mirrored).mean() > 0.1
    back = mirrored[:, :, ::-1][..., list(teacher.skeleton.flip_indices)]
    back[:, :, 1:] = back[:, :, :-1].copy()  # the codec's published shift
    return (plain + back) / 2


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_loss_is_that_of_the_labels_and_that_of_the_teacher(teacher, share):
    """Float32 heatmaps of some 1 through 30 layers: 6e-7 of each, and their squares 2e-6."""
    student, (images, target) = network(2), batch()
    student.compile(teacher=teacher, teacher_share=share, metrics=[])
    heatmaps = student(images, training=False)
    of_labels = float(HeatmapMSE(student.codec)(target, heatmaps))
    wanted = 0.5 * np.square(np.float64(heatmaps) - flip_tested(teacher, images)).mean()
    assert wanted > 0.01
    found = float(student.compute_loss(images, target, heatmaps, training=True))
    assert found == pytest.approx((1 - share) * of_labels + share * wanted, rel=1e-5)
    assert float(student.compute_loss(images, target, heatmaps, training=False)) == pytest.approx(of_labels, rel=1e-6)


def test_joints_go_by_name_and_others_are_left_to_the_labels(teacher):
    """LSP's neck and head_top are no joints of COCO's."""
    student, (images, _) = network(2, LSP), batch(joints=14)
    distillation = Distillation(teacher, student, 1.0)
    wanted, found = flip_tested(teacher, images), np.float64(distillation.targets(images))
    rounding = 1e-5 * np.abs(wanted).max()
    heatmaps = tf.Variable(np.random.default_rng(1).normal(size=found.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = distillation(0.0, images, heatmaps)
    gradient = tape.gradient(loss, heatmaps).numpy()
    for joint, name in enumerate(LSP.joints):
        if name in COCO.joints:
            of_teacher = wanted[..., COCO.joints.index(name)]
            np.testing.assert_allclose(found[..., joint], of_teacher, rtol=0, atol=rounding)
            difference = heatmaps.numpy()[..., joint] - of_teacher
            np.testing.assert_allclose(gradient[..., joint] * found.size, difference, rtol=0, atol=2 * rounding)
        else:
            assert name in ("neck", "head_top") and not gradient[..., joint].any()


def test_a_network_learns_what_its_teacher_finds(teacher, tmp_path):
    """Without one label; the teacher stays as it is and is not saved."""
    student, (images, target) = network(2), batch(8)
    target[..., 2] = 0
    student.compile(Adam(1e-2), teacher=teacher, teacher_share=1.0, metrics=[])
    before = [weight.numpy() for weight in teacher.weights]
    history = student.fit(images, target, batch_size=8, epochs=40, verbose=0).history["loss"]
    assert history[-1] < history[0] / 3
    for weight, value in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    assert len(again.weights) == len(student.weights) == len(network(2).weights)
    assert again.evaluate(images, target, verbose=0, return_dict=True)["loss"] == 0  # no label and no teacher
    student.compile(metrics=[])
    assert float(student.compute_loss(images, target, student(images), training=True)) == 0


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: build("simplebaseline", "tiny_v1b", (64, 64, 3)), r"takes crops of 64x64 .* network of 64x32"),
        (lambda: network(1, codec=DarkCodec(2.0)), r"DarkCodec\(.* GaussianCodec\(.*codec and sigma"),
        (lambda: network(1, Skeleton("paws", ("left_paw", "right_paw"))), r"paws.* no name in common"),
        (lambda: network(1, Skeleton("half", ("nose", "left_knee"))), "no other side for left_knee"),
        (lambda: keras.Sequential([keras.Input((*SIZE, 3))]), r"no network of keras_mrpose\.build"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(made, match):
    student = network(2)
    with pytest.raises(InputError, match=match):
        student.compile(teacher=made())


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(teacher, share):
    with pytest.raises(InputError, match="teacher's share is"):
        network(2).compile(teacher=teacher, teacher_share=share)
