"""The gate: its numbers are those of an evaluation, and what is broken does not pass."""

import dataclasses
import functools

import dots
import dotted
import keras
import numpy as np
import pytest

from keras_mrpose.codecs import UDPCodec
from keras_mrpose.data import pipeline
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import evaluate
from keras_mrpose.export import litert, outputs, verify
from keras_mrpose.export.parity import Parity
from keras_mrpose.export.verify import TOLERANCES, Reference, Tolerance, measure
from keras_mrpose.predict.predictor import Predictor

FREE = Tolerance(100, 0, 1e9)
STRICT = Tolerance(0, 1, 0)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """18 people, two more than a batch, whose annotations are a little off."""
    return dotted.folder(tmp_path_factory.mktemp("gate"), "val2017", 18, noise=3.0)


@functools.cache
def predictor():
    return Predictor(dotted.network(), flip_test=False)


@pytest.fixture(scope="module")
def original(people):
    return Reference(predictor(), people)


def exchanged(shares):
    """The network whose right hip (12) and left shoulder (5) are mixed: shares (1, 0) leave them, (0, 1) swap them."""
    model = dotted.network()
    (kernel,) = model.get_layer("joints").get_weights()
    one, other = kernel[..., 5].copy(), kernel[..., 12].copy()
    kernel[..., 5], kernel[..., 12] = shares[0] * one + shares[1] * other, shares[0] * other + shares[1] * one
    model.get_layer("joints").set_weights([kernel])
    return model


# --- the Keras model ----------------------------------------------------------------------------------------------


def test_the_keras_model_is_judged_as_by_an_evaluation(original, people):
    assert original.value == evaluate(predictor(), people, diagnose=False).value
    assert original.metric == "AP" and 0.1 < original.value < 0.9
    crops = np.concatenate([crops for crops, _ in pipeline.batches(people, dotted.SIZE, 5)])
    np.testing.assert_array_equal(original.crops, crops)
    points, scores = predictor().keypoints(crops)
    # the same sums in batches of other sizes, and a quarter cell is decided by them
    np.testing.assert_allclose(original.points, points, atol=1e-3)
    np.testing.assert_allclose(original.scores, scores, atol=1e-5)


def test_lsps_protocol(people):
    """By the skeleton and the source: dots have no data set of their own, and no file."""
    colours = dataclasses.replace(people, source="dots", skeleton=dots.DOTS, keypoints=people.keypoints[:, :3])
    found = Reference(Predictor(dots.network(dotted.SIZE), flip_test=False), colours)
    assert found.metric == "PCK" and 0.3 < found.value < 1


