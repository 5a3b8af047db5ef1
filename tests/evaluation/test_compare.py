"""Why two results differ: each single change is what judging by hand gives."""

import dataclasses
from types import SimpleNamespace

import made_up
import numpy as np
import pytest

from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.compare import changes, differences
from keras_mrpose.evaluation.evaluate import PROTOCOLS
from keras_mrpose.evaluation.provenance import Settings

SOFT = {"codec": "dark", "flip_shift": False, "suppression": "soft", "oks_threshold": 0.5, "joint_threshold": 0.6}
DETECTED = {"kind": "detected", "file": "boxes.json", "count": 16}


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Annotated people and one network's predictions, found in a detector's boxes."""
    truth = made_up.folder(tmp_path_factory.mktemp("coco"))
    return SimpleNamespace(truth=truth, found=made_up.predictions(truth, twice=True))


def of(coco, found=None, **options):
    return made_up.result(found or coco.found, coco.truth, **{"boxes": DETECTED, **options})


def judged(coco, found, kind="ap", **settings):
    return PROTOCOLS[kind].score_fn(found, coco.truth, Settings(**settings)).value


def test_differences_are_told_by_name():
    one = {
        "evaluation": "ap",
        "settings": {"a": 1, "b": [2]},
        "boxes": {"kind": "annotated"},
        "time": 1,
        "command": "x",
    }
    other = {"evaluation": "ap", "settings": {"a": 1, "b": [3]}, "boxes": {"kind": "detected", "file": "f"}, "time": 2}
    assert differences(one, other) == [
        ("settings.b", [2], [3]),
        ("boxes.kind", "annotated", "detected"),
        ("boxes.file", None, "f"),
    ]
    assert differences(other, one)[-1] == ("boxes.file", "f", None)
    assert differences(one, one | {"time": 3, "command": "y"}) == []


def test_each_setting_alone(coco):
    """Five settings differ; what each of them does is judged here once more, by hand and from both sides."""
    first, second = of(coco), of(coco, **SOFT)
    found = changes(first, second, coco.truth)
    assert [(change.name, change.first, change.second) for change in found] == [
        (name, getattr(Settings(), name), value) for name, value in SOFT.items()
    ]
    effects = []
    for change in found:
        alone = judged(coco, coco.found, **{change.name: change.second}) - first.value
        back = judged(coco, coco.found, **SOFT | {change.name: change.first}) - second.value
        assert (change.of_first, change.of_second) == (alone, back)
        effects += [alone, back]
    assert np.count_nonzero(np.round(effects, 6)) >= 7  # the case is not idle
    assert changes(first, of(coco), coco.truth) == []


def test_what_was_not_kept_cannot_be_told(coco):
    """Without a flip test in its predictions, the second cannot be judged as if it had one; the first can without."""
    single = dataclasses.replace(
        coco.found, keypoints={way: found for way, found in coco.found.keypoints.items() if way.endswith("single")}
    )
    first, second = of(coco), of(coco, single, flip_test=False)
    (change,) = changes(first, second, coco.truth)
    assert (change.name, change.first, change.second, change.of_second) == ("flip_test", True, False, None)
    assert change.of_first == pytest.approx(second.value - first.value) and change.of_first < -0.05
    udp = made_up.predictions(coco.truth, codecs=("udp",), ways=("single", "flip"), twice=True)
    other = of(coco, udp, codec="udp", flip_shift=False)
    found = {change.name: (change.of_first, change.of_second) for change in changes(first, other, coco.truth)}
    assert found["codec"] == (None, None)  # neither network's heatmaps can be read by the other's codec
    assert found["flip_shift"] == (judged(coco, coco.found, flip_shift=False) - first.value, None)


@pytest.mark.parametrize(
    ("name", "differing"),
    [
        ("network", {"network": {"weights_sha256": "b"}}),
        ("boxes", {"boxes": {"kind": "annotated"}}),
        ("network and boxes", {"network": {"weights_sha256": "b"}, "boxes": {"kind": "annotated"}}),
    ],
)
def test_networks_and_boxes_are_seen_as_a_whole(coco, name, differing):
    """Each with the other's predictions under its own settings; the setting that differs as well stays apart."""
    worse = made_up.predictions(coco.truth, seed=1, noise=1.5)
    first, second = of(coco), of(coco, worse, codec="dark", **differing)
    codec, whole = changes(first, second, coco.truth)
    assert (codec.name, whole.name) == ("codec", name)
    assert codec.of_second == judged(coco, worse) - second.value
    assert whole.of_first == judged(coco, worse) - first.value < -0.1
    assert whole.of_second == judged(coco, coco.found, codec="dark") - second.value > 0.1


def test_pck_too(coco):
    found = made_up.predictions(coco.truth)
    first, second = of(coco, found, kind="pck"), of(coco, found, kind="pck", threshold=0.1)
    (change,) = changes(first, second, coco.truth)
    assert (change.name, change.first, change.second) == ("threshold", 0.2, 0.1)
    assert change.of_first == second.value - first.value == -change.of_second < -0.05


def test_results_read_from_files_compare_alike(coco, tmp_path):
    first, second = of(coco), of(coco, **SOFT)
    again = []
    for number, result in enumerate((first, second)):
        result.save(tmp_path / f"{number}.json")
        again.append(type(result).load(tmp_path / f"{number}.json"))
    assert changes(*again, coco.truth) == changes(first, second, coco.truth)


# --- wrong --------------------------------------------------------------------------------------------------------


def moved(found, pixels):
    return dataclasses.replace(found, keypoints={way: points + pixels for way, points in found.keypoints.items()})


def test_what_cannot_be_compared_is_told(coco, tmp_path):
    annotated = made_up.predictions(coco.truth)
    first, pck = of(coco), of(coco, annotated, kind="pck")
    other_truth = made_up.folder(tmp_path, seed=1)
    elsewhere = made_up.result(made_up.predictions(other_truth), other_truth)
    fewer = coco.truth.of_images([5, 3])
    cases = {
        "One result is AP, the other PCK; compare results of one protocol": (first, pck, coco.truth),
        "The two results are of different people": (first, elsewhere, coco.truth),
        "gives .*; give the same folder and split": (first, first, other_truth),
        "'images': 3.*'images': 2.*; give the same folder": (first, first, fewer),
    }
    for words, (one, other, truth) in cases.items():
        with pytest.raises(InputError, match=words):
            changes(one, other, truth)


@pytest.mark.parametrize("side", [0, 1])
def test_raw_predictions_of_another_result_are_noticed(coco, side):
    """Moved ones, those of fewer people (which PCK could not count at all), and those read in other ways."""
    annotated = made_up.predictions(coco.truth)
    unlike = made_up.predictions(coco.truth.take(slice(5)))
    gaussian = made_up.predictions(coco.truth, codecs=("gaussian",), ways=("flip",), twice=True)
    for options, found, wrong in (
        ({}, coco.found, moved(coco.found, 4)),
        ({}, coco.found, gaussian),
        ({"kind": "pck"}, annotated, moved(annotated, 4)),
        ({"kind": "pck"}, annotated, unlike),
    ):
        right = of(coco, found, **options)
        pair = [right, right]
        pair[side] = dataclasses.replace(right, predictions=wrong)
        with pytest.raises(InputError, match=r"beside a result of 0\.\d{6} do not give that number again"):
            changes(*pair, coco.truth)
