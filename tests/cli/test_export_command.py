"""`mrpose export`: a folder and a table; a refusal has the table, too; every mistake is one sentence."""

import dataclasses
import json
import shutil

import commands
import dotted
import pytest
from commands import call

import keras_mrpose
from keras_mrpose.export import TOLERANCES, bundle


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def data(work):
    """17 images of two people to calibrate with, 5 to check on."""
    for split, people, seed in (("train2017", 34, 1), ("val2017", 10, 0)):
        dotted.folder(work / "data", split, people, seed)
    return work / "data"


@pytest.fixture(scope="module")
def network(work):
    (work / "run").mkdir()
    dotted.network().save(work / "run" / "best.keras")
    return work / "run"


@pytest.fixture(autouse=True)
def few_crops(monkeypatch):
    monkeypatch.setattr(bundle, "CALIBRATION", 32)


def test_folder_and_table(run, network, data, capsys, monkeypatch):
    """In the run folder, unless told otherwise; a table of 80 columns in which no name is cut; the same page there."""
    monkeypatch.setenv("COLUMNS", "80")
    assert call(run, "export", network, "--data", data, "--outputs", "heatmaps,keypoints") == 0
    told = capsys.readouterr()
    report = json.loads((network / "export" / "report.json").read_text())
    assert list(report["files"]) == [
        f"{output}_{precision}.tflite"
        for output in ("heatmaps", "keypoints")
        for precision in ("float32", "float16", "int8")
    ]
    assert report["crops"] == 10 and (network / "export" / "decoder.py").exists()
    lines = told.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80 and told.err == ""
    for name, one in report["files"].items():
        (line,) = [line for line in lines if line.startswith(name.removesuffix(".tflite"))]
        assert f"{100 * report['before']:.2f} -> {100 * one['value']:.2f}" in line
    assert lines[-1].startswith(f"written to {network / 'export'};")
    assert call(run, "export", network, "--data", data, "--formats", "float32", "--overwrite") == 0
    assert list(json.loads((network / "export" / "report.json").read_text())["files"]) == ["heatmaps_float32.tflite"]
    shutil.rmtree(network / "export")


def test_every_option_arrives(run, network, data, work, monkeypatch):
    asked = {}

    def made_up(model, folder, formats, **options):
        asked.update(options, model=model, folder=folder, formats=formats)
        raise keras_mrpose.InputError("far enough")

    monkeypatch.setattr(keras_mrpose, "export_litert", made_up)
    options = ("--formats", "int8, dynamic", "--outputs", "keypoints", "--people", 3, "--split", "train2017")
    options += (
        "--calibration",
        "val",
        "--input-type",
        "uint8",
        "--output-type",
        "int8",
        "--deconv",
        "transpose",
        "--float-layers",
        "a",
        "b",
    )
    options += (
        "--tolerance",
        "int8.points=2.5",
        "--tolerance",
        "int8.shift=7",
        "--tolerance",
        "float16.correlation=0.5",
    )
    file = network / "best.keras"
    assert call(run, "export", file, "--data", data, "--out", work / "out", "--overwrite", *options) == 2
    people, calibration = asked.pop("people"), asked.pop("calibration")
    assert people.source.endswith("train2017.json") and calibration.source.endswith("val2017.json")
    assert (len(people), len(people.image_ids), len(calibration)) == (4, 2, 10)  # whole images
    assert asked == {
        "model": file,
        "folder": work / "out",
        "formats": ["int8", "dynamic"],
        "outputs": ["keypoints"],
        "input_type": "uint8",
        "output_type": "int8",
        "deconvolution": "transpose",
        "float_layers": ["a", "b"],
        "overwrite": True,
        "tolerances": {
            "int8": dataclasses.replace(TOLERANCES["int8"], points=2.5, shift=7),
            "float16": dataclasses.replace(TOLERANCES["float16"], correlation=0.5),
        },
    }
    assert call(run, "export", network, "--data", data, "--formats", "float32", "--calibration", "gone") == 2
    assert asked["calibration"] is None and asked["folder"] == network / "export"  # int8 alone needs these people
    assert len(asked["people"]) == 10 and asked["tolerances"] == {}


def test_refused(run, network, data, capsys):
    """The table that says why, exit code 2, one message, and no folder."""
    before = commands.contents(network)
    options = ("--formats", "float32,int8", "--tolerance", "int8.correlation=2")
    assert call(run, "export", network, "--data", data, *options) == 2
    told = capsys.readouterr()
    assert "heatmaps_int8 " in told.out and "FULLY_CONNECTED" in told.out and "written" not in told.out
    assert told.err.startswith("error: Nothing was written: heatmaps_int8.tflite has heatmaps of correlation")
    assert told.err.count("\n") == 1 and "heatmaps_float32" not in told.err
    assert commands.contents(network) == before


