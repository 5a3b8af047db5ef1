"""Verification: its numbers are those of an evaluation and of NumPy, and what is broken does not pass."""

import dataclasses
import functools

import dots
import dotted
import numpy as np
import pytest

from keras_mrpose.codecs import UDPCodec
from keras_mrpose.data import pipeline
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import evaluate
from keras_mrpose.export import litert, outputs, verify
from keras_mrpose.export.verify import TOLERANCES, Parity, Reference, Tolerance, measure, parity
from keras_mrpose.models.networks import precision
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import Skeleton

FREE = Tolerance(100, 0, 1e9)
STRICT = Tolerance(0, 1, 0)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """18 people, two more than a batch, whose annotations are a little off."""
    return dotted.folder(tmp_path_factory.mktemp("verify"), "val2017", 18, noise=3.0)


@functools.cache
def predictor():
    return Predictor(dotted.network(), flip_test=False)


@pytest.fixture(scope="module")
def reference(people):
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


def test_the_keras_model_is_scored_as_by_an_evaluation(reference, people):
    assert reference.value == evaluate(predictor(), people, diagnose=False).value
    assert reference.metric == "AP" and 0.1 < reference.value < 0.9
    crops = np.concatenate([crops for crops, _ in pipeline.batches(people, dotted.SIZE, 5)])
    np.testing.assert_array_equal(reference.crops, crops)
    points, scores = predictor().keypoints(crops)
    # the same sums in batches of other sizes, and a quarter cell is decided by them
    np.testing.assert_allclose(reference.points, points, atol=1e-3)
    np.testing.assert_allclose(reference.scores, scores, atol=1e-5)


def test_lsps_protocol(people):
    """By the skeleton and the source: dots have no data set of their own, and no file."""
    colours = dataclasses.replace(people, source="dots", skeleton=dots.DOTS, keypoints=people.keypoints[:, :3])
    colours = dataclasses.replace(colours, protocol="")
    found = Reference(Predictor(dots.network(dotted.SIZE), flip_test=False), colours)
    assert found.metric == "PCK" and 0.3 < found.value < 1


def test_a_network_trained_in_bfloat16_is_compared_in_float32(reference, people):
    """The export is float32; rounding to 8 bits is nothing that it is to repeat."""
    with precision("mixed_bfloat16"):
        model = dotted.network()
    rounded = model.predict_on_batch(reference.crops)
    assert np.abs(rounded - reference.heatmaps).max() > 1e-3
    found = Reference(Predictor(model, flip_test=False), people)
    np.testing.assert_allclose(found.heatmaps, reference.heatmaps, atol=1e-6)


def test_crops_without_labels(reference):
    found = Reference(predictor(), reference.crops + np.float32(0.2), whole=True)
    assert (found.score_fn, found.metric, found.value) == (None, None, None)
    np.testing.assert_array_equal(found.crops, np.rint(reference.crops + np.float32(0.2)))


# --- an export ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, UDPCodec(1.0)], ids=["gaussian", "udp"])
@pytest.mark.parametrize("kind", ["heatmaps", "keypoints"])
def test_a_faithful_export_passes(people, kind, codec):
    """float32 sums in another order; at 96 pixels that is 1e-5, unless a peak is undecided."""
    model = dotted.network(codec)
    reference = Reference(Predictor(model, flip_test=False), people)
    conversion = litert.convert(getattr(outputs, kind)(model), "float32")
    found = measure(conversion, kind, reference, TOLERANCES["float32"])
    assert found.faults == () and (found.output, found.precision, found.levels) == (kind, "float32", None)
    assert found.size == len(conversion.content) and found.value == reference.value
    assert found.parity.crops == 18 and found.parity.joints == 18 * 17 and found.parity.shift_95 < 1e-3
    if kind == "heatmaps":
        assert found.parity.correlation > 0.99999 and found.parity.largest < 1e-5
    else:
        assert found.parity.correlation is None


