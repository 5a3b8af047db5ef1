"""The five networks: sizes, parameter counts, wiring, precision, saving, errors."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mrpose.calibration import Calibration
from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.errors import InputError
from keras_mrpose.models import PoseModel, build, list_backbones, list_models
from keras_mrpose.models.networks import precision
from keras_mrpose.skeletons import LSP, MPII, Skeleton

# TensorFlow 2.21's variables under NumPy 2.4, whenever Keras saves them; neither side is ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

NETWORKS = ("simplebaseline", "mrheatnet1", "mrheatnet2", "mrfeanet1", "mrfeanet2")


@pytest.fixture
def policy(request):
    with precision(request.param):
        yield request.param


def test_a_precision_is_for_what_is_built_inside():
    before = keras.config.dtype_policy()
    with pytest.raises(InputError), precision("mixed_bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        build("nonesuch")
    assert keras.config.dtype_policy() == before


def images(height=64, width=96, batch=2, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (batch, height, width, 3)).astype(np.float32)


def randomize(model, seed=0):
    """Weights that make every layer count: He-like kernels, batch norms that are not the identity."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights(
                [rng.uniform(0.5, 1.5, n), rng.normal(0, 0.3, n), rng.normal(0, 0.3, n), rng.uniform(0.5, 1.5, n)]
            )
        elif layer.weights:
            kernel = layer.weights[0].shape
            fan = np.prod(kernel) / max(kernel[-1], kernel[-2])
            values = [rng.normal(0, np.sqrt(1 / fan), kernel)]
            values += [rng.normal(0, 0.3, w.shape) for w in layer.weights[1:]]
            layer.set_weights(values)
    return model


# --- names, shapes, counts -------------------------------------------------------------------------------------------


def test_names_and_published_aliases():
    assert tuple(list_models()) == NETWORKS
    assert {"resnet50", "resnet152_v1b", "mobilenetv2", "tiny_v1b"} <= set(list_backbones())
    published = (
        "pose_resnet",
        "mrheat1_pose_resnet",
        "MRHeat2_Pose_ResNet",
        "mrfea1_pose_resnet",
        "mrfea2_pose_resnet",
    )
    for alias, name in zip(published, NETWORKS, strict=True):
        assert build(alias, "tiny_v1b", (64, 32, 3)).spec["name"] == name
    assert build("MRFeaNet2", "Tiny_V1b", (64, 32, 3)).name == "mrfeanet2_tiny_v1b"


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"], indirect=True)
@pytest.mark.parametrize("name", NETWORKS)
def test_output_is_float32_at_a_quarter_of_the_size(name, policy):
    model = build(name, "tiny_v1b", (64, 96, 3), 5)
    assert model.output_names == ["heatmaps"] and model.layers[-1].name == "heatmaps"
    assert model.output_shape == (None, 16, 24, 5)
    heatmaps = model(images())
    assert heatmaps.shape == (2, 16, 24, 5) and heatmaps.dtype == "float32"
    assert np.isfinite(heatmaps).all()
    # What makes or sums heatmaps computes in float32; the deconvolutions of features follow the policy.
    for layer in model.layers:
        makes_maps = layer.name.startswith(("s_", "final_layer", "heatmaps", "mean", "preprocessing"))
        if makes_maps:
            assert layer.compute_dtype == "float32", layer.name
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            assert layer.compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
@pytest.mark.parametrize("backbone", ["mobilenetv2", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["mrfeanet2", *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS[:-1])])
def test_shapes_on_the_backbones_of_keras(name, backbone, policy):
    model = build(name, backbone, (96, 64, 3), 14)
    assert model.output_shape == (None, 24, 16, 14)
    assert model.output.dtype == "float32"
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names))


COUNTS = {  # the README's table
    "simplebaseline": 33_999_697,
    "mrheatnet1": 34_017_785,
    "mrheatnet2": 34_022_409,
    "mrfeanet1": 41_341_265,
    "mrfeanet2": 80_141_137,
}


@pytest.mark.parametrize("name", ["mrfeanet2", *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS[:-1])])
def test_published_parameter_counts(name):
    model = build(name, "resnet50_v1b", (64, 32, 3), 17)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == COUNTS[name]


# --- the arithmetic, against float64 ---------------------------------------------------------------------------------


