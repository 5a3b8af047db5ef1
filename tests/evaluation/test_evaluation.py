"""Evaluation: a perfect network scores 1, PCK as in a float64 loop, and a result says how it was made."""

import dataclasses
import itertools
import json
import math

import dots
import keras
import made_up
import numpy as np
import pytest
from PIL import Image

from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.data.images import read_image
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import predictions, provenance
from keras_mrpose.evaluation.evaluate import Result, evaluate
from keras_mrpose.evaluation.pck import pck
from keras_mrpose.evaluation.predictions import Predictions, decoder, predict
from keras_mrpose.evaluation.provenance import Settings, decode_variants
from keras_mrpose.models.networks import PoseModel
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import Skeleton

SIZES = ((150, 110), (90, 240), (130, 200))  # of the images: height, width
PLACES = ((0, 55, 75), (1, 60, 45), (1, 180, 45), (2, 70, 60), (2, 150, 75))  # image, x and y of a person's middle


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Five people of dots in three images; hip and shoulder about 40 pixels apart."""
    folder = tmp_path_factory.mktemp("dots")
    rng = np.random.default_rng(0)
    image = np.array([place[0] for place in PLACES])
    middles = np.array([place[1:] for place in PLACES])
    points = middles[:, None] + [[-10, 18], [12, -16], [0, -25]] + rng.uniform(-5, 5, (5, 3, 2))
    for number, size in enumerate(SIZES):
        Image.fromarray(dots.picture(size, points[image == number])).save(folder / f"{number}.png")
    return People(
        source=str(folder / "truth.json"),
        skeleton=dots.DOTS,
        image_paths=[str(folder / f"{number}.png") for number in range(3)],
        image_ids=range(3),
        image_index=image,
        ids=range(5),
        boxes=np.concatenate([middles - (25, 35), np.broadcast_to((50, 70), (5, 2))], axis=1),
        keypoints=np.concatenate([points, np.full((5, 3, 1), 2)], axis=-1),
        reference_length=np.full(5, 50),
        areas=np.full(5, 2500),
    )


@pytest.fixture(scope="module")
def predictor():
    return Predictor(dots.network(), batch_size=2)


def changed(people, **columns):
    return People(**{**vars(people), **columns})


@pytest.fixture(scope="module")
def noisy(people):
    """The same images with annotations that are up to 15 pixels off in x and y, and some missing.

    Two have noses, of whom one has no hip and does not count; the last has neither hip nor shoulder.
    """
    keypoints = people.keypoints.copy()
    keypoints[..., :2] += np.random.default_rng(1).uniform(-15, 15, (5, 3, 2))
    keypoints[:, 2, 2] = [2, 0, 1, 0, 0]
    keypoints[2, 0, 2] = keypoints[4, 0, 2] = 0
    keypoints[3, 1, 2] = 1  # hidden, yet labelled
    keypoints[4, 1, 2] = 0
    return changed(people, keypoints=keypoints)


def test_a_perfect_network_scores_one(people, predictor):
    """Errors of 3/8 and 1/4 heatmap pixels are 2.8 image pixels here; 0.2 torsos are about 8."""
    result = evaluate(predictor, people)
    assert (result.metric, result.value) == ("PCK", 1.0)
    assert (result.numbers["people"], result.numbers["people_without_torso"]) == (5, 0)
    assert result.numbers["joints"] == {"right_hip": 1.0, "left_shoulder": 1.0, "nose": 1.0}
    found = result.predictions.read(result.settings)
    assert np.linalg.norm(found[..., :2] - people.keypoints[..., :2], axis=-1).max() < 2.8
    assert result.diagnosis["all"] == {"count": 15, "good": 1.0, "jitter": 0, "inversion": 0, "swap": 0, "miss": 0}
    assert set(result.diagnosis["gains"].values()) == {0.0}


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.5])
def test_pck_against_a_float64_loop(noisy, predictor, threshold):
    """The curve at each of its 51 thresholds as well; its last is the PCK, and its area that of 50 trapezoids."""
    result = evaluate(predictor, noisy, threshold=threshold)
    errors, skipped = {}, 0
    for person, found in enumerate(result.predictions.read(result.settings)):
        joints = noisy.keypoints[person].tolist()
        if not (joints[0][2] and joints[1][2]):
            skipped += 1
            continue
        torso = math.dist(joints[0][:2], joints[1][:2])
        for name, (x, y, v), (a, b, _) in zip(dots.DOTS.joints, joints, found, strict=True):
            if v:
                errors.setdefault(name, []).append(math.dist((x, y), (a, b)) / torso)
    numbers = result.numbers
    assert skipped == numbers["people_without_torso"] == 2
    assert numbers["joints"] == {name: np.mean(np.less_equal(errors[name], threshold)) for name in dots.DOTS.joints}
    everything = np.concatenate(list(errors.values()))
    curve = [np.mean(everything <= threshold * step / 50) for step in range(51)]
    assert numbers["curve"] == pytest.approx(curve, abs=1e-15)
    assert numbers["thresholds"] == pytest.approx([threshold * step / 50 for step in range(51)])
    assert result.value == numbers["mean"] == curve[-1] == numbers["curve"][-1]
    assert numbers["area"] == pytest.approx(sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / 50)
    wrong = result.diagnosis["all"]
    assert wrong["good"] == pytest.approx(result.value)
    assert sum(result.diagnosis["gains"].values()) == pytest.approx(100 * (1 - result.value))  # PCK fixes one by one
    if threshold == 0.2:
        assert 0 < result.value < 1  # the case is not idle


def test_predictions_are_those_of_the_predictor(people, predictor):
    """Every way to read the heatmaps. The pipeline crops in float32, the predictor in float64: 1e-5 of 96 pixels."""
    found = predict(predictor, people)
    single = Predictor(predictor.model, flip_test=False)
    readers = {
        "gaussian/single": (single, GaussianCodec(1.0)),
        "gaussian/flip": (predictor, GaussianCodec(1.0, flip_shift=False)),
        "gaussian/flip+shift": (predictor, GaussianCodec(1.0)),
        "dark/single": (single, DarkCodec(1.0)),
        "dark/flip": (predictor, DarkCodec(1.0, flip_shift=False)),
        "dark/flip+shift": (predictor, DarkCodec(1.0)),
    }
    assert set(found.keypoints) == set(readers)
    for way, (like, codec) in readers.items():
        alone = Predictor(like.model, flip_test=like.flip_test, codec=codec)
        assert found.keypoints[way].shape == (5, 3, 3)
        for person, path in enumerate(people.paths()):
            wanted = alone(read_image(path), people.boxes[person : person + 1])[0]
            np.testing.assert_allclose(found.keypoints[way][person], wanted, atol=1e-3)
    assert len({joints.tobytes() for joints in found.keypoints.values()}) == 6  # they differ
    assert set(predict(single, people).keypoints) == {"gaussian/single", "dark/single"}


def test_the_graph_of_an_evaluation_is_kept_for_the_next(people, predictor, monkeypatch):
    both = [predictor, Predictor(predictor.model, flip_test=False)]
    wanted = [predict(one, people) for one in both]
    monkeypatch.setattr(predictions, "decoder", None)  # who makes a graph calls it
    for one, first in zip(both, wanted, strict=True):
        for way, keypoints in predict(one, people).keypoints.items():
            np.testing.assert_array_equal(keypoints, first.keypoints[way])
    with pytest.raises(TypeError):  # another one's graph is its own
        predict(Predictor(predictor.model), people)


@pytest.mark.parametrize("flip_test", [pytest.param(True, marks=pytest.mark.slow), False])
def test_compiled_reading_is_the_same(flip_test):
    """XLA may sum in another order: float32 rounding of smoothed maps' logs, far below a thousandth of a cell."""
    rng = np.random.default_rng(0)
    maps, flipped_heatmaps = np.abs(rng.normal(size=(2, 3, 24, 16, 3))).astype(np.float32)
    given = GaussianCodec(1.5), flip_test, dots.DOTS.flip_indices
    wanted = decoder(*given, compiled=False)(maps, flipped_heatmaps)
    found = decoder(*given, compiled=True)(maps, flipped_heatmaps)
    assert list(found) == list(wanted) == list(decode_variants(given[0], flip_test))
    for way, (points, scores) in wanted.items():
        np.testing.assert_allclose(found[way][0], points, rtol=0, atol=1e-3)
        np.testing.assert_array_equal(found[way][1], scores)


