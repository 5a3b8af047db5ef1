"""A study with ready predictions in the place of trained networks: order, resume, refusals, report."""

import json
import signal
from dataclasses import replace
from types import SimpleNamespace

import made_up
import numpy as np
import pytest
from PIL import Image

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import MPII
from keras_mrpose.study import report, trainings
from keras_mrpose.study.trainings import Study
from keras_mrpose.training.checkpointing import Stopped
from keras_mrpose.training.config import Experiment, Recipe

EXPERIMENT = Experiment("any", recipe=Recipe(epochs=2, batch_size=4))
NETWORKS = ("simplebaseline", "mrheatnet1", "mrfeanet1")
NOISE = {"simplebaseline": 3.0, "mrheatnet1": 3.0, "mrfeanet1": 1.5}  # x 5 pixels with the flip test
COSTS = {
    name: {"parameters": 10**6, "macs": 10**8, "milliseconds": {"float32": {"median": ms, "low": ms, "high": ms}}}
    for name, ms in zip(NETWORKS, (3.0, 3.5, 5.0), strict=True)
}


@pytest.fixture
def people(tmp_path):
    """Twelve in three images."""
    return made_up.folder(tmp_path / "test")


@pytest.fixture
def others(tmp_path):
    """To train on."""
    return made_up.folder(tmp_path / "train")


@pytest.fixture
def study(tmp_path):
    return Study(EXPERIMENT, NETWORKS, 2, tmp_path / "study")


@pytest.fixture
def log(monkeypatch):
    """What was trained and what was measured, in this order; the predictions are made up by network and seed."""
    log = []

    def train(experiment, people, validation, run, *, resume, **options):
        assert resume and experiment.name == run.name
        if (run / "last.keras").exists():
            return
        log.append(("train", run.name))
        run.mkdir(parents=True)
        experiment.save(run / "config.json")
        (run / "last.keras").touch()

    def evaluate(predictor, people, *, protocol, diagnose):
        name, seed = predictor.file.parent.name.split("-")
        log.append(("measure", predictor.file.parent.name))
        found = made_up.predictions(people, seed=hash_of(name) + int(seed), noise=NOISE[name])
        kind = protocol or people.protocol
        return made_up.result(found, people, kind, flip_test=predictor.flip_test, flip_shift=False)

    def predictor(file, flip_test):
        assert file.exists()
        return SimpleNamespace(file=file, flip_test=flip_test)

    for name, fake in (("train", train), ("evaluate", evaluate), ("Predictor", predictor)):
        monkeypatch.setattr(trainings, name, fake)
    monkeypatch.setattr(trainings.gc, "collect", lambda: 0)  # nearly a second, and here there are no networks
    return log


def hash_of(name):
    return 100 * NETWORKS.index(name)


def run(study, others, tests, **options):
    return list(trainings.run_study(study, others, others, tests, **options))


# --- trainings --------------------------------------------------------------------------------------------------------


def test_seed_by_seed_and_nothing_twice(study, others, people, log):
    steps = trainings.run_study(study, others, others, {"all": people}, protocol="pck")
    assert next(steps) == 1
    assert log == [(what, f"{name}-0") for name in NETWORKS for what in ("train", "measure")]
    steps.close()
    log.clear()
    assert run(study, others, {"all": people}, protocol="pck") == [1, 2]
    assert log == [(what, f"{name}-1") for name in NETWORKS for what in ("train", "measure")]
    log.clear()
    assert run(replace(study, seeds=1), others, {"all": people}, protocol="pck") == [1]
    assert log == []


def test_trainings_differ_in_network_and_seed_alone(study, others, people, log):
    run(study, others, {"all": people}, protocol="pck")
    configs = {
        (name, seed): json.loads((study.folder / f"{name}-{seed}" / "config.json").read_text())
        for name in NETWORKS
        for seed in (0, 1)
    }
    for (name, seed), config in configs.items():
        assert (config.pop("name"), config.pop("model"), config["recipe"].pop("seed")) == (f"{name}-{seed}", name, seed)
    assert all(config == configs["simplebaseline", 0] for config in configs.values())


