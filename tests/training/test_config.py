"""Experiments: published defaults, values that cannot be are refused, files are read back or explained."""

import dataclasses
import json
import math

import pytest

from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.mixture import Source
from keras_mrpose.errors import InputError
from keras_mrpose.training.config import Experiment, Recipe

ODD = Experiment(
    name="odd",
    model="mrheatnet1",
    backbone="resnet50_v1b",
    skeleton="mpii",
    input_size=(256, 320),
    sigma=1.5,
    codec="dark",
    augmentation=Augmentation(
        scale=0.25,
        rotation=30,
        rotation_probability=0.5,
        flip_probability=0,
        half_body_probability=0.1,
        half_body_labelled=0.2,
        shift_probability=0.3,
        shift=0.4,
        colour_probability=0.5,
        brightness=0.6,
        contrast=0.7,
        saturation=0.8,
        channel_gain=0.9,
        erasing_probability=1,
        erasing_rectangles=2,
        erasing_area=0.3,
    ),
    recipe=Recipe(
        epochs=3,
        batch_size=5,
        gradient_accumulation_steps=2,
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.1,
        epsilon=1e-9,
        schedule="cosine",
        milestones=(0.25, 0.75),
        warmup=0.1,
        ema=0.99,
        ohkm_topk=8,
        frozen_stages=2,
        precision="mixed_bfloat16",
        sync_batch_norm=True,
        teacher="large.keras",
        teacher_share=0.25,
        seed=7,
    ),
    backbone_weights="weights.npz",
    weights="all.pth",
    map_joints=True,
    sources=(Source("one", 0.25, 2.0, "pck"), Source("other")),
    crops_per_epoch=100,
    train_split="train@7[10%:]",
    val_split="train@7[:10%]",
)


def test_defaults_are_the_published_coco_recipe():
    recipe, augmentation = Recipe(), Augmentation()
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (170, 64, 1e-3, "step")
    extras = (
        recipe.optimizer,
        recipe.weight_decay,
        recipe.warmup,
        recipe.ema,
        recipe.gradient_accumulation_steps,
        recipe.ohkm_topk,
    )
    assert extras == ("adam", 0, 0, 0, 1, 0)
    assert [share * 170 for share in recipe.milestones] == pytest.approx([120, 150])
    assert dataclasses.astuple(augmentation)[:4] == (0.3, 40, 0.6, 0.5)
    assert not any(getattr(augmentation, f"{kind}_probability") for kind in ("half_body", "shift", "colour", "erasing"))
    plain = Experiment("x")
    assert (plain.input_size, plain.sigma, plain.codec) == ((256, 192), 2.0, "gaussian")


@pytest.mark.parametrize("experiment", [Experiment("plain"), ODD], ids=lambda experiment: experiment.name)
def test_file_round_trip(experiment, tmp_path):
    experiment.save(tmp_path / "config.json")
    again = Experiment.load(tmp_path / "config.json")
    assert again == experiment
    assert hash(again) == hash(experiment)