def test_only_codecs_of_one_scale_read_the_same_heatmaps():
    assert set(decode_variants(UDPCodec(2.0), True)) == {"udp/single", "udp/flip"}
    ways = decode_variants(DarkCodec(3.0), True)
    assert set(ways) == {f"{name}/{way}" for name in ("gaussian", "dark") for way in ("single", "flip", "flip+shift")}
    assert ways["gaussian/flip"] == (GaussianCodec(3.0, flip_shift=False), True)
    assert ways["dark/flip+shift"] == (DarkCodec(3.0), True)
    assert Settings("dark", flip_shift=False).decoding == "dark/flip"
    assert Settings(flip_test=False).decoding == "gaussian/single"


def test_codec_at_test_time(people, predictor):
    dark = Predictor(predictor.model, codec="dark")
    result = evaluate(dark, people)
    assert result.protocol["settings"]["codec"] == "dark"
    assert result.protocol["network"]["trained_with"]["codec"] == "GaussianCodec"
    found = result.predictions
    np.testing.assert_array_equal(found.read(result.settings), found.keypoints["dark/flip+shift"])
    wide = evaluate(Predictor(predictor.model, codec=DarkCodec(2.0)), people)  # of another sigma than the network's
    assert wide.protocol["codec"] == {"codec": "DarkCodec", "sigma": 2.0, "flip_shift": True}
    assert (wide.predictions.keypoints["dark/single"] != found.keypoints["dark/single"]).any()