def test_measured_again_where_the_result_is_of_other_people_or_broken(study, others, people, log, tmp_path):
    study = replace(study, seeds=1)
    run(study, others, {"all": people}, protocol="pck")
    log.clear()
    file = study.folder / "mrheatnet1-0" / "result-all.json"
    file.write_text(file.read_text()[:100])  # killed while it wrote
    run(study, others, {"all": people}, protocol="pck")
    assert log == [("measure", "mrheatnet1-0")]
    for tests, options in (
        ({"all": made_up.folder(tmp_path / "more", seed=1)}, {"protocol": "pck"}),
        ({"all": people}, {"protocol": "pck"}),
        ({"all": people}, {"protocol": "pck", "flip_test": False}),
        ({"all": people}, {"protocol": "ap", "flip_test": False}),
    ):
        log.clear()
        run(study, others, tests, **options)
        assert log == [("measure", f"{name}-0") for name in NETWORKS]


def test_other_options_are_refused_before_any_training(study, others, people, log):
    run(replace(study, seeds=1), others, {"all": people}, protocol="pck")
    log.clear()
    other = replace(EXPERIMENT, sigma=3.0, recipe=replace(EXPERIMENT.recipe, epochs=3))
    with pytest.raises(InputError, match=r"simplebaseline-0/config.json .*\(epochs is 2, now 3, sigma is 2.0, now 3.0"):
        run(replace(study, experiment=other), others, {"all": people})
    assert log == []


def test_test_people_are_nobody_of_the_training(study, people, log):
    with pytest.raises(InputError, match=r"3 images of test 'all' are trained on, such as .*test/.*jpg"):
        run(study, people, {"all": people})
    assert log == []


def test_a_stop_says_that_the_same_command_goes_on(study, others, people, log, monkeypatch):
    def train(*_, **__):
        raise Stopped("go on with resume=True", 15)

    monkeypatch.setattr(trainings, "train", train)
    with pytest.raises(Stopped, match="simplebaseline-0, which is saved: the same command goes on") as stop:
        run(study, others, {"all": people}, protocol="pck")
    assert stop.value.signal == 15


def test_a_stop_in_the_last_moments_of_a_training_stops_the_study(study, others, people, log, monkeypatch):
    """The training is finished then, and says nothing of the signal."""
    finish = trainings.train

    def train(*arguments, process_group, **options):
        with process_group.interruption():
            signal.raise_signal(signal.SIGTERM)
        finish(*arguments, **options)

    monkeypatch.setattr(trainings, "train", train)
    with pytest.raises(Stopped, match=r"after .*simplebaseline-0: the same command goes on") as stop:
        run(study, others, {"all": people})
    assert stop.value.signal == signal.SIGTERM and log == [("train", "simplebaseline-0")]


@pytest.mark.parametrize(
    ("networks", "seeds", "words"),
    [
        (("mrfeanet1",), 1, "give at least two"),
        (("mrfeanet1", "MRFeaNet1"), 1, "each once"),
        (("mrfeanet1", "mrfeanet3"), 1, "Unknown network 'mrfeanet3'"),
        (("mrfeanet1", "mrfeanet2"), 0, "seeds is 0"),
    ],
)
def test_mistakes_are_named(networks, seeds, words, tmp_path):
    with pytest.raises(InputError, match=words):
        Study(EXPERIMENT, networks, seeds, tmp_path)


# --- report -----------------------------------------------------------------------------------------------------------


def test_everything_can_be_counted_again_from_the_file(study, others, people, log):
    """The values, the weighted mean of two tests and the differences from each person's right joints alone."""
    tests = {"few": people.take(slice(5)), "many": people}
    run(study, others, tests, protocol="pck")
    report.write(report.summarize(study, tests, 2, 50, command="mrpose study", costs=COSTS), study.folder)
    content = report.read(study.folder / "study.json")
    assert list(content["tests"]) == ["few", "many", "all"]
    values = {}
    for name, units in (("few", 5), ("many", 12)):
        test = content["tests"][name]
        labels = [int(number) for number in test["labels"].split()]
        assert test["units"] == len(labels) == units
        for network in NETWORKS:
            hits = [[int(number) for number in line.split()] for line in test["hits"][network]]
            values[name, network] = [sum(line) / sum(labels) for line in hits]
            assert test["values"][network] == pytest.approx(values[name, network])
    pooled = content["tests"]["all"]
    assert pooled["units"] == 17
    for network in NETWORKS:
        weighted = [
            (5 * few + 12 * many) / 17
            for few, many in zip(values["few", network], values["many", network], strict=True)
        ]
        assert pooled["values"][network] == pytest.approx(weighted)
        values["all", network] = weighted
    for name, test in content["tests"].items():
        for network in NETWORKS[1:]:
            less = np.subtract(values[name, network], values[name, "simplebaseline"])
            assert test["differences"][network]["mean"] == pytest.approx(less.mean())
            assert test["differences"][network]["sd"] == pytest.approx(abs(less[0] - less[1]) / 2**0.5)
            low, high = test["differences"][network]["people"]
            assert low < less.mean() < high
    assert content["experiment"]["recipe"]["epochs"] == 2 and "seed" not in content["experiment"]["recipe"]