@pytest.mark.slow
def test_bad_images_of_the_calibration_are_left_out_and_listed(run, network, data, work, capsys, monkeypatch):
    """One is damaged, one is gone; the files are there, the report and the exit code tell."""
    monkeypatch.setattr(bundle, "CALIBRATION", 44)
    mixed = work / "mixed"
    dotted.folder(mixed, "train2017", 44, 1)
    dotted.folder(mixed, "val2017", 4, 0)
    (mixed / "train2017" / "3.png").write_bytes(b"\x89PNG")
    (mixed / "train2017" / "5.png").unlink()
    options = ("--data", mixed, "--formats", "int8", "--out", work / "without-two")
    assert call(run, "export", network, *options) == 1
    report = json.loads((work / "without-two" / "report.json").read_text())
    assert 32 <= report["calibration"] <= 40
    assert sorted({one["image"][-5:] for one in report["skipped"]}) == ["3.png", "5.png"]
    assert "3.png cannot be read" in (work / "without-two" / "report.md").read_text()
    head, *lines = capsys.readouterr().err.splitlines()
    assert head == "int8 is calibrated without these images:" and len(lines) == 2
    assert "3.png cannot be read" in lines[0] and "5.png cannot be read (No such file" in lines[1]

    for number in range(8, 16):
        (mixed / "train2017" / f"{number}.png").write_bytes(b"")
    assert call(run, "export", network, *options, "--overwrite") == 2
    assert "people to calibrate int8 with, skipped" in capsys.readouterr().err


EXPORT = ("export", "RUN", "--data", "DATA")
MISTAKES = {
    "run": (("export", "WORK/gone", "--data", "DATA"), r"gone is not there; give a \.keras"),
    "data": (("export", "RUN", "--data", "WORK/gone"), r"data folder .*gone is not there"),
    "split": ((*EXPORT, "--split", "x"), r"person_keypoints_x\.json is not there"),
    "calibration": ((*EXPORT, "--calibration", "x"), r"person_keypoints_x\.json is not there"),
    "few": ((*EXPORT, "--calibration", "val"), "has 10 people to calibrate int8 with; give at least 32"),
    "people": ((*EXPORT, "--people", "0"), "--people is 0; give a number of at least 1"),
    "formats": ((*EXPORT, "--formats", "float23"), "Unknown format 'float23'. Did you mean float32"),
    "no formats": ((*EXPORT, "--formats", ","), "No format to export"),
    "outputs": ((*EXPORT, "--outputs", "heat"), "Unknown output 'heat'"),
    "input type": ((*EXPORT, "--input-type", "int4"), "Unknown input type 'int4'"),
    "deconvolution": ((*EXPORT, "--deconv", "x"), "deconvolution is 'x'"),
    "layer": ((*EXPORT, "--float-layers", "joint"), "float_layers names 'joint'.*did you mean joints"),
    "out": ((*EXPORT, "--out", "WORK/file/export"), "file is no folder that can be written to"),
    "out is a file": ((*EXPORT, "--out", "WORK/file"), "file is there and is no export"),
    "overwrite others": ((*EXPORT, "--out", "RUN", "--overwrite"), r"run is there and is no export \(it has no model"),
    "tolerance": (
        (*EXPORT, "--tolerance", "int8"),
        r"--tolerance is 'int8'; give PRECISION\.WHAT=NUMBER such as int8\.points=2",
    ),
    "tolerance's precision": ((*EXPORT, "--tolerance", "int9.points=1"), r"--tolerance is 'int9\.points=1'"),
    "tolerance's name": ((*EXPORT, "--tolerance", "int8.point=1"), "the other points, correlation, shift"),
    "tolerance's number": ((*EXPORT, "--tolerance", "int8.points=x"), "--tolerance is 'int8.points=x'"),
    "negative tolerance": ((*EXPORT, "--tolerance", "int8.points=-1"), r"The tolerance's points is -1\.0; give"),
    "no gate": ((*EXPORT, "--no-gate"), "unrecognized arguments: --no-gate"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(run, network, data, work, name, capfd):
    (work / "file").touch()
    arguments, words = MISTAKES[name]
    commands.refused(run, arguments, words, {"WORK": work, "RUN": network, "DATA": data}, capfd)


def test_help(run, capsys):
    assert call(run, "export", "--help") == 0
    assert "--tolerance PRECISION.WHAT=X" in capsys.readouterr().out
