"""The paper's tables are the paper's, and each of their rows that can be trained is one experiment, as published."""

import dataclasses
import re

import pytest

import keras_mrpose
from keras_mrpose import skeletons
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.models import hardware
from keras_mrpose.paper import experiments, tables
from keras_mrpose.training.config import Experiment, Recipe

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
MPII_METRICS = ("Hea", "Sho", "Elb", "Wri", "Hip", "Kne", "Ank", "Total")
FIVE = ("simplebaseline", "mrheatnet1", "mrheatnet2", "mrfeanet1", "mrfeanet2")
R50, R101, R152 = "resnet50_v1b", "resnet101_v1b", "resnet152_v1b"

# name -> (network, backbone, one published number): average precision on val2017, total PCKh
OF_THE_PAPER = {
    "coco-simplebaseline": ("simplebaseline", R50, 70.4),
    "coco-mrheatnet1": ("mrheatnet1", R50, 70.2),
    "coco-mrheatnet2": ("mrheatnet2", R50, 70.3),
    "coco-mrfeanet1": ("mrfeanet1", R50, 70.6),
    "coco-mrfeanet2": ("mrfeanet2", R50, 70.9),
    "coco-simplebaseline-r101": ("simplebaseline", R101, 71.4),
    "coco-mrfeanet2-r101": ("mrfeanet2", R101, 71.8),
    "coco-simplebaseline-r152": ("simplebaseline", R152, 72.0),
    "coco-mrfeanet2-r152": ("mrfeanet2", R152, 72.6),
    "mpii-simplebaseline": ("simplebaseline", R50, 88.5),
    "mpii-mrheatnet1": ("mrheatnet1", R50, 88.4),
    "mpii-mrheatnet2": ("mrheatnet2", R50, 88.5),
    "mpii-mrfeanet1": ("mrfeanet1", R50, 89.1),
    "mpii-mrfeanet2": ("mrfeanet2", R50, 88.9),
    "mpii-simplebaseline-r101": ("simplebaseline", R101, 89.1),
    "mpii-mrheatnet1-r101": ("mrheatnet1", R101, 89.3),
    "mpii-mrheatnet2-r101": ("mrheatnet2", R101, 89.3),
    "mpii-mrfeanet1-r101": ("mrfeanet1", R101, 89.4),
    "mpii-mrfeanet2-r101": ("mrfeanet2", R101, 89.3),
    "mpii-simplebaseline-r152": ("simplebaseline", R152, 89.6),
    "mpii-mrheatnet1-r152": ("mrheatnet1", R152, 89.5),
    "mpii-mrheatnet2-r152": ("mrheatnet2", R152, 89.5),
    "mpii-mrfeanet1-r152": ("mrfeanet1", R152, 89.8),
    "mpii-mrfeanet2-r152": ("mrfeanet2", R152, 89.5),
}
MOBILE = [f"{data}-{model}-mobile" for data in ("coco", "mpii", "lsp") for model in ("mrheatnet1", "mrfeanet1")]
OWN = {"demo", *MOBILE, *(f"lsp-{model}" for model in FIVE)}

# --- the paper's tables -------------------------------------------------------------------------------------------


def markdown_tables(text):
    """Title, columns, and rows of (heading above, cells) of each table in a Markdown text."""
    for part in text.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        columns, _, *body = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|"))
        section, rows = None, []
        for first, *rest in body:
            if any(rest):
                rows.append((section, [first, *rest]))
            else:
                section = first
        yield title, columns, rows


def test_tables_are_the_papers_cell_by_cell(shared):
    published = list(markdown_tables((shared / "design" / "PAPER_TABLES.md").read_text()))
    assert len(published) == len(tables.TABLES)
    for table, (title, columns, rows) in zip(tables.TABLES, published, strict=True):
        assert table.title == title
        assert len(table.rows) == len(rows)
        for row, (section, cells) in zip(table.rows, rows, strict=True):
            assert row.section == section
            assert [*row.words, *row.numbers] == columns
            ours = [*row.words.values(), *row.numbers.values()]
            for column, cell, value in zip(columns, cells, ours, strict=True):
                told = "-" if value is None else str(value)
                assert told == cell.replace(" \N{MULTIPLICATION SIGN} ", "x"), (title, cells[0], column)