def deconv64(x, kernel):
    """Transposed convolution, stride 2, one pixel cropped on every side, as a scatter; kernel (4, 4, out, in)."""
    batch, height, width, _ = x.shape
    full = np.zeros((batch, 2 * height + 2, 2 * width + 2, kernel.shape[2]))
    for a in range(4):
        for b in range(4):
            full[:, a : a + 2 * height : 2, b : b + 2 * width : 2] += x @ kernel[a, b].T.astype(np.float64)
    return full[:, 1:-1, 1:-1]


class Head64:
    """The letters of the published description: U, P, B and D, on the weights of a model."""

    def __init__(self, model):
        self.model = model

    def weights(self, name):
        return [w.astype(np.float64) for w in self.model.get_layer(name).get_weights()]

    def norm(self, x, name, relu=True):
        gamma, beta, mean, variance = self.weights(name)
        x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        return np.maximum(x, 0) if relu else x

    def up(self, x, name, first=0):
        return self.norm(self.bare(x, f"{name}_{first}"), f"{name}_{first + 1}")

    def bare(self, x, name):
        return deconv64(x, *self.weights(name))

    def joints(self, x, name="final_layer"):
        kernel, bias = self.weights(name)
        return x @ kernel[0, 0] + bias

    def side(self, x, name):
        return self.norm(self.joints(x, f"{name}_0"), f"{name}_1")

    def __call__(self, net, c2, c3, c4, c5):
        if net == "simplebaseline":
            for first in (0, 3, 6):
                c5 = self.up(c5, "deconv_layers", first)
            return self.joints(c5)
        if net.startswith("mrfea"):
            c2 = self.norm(c2 @ self.weights("c2_projection_0")[0][0, 0], "c2_projection_1", relu=False)
            c3 = self.up(c3, "deconv3")
            c4 = self.up(self.up(c4, "deconv21"), "deconv22")
            c5 = self.up(self.up(self.up(c5, "deconv11"), "deconv12"), "deconv13")
            return self.joints((c2 + c3 + c4 + c5) / 4)
        a = self.up(c5, "deconv1")
        b = self.up(a, "deconv2")
        c = self.up(b, "deconv3")
        side1, side2 = self.up(self.side(a, "s_conv1"), "s_deconv1"), self.side(b, "s_conv2")
        if net == "mrheatnet1":
            return self.joints(c) + self.bare(side2 + side1, "s_deconv2")
        return self.joints(c) + self.bare(side1, "s_deconv12") + self.bare(side2, "s_deconv2")


def test_deconvolution_doubles_and_crops_like_pytorch():
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(2, 3, 5, 4)).astype(np.float32), rng.normal(size=(4, 4, 6, 4)).astype(np.float32)
    model = build("mrfeanet1", "tiny_v1b", (64, 32, 3))
    layer = keras.layers.Conv2DTranspose.from_config({**model.get_layer("deconv3_0").get_config(), "filters": 6})
    layer.build(x.shape)
    layer.set_weights([kernel])
    expected = deconv64(x.astype(np.float64), kernel)
    assert expected.shape == (2, 6, 10, 6)
    # 4 taps x 4 channels = 16 products a value: 16 roundings of 2**-24 times their size.
    np.testing.assert_allclose(layer(x), expected, atol=16 * 2**-24 * 4 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_wiring_equals_the_published_equations(name):
    model = randomize(build(name, "tiny_v1b", (64, 96, 3), 7))
    taps = [model.get_layer(f"layer{stage}_0_relu").output for stage in (1, 2, 3, 4)]
    *features, heatmaps = keras.Model(model.input, [*taps, model.output])(images())
    expected = Head64(model)(name, *(np.asarray(f, np.float64) for f in features))
    # Sums of up to 256 x 4 products in each of four layers: 4 x sqrt(1024) roundings of 2**-24, twice that allowed.
    np.testing.assert_allclose(heatmaps, expected, atol=8 * 32 * 2**-24 * np.abs(expected).max())


def test_widths_of_the_two_feature_networks():
    widths = {}
    for name in ("mrfeanet1", "mrfeanet2"):
        model = build(name, "tiny_v1b", (64, 32, 3))
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
        widths[name] = {layer.name.removesuffix("_0"): layer.filters // 16 for layer in layers}
    names = ("deconv11", "deconv12", "deconv13", "deconv21", "deconv22", "deconv3")
    assert widths["mrfeanet1"] == dict.fromkeys(names, 1)
    assert widths["mrfeanet2"] == dict(zip(names, (4, 2, 1, 2, 1, 1), strict=True))


def test_head_starts_from_the_published_normal():
    model = build("mrheatnet2", "tiny_v1b", (64, 32, 3))
    kernel = np.concatenate([w.numpy().ravel() for w in model.get_layer("deconv1_0").weights])
    # 4 x 4 x 256 x 16 = 65536 draws: the standard deviation is known to 1 / sqrt(2 x 65536) = 0.28 %, five of them.
    assert abs(kernel.std() / 0.001 - 1) < 5 * 0.0028
    assert np.all(model.get_layer("final_layer").bias.numpy() == 0)
    assert model.get_layer("final_layer").kernel.numpy().std() == pytest.approx(0.001, rel=0.25)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_gets_a_gradient(name):
    keras.utils.set_random_seed(1)  # with others, all five maps of a side branch can be negative, and ReLU closes it
    model = build(name, "tiny_v1b", (64, 32, 3), 5)
    x = images(64, 32, batch=4)
    target = np.random.default_rng(2).uniform(size=(4, 16, 8, 5)).astype(np.float32)

    def without_gradient(training):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=training) - target) ** 2)
        pairs = zip(tape.gradient(loss, model.trainable_weights), model.trainable_weights, strict=True)
        return {w.path for g, w in pairs if g is None or not np.abs(g).max() > 0}

    # A bias in front of a batch norm (the side branches have one, as published) is taken away again with the batch
    # mean: in training its gradient is zero up to rounding, so it is looked at with the running mean.
    biases = {w.path for w in model.trainable_weights if w.path.startswith("s_conv") and w.path.endswith("0/bias")}
    assert len(biases) == (2 if name.startswith("mrheat") else 0)
    assert without_gradient(training=True) <= biases
    assert not without_gradient(training=False) & biases


