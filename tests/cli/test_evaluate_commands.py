"""`mrpose evaluate`, `evaluate-results`, `upper-bound` on drawn people: options arrive, a mistake is one sentence."""

import json
import shutil

import commands
import numpy as np
import pytest
from commands import call
from scipy.io import savemat

import keras_mrpose
from keras_mrpose.data import coco as coco_data
from keras_mrpose.evaluation import coco, predictions
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.synthetic import dataset

FIRST, SPLIT = 6, "val2017"  # a drawn image's number is its index plus 1


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def drawn(work):
    """Four images of seven people."""
    dataset.write(work / "drawn", 4, seed=3, split=SPLIT, first_index=FIRST)
    return work / "drawn"


@pytest.fixture(scope="module")
def annotations(drawn):
    return json.loads((drawn / "annotations" / f"person_keypoints_{SPLIT}.json").read_text())


@pytest.fixture(scope="module")
def network(work):
    """A run folder with an untrained network: what it finds is arbitrary, but always the same."""
    model = keras_mrpose.build("simplebaseline", backbone="tiny_v1b", input_shape=(96, 64, 3), skeleton="coco")
    (work / "run" / "logs").mkdir(parents=True)
    model.save(work / "run" / "best.keras")
    return work / "run"


@pytest.fixture(scope="module")
def boxes(work, annotations):
    """The annotated boxes of two images, found twice, and an uncertain one."""
    images = [image["id"] for image in annotations["images"]]
    records = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": person["bbox"], "score": score}
        for score in (0.9, 0.8)
        for person in annotations["annotations"]
        if person["image_id"] in images[:2]
    ]
    records.append({"image_id": images[2], "category_id": 1, "bbox": [5, 6, 50, 60], "score": 0.1})
    return written(work / "boxes.json", records)


@pytest.fixture(scope="module")
def test_dev(work, drawn, annotations):
    """A folder of the images alone, as COCO's test-dev split has them."""
    folder = work / "testdev"
    (folder / "annotations").mkdir(parents=True)
    shutil.copytree(drawn / SPLIT, folder / "test2017")
    written(folder / "annotations" / "image_info_test-dev2017.json", {"images": annotations["images"]})
    return folder


def written(file, content):
    file.write_text(json.dumps(content))
    return file


def numbers_of(file):
    return json.loads(file.read_text())


# --- evaluate -----------------------------------------------------------------------------------------------------


def test_annotated_boxes(run, network, drawn, work, capsys):
    """The command's result is that of `keras_mrpose.evaluate`."""
    assert call(run, "evaluate", network, "--data", drawn) == 0
    text = capsys.readouterr().out
    for words in (*coco.NUMBERS, "right_ankle", "inversion", "7 boxes", "7 people in 4 images", "annotated boxes"):
        assert words in text
    assert "after hard OKS-NMS 0.9" in text and "flip test and shift, codec gaussian" in text
    found = numbers_of(network / "result.json")
    wanted = keras_mrpose.evaluate(keras_mrpose.Predictor(network), coco_data.load(drawn))
    assert found["numbers"] == wanted.numbers and found["diagnosis"] == wanted.diagnosis
    assert found["protocol"]["settings"] == wanted.protocol["settings"]
    assert found["protocol"]["command"].split()  # how it was called
    assert list((network / "logs" / "diagnosis").glob("events*"))
    again = Predictions.load(network / "result.npz")
    np.testing.assert_array_equal(again.keypoints["dark/flip"], wanted.predictions.keypoints["dark/flip"])


def test_every_option_arrives(run, network, drawn, boxes, work, capsys):
    out = work / "new" / "options.json"
    options = ("--codec", "dark", "--no-flip", "--suppression", "soft", "--oks-threshold", 0.7)
    options += ("--joint-threshold", 0.1, "--boxes", boxes, "--box-threshold", 0.5, "--no-diagnosis", "--out", out)
    before = commands.contents(network)
    assert call(run, "evaluate", network / "best.keras", "--data", drawn, *options) == 0
    assert commands.contents(network) == before
    found = numbers_of(out)
    assert found["protocol"]["settings"] == {
        "codec": "dark",
        "flip_test": False,
        "flip_shift": True,
        "suppression": "soft",
        "oks_threshold": 0.7,
        "joint_threshold": 0.1,
    }
    made = found["protocol"]["boxes"]
    assert (made["kind"], made["count"], made["lowest_score"]) == ("detected", found["numbers"]["boxes"], 0.8)
    assert made["images_of_people_without_boxes"] == 2 and found["numbers"]["images"] == 4
    assert found["diagnosis"] is None
    text = capsys.readouterr().out
    assert "no flip test, codec dark" in text and "inversion" not in text and "after soft OKS-NMS 0.7" in text
    assert "note: 2 of the 4 images have annotated people but no box in this file" in " ".join(text.split())