def test_a_network_trained_in_bfloat16_is_compared_in_float32(original, people):
    """The export is float32; rounding to 8 bits is nothing that it is to repeat."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = dotted.network()
    finally:
        keras.config.set_dtype_policy("float32")
    rounded = model.predict_on_batch(original.crops)
    assert np.abs(rounded - original.heatmaps).max() > 1e-3
    found = Reference(Predictor(model, flip_test=False), people)
    np.testing.assert_allclose(found.heatmaps, original.heatmaps, atol=1e-6)


def test_crops_without_labels(original):
    found = Reference(predictor(), original.crops + np.float32(0.2), whole=True)
    assert (found.judge, found.metric, found.value) == (None, None, None)
    np.testing.assert_array_equal(found.crops, np.rint(original.crops + np.float32(0.2)))


# --- an export ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, UDPCodec(1.0)], ids=["gaussian", "udp"])
@pytest.mark.parametrize("kind", ["heatmaps", "keypoints"])
def test_a_faithful_export_passes(people, kind, codec):
    """float32 sums in another order; at 96 pixels that is 1e-5, unless a peak is undecided."""
    model = dotted.network(codec)
    keras_model = Reference(Predictor(model, flip_test=False), people)
    conversion = litert.convert(getattr(outputs, kind)(model), "float32")
    found = measure(conversion, kind, keras_model, TOLERANCES["float32"])
    assert found.faults == () and (found.output, found.form, found.levels) == (kind, "float32", None)
    assert found.size == len(conversion.content) and found.value == keras_model.value
    assert found.parity.crops == 18 and found.parity.joints == 18 * 17 and found.parity.shift_95 < 1e-3
    if kind == "heatmaps":
        assert found.parity.correlation > 0.99999 and found.parity.largest < 1e-5
    else:
        assert found.parity.correlation is None


@pytest.mark.parametrize("kind", ["heatmaps", "keypoints"])
def test_a_wrong_export_is_judged_as_by_an_evaluation(original, people, kind):
    """Two joints swapped: the metric after is that of the swapped Keras model, and all of it is over the budget."""
    model = exchanged((0, 1))
    found = measure(litert.convert(getattr(outputs, kind)(model), "float32"), kind, original, TOLERANCES["int8"])
    wanted = evaluate(Predictor(model, flip_test=False), people, diagnose=False).value
    assert found.value == wanted < original.value - 0.02
    lost = f"loses {100 * (original.value - wanted):.2f} points of AP (budget 1)"
    other = "has heatmaps of correlation" if kind == "heatmaps" else "moves one joint in twenty by"
    assert found.faults[0] == lost and found.faults[1].startswith(other) and len(found.faults) == 2


def test_heatmaps_count_where_the_metric_sees_nothing(original):
    """A second, lower peak: the joints are where they were."""
    found = measure(
        litert.convert(outputs.heatmaps(exchanged((1, 0.7))), "float32"), "heatmaps", original, Tolerance(1, 0.99, 0)
    )
    assert found.value == pytest.approx(original.value, abs=0.01)
    (fault,) = found.faults
    # of 17 joints 15 are as they were; two dots far apart: 1 / sqrt(1 + 0.7^2) = 0.82 without the mean, a little less
    assert fault == f"has heatmaps of correlation {found.parity.correlation:.4f} (at least 0.99)"
    assert (15 + 2 * 0.75) / 17 < found.parity.correlation < (15 + 2 * 0.82) / 17


def test_without_labels(original):
    keras_model = Reference(predictor(), original.crops)
    model = exchanged((0, 1))
    faults = {}
    for kind in ("heatmaps", "keypoints"):
        found = measure(litert.convert(getattr(outputs, kind)(model), "float32"), kind, keras_model, TOLERANCES["int8"])
        assert found.value is None and len(found.faults) == 1
        faults[kind] = found.faults[0]
    assert "correlation" in faults["heatmaps"] and "joint in twenty" in faults["keypoints"]


def test_levels_of_int8(original):
    conversion = litert.convert(outputs.heatmaps(predictor().model), "int8", original.crops, least_crops=1)
    found = measure(conversion, "heatmaps", original, TOLERANCES["int8"])
    assert found.faults == () and 100 < found.levels <= 256


# --- budgets ------------------------------------------------------------------------------------------------------


def near(correlation=1.0, shift=0.0):
    return Parity(1, 1, 0, shift, 0, correlation)


@pytest.mark.parametrize(
    ("value", "parity", "words"),
    [
        (0.5, near(), ()),
        (0.49, near(), ()),
        (0.7, near(shift=9), ()),  # better, and with heatmaps the joints are not what counts
        (0.4899, near(), ("points of PCK",)),
        (None, near(0.9), ()),
        (None, near(0.8999), ("correlation",)),
        (None, near(None, 2.0), ()),
        (None, near(None, 2.01), ("one joint in twenty by 2.0 crop pixels (budget 2)",)),
        (0.4, near(0.8), ("loses 10.00 points of PCK (budget 1)", "correlation 0.8000 (at least 0.9)")),
        (np.nan, near(np.nan), ("loses", "correlation")),
        (0.5, near(None, np.nan), ("joint",)),
    ],
)
def test_budget(value, parity, words):
    keras_model = type("Made", (), {"metric": "PCK", "value": 0.5})
    faults = verify._faults(parity, keras_model, value, Tolerance(1.0 + 1e-9, 0.9, 2))
    assert len(faults) == len(words) and all(word in fault for word, fault in zip(words, faults, strict=True))


@pytest.mark.parametrize("field", ["points", "correlation", "shift"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_no_budget(field, value):
    with pytest.raises(InputError, match=f"The budget's {field} is {value}; give"):
        dataclasses.replace(STRICT, **{field: value})


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_other_joints(people):
    with pytest.raises(InputError, match=r"has 17 joints .* the network makes 3"):
        Reference(Predictor(dots.network(dotted.SIZE), flip_test=False), people)


def test_nobody(people):
    with pytest.raises(InputError, match="has no boxes of people"):
        Reference(predictor(), people.take([]))


def test_an_unreadable_image(tmp_path):
    people = dotted.folder(tmp_path, "val2017", 4)
    (tmp_path / "val2017" / "1.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1\.png cannot be read"):
        Reference(predictor(), people)


@pytest.mark.parametrize(
    ("crops", "words"),
    [
        (np.full((3, *dotted.SIZE, 3), np.nan), "from nan to nan"),
        (np.full((3, *dotted.SIZE, 3), 0.5), "from 0.5 to 0.5; give RGB 0..255"),
        (np.zeros((3, 64, 96, 3)), r"shape \(3, 64, 96, 3\); give people, or crops \(n, 96, 64, 3\)"),
        (np.full((3, *dotted.SIZE, 3), 30.0), "confident of no joint of these 3 crops"),
        (np.zeros((0, *dotted.SIZE, 3)), r"shape \(0, 96, 64, 3\)"),
    ],
)
def test_crops_that_show_nothing(crops, words):
    with pytest.raises(InputError, match=words):
        measure(
            litert.convert(outputs.heatmaps(predictor().model), "float32"),
            "heatmaps",
            Reference(predictor(), crops),
            FREE,
        )
