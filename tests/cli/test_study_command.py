"""`mrpose study`: options arrive, mistakes are one sentence; and (slow) two small networks from start to table."""

import re

import commands
import numpy as np
import pytest
from commands import call

from keras_mrpose.cli import study as command
from keras_mrpose.study import report
from keras_mrpose.synthetic import dataset
from keras_mrpose.training.config import Experiment


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Drawn people: of one folder to train on, of another to measure on."""
    work = tmp_path_factory.mktemp("study")
    dataset.write(work / "drawn", 8, size=(120, 160))
    dataset.write(work / "drawn", 4, split="val2017", first_index=8, size=(120, 160))
    dataset.write(work / "others", 8, split="val2017", first_index=20, size=(120, 160))
    return work


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lsp", ("lsp", "lsp", "val")),
        ("/data/lsp.v1", ("lsp-v1", "/data/lsp.v1", "val")),
        ("a/lsp:train", ("lsp", "a/lsp", "train")),
        ("held=a/lsp:train[-200:]", ("held", "a/lsp", "train[-200:]")),
        ("held=a/lsp:val+train[:10%]", ("held", "a/lsp", "val+train[:10%]")),
        (r"lsp=C:\data\lsp", ("lsp", r"C:\data\lsp", "val")),
        (r"lsp=C:\data\lsp:train", ("lsp", r"C:\data\lsp", "train")),
    ],
)
def test_parts_of_a_test(text, parts):
    assert command._parts(text) == parts


OPTIONS = ("study", "coco-mrfeanet1-mobile", "--data", "WORK/drawn", "--out", "WORK/study")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--test", "WORK/nowhere"), "nowhere is not there"),
        (("--test", "WORK/others", "--test", "WORK/others:train"), "--test has the name 'others' twice"),
        (("--test", "all=others"), "'all' twice or it is taken"),
        (("--test", "WORK/drawn:train"), "8 images of test 'drawn' are trained on"),
        (("--test", "WORK/others", "--networks", "mrfeanet1"), "give at least two"),
        (("--test", "WORK/others", "--protocol", "pckh"), "PCKh needs MPII's 16 joints"),
        (("--test", "WORK/others", "--bootstrap", "0"), "--bootstrap is 0"),
    ],
)
def test_a_mistake_is_one_sentence(run, work, options, words, capfd):
    commands.refused(run, (*OPTIONS, *options), words, {"WORK": work}, capfd)


@pytest.mark.slow
def test_two_networks_from_start_to_table(run, work, capfd):
    small = ("--backbone", "tiny_v1b", "--input-size", "64", "32", "--batch-size", "4", "--epochs", "1")
    options = (
        *("study", "coco-mrfeanet1-mobile", "--data", work / "drawn", "--test", f"drawn={work / 'others'}", *small),
        *("--networks", "simplebaseline,mrheatnet1", "--out", work / "small", "--bootstrap", "20"),
    )
    assert call(run, *options, "--seeds", 1) == 0
    first = report.read(work / "small" / "study.json")
    assert first["seeds"] == [0] and set(first["costs"]["mrheatnet1"]["milliseconds"]) == {"float32", "int8"}
    before = {path: path.stat().st_mtime_ns for path in (work / "small").rglob("simplebaseline-0/*.keras")}
    assert len(before) == 2
    capfd.readouterr()
    assert call(run, *options, "--seeds", 2, "--no-timing") == 0
    printed = capfd.readouterr().out
    assert "simplebaseline-0 is finished" in printed
    assert before == {path: path.stat().st_mtime_ns for path in before}
    content = report.read(work / "small" / "study.json")
    assert content["seeds"] == [0, 1] and content["costs"] == first["costs"]
    values = content["tests"]["drawn"]["values"]
    assert np.shape([values[name] for name in content["networks"]]) == (2, 2)
    assert values["mrheatnet1"][0] == first["tests"]["drawn"]["values"]["mrheatnet1"][0]
    config = Experiment.load(work / "small" / "mrheatnet1-1" / "config.json")
    assert (config.model, config.recipe.seed, config.recipe.epochs) == ("mrheatnet1", 1, 1)
    assert re.search(r"^\| `mrheatnet1` \| [+-]\d", printed, re.MULTILINE)
    places = {"WORK": work}
    commands.refused(run, (*map(str, options), "--sigma", "3"), r"sigma is 2.0, now 3.0", places, capfd)
