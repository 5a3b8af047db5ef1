"""Weights files: every tensor arrives where it belongs (float64 forward), and a wrong file changes nothing."""

import re
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format  # writes the format of Keras' own notop .h5 files

from keras_mrpose.errors import InputError
from keras_mrpose.models import build, pretrained
from keras_mrpose.models.backbones import application, build_backbone

# TensorFlow 2.21's variables under NumPy 2.4, whenever Keras saves them; neither side is ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

STAGES = (1, 1, 1, 1)  # of tiny_v1b


# --- float64 networks on torchvision's names -------------------------------------------------------------------------


def conv64(x, weight, stride=1, pad=(0, 0), groups=1):
    """Convolution, NHWC, weight (out, in / groups, k, k), `pad` zeros before and after each side; groups 1 or all."""
    weight = weight.astype(np.float64)
    size = weight.shape[2]
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
    if groups > 1:
        return np.einsum("nhwcij,cij->nhwc", windows, weight[:, 0])
    return np.tensordot(windows, weight, ((3, 4, 5), (1, 2, 3)))


def norm64(x, tensors, name):
    gamma, beta, mean, variance = (
        tensors[f"{name}.{key}"].astype(np.float64) for key in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def normalized64(rgb):
    return (rgb.astype(np.float64) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


def resnet64(rgb, tensors, stages, caffe):
    """C2..C5 of a torchvision-named ResNet; `caffe` puts the stride on the first 1x1, else on the 3x3."""

    def unit(x, conv, norm, stride=1, pad=0):
        return norm64(conv64(x, tensors[f"{conv}.weight"], stride, (pad, pad)), tensors, norm)

    x = np.maximum(unit(normalized64(rgb), "conv1", "bn1", 2, 3), 0)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)  # padding never wins
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))
    features = []
    for stage, count in enumerate(stages, 1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            first, second = (stride, 1) if caffe else (1, stride)
            y = np.maximum(unit(x, f"{name}.conv1", f"{name}.bn1", first), 0)
            y = np.maximum(unit(y, f"{name}.conv2", f"{name}.bn2", second, 1), 0)
            y = unit(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = unit(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = np.maximum(x + y, 0)
        features.append(x)
    return features


def mobilenet64(rgb, tensors, halving=(0, 1)):
    """The last map of a MobileNetV2 with flat names; `halving` is its padding where it halves the sides.

    Keras has one zero on the right and below, PyTorch one on all sides, (1, 1).
    """

    def unit(x, conv, norm, stride=1, relu=True):
        weight = tensors[f"{conv}.weight"]
        groups = x.shape[-1] if weight.shape[1] == 1 else 1
        pad = (0, 0) if weight.shape[2] == 1 else halving if stride == 2 else (1, 1)
        x = norm64(conv64(x, weight, stride, pad, groups), tensors, norm)
        return np.clip(x, 0, 6) if relu else x

    x = unit(normalized64(rgb), "features.0.0", "features.0.1", 2)
    for block in range(1, 18):
        name, stride, y = f"features.{block}.conv", 2 if block in (2, 4, 7, 14) else 1, x
        first = 0
        if block > 1:
            y, first = unit(y, f"{name}.0", f"{name}.1"), 3
        y = unit(y, f"{name}.{first}", f"{name}.{first + 1}", stride)
        y = unit(y, f"{name}.{first + 3}", f"{name}.{first + 4}", relu=False)
        x = x + y if y.shape == x.shape else y
    return unit(x, "features.18.0", "features.18.1")


def random_resnet(stages=STAGES, base=8, seed=0):
    """Tensors under torchvision's names, classifier and counters included."""
    rng = np.random.default_rng(seed)
    tensors = {}

    def unit(conv, norm, out, inside, size):
        tensors[f"{conv}.weight"] = rng.normal(0, np.sqrt(2 / (inside * size**2)), (out, inside, size, size))
        tensors[f"{norm}.weight"] = rng.uniform(0.5, 1.5, out)
        tensors[f"{norm}.bias"] = rng.normal(0, 0.2, out)
        tensors[f"{norm}.running_mean"] = rng.normal(0, 0.2, out)
        tensors[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, out)

    unit("conv1", "bn1", base, 3, 7)
    inside = base
    for stage, count in enumerate(stages, 1):
        width = base * 2 ** (stage - 1)
        for block in range(count):
            name = f"layer{stage}.{block}"
            unit(f"{name}.conv1", f"{name}.bn1", width, inside, 1)
            unit(f"{name}.conv2", f"{name}.bn2", width, width, 3)
            unit(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1)
            if block == 0:
                unit(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, inside, 1)
            inside = 4 * width
    tensors["fc.weight"], tensors["fc.bias"] = rng.normal(size=(10, inside)), rng.normal(size=10)
    tensors = {key: value.astype(np.float32) for key, value in tensors.items()}
    tensors["bn1.num_batches_tracked"] = np.array(7)
    return tensors


def save(path, tensors):
    np.savez(path, **tensors)
    return path


def rgb(height=64, width=96, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3)).astype(np.uint8)


def outputs(model, names, image):
    return keras.Model(model.input, [model.get_layer(name).output for name in names])(image)


# --- npz into backbones ----------------------------------------------------------------------------------------------


def test_torchvision_resnet_computes_what_its_file_says(tmp_path):
    tensors = random_resnet()
    path = save(tmp_path / "resnet.npz", tensors)
    model = build("simplebaseline", "tiny_v1b", (64, 96, 3), backbone_weights=path)
    got = outputs(model, [f"layer{stage}_0_relu" for stage in (1, 2, 3, 4)], rgb())
    for ours, exact in zip(got, resnet64(rgb(), tensors, STAGES, caffe=False), strict=True):
        # 13 convolutions deep with at most 576 products a sum: 13 x sqrt(576) roundings of 2**-24.
        np.testing.assert_allclose(ours, exact, atol=13 * 24 * 2**-24 * np.abs(exact).max())


@pytest.mark.slow
def test_real_caffe_layout_resnet50(shared):
    path = shared / "data" / "weights" / "resnet50_imagenet_caffe_layout.npz"
    with np.load(path) as archive:
        tensors = {key: archive[key] for key in archive.files}
    model = build("simplebaseline", "resnet50", (32, 64, 3), 14, backbone_weights=path)
    assert model.spec["preprocessing"] == "torchvision"
    image = rgb(32, 64)
    names = ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")
    got = outputs(model, names, image)
    for ours, exact in zip(got, resnet64(image, tensors, (3, 4, 6, 3), caffe=True), strict=True):
        # 49 convolutions, sums of at most 4608 products: 49 x sqrt(4608) roundings of 2**-24 (seen: a hundredth).
        np.testing.assert_allclose(ours, exact, atol=49 * 68 * 2**-24 * np.abs(exact).max())
    wrong = resnet64(image, tensors, (3, 4, 6, 3), caffe=False)[-1]  # the layouts are different networks
    assert np.abs(wrong - got[-1]).max() > 0.1 * np.abs(wrong).max()


@pytest.mark.slow
def test_real_mobilenet_in_both_spellings(shared, tmp_path):
    path = shared / "data" / "weights" / "mobilenetv2_imagenet.npz"
    with np.load(path) as archive:
        tensors = {key: archive[key] for key in archive.files}
    model = build("simplebaseline", "mobilenetv2", (32, 64, 3), backbone_weights=path)
    image = rgb(32, 64)
    got = keras.Model(model.input, model.get_layer("out_relu").output)(image)
    exact = mobilenet64(image, tensors)
    # 52 convolutions, sums of at most 960 products: 52 x sqrt(960) roundings of 2**-24 of the largest value.
    np.testing.assert_allclose(got, exact, atol=52 * 31 * 2**-24 * np.abs(exact).max())

    def nested(key):  # torchvision today: conv, norm and ReLU6 of a step are one module
        match = re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", key)
        if not match:
            return key
        block, index, tensor = int(match[1]), int(match[2]), match[3]
        last = 3 if block == 1 else 6  # index of the projection, which is not wrapped
        part = f"{index // 3}.{index % 3}" if index < last else str(index - last + last // 3)
        return f"features.{block}.conv.{part}.{tensor}"

    other = save(tmp_path / "nested.npz", {nested(key): value for key, value in tensors.items()})
    assert "features.2.conv.1.1.running_var" in np.load(other).files
    backbone, _ = build_backbone("mobilenetv2", keras.Input((32, 64, 3)))
    pretrained.load_backbone(backbone, "mobilenetv2", other)
    for layer in backbone.layers[1:]:
        for a, b in zip(layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_torchvision_mobilenet_computes_what_pytorch_computes(shared):
    """Padded on all sides; Keras' MobileNetV2 is another function of the same numbers."""
    path = shared / "data" / "weights" / "mobilenetv2_imagenet.npz"
    with np.load(path) as archive:
        tensors = dict(archive)
    model = build("simplebaseline", "mobilenetv2_torch", (32, 64, 3), backbone_weights=path)
    assert model.spec["preprocessing"] == "torchvision"
    got = keras.Model(model.input, model.get_layer("out_relu").output)(rgb(32, 64))
    exact, other = (mobilenet64(rgb(32, 64), tensors, halving) for halving in ((1, 1), (0, 1)))
    # as above: 52 x sqrt(960) roundings
    np.testing.assert_allclose(got, exact, atol=52 * 31 * 2**-24 * np.abs(exact).max())
    assert np.abs(other - got).max() > 0.1 * np.abs(exact).max()


def test_folded_files_are_of_keras_padding(tmp_path):
    path = save(tmp_path / "folded.npz", {"Conv1.kernel": np.ones((3, 3, 3, 32)), "Conv1.bias": np.ones(32)})
    with pytest.raises(InputError, match=r"folded\.npz has Keras' layer names.*mobilenetv2\."):
        pretrained.load_backbone(None, "mobilenetv2_torch", path)


def test_names_of_keras_layers():
    names = {
        "conv1_conv": "conv1",
        "conv1_bn": "bn1",
        "conv2_block1_0_conv": "layer1.0.downsample.0",
        "conv3_block12_0_bn": "layer2.11.downsample.1",
        "conv5_block3_2_conv": "layer4.2.conv2",
        "conv4_block23_3_bn": "layer3.22.bn3",
        "Conv1": "features.0.0",
        "bn_Conv1": "features.0.1",
        "expanded_conv_depthwise": "features.1.conv.0.0",
        "expanded_conv_depthwise_BN": "features.1.conv.0.1",
        "expanded_conv_project": "features.1.conv.1",
        "expanded_conv_project_BN": "features.1.conv.2",
        "block_1_expand": "features.2.conv.0.0",
        "block_1_expand_BN": "features.2.conv.0.1",
        "block_16_depthwise": "features.17.conv.1.0",
        "block_16_depthwise_BN": "features.17.conv.1.1",
        "block_16_project": "features.17.conv.2",
        "block_16_project_BN": "features.17.conv.3",
        "Conv_1": "features.18.0",
        "Conv_1_bn": "features.18.1",
        "layer3_22_conv2": "layer3.22.conv2",
        "layer1_0_downsample_1": "layer1.0.downsample.1",
        "bn1": "bn1",
        "deconv_layers_7": "deconv_layers.7",
        "deconv13_0": "deconv13.0",
        "s_conv2_1": "s_conv2.1",
        "s_deconv12": "s_deconv12",
        "final_layer": "final_layer",
    }
    assert {layer: pretrained.torch_module(layer) for layer in names} == names


def without(key):
    return lambda tensors: tensors.pop(key)


def changed(key, change):
    return lambda tensors: tensors.update({key: change(tensors[key])})


def with_nan(value):
    value = value.copy()
    value.flat[-1] = np.nan
    return value


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("layer3.0.bn2.running_var"), ("layer3.0.bn2.running_var", "missing")),
        (without("layer4.0.downsample.0.weight"), ("layer4.0.downsample.0.weight", "missing")),
        (lambda tensors: tensors.update({"layer1.1.conv1.weight": np.ones(2)}), ("layer1.1.conv1.weight", "no place")),
        (changed("conv1.weight", lambda v: v.transpose(2, 3, 1, 0)), ("conv1.weight", "(7, 7, 3, 8)", "(8, 3, 7, 7)")),
        (changed("layer4.0.bn3.bias", with_nan), ("layer4.0.bn3.bias", "finite")),
        (changed("layer4.0.bn3.running_var", lambda v: -v), ("layer4.0.bn3.running_var", "negative")),
        (changed("layer2.0.conv2.weight", lambda v: v.astype(np.int32)), ("layer2.0.conv2.weight", "numbers")),
        (changed("bn1.weight", lambda v: v.astype(object)), ("not a readable .npz",)),  # a pickle: never opened
    ],
)
def test_damaged_tensors_change_nothing(damage, words, tmp_path):
    tensors = random_resnet()
    damage(tensors)
    path = save(tmp_path / "resnet.npz", tensors)
    backbone, _ = build_backbone("tiny_v1b", keras.Input((64, 32, 3)))
    before = backbone.get_weights()
    with pytest.raises(InputError) as error:
        pretrained.load_backbone(backbone, "tiny_v1b", path)
    assert all(word in str(error.value) for word in (str(path), *words))
    for a, b in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_broken_files(tmp_path):
    good = save(tmp_path / "good.npz", random_resnet()).read_bytes()
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("conv1.weight.npy", "not an array")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF  # the checksum inside the zip notices
    files = {"half": good[: len(good) // 2], "empty": b"", "words": b"hello" * 99, "flipped": bytes(flipped)}
    for name, content in files.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    with open(tmp_path / "array.npz", "wb") as file:  # a single array under the wrong suffix
        np.save(file, np.zeros(3))
    for name in (*files, "text", "array"):
        with pytest.raises(InputError, match=rf"{name}\.npz") as error:
            build("mrfeanet1", "tiny_v1b", (64, 32, 3), backbone_weights=tmp_path / f"{name}.npz")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argument", "file", "words"),
    [
        ("backbone_weights", "missing.npz", "there is no such"),
        ("backbone_weights", "model.onnx", "npz.*h5.*imagenet"),
        ("backbone_weights", "model.pth.tar", "not a PyTorch file"),
        ("weights", "missing.keras", "there is no such"),
        ("weights", "model.onnx", r"\.keras or a \.weights\.h5 .* \.pth"),
        ("weights", "model.pth.tar", "not a PyTorch file"),
        ("weights", "model.npz", r"not a readable \.npz"),
        ("weights", "broken.keras", "cannot be|can be loaded"),
        ("weights", "broken.weights.h5", "does not hold"),
        ("backbone_weights", "broken.h5", "no weights .* tiny_v1b.*resnet50"),
    ],
)
def test_wrong_files_are_one_sentence(argument, file, words, tmp_path):
    if not file.startswith("missing"):
        (tmp_path / file).write_bytes(b"hello" * 99)
    with pytest.raises(InputError, match=words) as error:
        build("mrfeanet1", "tiny_v1b", (64, 32, 3), **{argument: tmp_path / file})
    assert file in str(error.value) and "\n" not in str(error.value)


# --- Keras' own weights ----------------------------------------------------------------------------------------------


def notop_h5(donor, path):
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, donor)
    return path


def shaken(model, seed=0):
    """Statistics of batch norms that are not 0 and 1, so that a wrong order shows."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (value.shape for value in layer.get_weights())
            values = rng.uniform(0.5, 1.5, gamma), rng.normal(0, 0.1, beta), rng.normal(0, 0.1, mean)
            layer.set_weights([*values, rng.uniform(0.5, 1.5, variance)])
    return model


@pytest.mark.parametrize(
    ("backbone", "network", "module"),
    [
        pytest.param("mobilenetv2", "MobileNetV2", "mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("resnet50", "ResNet50", "resnet", marks=pytest.mark.slow),
        pytest.param("efficientnetv2b0", "EfficientNetV2B0", None, marks=pytest.mark.slow),
    ],
)
def test_keras_h5_brings_its_own_preprocessing(backbone, network, module, tmp_path):
    """Our RGB graph computes what Keras' network computes on Keras' own preprocessing."""
    donor = shaken(application(network, input_shape=(64, 96, 3)))
    path = notop_h5(donor, tmp_path / "notop.h5")
    model = build("simplebaseline", backbone, (64, 96, 3), backbone_weights=path)
    image = rgb().astype(np.float32)
    if module is None:  # EfficientNetV2-B0 normalises in layers of its own
        keras_input = normalized64(image).astype(np.float32)
    else:
        keras_input = getattr(keras.applications, module).preprocess_input(image.copy())
    expected = donor(keras_input)
    got = keras.Model(model.input, model.get_layer(donor.layers[-1].name).output)(image)
    # The same float32 arithmetic, up to the order of three channels in the first sum and of scale and offset.
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    kinds = {"mobilenetv2": "symmetric", "resnet50": "caffe", "efficientnetv2b0": "torchvision"}
    assert model.spec["preprocessing"] == kinds[backbone]
    # A network built again from its own file keeps the range that its weights were trained for.
    model.save(tmp_path / "model.keras")
    again = build("simplebaseline", backbone, (64, 96, 3), weights=tmp_path / "model.keras")
    assert again.spec == model.spec
    np.testing.assert_array_equal(again(image), model(image))


def test_keras_h5_of_another_network_is_refused(tmp_path):
    path = notop_h5(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"other\.h5.*MobileNetV2"):
        pretrained.load_backbone(None, "mobilenetv2", path)


def test_imagenet_is_a_sentence_where_there_is_none(monkeypatch):
    with pytest.raises(InputError, match=r"no weights \(imagenet\).*tiny_v1b.*resnet50, resnet101"):
        build("simplebaseline", "tiny_v1b", (64, 32, 3), backbone_weights="imagenet")

    def no_network(*args, **kwargs):
        raise Exception("URL fetch failure on https://storage.googleapis.com/...: None -- unreachable")

    monkeypatch.setattr(pretrained, "application", no_network)
    with pytest.raises(InputError, match=r"could not download.*mobilenetv2.*URL fetch failure"):
        pretrained.load_backbone(None, "mobilenetv2", "imagenet")


# --- whole networks --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_from_keras_and_h5_files(tmp_path):
    model = shaken(build("mrheatnet1", "tiny_v1b", (64, 32, 3), skeleton="lsp"))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    image = rgb(64, 32)
    again = build("mrheatnet1", "tiny_v1b", (64, 32, 3), 14, weights=tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again(image), model(image))
    larger = build("mrheatnet1", "tiny_v1b", (96, 64, 3), weights=tmp_path / "model.keras")
    assert larger.skeleton.name == "lsp" and larger.output_shape == (None, 24, 16, 14)
    for a, b in zip(larger.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

    for changes, words in (
        ({"name": "mrheatnet2"}, "mrheatnet1.*mrheatnet2"),
        ({"num_joints": 17}, "14 joints.*17"),
        ({"backbone": "small_v1b"}, "tiny_v1b.*small_v1b"),
        ({"include_preprocessing": False}, "include_preprocessing"),
    ):
        arguments = {"name": "mrheatnet1", "backbone": "tiny_v1b", "input_shape": (64, 32, 3), **changes}
        with pytest.raises(InputError, match=words):
            build(**arguments, weights=tmp_path / "model.keras")
        if "include_preprocessing" not in changes:
            with pytest.raises(InputError, match=r"model\.weights\.h5 does not hold"):
                build(**{"num_joints": 14, **arguments}, weights=tmp_path / "model.weights.h5")


def test_other_models_and_nan_are_refused(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=r"other\.keras holds a Sequential"):
        build("mrfeanet1", "tiny_v1b", (64, 32, 3), weights=tmp_path / "other.keras")
    model = build("mrfeanet1", "tiny_v1b", (64, 32, 3))
    model.get_layer("final_layer").bias.assign(np.full(17, np.nan))
    for name in ("nan.keras", "nan.weights.h5"):
        (model.save if name.endswith(".keras") else model.save_weights)(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: final_layer/bias.*finite"):
            build("mrfeanet1", "tiny_v1b", (64, 32, 3), weights=tmp_path / name)