def strict(path):
    """Parsed JSON; NaN and Infinity, which are none, fail."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_result_file(noisy, predictor, tmp_path):
    """With nobody's nose labelled, its share is null. What is read again is what was written."""
    result = evaluate(predictor, changed(noisy, keypoints=noisy.keypoints * [[1], [1], [0]]))
    file = tmp_path / "new" / "result.json"
    result.save(file)
    content = strict(file)
    assert set(content) == {"metric", "value", "numbers", "diagnosis", "protocol"}
    assert content["numbers"]["joints"]["nose"] is None
    protocol = content["protocol"]
    parts = {"evaluation", "settings", "data", "boxes", "codec", "network", "versions", "command", "time"}
    assert set(protocol) == parts
    assert protocol["evaluation"] == "pck" and protocol["boxes"] == {"kind": "annotated"}
    assert protocol["settings"] == {"codec": "gaussian", "flip_test": True, "flip_shift": True, "threshold": 0.2}
    annotations = protocol["data"]["annotations"]
    assert annotations.endswith("/truth.json") and annotations.count("/") == 1  # the same wherever the data lie
    assert (protocol["data"]["people"], protocol["data"]["images"]) == (5, 3)
    network = protocol["network"]
    assert (network["model"], network["input_size"], network["precision"]) == ("dots", [96, 64], "float32")
    gaussian = {"sigma": 1.0, "flip_shift": True, "published_border": True}
    assert network["trained_with"] == protocol["codec"] == gaussian | {"codec": "GaussianCodec"}
    assert set(protocol["versions"]) == {"python", "keras_mrpose", "keras", "tensorflow", "numpy", "pycocotools"}
    again = Result.load(file)
    assert vars(again) | {"predictions": None} == content | {"predictions": None}
    assert again.settings == result.settings
    for name in ("images", "ids", "image_ids", "boxes", "box_scores"):
        np.testing.assert_array_equal(getattr(again.predictions, name), getattr(result.predictions, name))
    assert again.predictions.input_size == (96, 64)
    for way, joints in result.predictions.keypoints.items():
        np.testing.assert_array_equal(again.predictions.keypoints[way], joints)


def test_hashes_tell_data_and_weights_apart(people, noisy, predictor):
    tables = (people, noisy, changed(people, boxes=people.boxes + 1), people.take(slice(4)))
    assert len({provenance.of_data(table)["sha256"] for table in tables}) == 4
    assert provenance.of_data(changed(people)) == provenance.of_data(people)
    other = Predictor(dots.network())
    before = provenance.of_network(other)
    assert before == provenance.of_network(predictor)
    weights = other.model.get_weights()
    weights[0].flat[0] += 1
    other.model.set_weights(weights)
    assert {name for name, value in provenance.of_network(other).items() if value != before[name]} == {"weights_sha256"}


def test_a_network_with_one_other_weight_is_another(people):
    """Also when it is none of the weights that a single prediction looks at, the last ones."""
    plain = dots.network()
    maps, first = plain.input, keras.layers.Dense(3, kernel_initializer="identity", use_bias=False)
    for layer in (first, *plain.layers[1:]):
        maps = layer(maps)
    predictor = Predictor(PoseModel(plain.input, maps, skeleton=plain.skeleton, codec=plain.codec, spec=plain.spec))
    assert evaluate(predictor, people).value == 1
    first.kernel.assign(first.kernel * (1, 1, 0))  # blue joints are not seen anymore
    assert evaluate(predictor, people).value == pytest.approx(2 / 3)


# --- wrong --------------------------------------------------------------------------------------------------------


def test_other_joints_are_refused(people, predictor):
    four = Skeleton("four", ("tail", "fin", "gill", "left_hand"))
    table = changed(people, skeleton=four, keypoints=np.zeros((5, 4, 3)))
    with pytest.raises(InputError, match=r"has 4 joints \(four\), the network makes 3 \(dots\)"):
        evaluate(predictor, table)