def test_every_field_is_saved_with_its_own_value(tmp_path):
    """No field of ODD has its default, so a field that got lost on the way would show in the round trip."""
    plain = Experiment("plain")
    for part, default in ((ODD, plain), (ODD.recipe, plain.recipe), (ODD.augmentation, plain.augmentation)):
        for field in dataclasses.fields(part):
            assert getattr(part, field.name) != getattr(default, field.name), field.name


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Augmentation, "scale", -0.1),
        (Augmentation, "scale", 1.0),
        (Augmentation, "rotation", 181),
        (Augmentation, "rotation", math.nan),
        (Augmentation, "rotation_probability", 1.1),
        (Augmentation, "flip_probability", -1),
        *((Augmentation, f"{kind}_probability", 1.1) for kind in ("half_body", "shift", "colour", "erasing")),
        (Augmentation, "half_body_labelled", -0.1),
        (Augmentation, "shift", 1.1),
        *((Augmentation, name, 1.1) for name in ("brightness", "contrast", "saturation", "channel_gain")),
        (Augmentation, "erasing_area", 0.6),
        (Augmentation, "erasing_area", math.nan),
        (Augmentation, "erasing_rectangles", 0),
        (Augmentation, "erasing_rectangles", 17),
        (Augmentation, "erasing_rectangles", 1.5),
        (Recipe, "epochs", 0),
        (Recipe, "epochs", 1.5),
        (Recipe, "batch_size", -1),
        (Recipe, "learning_rate", 0.0),
        (Recipe, "learning_rate", math.inf),
        (Recipe, "learning_rate", math.nan),
        (Recipe, "schedule", "linear"),
        (Recipe, "precision", "float8"),
        (Recipe, "warmup", 1.0),
        (Recipe, "optimizer", "sgd"),
        (Recipe, "weight_decay", 0.1),  # with adam
        (Recipe, "weight_decay", -0.1),
        (Recipe, "ema", 1.0),
        (Recipe, "ema", -0.1),
        (Recipe, "ema", math.nan),
        (Recipe, "gradient_accumulation_steps", 0),
        (Recipe, "gradient_accumulation_steps", 1.5),
        (Recipe, "ohkm_topk", -1),
        (Recipe, "ohkm_topk", 1.5),
        *((Recipe, "teacher_share", share) for share in (0, -0.1, 1.1, math.nan)),
        (Recipe, "milestones", (0.9, 0.5)),
        (Recipe, "milestones", (0.5, 1.0)),
        (Recipe, "seed", -1),
        (Recipe, "seed", 2**32),
        (Recipe, "seed", 0.5),
        (Experiment, "input_size", (100, 128)),
        (Experiment, "input_size", (0, 128)),
        (Experiment, "input_size", (128, 128, 3)),
        (Experiment, "sigma", 0.0),
        (Experiment, "sigma", math.nan),
    ],
)
def test_impossible_values_are_refused(kind, field, value):
    name = {"name": "x"} if kind is Experiment else {}
    with pytest.raises(InputError, match=f"^The {kind.__name__.lower()}'s {field} is .*; give .*\\.$"):
        kind(**name, **{field: value})


@pytest.mark.parametrize("value", [0.0, -0.1, math.inf, math.nan])
def test_adamw_needs_a_decay(value):
    with pytest.raises(
        InputError, match=r"^The recipe's weight_decay is .*; give a positive number, which adamw needs"
    ):
        Recipe(optimizer="adamw", weight_decay=value)
    assert Recipe(optimizer="adamw", weight_decay=0.05).weight_decay == 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("sigma"), "missing or unknown: sigma"),
        (lambda values: values.pop("name"), "missing or unknown: name"),
        (lambda values: values.pop("recipe"), "'recipe'"),
        (lambda values: values["recipe"].pop("epochs"), "missing or unknown: epochs"),
        (lambda values: values.update(colour="red"), "missing or unknown: colour"),
        (lambda values: values["augmentation"].update(shear=1), "missing or unknown: shear"),
        (lambda values: values.update(recipe=None), "config of a run"),
        (lambda values: values.update(input_size=128), "config of a run"),
        (lambda values: values["recipe"].update(learning_rate="fast"), "config of a run"),
        (lambda values: values["recipe"].update(epochs=0), "epochs is 0"),
    ],
)
def test_wrong_files_are_explained(change, message, tmp_path):
    file = tmp_path / "config.json"
    ODD.save(file)
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message) as caught:
        Experiment.load(file)
    assert str(file) in str(caught.value)


def test_files_of_older_runs_have_what_these_did(tmp_path):
    file = tmp_path / "config.json"
    Experiment("plain").save(file)
    values = json.loads(file.read_text())
    for name in ("train_split", "val_split"):
        del values[name]
    for name in ("teacher", "teacher_share"):
        del values["recipe"][name]
    file.write_text(json.dumps(values))
    assert Experiment.load(file) == Experiment("plain")


@pytest.mark.parametrize("content", [b"", b'{"name": ', b"[1, 2]", b"\xff\xfe\xfa", b"null"])
def test_files_that_are_no_config_are_explained(content, tmp_path):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match="not the config of a run"):
        Experiment.load(file)


def test_missing_file_and_folder_are_explained(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        Experiment.load(tmp_path / "config.json")
    with pytest.raises(InputError, match="not the config of a run"):
        Experiment.load(tmp_path)
