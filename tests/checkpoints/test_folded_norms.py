"""Backbone files with folded batch norms: what a network computes from them, in both modes, and wrong files."""

from dataclasses import replace

import keras
import numpy as np
import on_jax
import pytest
from micro import EXPERIMENT, Killed, draw, people_of

from keras_mrpose import data
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.models import build, pretrained
from keras_mrpose.models.backbones import BACKBONES, build_backbone
from keras_mrpose.models.normalization import match_statistics
from keras_mrpose.training import train
from keras_mrpose.training.distributed import devices
from keras_mrpose.training.sanity_checks import bn_train_eval_gap

# TensorFlow 2.21's variables under NumPy 2.4, whenever Keras saves them; neither side is ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

MOBILENET = pytest.param("mobilenetv2", marks=pytest.mark.slow)  # the real file is of it
HEAVY = tuple(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "efficientnetv2b0"))


def norms_of(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def convolutions_of(model):
    return [layer for layer in model.layers if layer.weights and layer not in norms_of(model)]


def folded(name, seed=0):
    """Tensors of a backbone: kernels of any scale, as folding makes them, and biases."""
    rng = np.random.default_rng(seed)
    backbone, _ = build_backbone(name, keras.Input((32, 64, 3)))
    tensors = {}
    for layer in convolutions_of(backbone):
        kernel, channels = layer.get_weights()[0], layer.output.shape[-1]
        factor = rng.uniform(0.2, 1.2, channels)
        factor = factor[:, None] if isinstance(layer, keras.layers.DepthwiseConv2D) else factor
        tensors[f"{layer.name}.kernel"] = (kernel * factor).astype(np.float32)
        tensors[f"{layer.name}.bias"] = rng.normal(0.2, 0.5, channels).astype(np.float32)
    return tensors


def save(path, tensors):
    np.savez(path, **tensors)
    return path


def plain64(name, shape, tensors):
    """The backbone without batch norms, each convolution with kernel and bias of the file, in float64."""

    def plain(layer):
        if isinstance(layer, keras.layers.BatchNormalization):
            return lambda inputs, **_: inputs
        config = {**layer.get_config(), "dtype": "float64"}
        return type(layer).from_config({**config, "use_bias": True} if layer.weights else config)

    backbone, _ = build_backbone(name, keras.Input(shape))
    model = keras.models.clone_model(backbone, clone_function=plain)
    for layer in convolutions_of(model):
        layer.set_weights([tensors[f"{layer.name}.{part}"].astype(np.float64) for part in ("kernel", "bias")])
    return keras.Model(model.inputs[0], model.outputs[0])  # not of a list with one image, as some backbones are


def expected(name, image, tensors):
    """C5 in float64, and how far float32 may be off: a rounding for each convolution and square root of its products.

    Of the largest number that a convolution gives, since a ReLU6 behind it may cut what it and its rounding were.
    """
    model = plain64(name, image.shape[1:], tensors)
    convolutions = convolutions_of(model)
    values = [np.asarray(value) for value in keras.Model(model.input, [c.output for c in convolutions])(image)]
    products = max(np.prod(c.kernel.shape) / c.output.shape[-1] for c in convolutions)
    largest = max(np.abs(value).max() for value in values)
    return np.asarray(model(image)), len(convolutions) * np.sqrt(products) * 2**-24 * largest


def rgb(count=1, height=32, width=64, seed=3):
    """Images with something in them: noise at several scales."""
    rng = np.random.default_rng(seed)
    image = sum(
        np.kron(rng.uniform(0, 1, (count, height // size, width // size, 3)), np.ones((1, size, size, 1)))
        for size in (1, 8, 32)
    )
    return (image * 85).astype(np.float32)


def c5_of(model):
    """The part of a network that ends in C5."""
    return keras.Model(model.input, model.get_layer(BACKBONES[model.spec["backbone"]].feature_layers[-1]).output)


@pytest.fixture(scope="module")
def real(shared):
    """The file of the MobileNetV2 in MoveNet Lightning."""
    path = shared / "data" / "weights" / "mobilenetv2_movenet.npz"
    if not path.is_file():
        pytest.skip("the developers' shared/ folder has no mobilenetv2_movenet.npz")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A file for the small ResNet of the tests."""
    return save(tmp_path_factory.mktemp("weights") / "tiny.npz", folded("tiny_v1b"))


# --- loading ---------------------------------------------------------------------------------------------------------


def check_function(name, path, tensors):
    """Build on the file and compare C5 with float64; Keras' own preprocessing comes first."""
    model = build("simplebaseline", name, (32, 64, 3), backbone_weights=path)
    wanted = BACKBONES[name].keras_preprocessing or "torchvision"
    assert model.spec["preprocessing"] == wanted
    image = rgb()
    scale, offset = train.networks.PREPROCESSING[wanted]
    normalized = image.astype(np.float64) * scale + offset
    exact, tolerance = expected(name, normalized[..., ::-1] if wanted == "caffe" else normalized, tensors)
    assert tolerance < 0.01 * np.abs(exact).max() and np.ptp(exact) > 0
    np.testing.assert_allclose(c5_of(model)(image), exact, atol=tolerance)


@pytest.mark.parametrize("name", ["tiny_v1b", MOBILENET, *HEAVY])
def test_inference_computes_what_the_file_says(name, tmp_path):
    tensors = folded(name)
    check_function(name, save(tmp_path / "folded.npz", tensors), tensors)


def test_the_real_file_computes_what_it_says(real):
    with np.load(real) as archive:
        check_function("mobilenetv2", real, dict(archive))


def test_a_loaded_norm_only_adds(tiny):
    """To the bit: rounding is left to the convolution. (oneDNN's own kernel for CPUs with AMX rounds twice.)"""
    backbone, _ = build_backbone("tiny_v1b", keras.Input((32, 64, 3)))
    pretrained.load_backbone(backbone, "tiny_v1b", tiny)
    norm = backbone.get_layer("bn1")
    x = np.random.default_rng(0).normal(0, 9, (1, 4, 5, 8)).astype(np.float32)
    wanted = x + np.load(tiny)["conv1.bias"]
    gamma, beta, mean, variance = norm.get_weights()
    np.testing.assert_array_equal((x - mean) * (gamma / np.sqrt(variance + np.float32(norm.epsilon))) + beta, wanted)
    np.testing.assert_allclose(norm(x), wanted, rtol=0, atol=2 * 2.0**-24 * 2 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("tiny_v1b", "mobilenetv2") else pytest.mark.slow) for name in BACKBONES],
)
def test_every_batch_norm_follows_a_convolution(name):
    backbone, _ = build_backbone(name, keras.Input((32, 64, 3)))
    outputs = {id(layer.output) for layer in convolutions_of(backbone)}
    followed = [id(norm.input) for norm in norms_of(backbone)]
    assert len(set(followed)) == len(followed) and set(followed) <= outputs


def test_kinds_are_told_by_names(tiny, tmp_path):
    assert pretrained.source_kind(tiny) == "folded"
    assert pretrained.source_kind(save(tmp_path / "torch.npz", {"conv1.weight": np.ones(3)})) == "state dict"


def test_another_preprocessing_is_refused(tmp_path):
    path = save(tmp_path / "mobile.npz", {"Conv1.kernel": np.ones((3, 3, 3, 32)), "Conv1.bias": np.ones(32)})
    with pytest.raises(InputError, match="trained with 'symmetric' preprocessing, but 'torchvision'"):
        build("simplebaseline", "mobilenetv2", (32, 64, 3), backbone_weights=path, preprocessing="torchvision")


def without(key):
    return lambda tensors: tensors.pop(key)


def changed(key, change):
    return lambda tensors: tensors.update({key: change(tensors[key])})


def with_nan(value):
    return np.where(np.arange(value.size).reshape(value.shape) == value.size - 1, np.nan, value).astype(value.dtype)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("layer4_0_conv3.kernel"), ("layer4_0_conv3.kernel", "missing")),
        (without("layer4_0_conv3.bias"), ("layer4_0_conv3.bias", "missing")),
        (lambda tensors: tensors.update({"layer5_0_conv1.bias": np.ones(2)}), ("layer5_0_conv1.bias", "no place")),
        (changed("conv1.kernel", lambda v: v.transpose(3, 2, 0, 1)), ("conv1.kernel", "(8, 3, 7, 7)", "(7, 7, 3, 8)")),
        (changed("conv1.bias", lambda v: v[:-1]), ("conv1.bias", "(7,)", "(8,)")),
        (changed("layer4_0_conv3.kernel", with_nan), ("layer4_0_conv3.kernel", "finite")),
        (changed("layer4_0_downsample_0.bias", with_nan), ("layer4_0_downsample_0.bias", "finite")),
        (changed("conv1.kernel", lambda v: v.astype(np.int32)), ("conv1.kernel", "numbers")),
    ],
)
def test_damaged_tensors_change_nothing(damage, words, tmp_path):
    tensors = folded("tiny_v1b")
    damage(tensors)
    path = save(tmp_path / "folded.npz", tensors)
    backbone, _ = build_backbone("tiny_v1b", keras.Input((32, 64, 3)))
    before = backbone.get_weights()
    with pytest.raises(InputError) as error:
        pretrained.load_backbone(backbone, "tiny_v1b", path)
    assert all(word in str(error.value) for word in (str(path), *words))
    for a, b in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_file_is_one_sentence(tiny, tmp_path):
    content = bytearray(tiny.read_bytes())
    content[len(content) // 2] ^= 0xFF  # the names can still be read, the numbers cannot
    (tmp_path / "flipped.npz").write_bytes(content)
    (tmp_path / "half.npz").write_bytes(content[: len(content) // 2])
    for name, kind in (("flipped", "folded"), ("half", "state dict")):
        path = tmp_path / f"{name}.npz"
        assert pretrained.source_kind(path) == kind
        with pytest.raises(InputError, match=rf"{name}\.npz is not a readable") as error:
            build("simplebaseline", "tiny_v1b", (32, 64, 3), backbone_weights=path)
        assert "\n" not in str(error.value)


# --- statistics ------------------------------------------------------------------------------------------------------


def loaded(path, name="tiny_v1b", shape=(32, 64, 3)):
    """A backbone with the weights of a file, as a network that ends in C5."""
    return c5_of(build("simplebaseline", name, shape, backbone_weights=path))


def rounding_of(model, images):
    """How far two float32 evaluations of C5 may differ whose batch norms have other numbers for the same function.

    Each norm rounds the products and sums of its inputs, slope and constants a few (4) times, and each such rounding
    goes through the layers behind it, which grow it no more than they grow the values.
    """
    norms = norms_of(model)
    values = keras.Model(model.input, [norm.input for norm in norms] + [norm.output for norm in norms])(images)
    return 4 * len(norms) * 2**-23 * max(float(np.abs(np.asarray(value)).max()) for value in values)


def test_statistics_are_those_of_all_images_and_inference_stays(tiny):
    model, images = loaded(tiny), rgb(8)
    norms = norms_of(model)
    inputs = keras.Model(model.input, [norm.input for norm in norms])(images)
    before, gap, tolerance = np.asarray(model(images)), bn_train_eval_gap(model, images), rounding_of(model, images)
    match_statistics(model, iter([images[:5], images[5:]]))
    for norm, values in zip(norms, inputs, strict=True):
        flat = np.asarray(values).reshape(-1, values.shape[-1]).astype(np.float64)
        _, _, mean, variance = norm.get_weights()
        # Sums of at most 4096 float32 numbers, of random signs: 64 roundings of 2**-24 each, of their spread.
        of_mean = 64 * 2**-24 * np.abs(flat).max()
        np.testing.assert_allclose(mean, flat.mean(0), atol=of_mean)
        # The squares' sum likewise; and each difference carries the mean's rounding.
        of_variance = 64 * 2**-23 * flat.var(0) + 2 * of_mean * flat.std(0) + 1e-9
        assert (np.abs(variance - flat.var(0)) <= of_variance).all()
    assert tolerance < 1e-3 * np.abs(before).max()
    np.testing.assert_allclose(model(images), before, atol=tolerance)
    # The batch is all images that were counted: both modes are the same function, to rounding. They were not.
    assert gap > 0.1 and bn_train_eval_gap(model, images) < 1e-5
    # Other images of the kind have about these statistics.
    assert bn_train_eval_gap(model, rgb(8, seed=4)) < 0.1


def test_statistics_of_a_constant_channel(tmp_path):
    """Its variance is 0 (or near): gamma shrinks to sqrt(epsilon) of its slope, and inference stays the same."""
    tensors = folded("tiny_v1b")
    tensors["conv1.kernel"][..., 2] = 0
    tensors["conv1.kernel"][..., 3] *= 1e-6
    model, images = loaded(save(tmp_path / "folded.npz", tensors)), rgb(8)
    before, tolerance = np.asarray(model(images)), rounding_of(model, images)
    match_statistics(model, [images])
    gamma, beta, mean, variance = model.get_layer("bn1").get_weights()
    assert (mean[2], variance[2], beta[2]) == (0, 0, tensors["conv1.bias"][2]) and 0 < variance[3] < 1e-9
    np.testing.assert_allclose(gamma[2:4], np.sqrt(1e-5), rtol=1e-4)
    np.testing.assert_allclose(model(images), before, atol=tolerance)
    assert bn_train_eval_gap(model, images) < 1e-5


def test_statistics_of_some_norms_only(tiny):
    model = loaded(tiny)
    chosen, *others = norms_of(model)
    before = [norm.get_weights() for norm in others]
    match_statistics(model, [rgb(4)], [chosen])
    assert np.ptp(chosen.get_weights()[3]) > 0
    for norm, values in zip(others, before, strict=True):
        for a, b in zip(norm.get_weights(), values, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("images", "words"), [([], "no images"), ([rgb(2) * np.nan], "bn1 are not finite")])
def test_statistics_of_nothing_change_nothing(tiny, images, words):
    model = loaded(tiny)
    before = model.get_weights()
    with pytest.raises(InputError, match=words):
        match_statistics(model, images)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX has no strategy")
def test_statistics_reach_all_devices(tiny):
    """Counted within the strategy's scope or outside it."""
    one = loaded(tiny)
    match_statistics(one, [rgb(3), rgb(2, seed=5)])
    mirrored = devices("mirrored", 2)
    for inside in (False, True):
        with mirrored.scope():
            two = loaded(tiny)
            if inside:
                match_statistics(two, [rgb(3), rgb(2, seed=5)])
        if not inside:
            match_statistics(two, [rgb(3), rgb(2, seed=5)])
        for a, b in zip(norms_of(one), norms_of(two), strict=True):
            for variable, copies in zip(a.weights, b.weights, strict=True):
                assert len(copies.value.values) == 2
                for copy in copies.value.values:
                    np.testing.assert_allclose(copy.numpy(), variable.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_statistics_on_jax():
    on_jax.passed(__file__, "statistics_are_those or constant_channel", 2)


@pytest.mark.slow
def test_statistics_of_real_crops(real, shared):
    """Both modes of a real network: correlation 0.14 in C5 as it is loaded, 0.95 with statistics of other crops."""
    folder = shared / "data" / "lsp"
    if not folder.is_dir():
        pytest.skip("the developers' shared/ folder has no data/lsp")
    people, size = data.load(folder, "train"), (128, 96)
    counted, seen = (
        pipeline.batches(people.take(rows), size, 32, augmentation=Augmentation()).take(count)
        for rows, count in ((slice(0, 320), 10), (slice(320, 352), 1))
    )
    model = loaded(real, "mobilenetv2", (*size, 3))
    images = next(iter(seen))[0].numpy()
    before, gap, tolerance = np.asarray(model(images)), bn_train_eval_gap(model, images), rounding_of(model, images)
    match_statistics(model, (crops for crops, _ in counted))
    after = np.asarray(model(images))
    assert gap > 0.7 and bn_train_eval_gap(model, images) < 0.1
    np.testing.assert_allclose(after, before, atol=tolerance)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return people_of(draw(tmp_path_factory.mktemp("drawn")))


@pytest.mark.slow
def test_training_starts_with_statistics(tiny, tables, tmp_path, monkeypatch):
    """Those of the backbone; the head's batch norms are as they begin."""
    experiment = replace(EXPERIMENT, backbone_weights=str(tiny))
    seen = {}

    class Looked(train.BatchNormGuard):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            backbone = c5_of(self.model)
            seen["gap"] = bn_train_eval_gap(backbone, self.images)
            seen["head"] = [norm.get_weights() for norm in norms_of(self.model) if norm not in norms_of(backbone)]
            seen["without"] = bn_train_eval_gap(loaded(tiny, shape=(*EXPERIMENT.input_size, 3)), self.images)
            raise Killed  # the rest of a training takes long

    monkeypatch.setattr(train, "BatchNormGuard", Looked)
    with pytest.raises(Killed):
        train.train(experiment, *tables, tmp_path / "run")
    assert seen["gap"] < 0.05 < 0.2 < seen["without"]
    assert seen["head"] and all((np.stack(values).T == (1, 0, 0, 1)).all() for values in seen["head"])


@pytest.mark.slow
def test_going_on_counts_nothing_and_needs_no_file(tiny, tables, tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    path.write_bytes(tiny.read_bytes())
    experiment = replace(EXPERIMENT, model="simplebaseline", backbone_weights=str(path))
    train.train(experiment, *tables, tmp_path / "whole")
    train.train(experiment, *tables, tmp_path / "parts", time_limit=0.0)
    path.unlink()
    monkeypatch.setattr(train.normalization, "match_statistics", None)
    train.train(experiment, *tables, tmp_path / "parts", resume=True)
    whole, parts = (keras.models.load_model(tmp_path / run / "last.keras") for run in ("whole", "parts"))
    for a, b in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_weights_are_not_counted(tiny, tables, tmp_path, monkeypatch):
    monkeypatch.setattr(train.normalization, "match_statistics", None)
    whole = build("simplebaseline", "tiny_v1b", (96, 64, 3))
    whole.save(tmp_path / "whole.keras")
    for weights in ({}, {"weights": str(tmp_path / "whole.keras"), "backbone_weights": str(tiny)}):
        train._match_statistics(whole, replace(EXPERIMENT, **weights), tables[0], {})