@pytest.mark.slow
def test_fewer_images(run, network, drawn, boxes, work, capsys):
    """Those with boxes, or those of the first people; their people are counted all."""
    people = coco_data.load(drawn)
    counts = np.bincount(people.image_index).tolist()
    out = work / "fewer.json"
    options = ("--data", drawn, "--no-diagnosis", "--no-flip", "--out", out)
    for more, images in (
        (("--boxes", boxes, "--images-with-boxes"), 3),
        (("--people", counts[0] + 1), 2),
    ):
        assert call(run, "evaluate", network, *options, *more) == 0
        numbers = numbers_of(out)["numbers"]
        assert (numbers["images"], numbers["people"]) == (images, sum(counts[:images]))
        assert "note:" not in capsys.readouterr().out


@pytest.mark.slow
def test_another_protocol(run, network, drawn, work, capsys):
    out = work / "pck.json"
    options = ("--protocol", "pck", "--threshold", 0.5, "--no-flip", "--out", out)
    assert call(run, "evaluate", network, "--data", drawn, *options) == 0
    found = numbers_of(out)
    assert found["metric"] == "PCK" and found["value"] == found["numbers"]["mean"] > 0
    assert found["protocol"]["settings"]["threshold"] == 0.5 and "suppression" not in found["protocol"]["settings"]
    text = capsys.readouterr().out
    assert "PCK@0.5" in text and f"{100 * found['value']:.1f}" in text
    assert f"{network} on annotations/person_keypoints_{SPLIT}.json" in text  # in one piece


# --- for a server -------------------------------------------------------------------------------------------------


def test_results_for_a_server(run, network, test_dev, boxes, capsys):
    """Of images that nobody has annotated here; the file is what the server reads."""
    arguments = ("evaluate", network, "--data", test_dev, "--split", "test-dev2017", "--boxes", boxes, "--format-only")
    assert call(run, *arguments) == 0
    file = network / "person_keypoints_test-dev2017_results.json"
    content = numbers_of(file)
    coco.check_results(content, str(file), range(FIRST + 1, FIRST + 5))
    assert {record["image_id"] for record in content} == {FIRST + 1, FIRST + 2, FIRST + 3}
    assert capsys.readouterr().out == f"{len(content)} people written to {file}\n"
    file.unlink()


@pytest.mark.slow
def test_results_for_a_server_are_those_of_an_evaluation(run, network, drawn, boxes, annotations, work):
    """Measured as `evaluate-results` does they give the evaluation's numbers; also of fewer images."""
    options = ("--data", drawn, "--boxes", boxes, "--suppression", "none", "--no-flip", "--no-diagnosis", "--people", 1)
    assert call(run, "evaluate", network, *options, "--out", work / "few.json") == 0
    assert call(run, "evaluate", network, *options, "--out", work / "results.json", "--format-only") == 0
    results, numbers = numbers_of(work / "results.json"), numbers_of(work / "few.json")["numbers"]
    image = annotations["images"][0]["id"]
    assert len(results) == numbers["results"] and {record["image_id"] for record in results} == {image}
    ten = coco.average_precision(drawn / "annotations" / f"person_keypoints_{SPLIT}.json", results, [image])
    assert {name: None if number == -1 else number for name, number in ten.items()} == {
        name: numbers[name] for name in ten
    }


# --- evaluate-results and upper-bound ------------------------------------------------------------------------------


def truth_as_results(annotations, shift=0):
    """Every person exactly as annotated, `shift` pixels to the right."""
    joints = [np.reshape(person["keypoints"], (17, 3)) for person in annotations["annotations"]]
    images = [person["image_id"] for person in annotations["annotations"]]
    return coco.results_json(np.array(joints) + np.array((shift, 0.0, 0)), images, np.ones(len(images)))