def test_ap_is_drawn_by_images(study, others, people, log):
    study = replace(study, seeds=1)
    run(study, others, {"drawn": people})
    test = report.summarize(study, {"drawn": people}, 1, 20)["tests"]["drawn"]
    assert (test["metric"], test["units"], "hits" in test) == ("AP", 3, False)
    assert test["differences"]["mrfeanet1"]["mean"] > 0
    assert test["differences"]["mrfeanet1"]["significant"] is False


def test_pckh(study, others, log, tmp_path):
    rng = np.random.default_rng(0)
    boxes = np.tile((20.0, 30.0, 60.0, 90.0), (6, 1))
    joints = np.concatenate([rng.uniform((20, 30), (80, 120), (6, 16, 2)), np.full((6, 16, 1), 2)], axis=-1)
    people = People(
        str(tmp_path), MPII, [f"{n}.jpg" for n in range(6)], range(6), range(6), range(6), boxes, joints,
        np.full(6, 20.0), np.full(6, 5400.0), protocol="pckh",
    )  # fmt: skip
    study = replace(study, networks=("simplebaseline", "mrfeanet1"))
    run(study, others, {"mpii": people})
    test = report.summarize(study, {"mpii": people}, 2, 20)["tests"]["mpii"]
    assert (test["metric"], test["units"]) == ("PCKh@0.5", 6)
    assert test["labels"] == " ".join(["14"] * 6)  # without pelvis and thorax
    assert test["differences"]["mrfeanet1"]["mean"] > 0


def test_table_and_figure(study, others, people, log):
    """What they say is what the file says."""
    tests = {"few": people.take(slice(5)), "many": people}
    run(study, others, tests, protocol="pck")
    timing = {"cpu": "a CPU", "cores": 2, "load": 0.1, "threads": 1, "repetitions": 30}
    facts = {"command": "mrpose study coco-x", "costs": COSTS, "timing": timing}
    report.write(report.summarize(study, tests, 2, 50, **facts), study.folder)
    content, text = report.read(study.folder / "study.json"), (study.folder / "study.md").read_text()
    one = content["tests"]["all"]["estimates"]["mrfeanet1"]
    low, high = (100 * end for end in one["people"])
    seeds = ", ".join(f"{100 * value:.1f}" for value in content["tests"]["all"]["values"]["mrfeanet1"])
    assert f"| `mrfeanet1` | {100 * one['mean']:.1f} | {seeds} | " in text
    assert f" | {low:.1f} to {high:.1f} | " in text
    assert "**few**: PCK of 5 people, flip test." in text and "**All tests together**: PCK of 17 people." in text
    assert "| `mrfeanet1` | 1.00 | 100 | 5.00 (5.00 to 5.00) |" in text
    less = content["tests"]["all"]["differences"]["mrfeanet1"]
    assert f"- `mrfeanet1`: {100 * less['mean']:+.1f} points ({report.verdict(less)}) for +2.00 ms float32" in text
    assert "mrpose study coco-x" in text
    with Image.open(study.folder / "study.png") as image:
        assert image.format == "PNG" and min(image.size) > 200


def test_verdicts():
    """Only what holds for other people and other trainings, among as many comparisons as there are."""
    assert report.verdict({"p": None, "p_holm": None, "significant": False}) == "one seed: cannot be said"
    assert report.verdict({"p": 0.01, "p_holm": 0.04, "significant": True}) == "significant"
    assert report.verdict({"p": 0.02, "p_holm": 0.06, "significant": False}) == (
        "not significant among so many comparisons"
    )
    assert report.verdict({"p": 0.2, "p_holm": 0.4, "significant": False}) == "not significant"


def test_no_study_is_refused(tmp_path):
    (tmp_path / "study.json").write_text('{"version": 0}')
    with pytest.raises(InputError, match=r"study.json is not a study of this version \(version 0\)"):
        report.read(tmp_path / "study.json")
