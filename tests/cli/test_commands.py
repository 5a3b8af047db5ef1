"""The command line: from drawn people to predicting in one go, and one clear sentence for each mistake."""

import json
import logging
import re
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import commands
import numpy as np
import pytest
from commands import ENVIRONMENT, SCRIPT, call
from scipy.io import savemat

import keras_mrpose
from keras_mrpose.cli import saved_models
from keras_mrpose.data.images import read_image
from keras_mrpose.models.hardware import fastest_precision
from keras_mrpose.paper import experiments, tables
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.synthetic import dataset
from keras_mrpose.training.config import Experiment

COMMANDS = (
    "demo",
    "doctor",
    "train",
    "study",
    "evaluate",
    "evaluate-results",
    "compare",
    "results",
    "upper-bound",
    "predict",
    "import",
    "export",
    "web",
    "serve",
    "synthesize",
    "list",
)
SMALL = ("--backbone", "tiny_v1b", "--input-size", "96", "64", "--batch-size", "4", "--epochs", "1", "--people", "8")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def drawn_by_command(run, work):
    assert call(run, "synthesize", work / "drawn", "--train", 6, "--val", 3, "--seed", 3) == 0
    return work / "drawn"


@pytest.fixture(scope="module")
def trained(run, work, drawn_by_command):
    """A network trained for an epoch, over an older run."""
    folder = work / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "last.keras").write_text("old")
    (folder / "result.json").write_text("old")
    options = ("--precision", "mixed_bfloat16", "--run", folder, "--overwrite")
    assert call(run, "train", "coco-simplebaseline", "--data", drawn_by_command, *SMALL, *options) == 0
    return folder


@pytest.fixture(scope="module")
def photo(drawn_by_command):
    return drawn_by_command / "val2017" / "000000000007.jpg"


# --- what works ---------------------------------------------------------------------------------------------------


