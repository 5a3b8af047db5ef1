"""LiteRT files: as near to Keras as their precision allows, of built-in operations; a mistake is one sentence."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from dots import network, picture
from keras import ops
from small_networks import crops, each, trained

from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.errors import InputError
from keras_mrpose.export import litert, outputs
from keras_mrpose.runtime import litert as runtime
from keras_mrpose.runtime.litert import LiteRTModel, operations

BUILT_IN = {name for name in vars(schema.BuiltinOperator) if name.isupper()} - {"CUSTOM"}
CROPS = np.rint(crops(32))


@functools.cache
def output():
    return outputs.heatmaps(trained())


@functools.cache
def expected():
    return each(output(), CROPS[:4])


@functools.cache
def converted(precision, **options):
    return litert.convert(output(), precision, CROPS, **options)


def heatmaps(conversion, images=CROPS[:4]):
    return LiteRTModel(conversion.content)(images)


def correlation(found):
    return np.corrcoef(found.ravel(), expected().ravel())[0, 1]


# --- the four precisions --------------------------------------------------------------------------------------------


def test_float32_is_keras():
    # the same float32 sums in another order
    np.testing.assert_allclose(heatmaps(converted("float32")), expected(), rtol=0, atol=1e-5 * abs(expected()).max())


def test_float16_rounds_the_weights():
    # A weight is rounded by at most 2^-11 of itself, 2^-11 / sqrt(3) = 2.8e-4 in the mean; a path through the network
    # has some 20 kernels, whose errors are independent: 1.3e-3 of the maps' size.
    error = heatmaps(converted("float16")) - expected()
    assert 1e-5 < error.std() / expected().std() < 2e-3
    assert len(converted("float16").content) < 0.6 * len(converted("float32").content)


@pytest.mark.parametrize("precision", ["dynamic", "int8"])
def test_int8_is_near(precision):
    # A tensor of 256 levels over some 8 standard deviations has rounding errors of (8 / 256)^2 / 12 = 8e-5 of its
    # variance, a kernel of 255 levels over 6 of them 5e-5. 40 tensors one behind the other: 5e-3, that is a
    # correlation of 1 / sqrt(1.005) = 0.9975.
    assert 0.997 < correlation(heatmaps(converted(precision))) < 0.99999
    assert len(converted(precision).content) < 0.4 * len(converted("float32").content)


@pytest.mark.parametrize("precision", litert.PRECISIONS)
def test_operations(precision):
    found = set(operations(converted(precision).content))
    assert found <= BUILT_IN
    assert "DEPTH_TO_SPACE" in found and not found & {"TRANSPOSE_CONV", "RSQRT", "READ_VARIABLE", "SHAPE"}
    assert (
        found & {"QUANTIZE", "DEQUANTIZE"}
        == {
            "float32": set(),
            "float16": {"DEQUANTIZE"},
            "dynamic": set(),
            "int8": {"QUANTIZE", "DEQUANTIZE"},
        }[precision]
    )


def test_plain_transposed_convolutions():
    model = outputs.heatmaps(trained(), "transpose")
    assert "TRANSPOSE_CONV" in operations(litert.convert(model, "float32").content)


def test_int8_is_int8_throughout_and_per_channel():
    lite = Interpreter(model_content=converted("int8").content)
    tensors = lite.get_tensor_details()
    floats = [tensor["name"] for tensor in tensors if tensor["dtype"] == np.float32]
    assert sorted(floats) == ["Identity", "image"]
    kernels = [
        tensor
        for tensor in tensors
        if len(tensor["shape"]) == 4 and len(tensor["quantization_parameters"]["scales"]) > 1
    ]
    assert len(kernels) >= 35  # all convolutions


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_image_of_bytes(precision):
    conversion = converted(precision, input_type="uint8")
    assert LiteRTModel(conversion.content).input_type == np.uint8
    # int8: its own 256 levels of the input are the bytes
    np.testing.assert_allclose(heatmaps(conversion), heatmaps(converted(precision)), rtol=0, atol=1e-5)


def test_a_file_of_others_whose_input_is_int8():
    converter = litert._converter(output(), "int8", "float32", CROPS)
    converter.inference_input_type = tf.int8
    lite = LiteRTModel(bytes(litert._run_converter(converter.convert)))
    assert lite.input_type == np.int8
    np.testing.assert_allclose(lite(CROPS[:4]), heatmaps(converted("int8")), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantized_output_is_given_back_as_numbers(kind):
    conversion = converted("int8", output_type=kind)
    assert LiteRTModel(conversion.content).output_type == np.dtype(kind)
    np.testing.assert_allclose(heatmaps(conversion), heatmaps(converted("int8")), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_quiet(capfd):
    litert.convert(output(), "int8", CROPS, float_layers=["final_layer"])
    LiteRTModel(litert.convert(output(), "float32").content)
    assert capfd.readouterr() == ("", "")


# --- joints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [GaussianCodec(1.5), DarkCodec(1.5), UDPCodec(1.5)], ids=repr)
def test_joints_inside(codec):
    model = network(codec=codec)
    people = np.random.default_rng(0).uniform([20, 20], [43, 75], (33, 1, 3, 2))
    images = np.stack([picture((96, 64), person) for person in people]).astype("float32")
    joints = outputs.keypoints(model)
    conversion = litert.convert(joints, "float32")
    assert set(operations(conversion.content)) <= BUILT_IN
    np.testing.assert_allclose(heatmaps(conversion, images[:4]), each(joints, images[:4]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("codec", ["gaussian", pytest.param("dark", marks=pytest.mark.slow)])
def test_int8_decodes_in_float(codec):
    """Positions between the levels, and heatmaps that keep their own."""
    joints = outputs.keypoints(trained(codec=codec))
    conversion = litert.convert(joints, "int8", CROPS, input_type="uint8")
    assert conversion.float_layers == ("joints",)
    assert set(operations(conversion.content)) <= BUILT_IN
    found, maps = heatmaps(conversion), heatmaps(converted("int8"))
    points, scores = (np.asarray(part) for part in trained(codec=codec).codec.decode(maps))
    np.testing.assert_allclose(found[..., 2], scores, rtol=0, atol=1e-5)
    # Equal int8 cells tie: the first decides in both.
    np.testing.assert_allclose(found[..., :2], 4 * points, rtol=0, atol=1e-4)


# --- what stays in float, what it costs ---------------------------------------------------------------------------


def test_a_layer_kept_in_float():
    conversion = converted("int8", float_layers=("final_layer",))
    assert conversion.float_layers == ("final_layer",)
    assert operations(conversion.content)[-2:] == ["DEQUANTIZE", "CONV_2D"]
    assert operations(converted("int8").content)[-2:] == ["CONV_2D", "DEQUANTIZE"]
    assert correlation(heatmaps(conversion)) > correlation(heatmaps(converted("int8")))


@functools.cache
def spoilt():
    """A network with one huge weight for a channel that is always 0: nothing in float, 127 useless levels in int8."""
    model = trained()
    norm, conv = model.get_layer("layer2_0_bn2"), model.get_layer("layer2_0_conv3")
    gamma, beta, *averages = norm.get_weights()
    gamma[0], beta[0] = 0, -1
    norm.set_weights([gamma, beta, *averages])
    kernel = conv.get_weights()[0]
    kernel[:, :, 0] = 300
    conv.set_weights([kernel])
    return outputs.heatmaps(model)


@pytest.mark.slow
def test_the_worst_layer_is_found_and_can_be_kept():
    report = litert.worst_tensors(spoilt(), CROPS)
    assert report == sorted(report, key=lambda tensor: -tensor.levels)
    assert report[0].layers[0] == "layer2_0_conv3" and report[0].operation == "CONV_2D"
    # rounding alone is 0.29 levels, and 40 tensors with good kernels are not far above
    assert report[0].levels > 5 > 3 * np.median([tensor.levels for tensor in report])
    wanted = each(spoilt(), CROPS[:4]).ravel()
    bad, good = (
        np.corrcoef(heatmaps(litert.convert(spoilt(), "int8", CROPS, float_layers=names)).ravel(), wanted)[0, 1]
        for names in ([], ["layer2_0_conv3"])
    )
    assert bad < 0.99 < 0.997 < good


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "Unknown precision 'int4'.*float32, float16, dynamic, int8"),
        ({"input_type": "int8"}, "Unknown input type 'int8'"),
        ({"output_type": "float16"}, "Unknown output type"),
        ({"precision": "float32", "output_type": "uint8"}, "output of float32 is float32; 'uint8' is asked for"),
        ({"output_type": "int8", "float_layers": ["final_layer"]}, "whose final_layer is in float is float32"),
        ({"precision": "dynamic", "float_layers": ["final_layer"]}, "float_layers is for int8"),
        ({"float_layers": ["finallayer"]}, "float_layers names 'finallayer'.*did you mean final_layer"),
        ({"float_layers": ["?"]}, "float_layers names '\\?'.*summary"),
        ({"float_layers": ["image"]}, "float_layers names 'image', which has become a part"),
        ({"calibration": None}, "calibrated with 0 crops; give at least 32"),
        ({"calibration": CROPS[:31]}, "calibrated with 31 crops"),
        ({"calibration": CROPS[:4], "min_crops": 5}, "calibrated with 4 crops; give at least 5"),
        ({"calibration": CROPS[:, :32]}, "Crop 0 .* \\(32, 96, 3\\); this network takes \\(64, 96, 3\\)"),
        ({"calibration": [*CROPS, CROPS[0, :5]]}, "Crop 32"),
        ({"calibration": CROPS / 255}, "values from 0 to 1; give RGB 0..255"),
        ({"calibration": CROPS / 127.5 - 1}, "values from -1 to 1;"),
        ({"calibration": CROPS * 257}, "values from 0 to 65535;"),
        ({"calibration": CROPS * np.nan}, "values from nan to nan;"),
    ],
    ids=str,
)
def test_mistakes(options, message):
    options = {"precision": "int8", "calibration": CROPS, **options}
    with pytest.raises(InputError, match=message):
        litert.convert(output(), **options)


def test_operations_that_litert_lacks_are_named(capfd):
    image = keras.Input(batch_shape=(1, 8, 8, 3))
    model = keras.Model(image, ops.cast(ops.argmax(image, axis=1), "float32"))  # Keras looks at the bits of -0.0
    with pytest.raises(InputError, match="no built-in operation for TensorFlow's BitwiseAnd, which"):
        litert.convert(model, "float32")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.9999])
def test_truncated_files(share, tmp_path):
    content = converted("float32").content
    path = tmp_path / "net.tflite"
    path.write_bytes(content[: int(share * len(content))])
    for reader in (LiteRTModel, operations):
        with pytest.raises(InputError, match=r"net\.tflite is damaged or not a \.tflite file .*export it again"):
            reader(path)


def test_garbage():
    for seed in range(20):
        content = np.random.default_rng(seed).bytes(10000)
        for junk in (content, content[:4] + b"TFL3" + content[8:]):
            for reader in (LiteRTModel, operations):
                with pytest.raises(InputError, match="damaged"):
                    reader(junk)


def test_other_mistakes_with_files(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no\.tflite cannot be read: No such file"):
        LiteRTModel(tmp_path / "no.tflite")
    plain = keras.Input(batch_shape=(1, 7))
    content = litert.convert(keras.Model(plain, keras.layers.Dense(3)(plain)), "float32").content
    with pytest.raises(InputError, match=r"shapes \[\(1, 7\), \(1, 3\)\]; give a network from one image"):
        LiteRTModel(content)
    monkeypatch.setattr(runtime, "Interpreter", None)
    with pytest.raises(InputError, match=r"pip install ai-edge-litert"):
        LiteRTModel(content)


@pytest.mark.parametrize("shape", [(64, 96, 3), (2, 96, 64, 3), (2, 64, 96, 4), (2, 64, 96)])
def test_crops_of_another_shape(shape):
    with pytest.raises(InputError, match=r"takes \(n, 64, 96, 3\)"):
        LiteRTModel(converted("float32").content)(np.zeros(shape))


def test_crops_of_bytes_and_none_at_all():
    lite = LiteRTModel(converted("float32").content, threads=1)
    np.testing.assert_array_equal(lite(CROPS[:2].astype(np.uint8)), lite(CROPS[:2]))
    assert lite(CROPS[:0]).shape == (0, 16, 24, 17)
    assert lite.output_shape == (1, 16, 24, 17)


@pytest.mark.slow
def test_a_batch_of_two():
    lite = LiteRTModel(litert.convert(outputs.heatmaps(trained(), batch=2), "float32").content)
    np.testing.assert_allclose(lite(CROPS[:4]), expected(), rtol=0, atol=1e-5 * abs(expected()).max())
    with pytest.raises(InputError, match=r"n a multiple of 2\."):
        lite(CROPS[:3])
