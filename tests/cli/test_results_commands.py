"""`mrpose compare` and `mrpose results`: tables with nothing cut short, and a letter for what was done otherwise."""

import copy
import dataclasses
import json
import re
from pathlib import Path

import commands
import made_up
import pytest
from commands import call

from keras_mrpose import Result
from keras_mrpose.cli import results
from keras_mrpose.data import coco as coco_data
from keras_mrpose.evaluation import coco, mpii
from keras_mrpose.evaluation.compare import changes


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


TEN = dict(zip(coco.NUMBERS, range(610, 620), strict=True))
GROUPS = dict(zip(mpii.GROUPS, range(810, 817), strict=True))


def content(kind="ap", network=None, **protocol):
    """A result file's content: made as the published numbers were, but for the given parts of the protocol."""
    if kind == "ap":
        settings = {"suppression": "hard", "oks_threshold": 0.9, "joint_threshold": 0.2}
        boxes = {
            "kind": "detected",
            "file": "person_detection_results/COCO_val2017_detections_AP_H_56_person.json",
            "count": 104125,
        }
        metric, numbers, size, people = "AP", {name: n / 1000 for name, n in TEN.items()}, [256, 192], 6352
    else:
        settings, boxes = {}, {"kind": "annotated"}
        numbers = {"mean": 0.822, "groups": {name: n / 1000 for name, n in GROUPS.items()}}
        metric, size, people = "PCKh@0.5", [256, 256], 2958
    network = {"model": "mrfeanet2", "backbone": "resnet50_v1b", "input_size": size} | (network or {})
    standard = {
        "evaluation": kind,
        "settings": {"codec": "gaussian", "flip_test": True, "flip_shift": True} | settings,
        "data": {"annotations": "annotations/file.json", "people": people, "images": 5000},
        "boxes": boxes,
        "network": network,
    }
    value = numbers["AP" if kind == "ap" else "mean"]
    protocol = {
        name: part | protocol.get(name, {}) if name != "evaluation" else kind for name, part in standard.items()
    }
    return {"metric": metric, "value": value, "numbers": numbers, "diagnosis": None, "protocol": protocol}