@pytest.mark.parametrize("kind", ["heatmaps", "keypoints"])
def test_a_wrong_export_is_scored_as_by_an_evaluation(reference, people, kind):
    """Two joints swapped: the metric after is that of the swapped Keras model, and all is beyond the tolerance."""
    model = exchanged((0, 1))
    found = measure(litert.convert(getattr(outputs, kind)(model), "float32"), kind, reference, TOLERANCES["int8"])
    wanted = evaluate(Predictor(model, flip_test=False), people, diagnose=False).value
    assert found.value == wanted < reference.value - 0.02
    lost = f"loses {100 * (reference.value - wanted):.2f} points of AP (tolerance 1)"
    other = "has heatmaps of correlation" if kind == "heatmaps" else "moves one joint in twenty by"
    assert found.faults[0] == lost and found.faults[1].startswith(other) and len(found.faults) == 2


def test_heatmaps_count_where_the_metric_sees_nothing(reference):
    """A second, lower peak: the joints are where they were."""
    found = measure(
        litert.convert(outputs.heatmaps(exchanged((1, 0.7))), "float32"), "heatmaps", reference, Tolerance(1, 0.99, 0)
    )
    assert found.value == pytest.approx(reference.value, abs=0.01)
    (fault,) = found.faults
    # of 17 joints 15 are as they were; two dots far apart: 1 / sqrt(1 + 0.7^2) = 0.82 without the mean, a little less
    assert fault == f"has heatmaps of correlation {found.parity.correlation:.4f} (at least 0.99)"
    assert (15 + 2 * 0.75) / 17 < found.parity.correlation < (15 + 2 * 0.82) / 17


def test_without_labels(reference):
    reference = Reference(predictor(), reference.crops)
    model = exchanged((0, 1))
    faults = {}
    for kind in ("heatmaps", "keypoints"):
        found = measure(litert.convert(getattr(outputs, kind)(model), "float32"), kind, reference, TOLERANCES["int8"])
        assert found.value is None and len(found.faults) == 1
        faults[kind] = found.faults[0]
    assert "correlation" in faults["heatmaps"] and "joint in twenty" in faults["keypoints"]


def test_levels_of_int8(reference):
    conversion = litert.convert(outputs.heatmaps(predictor().model), "int8", reference.crops, min_crops=1)
    found = measure(conversion, "heatmaps", reference, TOLERANCES["int8"])
    assert found.faults == () and 100 < found.levels <= 256


# --- tolerances ---------------------------------------------------------------------------------------------------


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
        (None, near(None, 2.01), ("one joint in twenty by 2.0 crop pixels (tolerance 2)",)),
        (0.4, near(0.8), ("loses 10.00 points of PCK (tolerance 1)", "correlation 0.8000 (at least 0.9)")),
        (np.nan, near(np.nan), ("loses", "correlation")),
        (0.5, near(None, np.nan), ("joint",)),
    ],
)
def test_tolerance(value, parity, words):
    reference = type("Made", (), {"metric": "PCK", "value": 0.5})
    faults = verify._faults(parity, reference, value, Tolerance(1.0 + 1e-9, 0.9, 2))
    assert len(faults) == len(words) and all(word in fault for word, fault in zip(words, faults, strict=True))


@pytest.mark.parametrize("field", ["points", "correlation", "shift"])
@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf])
def test_no_tolerance(field, value):
    with pytest.raises(InputError, match=f"The tolerance's {field} is {value}; give"):
        dataclasses.replace(STRICT, **{field: value})


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_other_joints(people):
    with pytest.raises(InputError, match=r"has 17 joints .* the network makes 3"):
        Reference(Predictor(dots.network(dotted.SIZE, Skeleton("abc", tuple("abc"))), flip_test=False), people)


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


# --- parity ----------------------------------------------------------------------------------------------------------

SHAPE = (5, 24, 18, 3)  # crops, height, width, joints