@pytest.mark.parametrize(
    ("table", "skeleton", "words", "metrics", "rows"),
    [
        (tables.COCO_VAL2017, "coco", ["Method", "Backbone", "Pretrain"], COCO_METRICS, 12),
        (tables.COCO_TEST_DEV, "coco", ["Method", "Backbone", "Input size"], COCO_METRICS, 17),
        (tables.MPII, "mpii", ["Method"], MPII_METRICS, 27),
    ],
    ids=["val2017", "test-dev", "mpii"],
)
def test_tables_are_whole(table, skeleton, words, metrics, rows):
    assert (table.skeleton, table.metrics, len(table.rows)) == (skeleton, metrics, rows)
    assert len({tuple(row.words.values()) for row in table.rows}) == rows
    for row in table.rows:
        assert list(row.words) == words and row.words["Method"]
        assert tuple(row.numbers) == metrics
        for number in row.numbers.values():
            assert number is None or (30 < number < 100 and number == round(number, 1)), row.words
        if row.network:
            assert None not in row.numbers.values()
    networks = [row.network for row in table.rows if row.network]
    assert len(set(networks)) == len(networks)
    assert {model for model, _ in networks} == set(FIVE)


def test_numbers_fit_together():
    """A higher OKS threshold is harder; the average over sizes or joints lies between the smallest and the largest."""
    for table in (tables.COCO_VAL2017, tables.COCO_TEST_DEV):
        for row in table.rows:
            if None not in row.numbers.values():
                n = row.numbers
                for kind in ("AP", "AR"):
                    assert n[kind] < n[f"{kind}75"] < n[f"{kind}50"], row.words
                    assert n[f"{kind}M"] < n[kind] < n[f"{kind}L"], row.words
                    assert n[kind] >= n["AP"], row.words
    for row in tables.MPII.rows:
        *groups, total = row.numbers.values()
        assert min(groups) < total < max(groups), row.words


@pytest.mark.parametrize(
    "line", ["S,A,1.0", "S,A,B,C,1.0,2.0", "S,A,B,1.0", "S,A,B,1.0,2.0,3.0", "S,A,B,1.0,2;0", "S,A,B"]
)
def test_a_line_of_another_form_is_refused(line, tmp_path):
    file, text = tmp_path / "table.csv", "Section,Method,Backbone,AP,AR\n"
    file.write_text(text + "heading,A,,1.0,\n")
    good = tables.read_table(file, "title", "coco", ("AP", "AR"))
    wanted = tables.PaperRow("heading", {"Method": "A", "Backbone": None}, {"AP": 1.0, "AR": None})
    assert good == tables.PaperTable("title", "coco", ("AP", "AR"), (wanted,))
    file.write_text(text + line + "\n")
    with pytest.raises(ValueError):
        tables.read_table(file, "title", "coco", ("AP", "AR"))


# --- the experiments ----------------------------------------------------------------------------------------------


def test_names():
    assert set(experiments.EXPERIMENTS) == {*OF_THE_PAPER, *OWN}
    for name, experiment in experiments.EXPERIMENTS.items():
        assert experiment.name == name
        assert experiment.model in keras_mrpose.list_models()
        assert experiment.backbone in keras_mrpose.list_backbones()
        assert experiment.skeleton in skeletons.SKELETONS


def test_every_row_that_can_be_trained_is_one_experiment():
    """And an experiment leads to its row in each table of its data."""
    for table in tables.TABLES:
        rows = [row for row in table.rows if row.network]
        found = [row for experiment in experiments.EXPERIMENTS.values() if (row := table.of(experiment))]
        assert len(rows) == {"coco": 9, "mpii": 15}[table.skeleton]
        assert len(found) == len(rows) and all(found.count(row) == 1 for row in rows)


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_experiment_is_its_row(name):
    experiment, (model, backbone, number) = experiments.EXPERIMENTS[name], OF_THE_PAPER[name]
    assert (experiment.model, experiment.backbone, experiment.skeleton) == (model, backbone, name[:4])
    published = {table.title: row for table in tables.TABLES if (row := table.of(experiment))}
    if experiment.skeleton == "mpii":
        assert list(published) == [tables.MPII.title]
        assert published[tables.MPII.title].numbers["Total"] == number
    else:
        assert list(published) == [tables.COCO_VAL2017.title, tables.COCO_TEST_DEV.title]
        assert published[tables.COCO_VAL2017.title].numbers["AP"] == number
    for row in published.values():
        assert row.network == (model, backbone)
        assert re.search(rf"\b{re.escape(model)}\b", row.words["Method"].lower())
        assert backbone[6:-4] in (row.words.get("Backbone") or row.words["Method"])


@pytest.mark.parametrize("change", [{"backbone": "resnet50"}, {"model": "mrfeanet3"}, {"skeleton": "lsp"}])
def test_another_network_has_no_published_numbers(change):
    """The ResNet of `keras.applications` is another one."""
    experiment = experiments.EXPERIMENTS["coco-mrfeanet2"]
    assert tables.COCO_VAL2017.of(experiment)
    for table in tables.TABLES:
        assert table.of(dataclasses.replace(experiment, **change)) is None
        for name in OWN:
            assert table.of(experiments.EXPERIMENTS[name]) is None