# --- preprocessing ---------------------------------------------------------------------------------------------------


def test_preprocessing_is_one_layer_on_rgb():
    model = build("simplebaseline", "tiny_v1b", (32, 64, 3))
    assert [layer.name for layer in model.layers if isinstance(layer, keras.layers.Rescaling)] == ["preprocessing"]
    rgb = np.zeros((1, 32, 64, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 255, 128, 3
    got = keras.Model(model.input, model.get_layer("preprocessing").output)(rgb)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (np.array([255, 128, 3]) / 255 - mean) / std
    np.testing.assert_allclose(got[0, 0, 0], expected, atol=2e-6)  # a few roundings of 2**-24 of numbers up to 4.4


def test_without_preprocessing_the_input_is_normalised():
    model = build("mrfeanet2", "tiny_v1b", (32, 64, 3))
    bare = build("mrfeanet2", "tiny_v1b", (32, 64, 3), include_preprocessing=False)
    assert not any(isinstance(layer, keras.layers.Rescaling) for layer in bare.layers)
    bare.set_weights(model.get_weights())
    x = images(32, 64)
    normalised = keras.Model(model.input, model.get_layer("preprocessing").output)(x)
    np.testing.assert_array_equal(bare(normalised), model(x))


# --- what a model carries ---------------------------------------------------------------------------------------------


CARRIED = (GaussianCodec(1.5), DarkCodec(1.5, flip_shift=False), UDPCodec(1.5), DarkCodec(2.5), UDPCodec())


@pytest.mark.parametrize(
    ("name", "compiled", "codec"),
    [
        *(
            pytest.param(name, False, codec, marks=[] if place == 1 else pytest.mark.slow)
            for place, (name, codec) in enumerate(zip(NETWORKS, CARRIED, strict=True))
        ),
        pytest.param("mrfeanet2", True, CARRIED[0], marks=pytest.mark.slow),
    ],
)
def test_saved_file_keeps_outputs_skeleton_and_codec(name, compiled, codec, tmp_path):
    skeleton = Skeleton("hand", ("a", "b", "c"), flip_pairs=((0, 2),), edges=((0, 1),), sigmas=(0.1, 0.2, 0.3))
    model = randomize(build(name, "tiny_v1b", (32, 64, 3), skeleton=skeleton, codec=codec))
    if compiled:
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, PoseModel) and loaded.compiled == compiled
    assert loaded.skeleton == skeleton and loaded.codec == codec
    assert loaded.spec == model.spec and loaded.name == model.name
    assert loaded.spec["input_shape"] == (32, 64, 3) and loaded.output_names == ["heatmaps"]
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(loaded(images(32, 64)), model(images(32, 64)))
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "again.keras")(images(32, 64)), loaded(images(32, 64))
    )
    spec = model.spec
    spec["name"] = "changed"
    assert model.spec["name"] == name