def written(folder, content, name="result.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def rows(text, name):
    """The cells of the lines that begin so."""
    return [line.split() for line in text.splitlines() if line.split()[:1] == [name]]


# --- results ------------------------------------------------------------------------------------------------------


def test_made_as_published(run, tmp_path, capsys):
    """Below its row, without a letter; each row is one of the paper's."""
    files = written(tmp_path / "mine", content()), written(tmp_path / "other", content("pckh"), "result-b.json")
    assert call(run, "results", *files) == 0
    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    (row,) = rows(text, "mine")
    assert row[1:] == [f"{number / 10:.1f}" for number in TEN.values()]
    above = lines[lines.index(" ".join(row)) - 1]
    assert above == "coco-mrfeanet2 70.9 88.8 78.3 67.2 78.1 76.8 93.0 83.6 72.2 83.4"
    (row,) = rows(text, "other/result-b.json")
    assert row[1:] == [f"{number / 10:.1f}" for number in (*GROUPS.values(), 822)]
    above = lines[lines.index(" ".join(row)) - 1]
    assert above == "mpii-mrfeanet2 96.6 95.4 88.9 83.9 88.5 84.6 80.9 88.9"
    assert "published: " not in text and "Without a row" not in text
    assert len(re.findall("^coco-", text, re.MULTILINE)) == 9 and len(re.findall("^mpii-", text, re.MULTILINE)) == 15


DEVIATIONS = {
    "settings.codec is dark, published: gaussian": {"settings": {"codec": "dark"}},
    "settings.flip_test is False, published: True": {"settings": {"flip_test": False}},
    "settings.flip_shift is False, published: True": {"settings": {"flip_shift": False}},
    "settings.suppression is soft, published: hard": {"settings": {"suppression": "soft"}},
    "settings.oks_threshold is 0.5, published: 0.9": {"settings": {"oks_threshold": 0.5}},
    "settings.joint_threshold is 0.0, published: 0.2": {"settings": {"joint_threshold": 0.0}},
    "data.images is 300, published: 5000": {"data": {"images": 300}},
    "data.people is 538, published: 6352": {"data": {"people": 538}},
    "boxes.file is dir/boxes.json, published: person_detection_results/COCO_val2017_detections_AP_H_56_person.json": {
        "boxes": {"file": "dir/boxes.json"}
    },
    "network.input_size is 384x288, published: 256x192": {"network": {"input_size": [384, 288]}},
    "network.backbone is resnet50, published: resnet50_v1b": {"network": {"backbone": "resnet50"}},
}


def test_each_deviation_has_its_letter_and_sentence(run, tmp_path, capsys):
    """The same deviation has the same letter in every row; one with two has both."""
    files = [written(tmp_path / f"run{place}", content(**change)) for place, change in enumerate(DEVIATIONS.values())]
    files.append(written(tmp_path / "both", content(settings={"codec": "dark"}, data={"images": 300})))
    assert call(run, "results", *files) == 0
    text = capsys.readouterr().out
    letters = {}
    for place, sentence in enumerate(DEVIATIONS):
        ((*_, letter),) = rows(text, f"run{place}")
        assert f"\n{letter}: {sentence}\n" in text
        letters[letter] = sentence
    assert sorted(letters) == list("abcdefghijk")
    ((*_, both),) = rows(text, "both")
    assert {letters[letter] for letter in both} == {
        "settings.codec is dark, published: gaussian",
        "data.images is 300, published: 5000",
    }


def test_letters_never_run_out(run, tmp_path, capsys):
    """On 80 columns the rows of the paper stay whole, whatever the names and letters of ours."""
    files = [written(tmp_path / f"run{n}", content(data={"people": n}, settings={"codec": "dark"})) for n in range(53)]
    assert call(run, "results", *files) == 0
    text = capsys.readouterr().out
    assert rows(text, "run52")[0][-1] == "a(54)" and rows(text, "run50")[0][-1] == "aZ"
    assert "\n(54): data.people is 52, published: 6352\n" in text and "\nZ: data.people is 50," in text
    worst = {"settings": {"codec": "dark", "flip_test": False, "suppression": "soft", "oks_threshold": 0.5}}
    worst |= {"data": {"people": 3, "images": 2}, "boxes": {"file": "x"}, "network": {"input_size": [96, 64]}}
    assert call(run, "results", written(tmp_path / "a-run-of-many-characters-in-its-name", content(**worst))) == 0
    text = capsys.readouterr().out
    assert rows(text, "a-run-of-many-")[0][1:11] == [f"{number / 10:.1f}" for number in TEN.values()]
    assert len(rows(text, "coco-simplebaseline-r152")[0]) == 11 and " characters-in-its-name" in text
    table = text[: text.index("\na: ")]
    assert max(map(len, table.splitlines())) <= 80
    assert sorted(letter for line in table.splitlines() for letter in line[75:].strip(" ─")) == list("abcdefgh")


def test_boxes_that_have_no_file_deviate_too(run, tmp_path, capsys):
    annotated = content()
    annotated["protocol"]["boxes"] = {"kind": "annotated"}
    detected = content("pckh", boxes={"kind": "detected"})
    assert call(run, "results", written(tmp_path / "one", annotated), written(tmp_path / "two", detected)) == 0
    text = capsys.readouterr().out
    assert "a: boxes.file is not given, published: person_detection_results/" in text
    assert "a: boxes.kind is detected, published: annotated" in text  # each table has letters of its own


def test_results_without_a_row_are_listed_too(run, tmp_path, capsys):
    """Another network, another data set or another protocol; whatever is long goes on in the next line."""
    tiny = content(network={"backbone": "tiny_v1b"})
    plain = content(network={"model": "dots", "backbone": None})
    pck = content() | {"metric": "PCK", "value": 0.5}
    pck["protocol"] = pck["protocol"] | {"evaluation": "pck"}
    runs = {"a-run-of-a-long-name-that-tells-all": tiny, "plain": plain, "pck": pck}
    assert call(run, "results", *(written(tmp_path / name, result) for name, result in runs.items())) == 0
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    listed = text[text.index("Without a row in the paper") :]
    together = "".join(listed.split())
    for word in ("tiny_v1b", "256x192", "dots"):
        assert word in together
    assert "61.0" in listed and "50.0" in listed and listed.count("AP ") == 2


def test_unreadable_files_are_left_out_with_a_note_unless_named(run, tmp_path, capsys, monkeypatch):
    """saved_models may hold results of older versions."""
    monkeypatch.chdir(tmp_path)
    old = written(Path("saved_models/old"), {"PCK@0.2": {"mean": 0.5}, "people": 3})
    written(Path("saved_models/new"), content())
    written(Path("saved_models/new"), content(settings={"codec": "dark"}), "result-dark.json")
    assert call(run, "results") == 0
    told = capsys.readouterr()
    assert told.err.startswith(f"left out: {old} is not a result file of this version") and told.err.count("\n") == 1
    assert rows(told.out, "new") and rows(told.out, "new/result-dark.json")[0][-1] == "a"
    assert call(run, "results", old) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {old} is not a result file of this version") and not told.out


def test_without_results_the_paper_is_shown(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(run, "results") == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "coco-mrfeanet2-r152      72.6 89.4 80.4 69.4 79.3 78.2 93.4 85.2 74.1 84.2" in text


def test_deviations_do_not_look_at_what_was_not_published():
    expected = {"settings.codec": "gaussian", "network.input_size": [256, 192], "boxes.file": "b"}
    result = {"protocol": {"settings": {"codec": "dark", "more": 1}, "network": {"input_size": [256, 192]}}}
    assert results.deviations(result, expected) == [
        "settings.codec is dark, published: gaussian",
        "boxes.file is not given, published: b",
    ]


# --- compare ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two results of the same people: other heatmap reading, other NMS, another network with long words."""
    root = tmp_path_factory.mktemp("pair")
    truth = made_up.folder(root / "data")
    sha = {"weights_sha256": "0123456789abcdef" * 4, "colour": "RGB, published preprocessing"}
    made_up.result(made_up.predictions(truth, twice=True), truth, network=sha).save(root / "one" / "result.json")
    other = {"weights_sha256": "f" * 64, "colour": "RGB, torchvision preprocessing", "input_size": [384, 288]}
    worse = made_up.predictions(truth, seed=1, ways=("single",), twice=True)
    settings = {"flip_test": False, "suppression": "none"}
    made_up.result(worse, truth, network=other, **settings).save(root / "two" / "result.json")
    return root


def test_compare_lists_what_differs(run, pair, capsys):
    one, two = pair / "one" / "result.json", pair / "two" / "result.json"
    assert call(run, "compare", one, two) == 0
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 82  # the last sentence is one line
    assert rows(text, "settings.flip_test") == [["settings.flip_test", "True", "False"]]
    assert rows(text, "network.input_size") == [["network.input_size", "256x192", "384x288"]]
    assert rows(text, "network.weights_sha256") == [["network.weights_sha256", "0123456789ab", "ffffffffffff"]]
    values = [json.loads(file.read_text())["value"] for file in (one, two)]
    assert rows(text, "AP") == [["AP", *(f"{100 * value:.2f}" for value in values)]]
    assert "command" not in text and "o'clock" not in text and "settings.codec" not in text
    assert "--data DIR, the folder with the annotations, shows what each difference costs." in text


def test_compare_with_the_data_tells_the_costs(run, pair, capsys):
    one, two = pair / "one" / "result.json", pair / "two" / "result.json"
    assert call(run, "compare", one, two, "--data", pair / "data") == 0
    text = capsys.readouterr().out
    first, second = Result.load(one), Result.load(two)
    assert f"(the second is {100 * (second.value - first.value):+.2f} from the first)" in " ".join(text.split())
    effects = {change.name: change for change in changes(first, second, coco_data.load(pair / "data", "val", False))}
    assert list(effects) == ["flip_test", "suppression", "network"]
    flip, suppression = effects["flip_test"], effects["suppression"]
    assert f"flip_test: True -> False {100 * flip.of_first:+.2f}" in " ".join(text.split())
    (line,) = rows(text, "suppression:")
    assert line[1:] == [
        "hard",
        "->",
        "none",
        f"{100 * suppression.of_first:+.2f}",
        f"{100 * suppression.of_second:+.2f}",
    ]
    assert text.count("not kept") == 2  # the second has no flip test, neither for itself nor for the first


def test_compare_of_one_with_itself(run, pair, capsys):
    one = pair / "one" / "result.json"
    for options in ((), ("--data", pair / "data")):
        assert call(run, "compare", one, one, *options) == 0
        assert "The two were made in the same way." in capsys.readouterr().out


def test_compare_of_what_changes_no_number(run, pair, tmp_path, capsys):
    """Other versions alone: there is nothing to judge again."""
    result = Result.load(pair / "one" / "result.json")
    protocol = copy.deepcopy(result.protocol) | {"versions": {"keras": "9.9"}}
    dataclasses.replace(result, protocol=protocol).save(tmp_path / "newer.json")
    files = pair / "one" / "result.json", tmp_path / "newer.json"
    assert call(run, "compare", *files, "--data", pair / "data") == 0
    text = capsys.readouterr().out
    assert rows(text, "versions.keras") == [["versions.keras", "-", "9.9"]]
    assert "None of it can be evaluated again." in text and "What each difference" not in text


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mistakes(pair, tmp_path_factory):
    work = tmp_path_factory.mktemp("mistakes")
    truth = made_up.folder(work / "data", seed=1)
    made_up.result(made_up.predictions(truth), truth).save(work / "other.json")
    (work / "text.json").write_text("no JSON")
    written(work, [], "list.json")
    written(work, content(), "alone.json")
    return {"WORK": work, "PAIR": pair}


ONE, TWO = "PAIR/one/result.json", "PAIR/two/result.json"
MISTAKES = {
    "gone": (("compare", ONE, "WORK/gone.json"), r"gone\.json is not there; give a result file that `evaluate` wrote"),
    "text": (("compare", "WORK/text.json", ONE), r"text\.json is not a result file of this version"),
    "list": (("results", "WORK/list.json"), r"list\.json is not a result file of this version"),
    "without predictions": (("compare", ONE, "WORK/alone.json"), r"alone\.npz is not there: the raw predictions lie"),
    "other people": (
        ("compare", ONE, "WORK/other.json", "--data", "PAIR/data"),
        r"two results are of different people",
    ),
    "other data": (("compare", ONE, TWO, "--data", "WORK/data"), r"give the same folder and split"),
    "no data": (("compare", ONE, TWO, "--data", "WORK/gone"), r"data folder .*gone is not there"),
    "other split": (("compare", ONE, TWO, "--data", "PAIR/data", "--split", "x"), r"keypoints_x\.json is not there"),
    "one result": (("compare", ONE), r"required: B\.json"),
    "results": (("results", "WORK/gone.json"), r"gone\.json is not there"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, mistakes, name, capfd):
    commands.refused(run, *MISTAKES[name], mistakes, capfd)