def test_help_answers_at_once():
    """Nothing heavy is imported; the whole process takes less than a second of processor time."""
    check = (
        f"import runpy, sys\nsys.argv, sys.path[0] = ['run.py', '--help'], {str(SCRIPT.parent)!r}\n"
        f"try:\n    runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as done:\n    assert not done.code\n"
        "print([name for name in ('tensorflow', 'keras', 'numpy') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\w", done.stdout, re.MULTILINE), command
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(run, command, capsys):
    assert call(run, command, "--help") == 0
    assert f"usage: mrpose {command} " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_commands_help_answers_at_once(command):
    """As the installed script and as a module; nothing heavy is imported."""
    check = (
        "import sys\nfrom keras_mrpose.cli.main import main\n"
        f"try:\n    main([{command!r}, '--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "print([name for name in ('tensorflow', 'keras', 'numpy', 'rich') if name in sys.modules])"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begin < 10  # TensorFlow alone takes seconds; the machine may be busy
    assert done.stdout.splitlines()[-1] == "[]"


def test_as_a_module(tmp_path):
    """`python -m keras_mrpose`, in any folder; its own name is in the hints."""
    command = [sys.executable, "-m", "keras_mrpose", "evaluate", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=ENVIRONMENT)
    assert done.stdout.startswith("usage: python -m keras_mrpose evaluate [-h]")


@pytest.mark.parametrize(
    ("old", "new"), [("draw", "synthesize"), ("score", "evaluate-results"), ("ceiling", "upper-bound")]
)
def test_old_spellings_are_accepted(run, old, new, capsys):
    assert call(run, new, "--help") == 0
    wanted = capsys.readouterr().out
    assert call(run, old, "--help") == 0
    assert capsys.readouterr().out == wanted and f"mrpose {new} " in wanted


def test_messages_of_the_library_are_printed_plainly(run, tmp_path, monkeypatch, capsys):
    """INFO to stdout, warnings to stderr; afterwards the logger is as it was."""
    logger = logging.getLogger("keras_mrpose")
    before = logger.level, logger.propagate, list(logger.handlers)

    def write(*arguments, **options):
        logging.getLogger("keras_mrpose.synthetic.dataset").info("written")
        logging.getLogger("keras_mrpose.synthetic.dataset").warning("a damaged %s: give overwrite=True", "file")
        logging.getLogger("keras_mrpose.synthetic.dataset").debug("a detail")

    monkeypatch.setattr(dataset, "write", write)
    assert call(run, "synthesize", tmp_path / "x", "--train", 1, "--val", 1) == 0
    told = capsys.readouterr()
    assert (
        told.out.startswith("written\nwritten\n1 + 1 images") and told.err == "a damaged file: give --overwrite\n" * 2
    )
    assert (logger.level, logger.propagate, logger.handlers) == before


def test_list_tells_everything(run, capsys, monkeypatch):
    """On a terminal of 80 columns nothing is cut short, and each experiment leads to its training."""
    monkeypatch.setenv("COLUMNS", "80")
    assert call(run, "list") == 0
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    for kind, names in (("models", keras_mrpose.list_models()), ("backbones", keras_mrpose.list_backbones())):
        assert f"{kind}: {', '.join(names)}" in " ".join(text.split())
    printed = {title: lines for title, *lines in (block.splitlines() for block in re.split(r"\n\s*\n", text.strip()))}
    printed = {title.strip(): [line.split() for line in lines] for title, lines in printed.items()}
    trainings = {number: line for number, *line in printed["How # is trained, with Adam"]}
    listed = []
    for table in tables.TABLES:
        heading, _, *lines = printed[f"{table.title}, as published"]
        assert heading == ["experiment", "#", *table.metrics]
        for name, number, *cells in lines:
            listed.append(name)
            experiment = experiments.EXPERIMENTS[name]
            assert list(map(float, cells)) == list(table.of(experiment).numbers.values())
            assert trainings[number][-2:] == [str(experiment.recipe.epochs), str(experiment.recipe.batch_size)]
    heading, _, *lines = printed["Trained networks (presets)"]
    assert heading == ["preset", "result", "MB", "from", "licence"]
    presets = keras_mrpose.list_presets()
    assert [line[0] for line in lines if line[0] in presets] == list(presets)
    assert ["simplebaseline_resnet101_mpii_256x256", "PCKh", "88.8", "212", "MMPose", "Apache-2.0"] in lines
    heading, _, *lines = printed["Without published numbers"]
    listed += [line[0] for line in lines]
    assert set(listed) == set(experiments.EXPERIMENTS)
    told = [" ".join(line) for line in trainings.values()]
    assert "256x192 2 0.3 40 p 0.6 p 0.5 0.001 1e-08 x0.1 at 90, 120 140 128" in told  # SimpleBaseline on COCO


def test_each_option_of_a_recipe_arrives(run, drawn_by_command, monkeypatch):
    """Over the recipe that was named; what is not given is the recipe's."""
    seen = []
    monkeypatch.setattr(keras_mrpose, "train", lambda experiment, *some, **more: seen.append(experiment))
    changes = {
        "epochs": 3,
        "batch_size": 5,
        "gradient_accumulation_steps": 2,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "weight_decay": 0.1,
        "schedule": "step",
        "warmup": 0.25,
        "ema": 0.5,
        "ohkm_topk": 8,
        "precision": "mixed_bfloat16",
        "teacher": "people",
        "teacher_share": 0.25,
        "seed": 7,
    }
    options = [word for name, value in changes.items() for word in (f"--{name.replace('_', '-')}", value)]
    options[options.index("--ohkm-topk")] = "--ohkm"
    options.append("--sync-batch-norm")
    command = ("train", "coco-mrfeanet2", "--data", drawn_by_command, "--recipe", "modern")
    assert call(run, *command) == call(run, *command, *options) == 0
    modern = experiments.with_recipe(experiments.EXPERIMENTS["coco-mrfeanet2"], "modern")
    assert seen == [modern, replace(modern, recipe=replace(modern.recipe, **changes, sync_batch_norm=True))]


def test_training_by_options(trained):
    """The options are in the run's config, the rest is the experiment's; the older run is gone."""
    experiment = Experiment.load(trained / "config.json")
    assert (experiment.name, experiment.model, experiment.backbone) == (
        "coco-simplebaseline",
        "simplebaseline",
        "tiny_v1b",
    )
    assert (experiment.input_size, experiment.recipe.batch_size, experiment.recipe.epochs) == ((96, 64), 4, 1)
    assert (experiment.recipe.precision, experiment.recipe.learning_rate) == ("mixed_bfloat16", 1e-3)
    names = {path.name for path in trained.iterdir()}
    kept = {"config.json", "data.json", "best.keras", "last.keras", "history.json", "logs", "state"}
    assert names - {"result.json", "result.npz"} == kept
    assert {len(values) for values in json.loads((trained / "history.json").read_text()).values()} == {1}
    model = keras_mrpose.Predictor(trained).model
    assert {layer.dtype_policy.name for layer in model.layers} == {"mixed_bfloat16", "float32"}
    assert model.predict_on_batch(np.zeros((1, 96, 64, 3))).dtype == np.float32


def test_quick_is_the_short_recipe(run, drawn_by_command, work, monkeypatch):
    found = []
    monkeypatch.setattr(keras_mrpose, "train", lambda experiment, *rest, **options: found.append((experiment, options)))
    options = ("--quick", "--batch-size", 2, "--time-limit", 3, "--run", work / "quick")
    assert call(run, "train", "COCO-MRHeatNet1", "--data", drawn_by_command, *options) == 0
    ((experiment, passed),) = found
    assert passed.pop("process_group").count == 1
    assert experiment.model == "mrheatnet1"
    assert experiment.recipe == replace(experiments.QUICK, batch_size=2, precision=fastest_precision())
    assert passed == {
        "resume": False,
        "overwrite": False,
        "time_limit": 180.0,
        "save_every": 600.0,
        "on_bad_record": "stop",
        "strategy": "auto",
    }


def test_evaluate(run, trained, drawn_by_command, capsys):
    """Beside the run's curves come its errors; more of evaluation in test_evaluate_commands.py."""
    assert call(run, "evaluate", trained, "--data", drawn_by_command, "--people", 1, "--no-flip") == 0
    text = capsys.readouterr().out
    assert "AP50" in text and "right_ankle" in text and "inversion" in text and "no flip test" in text
    result = json.loads((trained / "result.json").read_text())
    assert result["metric"] == "AP" and result["numbers"]["images"] == 1
    assert result["protocol"]["data"]["annotations"] == "annotations/person_keypoints_val2017.json"
    assert result["protocol"]["network"]["precision"] == "mixed_bfloat16"
    assert list((trained / "logs" / "diagnosis").glob("events*"))


def test_predict(run, trained, photo, work, capsys):
    """With the network of a run folder; more in test_predict_command.py."""
    out = work / "predictions"
    boxes = [[20, 30, 100, 180], [150.5, 10, 120, 200]]
    options = [part for box in boxes for part in ("--box", *box)]
    assert call(run, "predict", trained, photo, *options, "--person-threshold", 0, "--flip", "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["000000000007_joints.jpg", "keypoints.json"]
    image = read_image(photo)
    assert read_image(out / "000000000007_joints.jpg").shape == image.shape
    (content,) = json.loads((out / "keypoints.json").read_text())
    expected = Predictor(trained)(image, boxes)
    assert [list(person["keypoints"]) for person in content["people"]] == [list(keras_mrpose.skeletons.COCO.joints)] * 2
    found = np.array([list(person["keypoints"].values()) for person in content["people"]])
    np.testing.assert_allclose(found, expected, atol=6e-3)  # written to two decimals
    assert "of 34 joints confident" in capsys.readouterr().out


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mistakes(work, trained, drawn_by_command, photo):
    """Files and folders with something wrong; placeholders of the table below."""
    (work / "cut.jpg").write_bytes(photo.read_bytes()[:3000])
    (work / "noise.npz").write_text("not a weights file")
    (work / "cut.keras").write_bytes((trained / "best.keras").read_bytes()[:3000])
    (work / "file").write_text("a file, no folder")
    (work / "a").mkdir()
    shutil.copy(photo, work / "a")
    lsp = work / "lsp"
    (lsp / "images").mkdir(parents=True)
    for number in range(1, 11):
        shutil.copy(photo, lsp / "images" / f"im{number:05d}.jpg")
    points = np.random.default_rng(0).uniform(10, 100, (14, 3, 10))
    points[:, 2] = 1
    savemat(lsp / "joints.mat", {"joints": points})
    torn = shutil.copytree(drawn_by_command, work / "torn")
    (torn / "val2017" / photo.name).unlink()
    return {
        "WORK": work,
        "RUN": trained,
        "DATA": drawn_by_command,
        "LSP": lsp,
        "PHOTO": photo,
        "NEW": work / "new",
    }


TRAIN = ("train", "coco-simplebaseline", "--data", "DATA", *SMALL, "--run", "NEW/run")
PREDICT = ("predict", "RUN", "PHOTO", "--out", "NEW/out")
MISTAKES = {
    "command": (("fly",), r"invalid choice: 'fly'"),
    "option": ((*TRAIN, "--speed", "9"), r"unrecognized arguments: --speed 9"),
    "no data option": (("train", "coco-simplebaseline"), r"required: --data"),
    "epochs in words": ((*TRAIN, "--epochs", "many"), r"--epochs: invalid int value: 'many'"),
    "experiment": (("train", "coco-mrfeanet3", "--data", "DATA"), r"'coco-mrfeanet3'\. Did you mean coco-mrfeanet"),
    "backbone": ((*TRAIN, "--backbone", "resnet51"), r"'resnet51'\. Did you mean resnet"),
    "input size": ((*TRAIN, "--input-size", "100", "64"), r"\(100, 64\); give .* multiples of 32"),
    "no people": ((*TRAIN, "--people", "0"), r"--people is 0; give a number of at least 1"),
    "too few people": ((*TRAIN, "--people", "3"), r"3 people, less than one batch of 4"),
    "no epochs": ((*TRAIN, "--epochs", "0"), r"epochs is 0; give a positive whole number"),
    "learning rate": ((*TRAIN, "--learning-rate", "nan"), r"learning_rate is nan; give a positive number"),
    "schedule": ((*TRAIN, "--schedule", "linear"), r"schedule is 'linear'; give step or cosine"),
    "precision": ((*TRAIN, "--precision", "int8"), r"precision is 'int8'; give float32"),
    "strategy": ((*TRAIN, "--strategy", "horovod"), r"strategy is .horovod.; give auto, none, mirrored"),
    "recipe": ((*TRAIN, "--recipe", "moden"), r"Unknown recipe 'moden'\. Did you mean modern"),
    "two recipes": ((*TRAIN, "--recipe", "modern", "--quick"), r"--quick: not allowed with argument --recipe"),
    "optimizer": ((*TRAIN, "--optimizer", "sgd"), r"optimizer is 'sgd'; give adam or adamw"),
    "decay with adam": ((*TRAIN, "--weight-decay", "0.1"), r"weight_decay is 0\.1; give 0, or choose .* adamw"),
    "joints": ((*TRAIN, "--ohkm", "18"), r"ohkm_topk is 18, but coco has 17 joints"),
    "sigma": ((*TRAIN, "--sigma", "0"), r"sigma is 0\.0; give a positive number"),
    "weights": ((*TRAIN, "--backbone-weights", "WORK/noise.npz"), r"noise\.npz"),
    "weights missing": ((*TRAIN, "--backbone-weights", "WORK/gone.npz"), r"gone\.npz: there is no such weights file"),
    "data": (("train", "coco-simplebaseline", "--data", "WORK/gone"), r"data folder .*gone is not there"),
    "data of another kind": (("train", "coco-simplebaseline", "--data", "WORK/a"), r"holds none of joints\.mat"),
    "data image": (("train", "coco-simplebaseline", "--data", "WORK/torn"), r"image .*000000000007\.jpg is missing"),
    "joint count": (
        ("train", "coco-simplebaseline", "--data", "LSP", "--run", "NEW/run"),
        r"has lsp joints, but .* coco",
    ),
    "run in use": (
        ("train", "coco-simplebaseline", "--data", "DATA", *SMALL, "--run", "RUN"),
        r"holds a run; go on with",
    ),
    "predict run": (("predict", "WORK/gone", "PHOTO", "--out", "NEW"), r"gone is not there; give a \.keras file"),
    "predict damaged": (("predict", "WORK/cut.keras", "PHOTO", "--out", "NEW"), r"cut\.keras .*load"),
    "image missing": (("predict", "RUN", "WORK/gone.jpg", "--out", "NEW"), r"gone\.jpg is not there"),
    "image cut": (("predict", "RUN", "WORK/cut.jpg", "--out", "NEW"), r"cut\.jpg cannot be read"),
    "box without area": ((*PREDICT, "--box", "5", "5", "0", "9"), r"\[5\.0, 5\.0, 0\.0, 9\.0\] has no area"),
    "box of nan": ((*PREDICT, "--box", "5", "5", "nan", "9"), r"has no area"),
    "box outside": ((*PREDICT, "--box", "320", "5", "9", "9"), r"lies outside the image of 320x240 pixels"),
    "box of three": ((*PREDICT, "--box", "5", "5", "9"), r"--box: expected 4 arguments"),
    "predict out": (("predict", "RUN", "PHOTO", "--out", "WORK/file"), r"file"),
    "draw none": (("synthesize", "NEW", "--train", "3", "--val", "0"), r"--val is 0; give a number of at least 1"),
    "draw seed": (("synthesize", "NEW", "--train", "3", "--val", "1", "--seed", "-1"), r"seed is -1"),
    "draw over others": (("synthesize", "DATA", "--train", "2", "--val", "1"), r"is already there and was drawn with"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(run, mistakes, name, capfd):
    commands.refused(run, *MISTAKES[name], mistakes, capfd)


def test_a_bug_keeps_its_traceback(run, drawn_by_command, monkeypatch):
    """Only mistakes of the user are told in one sentence."""

    def bug(*arguments, **options):
        raise ValueError("shapes do not fit")

    monkeypatch.setattr(keras_mrpose, "train", bug)
    with pytest.raises(ValueError, match="shapes do not fit"):
        call(run, "train", "coco-simplebaseline", "--data", drawn_by_command)


def test_messages_speak_of_options(run, drawn_by_command, monkeypatch, capsys):
    """The library's speak of arguments."""

    def refuse(*arguments, **options):
        raise keras_mrpose.InputError("run is there; give resume=True or overwrite=True, not resume=Truely.")

    monkeypatch.setattr(keras_mrpose, "train", refuse)
    assert call(run, "train", "coco-simplebaseline", "--data", drawn_by_command) == 2
    assert capsys.readouterr().err == "error: run is there; give --resume or --overwrite, not resume=Truely.\n"


def test_ctrl_c_is_no_bug(run, drawn_by_command, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras_mrpose, "train", stop)
    assert call(run, "train", "coco-simplebaseline", "--data", drawn_by_command) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    """TensorFlow's start-up adds no line to it."""
    command = [sys.executable, SCRIPT, "predict", "run", "gone.jpg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: The image gone.jpg is not there.\n"
    assert not done.stdout and not list(tmp_path.iterdir())


def test_run_names(tmp_path):
    assert saved_models.run_folder("mine") == Path("saved_models/mine")  # of the current directory
    for path in (str(tmp_path / "mine"), "./mine", ".", ".."):
        assert saved_models.run_folder(path) == Path(path)