def test_default_skeleton_and_codec():
    shape = (64, 32, 3)
    assert build("mrfeanet1", "tiny_v1b", shape).skeleton.name == "coco"
    assert build("mrfeanet1", "tiny_v1b", shape, 16).skeleton == MPII
    assert build("mrfeanet1", "tiny_v1b", shape, skeleton="lsp").output_shape[-1] == 14
    assert build("mrfeanet1", "tiny_v1b", shape, 14, skeleton=LSP).skeleton == LSP
    assert build("mrfeanet1", "tiny_v1b", shape).codec == GaussianCodec(sigma=2)
    assert build("mrfeanet1", "tiny_v1b", (384, 288, 3)).codec == GaussianCodec(sigma=3)
    assert build("mrfeanet1", "tiny_v1b", shape, codec="dark").codec == DarkCodec(sigma=2)
    assert build("mrfeanet1", "tiny_v1b", (384, 288, 3), codec="udp").codec == UDPCodec(sigma=3)


def test_weights_of_a_keras_file_bring_their_codec(tmp_path):
    """They know where their maps lie; who asks for another codec is going to train."""
    path = tmp_path / "udp.keras"
    build("mrfeanet1", "tiny_v1b", (64, 32, 3), codec=UDPCodec(1.5)).save(path)
    assert build("mrfeanet1", "tiny_v1b", (32, 64, 3), weights=path).codec == UDPCodec(1.5)
    assert build("mrfeanet1", "tiny_v1b", (32, 64, 3), weights=path, codec="dark").codec == DarkCodec(2)


# --- backbone and head ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mrheatnet1", "mrfeanet2"])
def test_backbone_and_head_are_the_network(name):
    """Together they have all layers, each once, and compute the same; they leave the layers as they were."""
    model = build(name, "tiny_v1b", (64, 96, 3))
    backbone, head = model.backbone, model.head
    features = backbone(images())
    assert {level: values.shape for level, values in features.items()} == {
        "C2": (2, 16, 24, 32),
        "C3": (2, 8, 12, 64),
        "C4": (2, 4, 6, 128),
        "C5": (2, 2, 3, 256),
    }
    np.testing.assert_array_equal(head(features), model(images()))
    assert {layer.name for layer in [*backbone.layers, *head.layers]} == {layer.name for layer in model.layers}
    assert len(backbone.layers) + len(head.layers) == len(model.layers)
    assert backbone.count_params() + head.count_params() == model.count_params()
    assert all(layer.output is not None for layer in model.layers)  # an error for layers that are called twice
    lines = []
    head.summary(print_fn=lines.append)
    assert "final_layer (Conv2D)" in "".join(lines) and "layer1_0_conv1" not in "".join(lines)


def test_a_frozen_backbone_stands_still(tmp_path):
    """Weights and batch-norm statistics; the head learns; a file keeps it so."""
    model = build("mrfeanet1", "tiny_v1b", (64, 96, 3))
    model.backbone.trainable = False
    assert not model.backbone.trainable and model.head.trainable and model.trainable
    model.compile("sgd")
    before, head = model.backbone.get_weights(), model.head.get_weights()
    target = np.full((2, 17, 4), 5, np.float32)
    model.fit(images(), target, verbose=0)
    assert all(map(np.array_equal, before, model.backbone.get_weights()))
    assert not all(map(np.array_equal, head, model.head.get_weights()))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert not again.backbone.trainable and again.head.trainable
    again.backbone.trainable = True
    assert again.backbone.trainable and len(again.trainable_variables) > len(model.trainable_variables)


def own_backbone(levels=4, name="mine"):
    """Feature maps at strides 2 to 32, smallest first, with weights that no initializer makes."""
    image = x = keras.Input((None, None, 3))
    maps = {}
    for stride in (2, 4, 8, 16, 32)[: levels + 1]:
        x = keras.layers.Conv2D(stride, 3, 2, padding="same", name=f"conv{stride}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{stride}")(x)
        maps[f"P{stride}"] = x
    model = keras.Model(image, x, name=name)
    for number, layer in enumerate(model.layers):
        layer.set_weights([np.full(w.shape, 0.1 + number / 50, np.float32) for w in layer.get_weights()])
    return model, maps