@pytest.fixture
def case():
    """Points, scores and heatmaps of an original, and of another that differs by noise."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 70, (5, 3, 2))
    scores = rng.uniform(0.31, 1, (5, 3))
    heatmaps = rng.uniform(0, 1, SHAPE).astype(np.float32)
    return points, points + rng.normal(0, 2, points.shape), scores, heatmaps, heatmaps + rng.normal(0, 0.1, SHAPE)


def test_parity_of_equal_outputs(case):
    points, _, scores, heatmaps, _ = case
    found = parity(points, points, scores, heatmaps, heatmaps)
    assert found.correlation == pytest.approx(1, abs=1e-12) and found.correlation_worst == pytest.approx(1, abs=1e-12)
    assert (found.crops, found.joints, found.same_peak, found.largest) == (5, 15, 1, 0)
    assert (found.shift_median, found.shift_95, found.shift_worst) == (0, 0, 0)


def test_numbers_are_those_of_numpy(case):
    """Of the confident joints alone; the largest difference is that of all cells."""
    points, other_points, scores, heatmaps, other = case
    scores[1, 2] = scores[3, 0] = 0.29
    other_points[1, 2] += 1000
    other[3, :, :, 0] = 7
    found = parity(points, other_points, scores, heatmaps, other)
    confident = [(crop, joint) for crop in range(5) for joint in range(3) if scores[crop, joint] >= 0.3]
    correlations = [np.corrcoef(heatmaps[c, ..., j].ravel(), other[c, ..., j].ravel())[0, 1] for c, j in confident]
    peaks = [heatmaps[c, ..., j].argmax() == other[c, ..., j].argmax() for c, j in confident]
    shifts = sorted(np.hypot(*(points[c, j] - other_points[c, j])) for c, j in confident)
    assert found.joints == len(confident) == 13
    assert found.correlation == pytest.approx(np.mean(correlations), abs=1e-6)  # heatmaps are float32
    assert found.correlation_worst == pytest.approx(min(correlations), abs=1e-6)
    assert found.same_peak == np.mean(peaks) and 0 < found.same_peak < 1
    assert found.shift_median == pytest.approx(shifts[6]) and found.shift_worst == pytest.approx(shifts[-1])
    assert found.shift_95 == pytest.approx(shifts[11] + 0.4 * (shifts[12] - shifts[11]))  # 0.95 x 12 = 11.4
    assert found.largest == pytest.approx(np.abs(heatmaps - other).max())


def test_parity_by_hand():
    """One map turned upside down, one constant, one whose peak is elsewhere."""
    original, other = np.zeros((1, 4, 5, 3)), np.zeros((1, 4, 5, 3))
    original[0, 1, 2] = 1
    other[0, 1, 2, 0] = -1
    other[0, :, :, 1] = 0.5
    other[0, 3, 0, 2] = 1
    points = np.zeros((1, 3, 2))
    moved = points + np.array([[3, 4], [0, 0], [5, 12]])
    found = parity(points, moved, np.ones((1, 3)), original, other)
    # two single cells of twenty: (0 - 1/20) / (1 - 1/20)
    assert found.correlation == pytest.approx((-1 + 0 - 1 / 19) / 3)
    assert found.correlation_worst == pytest.approx(-1)
    assert (found.same_peak, found.largest) == (0, 2)
    assert (found.shift_median, found.shift_worst) == (5, 13)


def test_parity_of_joints_alone(case):
    points, other_points, scores, *_ = case
    found = parity(points, other_points, scores)
    assert found.shift_worst == pytest.approx(np.linalg.norm(points - other_points, axis=-1).max())
    assert [found.correlation, found.correlation_worst, found.same_peak, found.largest] == [None] * 4


def test_how_confident_is_an_option(case):
    points, other_points, scores, *_ = case
    scores[:] = 0.2
    scores[2, 1] = 0.1
    assert parity(points, other_points, scores, confident=0.2).joints == 14


@pytest.mark.parametrize("broken", ["original", "export"])
def test_a_broken_network_is_not_alike(case, broken):
    """NaN stays NaN, which is beyond every tolerance."""
    points, other_points, scores, heatmaps, other = case
    (heatmaps if broken == "original" else other)[0, 0, 0, 0] = np.nan
    found = parity(points, other_points, scores, heatmaps, other)
    assert not found.correlation > 0 and not found.correlation_worst > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": np.full((5, 3), 0.29)}, r"confident of no joint of these 5 crops \(no score of 0.3\)"),
        ({"exported_points": np.zeros((5, 4, 2))}, r"makes \(5, 4, 2\) of what the original makes \(5, 3, 2\)"),
        ({"exported_heatmaps": np.zeros((5, 24, 17, 3))}, r"makes \(5, 24, 17, 3\) of what"),
    ],
)
def test_outputs_that_cannot_be_compared(case, change, words):
    names = ("points", "exported_points", "scores", "heatmaps", "exported_heatmaps")
    with pytest.raises(InputError, match=words):
        parity(**(dict(zip(names, case, strict=True)) | change))
