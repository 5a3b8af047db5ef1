"""The three protocols on raw predictions: published numbers come out, whichever way the predictions came in."""

import json

import numpy as np
import pytest

from keras_mrpose.data import coco as coco_data
from keras_mrpose.data import mpii as mpii_data
from keras_mrpose.data.people import protocol_of
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import mpii
from keras_mrpose.evaluation.evaluate import PROTOCOLS, error_report
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.evaluation.provenance import Settings
from keras_mrpose.geometry import PADDING
from keras_mrpose.skeletons import COCO

SIZE = (256, 192)


@pytest.fixture(scope="module")
def golden(shared):
    """The golden detections as raw predictions: boxes that are padded to the golden windows."""
    content = np.load(shared / "golden" / "coco_eval.npz")
    centres, sides = content["boxes"][:, :2], content["boxes"][:, 2:4] * 200 / PADDING
    return Predictions(
        input_size=SIZE,
        images=np.unique(content["image_id"]),
        ids=np.arange(len(centres)),
        image_ids=content["image_id"],
        boxes=np.concatenate([centres - sides / 2, sides], axis=1),
        box_scores=content["boxes"][:, 5],
        keypoints={"gaussian/flip+shift": content["preds"]},
    )


@pytest.fixture(scope="module")
def truth(shared):
    file = shared / "golden" / "coco_eval_gt_538.json"
    return coco_data.parse(json.loads(file.read_text()), str(file), "images")


@pytest.mark.parametrize("name", ["official", "oks0.5", "no_nms", "vis0"])
def test_ten_numbers_are_the_published_ones(golden, truth, shared, name):
    """From raw predictions and boxes; tolerance as in the golden README, 1e-6."""
    variant = json.loads((shared / "golden" / "coco_eval.json").read_text())[name]
    settings = Settings(
        suppression="none" if name == "no_nms" else "hard",
        oks_threshold=variant["oks_thre"] or 0.9,
        joint_threshold=variant["in_vis_thre"],
    )
    scored = PROTOCOLS["ap"].score_fn(golden, truth, settings)
    assert {key: scored.numbers[key] for key in variant["stats"]} == pytest.approx(variant["stats"], rel=0, abs=1e-6)
    assert (scored.numbers["results"], scored.numbers["boxes"]) == (variant["kept"], variant["predictions"])
    assert scored.value == scored.numbers["AP"]
    assert scored.value_of(scored.keypoints) == scored.value
    assert scored.numbers["images"] == 538 and scored.numbers["people"] == len(truth)


def test_fewer_images_are_scored_by_themselves(golden, truth):
    """Those of the first people; all else is neither found nor missed."""
    some = truth.of_images(truth.image_ids[:50])
    inside = np.isin(golden.image_ids, some.image_ids)
    part = Predictions(
        **{
            **vars(golden),
            "keypoints": {"gaussian/flip+shift": golden.keypoints["gaussian/flip+shift"][inside]},
            **{name: getattr(golden, name)[inside] for name in ("ids", "image_ids", "boxes", "box_scores")},
        }
    )
    numbers = PROTOCOLS["ap"].score_fn(part, some, Settings()).numbers
    assert (numbers["images"], numbers["people"]) == (50, len(some)) and len(some) < len(truth)
    whole = PROTOCOLS["ap"].score_fn(golden, some, Settings()).numbers  # results of other images do not count
    assert {name: whole[name] for name in numbers if name not in ("boxes", "results")} == {
        name: value for name, value in numbers.items() if name not in ("boxes", "results")
    }


def test_corrected_misses_cannot_make_it_worse(golden, truth):
    scored = PROTOCOLS["ap"].score_fn(golden, truth, Settings())
    known = scored.rows >= 0
    corrected = scored.keypoints.copy()
    corrected[known, :, :2] = truth.keypoints[scored.rows[known], :, :2]
    assert scored.value_of(corrected) > scored.value + 0.02


def test_numbers_without_people_of_a_size_are_none(golden, truth):
    """pycocotools says -1."""
    large = truth.of_images(truth.image_ids[truth.image_index[truth.areas > 96**2]])
    medium = large.image_ids[large.image_index[large.areas <= 96**2]]
    only = large.of_images(np.setdiff1d(large.image_ids, medium))
    numbers = PROTOCOLS["ap"].score_fn(golden, only, Settings()).numbers
    assert numbers["APM"] is numbers["ARM"] is None and numbers["APL"] > 0.3


def test_nobody_annotated_is_told(golden, truth):
    empty = truth.of_images(np.setdiff1d(truth.image_ids, truth.image_ids[truth.image_index]))
    assert len(empty.image_ids) or len(truth.image_ids) == len(np.unique(truth.image_index))
    with pytest.raises(InputError, match="has nobody with keypoints in these images"):
        PROTOCOLS["ap"].score_fn(golden, truth.of_images([]), Settings())


def test_mpii_is_the_published_row(shared):
    """From the JSON's people, whose joints are rounded to 0.0001 pixels: a joint or two may fall on the other side."""
    folder = shared / "data" / "mpii"
    people = mpii_data.load(folder, "val", require_images=False)
    found = mpii.read_predictions(folder / "predictions" / "hg_s2_b1.mat")
    predictions = Predictions(
        input_size=(256, 256),
        images=people.image_ids,
        ids=people.ids,
        image_ids=people.image_ids[people.image_index],
        boxes=people.boxes,
        box_scores=people.scores,
        keypoints={"gaussian/flip+shift": np.concatenate([found, np.ones((*found.shape[:2], 1))], axis=-1)},
    )
    scored = PROTOCOLS["pckh"].score_fn(predictions, people, Settings())
    assert scored.value == scored.numbers["mean"] == pytest.approx(0.8730, abs=6e-5)
    assert scored.numbers["groups"]["Wrist"] == pytest.approx(0.8331, abs=6e-5)
    assert scored.value_of(people.keypoints) == 1.0
    errors = error_report(scored, people)  # pelvis and thorax are no more counted here than there
    assert errors["all"]["good"] == pytest.approx(scored.value, abs=1e-12)
    assert sum(errors["gains"].values()) == pytest.approx(100 * (1 - scored.value))
    assert errors["joints"]["pelvis"]["count"] == errors["joints"]["thorax"]["count"] == 0
    assert protocol_of(people) == "pckh"


def test_what_was_not_kept_is_told(golden, truth):
    with pytest.raises(InputError, match=r"kept as gaussian/flip\+shift, not as dark/flip\+shift; evaluate .* again"):
        PROTOCOLS["ap"].score_fn(golden, truth, Settings(codec="dark"))
    assert truth.skeleton == COCO and protocol_of(truth) == "ap"


def test_a_draw_of_images_is_what_pycocotools_makes_of_them(golden, truth):
    """Each image once is the AP itself; the images of one half, each once, are that half evaluated."""
    scored = PROTOCOLS["ap"].score_fn(golden, truth, Settings())
    assert scored.units == 538
    assert scored.value_of_draw(np.ones(538, int)) == pytest.approx(scored.value, abs=1e-12)
    images = np.sort(truth.image_ids)  # the order of pycocotools
    half = PROTOCOLS["ap"].score_fn(golden, truth.of_images(images[:269]), Settings())
    assert scored.value_of_draw((np.arange(538) < 269).astype(int)) == pytest.approx(half.value, abs=1e-12)
    assert scored.value_of_draw(np.full(538, 2)) == pytest.approx(scored.value, abs=0.01)  # all twice
    assert scored.value_of_draw(np.ones(538, int)) == pytest.approx(scored.value, abs=1e-12)  # nothing was changed