def test_evaluate_coco_results(run, drawn, annotations, work, capsys):
    """Of any program, against the annotation file or the data folder; nothing is written."""
    file = written(work / "perfect.json", truth_as_results(annotations))
    before = commands.contents(work)
    truth = drawn / "annotations" / f"person_keypoints_{SPLIT}.json"
    told = []
    for options in (("--data", drawn), ("--annotations", truth), ("--data", drawn, "--split", SPLIT)):
        assert call(run, "evaluate-results", file, *options) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] == told[2]
    assert "100.0" in told[0] and "OKS in the 7 of 7 people found" in told[0] and "-100" not in told[0]
    assert call(run, "evaluate-results", file, "--data", drawn, "--faster") == 0
    ten = capsys.readouterr().out
    assert ten in told[0]
    shifted = written(work / "shifted.json", truth_as_results(annotations, shift=200))
    assert call(run, "evaluate-results", shifted, "--data", drawn) == 0
    assert "OKS in the 0 of 7 people found" in capsys.readouterr().out
    shifted.unlink()
    assert commands.contents(work).keys() == before.keys()


def test_evaluate_mpii_predictions(run, work, capsys):
    """From MATLAB's tables, which count from 1: two people, an ankle of one is off by more than half of its head."""
    rng = np.random.default_rng(0)
    joints = rng.uniform(50, 200, (16, 2, 2))
    (work / "mpii" / "annot").mkdir(parents=True)
    heads = np.array([[0.0, 0], [30, 40]])[..., None] * np.ones(2)  # a diagonal of 50: a size of 30
    truth = {"jnt_missing": np.zeros((16, 2)), "pos_gt_src": joints, "headboxes_src": heads}
    savemat(work / "mpii" / "annot" / "gt_valid.mat", truth)
    found = joints.transpose(2, 0, 1).copy()
    found[0, 0] += (15.1, 0)
    savemat(work / "found.mat", {"preds": found})
    assert call(run, "evaluate-results", work / "found.mat", "--data", work / "mpii") == 0
    text = capsys.readouterr().out
    assert "75.00" in text and f"{100 * 27 / 28:.2f}" in text  # ankles, and all 14 joints of two people


def test_upper_bound(run, drawn, work, capsys, monkeypatch):
    """A line for each size and codec: no noise, flip test, noise, both; whole images of the first people."""
    from keras_mrpose.evaluation import upper_bound

    asked = []

    def made_up(people, codec, size, *, protocol, flip_test=False, noise=0.0):
        asked.append((people, type(codec).__name__, size, protocol, flip_test, noise))
        return len(asked) / 100

    monkeypatch.setattr(upper_bound, "upper_bound", made_up)
    shutil.copytree(drawn / "annotations", work / "no images" / "annotations")
    options = ("--people", 1, "--noise", 0.25, "--protocol", "pck")
    assert call(run, "upper-bound", "--data", work / "no images", *options) == 0
    text = capsys.readouterr().out
    assert len(asked) == 3 * 3 * 4 and "36.00" in text and "noise 0.25" in text and "PCK" in text
    people = coco_data.load(drawn)
    (first,) = {one[0] for one in asked}
    assert first.ids.tolist() == people.ids[people.image_index == people.image_index[0]].tolist()
    assert first.image_ids.tolist() == [people.image_ids[people.image_index[0]]]  # nobody else counts as missed
    assert [one[1] for one in asked[::4]] == ["GaussianCodec", "DarkCodec", "UDPCodec"] * 3
    assert {one[3:] for one in asked} == {("pck", flip, noise) for flip in (False, True) for noise in (0, 0.25)}


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mistakes(work, network, drawn, boxes, test_dev, annotations):
    """Files and folders with something wrong; placeholders of the table below."""
    (work / "file").write_text("a file, no folder")
    (work / "empty").mkdir()
    written(work / "none.json", [])
    written(work / "other.json", [{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1.0}])
    results = truth_as_results(annotations)
    written(work / "others.json", [*results, results[0] | {"image_id": 99}])
    (work / "nan.json").write_text(json.dumps([results[0], results[1] | {"score": float("nan")}]))
    people = annotations["annotations"]
    nobody = [person | {"keypoints": [0] * 51, "num_keypoints": 0} for person in people]
    (work / "nobody" / "annotations").mkdir(parents=True)
    nobody = annotations | {"annotations": nobody}
    written(work / "nobody" / "annotations" / f"person_keypoints_{SPLIT}.json", nobody)
    shutil.copytree(drawn / SPLIT, work / "nobody" / SPLIT)
    category = annotations["categories"][0] | {"keypoints": [f"joint{number}" for number in range(17)]}
    (work / "others" / "annotations").mkdir(parents=True)
    others = annotations | {"categories": [category]}
    written(work / "others" / "annotations" / f"person_keypoints_{SPLIT}.json", others)
    shutil.copytree(drawn / SPLIT, work / "others" / SPLIT)
    (work / "lsp" / "images").mkdir(parents=True)
    for number in range(1, 11):
        shutil.copy(drawn / SPLIT / f"{FIRST + 1:012d}.jpg", work / "lsp" / "images" / f"im{number:05d}.jpg")
    points = np.random.default_rng(0).uniform(10, 100, (14, 3, 10))
    points[:, 2] = 1
    savemat(work / "lsp" / "joints.mat", {"joints": points})
    model = keras_mrpose.Predictor(network).model
    model.set_weights([np.full_like(values, np.nan) for values in model.get_weights()])
    model.save(work / "nan.keras")
    savemat(work / "short.mat", {"preds": np.ones((1, 16, 2))})
    keys = {"WORK": work, "RUN": network, "DATA": drawn, "LSP": work / "lsp", "BOXES": boxes, "DEV": test_dev}
    return keys | {"PERFECT": written(work / "right.json", results)}


