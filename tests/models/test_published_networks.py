"""The five networks against the published implementation: tensors, heatmaps, one step of training.

`test_on_jax` runs the heatmap cases of this file once more, on Keras' JAX backend.
"""

import hashlib
import json

import keras
import numpy as np
import on_jax
import pytest
from published import NAMES, formula_input, formula_network, formula_weight, named_layers

from keras_mrpose import HeatmapMSE
from keras_mrpose.checkpoints import tensor_names
from keras_mrpose.models import build
from keras_mrpose.optimizers import Adam

CASES = ("pose_resnet_50", "mrheat1_50", "mrheat2_101", "mrfea1_50", "mrfea2_50")


def slow_unless(quick, values):
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


NETS = [f"{net}_{depth}" for net in NAMES for depth in (50, 101, 152)]


@pytest.mark.parametrize("case", slow_unless(("mrheat2_50",), NETS))
def test_tensors_are_the_published_ones(case, golden_dir):
    """Names, shapes and order of all tensors of the 15 networks, and the numbers of trainable ones."""
    facts = json.loads((golden_dir / "manifest.json").read_text())["nets"][case]
    net, depth = case.rsplit("_", 1)
    model = build(NAMES[net], f"resnet{depth}_v1b", (32, 32, 3), 17)
    tensors = tensor_names.tensors_of(named_layers(model))
    lines = [f"{name} {'x'.join(map(str, value.shape))}" for name, value in tensors.items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == facts["names_sha256"]
    assert len(tensors) == facts["state_dict_entries"]
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == facts["trainable_params"]
    assert len(model.trainable_weights) == facts["trainable_tensors"]
    assert sum("running_var" in name for name in tensors) == facts["bn_layers"]


@pytest.mark.parametrize("case", slow_unless(("mrfea1_50",), CASES))
def test_heatmaps_are_the_published_ones(case, golden_dir):
    facts = json.loads((golden_dir / "forward.json").read_text())[case]
    shape = tuple(facts["input_nhwc"])
    model = formula_network(facts["net"], facts["layers"], facts["style"], shape[1:], facts["joints"])
    heatmaps = keras.ops.convert_to_numpy(model(formula_input(facts["input_seed"], shape)))
    expected = np.load(golden_dir / "forward.npz")[f"{case}_heatmaps"]
    np.testing.assert_allclose(heatmaps, expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_on_jax():
    on_jax.passed(__file__, f"test_heatmaps and ({' or '.join(CASES)})", len(CASES))


class Untruncated:
    """The targets of the golden training step: Gaussians that are not cut at three sigma."""

    def encode(self, points, weights, size):
        ys, xs = np.arange(size[0])[:, None, None], np.arange(size[1])[:, None]
        points = np.asarray(points)[:, None, None]
        target = np.exp(-(np.square(xs - points[..., 0]) + np.square(ys - points[..., 1])) / 8)
        return keras.ops.convert_to_tensor(target.astype(np.float32)), keras.ops.convert_to_tensor(weights)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pose_resnet_50", "mrheat1_50"])
def test_a_training_step_is_the_published_one(case, golden_dir):
    """Loss, gradients, running statistics and Adam's step, in training mode, batch 4 of 128x96.

    Tolerances are those of the golden README: loss before 1e-5, statistics 1e-5, gradient norms 2e-3 and loss after
    1e-3, relative but for the statistics.
    """
    import tensorflow as tf

    every = json.loads((golden_dir / "train_step.json").read_text())
    arrays = np.load(golden_dir / "train_step.npz")
    facts, exact = (
        every[case]["f64"],
        {key: arrays[f"{case}_f64_{key}"] for key in ("bn1_running_mean", "bn1_running_var")},
    )
    shape = tuple(every["input"]["shape_nhwc"])
    model = formula_network(case.rsplit("_", 1)[0], 50, "pytorch", shape[1:])
    x = formula_input(every["input"]["seed"], shape)
    joints = [arrays["target_mu_x"], arrays["target_mu_y"], arrays["target_weight"], np.ones((4, 17))]
    target = np.stack(joints, axis=-1).astype(np.float32)
    loss = HeatmapMSE(Untruncated())

    with tf.GradientTape() as tape:
        heatmaps = model(x, training=True)
        before = loss(target, heatmaps)
    trained = model.trainable_variables
    gradients = tape.gradient(before, trained)
    train_output = arrays[f"{case}_train_output"]
    np.testing.assert_allclose(heatmaps[:1], train_output, atol=1e-4 * np.abs(train_output).max())
    np.testing.assert_allclose(before, facts["loss_before"], rtol=1e-5)
    norms = {}
    owner = {id(w): module.split(".")[0] for module, layer in named_layers(model) for w in layer.trainable_weights}
    for variable, gradient in zip(trained, gradients, strict=True):
        module = owner[id(variable)]
        norms[module] = norms.get(module, 0) + np.square(gradient.numpy().astype(np.float64)).sum()
    assert norms.keys() == facts["grad_l2"].keys()
    for module, square in norms.items():
        np.testing.assert_allclose(np.sqrt(square), facts["grad_l2"][module], rtol=2e-3, err_msg=module)
    tensors = tensor_names.tensors_of(named_layers(model))
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(tensors[f"bn1.{name}"], exact[f"bn1_{name}"], atol=1e-5)
        deep = arrays[f"{case}_f64_layer4.2.bn3_{name}"]
        np.testing.assert_allclose(tensors[f"layer4.2.bn3.{name}"][:64], deep, atol=1e-5)

    Adam(1e-3, epsilon=1e-8).apply(gradients, trained)
    changed = tensor_names.tensors_of(named_layers(model))
    for name in ("final_layer.weight", "final_layer.bias"):  # large gradients, where a step is +-1e-3 exactly
        delta = (changed[name] - formula_weight(name, changed[name].shape)).ravel()[:256]
        np.testing.assert_allclose(delta, arrays[f"{case}_f64_delta:{name}"], atol=2e-6)
    np.testing.assert_allclose(loss(target, model(x, training=False)), facts["loss_after_eval_mode"], rtol=1e-3)
    np.testing.assert_allclose(loss(target, model(x, training=True)), facts["loss_after_train_mode"], rtol=1e-3)