# --- how they are trained -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_recipe_is_the_published_one(name):
    """Adam 1e-3, a tenth after each of two epochs; sigma 2; rotated with probability 0.6, mirrored with 0.5."""
    mpii, baseline = name.startswith("mpii"), "simplebaseline" in name
    epochs, steps, batch = 170, (120, 150), 64
    if mpii or baseline:
        epochs, steps, batch = 140, (90, 120), 64 if mpii else 128
    assert experiments.EXPERIMENTS[name] == Experiment(
        name=name,
        model=OF_THE_PAPER[name][0],
        backbone=OF_THE_PAPER[name][1],
        skeleton="mpii" if mpii else "coco",
        input_size=(256, 256) if mpii else (256, 192),
        sigma=2.0,
        augmentation=Augmentation(0.25, 30.0, 0.6, 0.5) if mpii else Augmentation(0.3, 40.0, 0.6, 0.5),
        recipe=Recipe(
            epochs=epochs,
            batch_size=batch,
            gradient_accumulation_steps=1,
            optimizer="adam",
            learning_rate=1e-3,
            weight_decay=0.0,
            epsilon=1e-8,
            schedule="step",
            milestones=tuple(step / epochs for step in steps),
            warmup=0.0,
            ema=0.0,
            ohkm_topk=0,
            precision="float32",
        ),
        backbone_weights=None,
    )


def test_lsp_experiments_follow_mpii():
    for model in FIVE:
        experiment = experiments.EXPERIMENTS[f"lsp-{model}"]
        assert (experiment.model, experiment.backbone, experiment.skeleton) == (model, "resnet50", "lsp")
        assert (experiment.input_size, experiment.sigma) == ((128, 128), 1.5)
        like = experiments.EXPERIMENTS[f"mpii-{model}"]
        assert (experiment.recipe, experiment.augmentation) == (like.recipe, like.augmentation)


@pytest.mark.parametrize("name", MOBILE)
def test_those_for_phones_are_trained_like_their_neighbours(name):
    """Only the backbone is another."""
    like = experiments.EXPERIMENTS[name.removesuffix("-mobile")]
    assert experiments.EXPERIMENTS[name] == dataclasses.replace(like, name=name, backbone="mobilenetv2")


@pytest.mark.parametrize(("words", "precision"), [("avx2 avx512_bf16", "mixed_bfloat16"), ("avx2", "float32")])
def test_quick_changes_the_recipe_only(words, precision, tmp_path, monkeypatch):
    """In bfloat16 where the CPU computes it."""
    (tmp_path / "cpuinfo").write_text(f"flags\t: fpu {words} sse2\n")
    monkeypatch.setattr(hardware, "CPU_FACTS", tmp_path / "cpuinfo")
    experiment = experiments.EXPERIMENTS["mpii-mrheatnet2-r152"]
    recipe = dataclasses.replace(experiments.QUICK, precision=precision)
    assert experiments.quick(experiment) == dataclasses.replace(experiment, recipe=recipe)


def test_the_published_recipe_is_the_experiments_own():
    assert list(experiments.RECIPES) == ["published", "modern"]
    for experiment in experiments.EXPERIMENTS.values():
        assert experiments.with_recipe(experiment, "published") == experiment


def test_the_modern_recipe():
    """Length, batch, precision and how far crops are turned and scaled stay; so does all that is not training."""
    experiment = experiments.EXPERIMENTS["mpii-mrheatnet2-r152"]
    modern = experiments.with_recipe(experiment, "modern")
    recipe = dataclasses.replace(
        experiment.recipe,
        optimizer="adamw",
        learning_rate=5e-4,
        weight_decay=0.05,
        schedule="cosine",
        warmup=0.02,
        ema=0.9998,
    )
    augmentation = dataclasses.replace(
        experiment.augmentation,
        half_body_probability=0.3,
        shift_probability=0.3,
        colour_probability=0.5,
        erasing_probability=0.5,
    )
    assert modern == dataclasses.replace(experiment, recipe=recipe, augmentation=augmentation)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(InputError, match=r"Unknown recipe 'moderne'\. Did you mean modern\?"):
        experiments.with_recipe(experiments.EXPERIMENTS["demo"], "moderne")


def test_experiments_and_recipes_by_name():
    assert keras_mrpose.list_experiments() == list(experiments.EXPERIMENTS)
    assert keras_mrpose.list_recipes() == ["published", "modern"]
    assert keras_mrpose.list_skeletons() == ["coco", "mpii", "lsp", "body19"]
    assert keras_mrpose.get_experiment("coco-mrfeanet2") == experiments.EXPERIMENTS["coco-mrfeanet2"]
    assert keras_mrpose.get_experiment("coco-mrfeanet2", "modern").recipe.optimizer == "adamw"
    with pytest.raises(InputError, match="Unknown experiment 'coco-mrfeanet3'"):
        keras_mrpose.get_experiment("coco-mrfeanet3")