EVALUATE = ("evaluate", "RUN", "--data", "DATA")
FORMAT = (*EVALUATE, "--format-only")
DEV = ("evaluate", "RUN", "--data", "DEV", "--split", "test-dev2017")
RESULTS = ("evaluate-results", "PERFECT")
BOUND = ("upper-bound", "--data", "DATA")
MISTAKES = {
    "run": (("evaluate", "WORK/gone", "--data", "DATA"), r"gone is not there; give a \.keras file"),
    "empty run": (("evaluate", "WORK/empty", "--data", "DATA"), r"has none of best\.keras, last\.keras"),
    "weights of nan": (("evaluate", "WORK/nan.keras", "--data", "DATA"), r"has values that are not finite numbers"),
    "data": (("evaluate", "RUN", "--data", "WORK/gone"), r"data folder .*gone is not there"),
    "no joint in both": (
        ("evaluate", "RUN", "--data", "WORK/others"),
        r"has 17 joints \(.*\), the network makes 17 \(coco\), and no name is in both",
    ),
    "split": ((*EVALUATE, "--split", "x"), r"person_keypoints_x\.json is not there"),
    "nobody": (("evaluate", "RUN", "--data", "WORK/nobody"), r"nobody who is not left out: 7 without a labelled joint"),
    "nobody annotated": (
        ("evaluate", "RUN", "--data", "WORK/nobody", "--boxes", "BOXES"),
        r"nobody who is not left out: 7 without a labelled joint",
    ),
    "codec": ((*EVALUATE, "--codec", "drak"), r"'drak'\. Did you mean dark"),
    "codec of another scale": ((*EVALUATE, "--codec", "udp"), r"UDPCodec.* cannot read the heatmaps of"),
    "protocol": ((*EVALUATE, "--protocol", "voc"), r"Unknown protocol 'voc'; give one of ap, pckh, pck"),
    "protocol of others": ((*EVALUATE, "--protocol", "pckh"), r"has the joints of coco; PCKh needs MPII's"),
    "suppression": ((*EVALUATE, "--suppression", "softly"), r"'softly'; give one of hard, soft, none"),
    "threshold": ((*EVALUATE, "--threshold", "0"), r"threshold is 0\.0"),
    "oks threshold": ((*EVALUATE, "--oks-threshold", "nan"), r"OKS threshold is nan"),
    "bootstrap": ((*EVALUATE, "--bootstrap", "-3"), r"bootstrap is -3; give a number of draws"),
    "people": ((*EVALUATE, "--people", "-1"), r"--people is -1; give a number of at least 1"),
    "out": ((*EVALUATE, "--out", "WORK/file/r.json"), r"file/r\.json cannot be written; give another --out"),
    "box threshold without boxes": ((*EVALUATE, "--box-threshold", "0.5"), r"are for a detector's boxes; give --boxes"),
    "images with boxes of all": ((*EVALUATE, "--images-with-boxes"), r"are for a detector's boxes; give --boxes FILE"),
    "out of another kind": ((*EVALUATE, "--out", "WORK/r.npz"), r"--out is .*r\.npz; give a file name .* \.json"),
    "boxes": ((*EVALUATE, "--boxes", "WORK/gone.json"), r"gone\.json is not there; give the file of a person"),
    "boxes of text": ((*EVALUATE, "--boxes", "WORK/file"), r"file cannot be read as JSON"),
    "boxes of nobody": ((*EVALUATE, "--boxes", "WORK/none.json"), r"none\.json has no boxes of people"),
    "boxes of confident people only": (
        (*EVALUATE, "--boxes", "BOXES", "--box-threshold", "2"),
        r"has no boxes of people",
    ),
    "boxes of other images": ((*EVALUATE, "--boxes", "WORK/other.json"), r"other\.json: record 0 has image_id 99"),
    "boxes for pck": ((*EVALUATE, "--boxes", "BOXES", "--protocol", "pck"), r"Only COCO's protocol has detected"),
    "test-dev": (DEV, r"has no annotated people of test-dev2017; --format-only with --boxes FILE writes"),
    "test-dev with boxes": ((*DEV, "--boxes", "BOXES"), r"has no annotated people of test-dev2017; --format-only"),
    "format of annotated test-dev": ((*DEV, "--format-only"), r"has no annotated people of test-dev2017"),
    "format of nobody": ((*FORMAT, "--boxes", "WORK/none.json"), r"none\.json has no boxes of people"),
    "format of lsp": (("evaluate", "RUN", "--data", "LSP", "--format-only"), r"has lsp joints; --format-only writes"),
    "format people": ((*FORMAT, "--people", "0"), r"--people is 0"),
    "format suppression": ((*FORMAT, "--suppression", "x"), r"'x'; give one of hard, soft, none"),
    "score without truth": (
        RESULTS,
        r"right\.json needs COCO annotations to be evaluated; give --annotations FILE, or",
    ),
    "score of nothing": (
        ("evaluate-results", "WORK/gone.json", "--data", "DATA"),
        r"gone\.json is not there; give results",
    ),
    "score of text": (("evaluate-results", "WORK/file", "--data", "DATA"), r"file cannot be read as JSON"),
    "score of boxes": (("evaluate-results", "BOXES", "--data", "DATA"), r"boxes\.json: record 0 has keypoints None"),
    "score of nobody": (("evaluate-results", "WORK/none.json", "--data", "DATA"), r"none\.json holds no results"),
    "score of another split": (
        ("evaluate-results", "WORK/others.json", "--data", "DATA"),
        r"others\.json: record 7 has image_id 99, expected one of the annotated images",
    ),
    "score of nan": (("evaluate-results", "WORK/nan.json", "--data", "DATA"), r"nan\.json: record 1 has score nan"),
    "score against nobody": ((*RESULTS, "--data", "WORK/nobody"), r"has nobody with keypoints, so that there is no AP"),
    "score against another split": ((*RESULTS, "--data", "DATA", "--split", "x"), r"person_keypoints_x\.json is not"),
    "score against no file": ((*RESULTS, "--annotations", "WORK/gone.json"), r"gone\.json is not there"),
    "score of mpii": (
        ("evaluate-results", "WORK/short.mat"),
        r"short\.mat holds predictions for MPII; give --data DIR",
    ),
    "score of mpii without truth": (
        ("evaluate-results", "WORK/short.mat", "--data", "DATA"),
        r"gt_valid\.mat is not there",
    ),
    "upper bound data": (("upper-bound", "--data", "WORK/gone"), r"data folder .*gone is not there"),
    "upper bound of nobody": (
        ("upper-bound", "--data", "WORK/nobody"),
        r"nobody who is not left out: 7 without a labelled joint",
    ),
    "upper bound people": ((*BOUND, "--people", "-2"), r"--people is -2; give a number of at least 1"),
    "upper bound noise": ((*BOUND, "--noise", "-0.1"), r"--noise is -0\.1; give a number of at least 0"),
    "upper bound noise of nan": ((*BOUND, "--noise", "nan"), r"--noise is nan"),
    "upper bound protocol": ((*BOUND, "--protocol", "voc"), r"Unknown protocol 'voc'; give one of"),
    "upper bound protocol of others": (
        ("upper-bound", "--data", "LSP", "--protocol", "ap"),
        r"COCO's protocol needs its 17",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, mistakes, name, capfd, monkeypatch):
    """And it is told before the network runs, which on all boxes of a detector takes hours."""
    monkeypatch.setattr(predictions, "_finder", None)
    commands.refused(run, *MISTAKES[name], mistakes, capfd)