def test_people_without_a_torso_are_refused(people, predictor):
    plain = Skeleton("plain", ("red", "green", "blue"), flip_pairs=())
    other = Predictor(dots.network(skeleton=plain))
    with pytest.raises(InputError, match="Skeleton plain has no right hip and left shoulder"):
        evaluate(other, changed(people, skeleton=plain))
    nobody = changed(people, keypoints=people.keypoints * (1, 1, 0))
    with pytest.raises(InputError, match="has nobody with right hip and left shoulder labelled"):
        evaluate(predictor, nobody)


@pytest.mark.parametrize("threshold", [0.0, -0.2, math.nan])
def test_a_threshold_that_is_none_is_refused(people, predictor, threshold):
    with pytest.raises(InputError, match=r"threshold is .*; give a positive share"):
        evaluate(predictor, people, threshold=threshold)


def test_a_broken_image_is_named(people, predictor, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a image")
    with pytest.raises(InputError, match=rf"The image {broken} cannot be read"):
        evaluate(predictor, changed(people, image_paths=[*people.image_paths[:2], str(broken)]))


def test_heatmaps_that_are_no_numbers_are_refused(people):
    """Else every joint would silently be wrong."""
    broken = dots.network()
    broken.set_weights([np.full_like(values, np.nan) for values in broken.get_weights()])
    with pytest.raises(InputError, match="heatmaps of dots are not finite numbers; its weights are damaged"):
        evaluate(Predictor(broken, flip_test=False), people)


def test_result_cannot_be_changed(people, predictor):
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluate(predictor, people, diagnose=False).value = 1.0


def test_wrong_options_are_refused(people, predictor):
    for given, words in (
        ({"protocol": "voc"}, "Unknown protocol 'voc'; give one of ap, pckh, pck"),
        ({"protocol": "ap"}, "has dots joints; COCO's protocol needs its 17"),
        ({"suppression": "softly"}, "suppression 'softly'; give one of hard, soft, none"),
        ({"oks_threshold": math.nan}, "OKS threshold is nan; give a positive number"),
        ({"truth": changed(people)}, "Only COCO's protocol has detected boxes"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate(predictor, people, **given)
    with pytest.raises(InputError, match="no boxes of people"):
        evaluate(predictor, people.take(slice(0)))


def test_files_that_are_no_results_are_named(people, predictor, tmp_path):
    file = tmp_path / "result.json"
    with pytest.raises(InputError, match=r"result\.json is not there; give a result file that `evaluate` wrote"):
        Result.load(file)
    for content in ("{", "[]", '{"PCK@0.2": 1}'):
        file.write_text(content)
        with pytest.raises(InputError, match=r"result\.json is not a result file of this version"):
            Result.load(file)
    result = evaluate(predictor, people, diagnose=False)
    result.save(file)
    whole = file.read_text()
    for part in ("network", "data", "evaluation", "settings"):
        content = json.loads(whole)
        del content["protocol"][part]
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=rf"not a result file of this version \(no '{part}'\)"):
            Result.load(file)
    file.write_text(whole)
    (tmp_path / "result.npz").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"result\.npz does not hold raw predictions"):
        Result.load(file)
    (tmp_path / "result.npz").unlink()
    with pytest.raises(InputError, match=r"result\.npz is not there: the raw predictions lie beside"):
        Predictions.load(tmp_path / "result.npz")


def test_an_interval_of_people(people, predictor, noisy):
    """By drawing people and evaluating those; the width is that of the share's standard error, as draws are many."""
    result = evaluate(predictor, noisy, bootstrap=2000, diagnose=False)
    low, high = result.numbers["interval_95"]
    assert low <= result.value <= high
    found = result.predictions.read(result.settings)
    rng, chances, values = np.random.default_rng(0), np.full(5, 0.2), []
    for _ in range(2000):
        rows = np.repeat(np.arange(5), rng.multinomial(5, chances))
        drawn = noisy.take(rows)
        torsos_there = (drawn.keypoints[:, :2, 2] > 0).all(axis=1).any()
        values.append(pck(found[rows], drawn)["mean"] if torsos_there else 0.0)
    assert (low, high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))
    assert "interval_95" not in evaluate(predictor, noisy, diagnose=False).numbers
    with pytest.raises(InputError, match="bootstrap is -1; give a number of draws"):
        evaluate(predictor, people, bootstrap=-1)


def test_a_result_in_one_line_and_as_a_table(tmp_path):
    """The numbers are those of the result, in percent."""
    truth = made_up.folder(tmp_path)
    result = made_up.result(made_up.predictions(truth), truth)
    assert repr(result) == f"<Result AP {100 * result.value:.1f}: simplebaseline on 12 people>"
    lines = dict(line.rsplit(maxsplit=1) for line in str(result).splitlines()[1:])
    assert lines["AP75"] == f"{100 * result.numbers['AP75']:.1f}"
    assert lines["left_ankle"] == f"{100 * result.numbers['joint_oks']['left_ankle']:.1f}"