def test_a_backbone_of_ones_own(tmp_path):
    """With `pyramid_outputs`, or with several outputs; the network has a copy, with its weights."""
    mine, maps = own_backbone()
    mine.pyramid_outputs = maps
    model = build("mrfeanet1", mine, (64, 96, 3), include_preprocessing=False)
    features, wanted = model.backbone(images()), keras.Model(mine.input, maps)(images())
    for level, stride in (("C2", 4), ("C3", 8), ("C4", 16), ("C5", 32)):
        np.testing.assert_array_equal(features[level], wanted[f"P{stride}"])
    assert model.output_shape == (None, 16, 24, 17) and model.spec["backbone"] == "own_mine"
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.backbone(images())["C5"], features["C5"])
    several = keras.Model(mine.input, list(maps.values()), name="several")
    heatmaps = build("mrfeanet1", several, (64, 96, 3), include_preprocessing=False, weights=None)
    np.testing.assert_array_equal(heatmaps.backbone(images())["C3"], features["C3"])
    mine.get_layer("conv4").set_weights([np.zeros_like(w) for w in mine.get_layer("conv4").get_weights()])
    np.testing.assert_array_equal(model.backbone(images())["C5"], features["C5"])


def test_a_backbone_without_the_strides_is_named():
    with pytest.raises(InputError, match="'mine' has no feature map at stride 4, 8, 16; give a Functional"):
        build("mrfeanet1", own_backbone()[0], (64, 96, 3))
    with pytest.raises(InputError, match="backbone_weights are for backbones by name"):
        build("mrfeanet1", own_backbone()[0], (64, 96, 3), backbone_weights="imagenet")


@pytest.mark.parametrize(
    "copied",
    [
        keras.models.clone_model,
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: PoseModel.from_config(model.get_config()),
    ],
    ids=["clone_model", "deepcopy", "pickle", "from_config"],
)
def test_copies_keep_skeleton_codec_and_calibration(copied):
    model = build("mrheatnet2", "tiny_v1b", (64, 32, 3), skeleton="lsp", codec="udp")
    model.calibration = Calibration((0.1, 0.5), (0.2, 0.9), "near")
    again = copied(model)
    assert type(again) is PoseModel and again is not model
    assert (again.skeleton, again.codec, again.spec) == (LSP, UDPCodec(2), model.spec)
    assert again.calibration == model.calibration and again.name == model.name


def test_a_network_in_one_line():
    """153 layers are no line."""
    said = repr(build("mrheatnet2", "tiny_v1b", (64, 32, 3), skeleton="lsp"))
    assert said.startswith("<PoseModel mrheatnet2_tiny_v1b: 64x32, 14 joints (lsp), ") and said.endswith(" parameters>")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "mrfeanet3"}, ("'mrfeanet3'", "mrfeanet2", "simplebaseline")),
        ({"name": None}, ("None", "simplebaseline")),
        ({"backbone": "resnet51"}, ("'resnet51'", "Did you mean", "mobilenetv2")),
        ({"input_shape": (250, 192, 3)}, ("height", "250", "224 or 256")),
        ({"input_shape": (256, 200, 3)}, ("width", "200", "192 or 224")),
        ({"input_shape": (0, 192, 3)}, ("height", "0", "32")),
        ({"input_shape": (256, 192, 1)}, ("1 channels",)),
        ({"input_shape": (256, 192)}, ("(height, width, 3)",)),
        ({"input_shape": (None, None, 3)}, ("(height, width, 3)",)),
        ({"num_joints": 0}, ("num_joints", "0")),
        ({"num_joints": 2.5}, ("num_joints", "2.5")),
        ({"num_joints": 17, "skeleton": "lsp"}, ("17", "'lsp'", "14")),
        ({"skeleton": "horse"}, ("'horse'",)),
        ({"codec": "upd"}, ("'upd'", "Did you mean udp", "gaussian, dark, udp")),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, words):
    with pytest.raises(InputError) as error:
        build(**{"name": "mrfeanet2", "backbone": "tiny_v1b", "input_shape": (64, 32, 3), **arguments})
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
