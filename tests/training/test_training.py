"""Training: what a run folder holds, the schedule, going on exactly, and that a mistake leaves nothing half-written.

The mechanics are tested on a network of two convolutions, `micro`; a real one is trained in test_run.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from micro import EXPERIMENT, STEPS, draw, micro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_mrpose import data, training
from keras_mrpose.codecs import GaussianCodec, UDPCodec
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models import networks
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton
from keras_mrpose.training import callbacks, train
from keras_mrpose.training.config import Experiment, Recipe
from keras_mrpose.training.optimization import AveragedWeights
from keras_mrpose.training.run_dir import RunFiles, data_hash


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def people(drawn):
    return data.load(drawn, "train")


@pytest.fixture(scope="module")
def validation(drawn):
    return data.load(drawn, "val")


@pytest.fixture(scope="module", autouse=True)
def micro_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.networks, "build", micro)
        yield


@pytest.fixture(scope="module")
def finished(people, validation, tmp_path_factory):
    """Two epochs in one go."""
    run = tmp_path_factory.mktemp("runs") / "{finished}"  # no name that a path can have is special
    before = keras.config.dtype_policy()
    history = train.train(EXPERIMENT, people, validation, run)
    assert keras.config.dtype_policy() == before
    return SimpleNamespace(run=run, history=history)


@pytest.fixture(scope="module")
def half(people, validation, tmp_path_factory):
    """The same, stopped after its first epoch."""
    run = tmp_path_factory.mktemp("runs") / "half"
    history = train.train(EXPERIMENT, people, validation, run, time_limit=0.0)
    assert {len(values) for values in history.values()} == {1}
    return run


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the run folder -----------------------------------------------------------------------------------------------


def test_run_folder(finished, people):
    names = {path.name for path in finished.run.iterdir()}
    assert names == {"config.json", "best.keras", "last.keras", "history.json", "logs", "state", "data.json"}
    assert json.loads((finished.run / "data.json").read_text())["training"]["left_out"] == people.left_out
    assert Experiment.load(finished.run / "config.json") == EXPERIMENT


def test_history_has_one_number_per_epoch(finished):
    history = json.loads((finished.run / "history.json").read_text())
    assert history == finished.history
    assert set(history) == {
        *("loss", "val_loss", "pck", "val_pck", "oks_ap", "val_oks_ap"),
        *("learning_rate", "images_per_second", "bn_train_eval_gap"),
    }
    assert {len(values) for values in history.values()} == {2}
    assert history["loss"][1] < history["loss"][0]
    assert min(history["images_per_second"]) > 0
    rates = training.optimization.learning_rate_schedule(EXPERIMENT.recipe, STEPS)
    assert history["learning_rate"] == [pytest.approx(float(rates(STEPS * epoch))) for epoch in (1, 2)]


def test_history_is_that_of_the_saved_networks(finished, validation):
    """Both are compiled and give the validation values again; `best.keras` is the first epoch with the best score."""
    best = int(np.argmax(finished.history["val_oks_ap"]))
    models = {name: keras.models.load_model(finished.run / name) for name in ("best.keras", "last.keras")}
    assert [int(model.optimizer.iterations) for model in models.values()] == [(best + 1) * STEPS, 2 * STEPS]
    assert all((model.skeleton, model.codec) == (COCO, GaussianCodec(1.5)) for model in models.values())
    batches = train.pipeline.batches(validation, EXPERIMENT.input_size, EXPERIMENT.recipe.batch_size)
    values = models["last.keras"].evaluate(batches, verbose=0, return_dict=True)
    for key in ("loss", "pck", "oks_ap"):
        assert values[key] == pytest.approx(finished.history[f"val_{key}"][-1], rel=1e-5), key


def events(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    return {
        tag: [tf.make_ndarray(event.tensor_proto) for event in accumulator.Tensors(tag)]
        for tag in accumulator.Tags()["tensors"]
    }


def test_tensorboard_has_curves_and_pictures(finished):
    curves = events(finished.run / "logs" / "train")
    for name in ("loss", "pck", "oks_ap", "learning_rate", "images_per_second"):
        np.testing.assert_allclose(curves[f"epoch_{name}"], finished.history[name], rtol=1e-6, err_msg=name)
    curves = events(finished.run / "logs" / "validation")
    for name in ("loss", "pck", "oks_ap"):
        np.testing.assert_allclose(curves[f"epoch_{name}"], finished.history[f"val_{name}"], rtol=1e-6, err_msg=name)
    ((name, pictures),) = events(finished.run / "logs" / "images").items()
    assert name == "input, target, prediction, overlay"
    assert len(pictures) == 2  # one summary per epoch: width, height, and a PNG of each of four people
    for width, height, *images in pictures:
        assert len(images) == 4
        for image in images:
            decoded = tf.io.decode_png(image)
            assert decoded.shape == (int(height), int(width), 3)
            assert len(np.unique(decoded)) > 20


@pytest.mark.slow
def test_the_codec_goes_all_the_way(people, validation, tmp_path, monkeypatch):
    """Into the targets of both data sets, the images, the loss and the saved network."""
    seen = {"codec": [], "scale": []}

    def watch(module, function, argument):
        original = getattr(module, function)
        monkeypatch.setattr(
            module, function, lambda *some, **more: seen[argument].append(more[argument]) or original(*some, **more)
        )

    watch(train.pipeline, "batches", "codec")
    watch(callbacks.heatmaps, "target_and_prediction", "scale")
    experiment, codec = dataclasses.replace(EXPERIMENT, codec="udp"), UDPCodec(1.5)
    train.train(experiment, people, validation, tmp_path, time_limit=0.0)
    assert seen["codec"] == [codec, codec]
    np.testing.assert_array_equal(seen["scale"], np.broadcast_to(codec.scale((96, 64)), (4, 2)))
    model = keras.models.load_model(tmp_path / "best.keras")
    assert (model.codec, model.loss.codec) == (codec, codec)
    assert Experiment.load(tmp_path / "config.json").codec == "udp"


def test_an_unknown_codec_is_refused_before_anything_is_done(half, people, validation, tmp_path):
    before = content(half)
    for run, overwrite in ((tmp_path / "run", False), (half, True)):
        with pytest.raises(InputError, match=r"Unknown codec 'drak'\. Did you mean dark"):
            train.train(dataclasses.replace(EXPERIMENT, codec="drak"), people, validation, run, overwrite=overwrite)
    assert content(half) == before and not files(tmp_path)


# --- the schedule -------------------------------------------------------------------------------------------------


def test_step_schedule_is_the_published_one():
    """1e-3 in the epochs 0..119, 1e-4 in 120..149, 1e-5 in 150..169: new rates from an epoch's first step on."""
    steps = 7
    rates = training.optimization.learning_rate_schedule(Recipe(), steps)
    for epoch in range(170):
        for step in (0, steps - 1):
            expected = 1e-3 if epoch < 120 else 1e-4 if epoch < 150 else 1e-5
            assert float(rates(epoch * steps + step)) == pytest.approx(expected, rel=1e-6), (epoch, step)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_step_schedule_of_few_epochs(epochs):
    """Borders may fall together; the rate never rises, and starts at the top."""
    rates = training.optimization.learning_rate_schedule(Recipe(epochs=epochs), 5)
    values = [float(rates(step)) for step in range(5 * epochs)]
    assert values[0] == pytest.approx(1e-3)
    assert values == sorted(values, reverse=True)
    constant = training.optimization.learning_rate_schedule(Recipe(epochs=epochs, milestones=()), 5)
    assert {float(constant(step)) for step in range(5 * epochs)} == {np.float32(1e-3)}
    early = training.optimization.learning_rate_schedule(
        Recipe(epochs=epochs, milestones=(0.1,)), 5
    )  # not before the second epoch
    assert [float(early(step)) for step in range(5)] == [np.float32(1e-3)] * 5


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
def test_cosine_schedule(warmup):
    """Linear from zero, then half a cosine down to 1 %; float32 against float64."""
    recipe = Recipe(epochs=20, learning_rate=2e-3, schedule="cosine", warmup=warmup)
    steps = 13
    total = 20 * steps
    rises = int(np.ceil(warmup * total))
    rates = training.optimization.learning_rate_schedule(recipe, steps)
    for step in range(total):
        if step < rises:
            expected = 2e-3 * step / rises
        else:
            expected = 2e-3 * (0.01 + 0.99 * (0.5 + 0.5 * np.cos(np.pi * (step - rises) / (total - rises))))
        assert float(rates(step)) == pytest.approx(expected, rel=1e-5, abs=1e-9), step


# --- going on -----------------------------------------------------------------------------------------------------


def test_going_on_gives_what_one_go_gives(finished, half, people, validation, tmp_path):
    """Order, augmentation, weights, moments and schedule continue, to the bit; only the clock differs.

    More in test_checkpointing.py.
    """
    run = shutil.copytree(half, tmp_path / "run")
    history = train.train(EXPERIMENT, people, validation, run, resume=True)
    assert history == json.loads((run / "history.json").read_text())
    timeless = [{**values, "images_per_second": None} for values in (history, finished.history)]
    assert timeless[0] == timeless[1]
    for name in ("last.keras", "best.keras"):
        one, other = (keras.models.load_model(folder / name) for folder in (run, finished.run))
        for a, b in zip(
            [*one.weights, *one.optimizer.variables], [*other.weights, *other.optimizer.variables], strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=f"{name} {a.path}")


def test_going_on_after_the_end_changes_nothing_and_says_so(finished, people, validation, tmp_path, caplog):
    caplog.set_level("INFO", "keras_mrpose")
    run = shutil.copytree(finished.run, tmp_path / "run")
    before = content(run)
    assert train.train(EXPERIMENT, people, validation, run, resume=True) == finished.history
    assert content(run) == before
    assert caplog.messages == [f"{run} is finished: its 2 epochs are done."]


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "small_v1b"},
        {"sigma": 2.0},
        {"codec": "dark"},
        {"augmentation": Augmentation()},
        {"recipe": dataclasses.replace(EXPERIMENT.recipe, learning_rate=1e-3)},
    ],
)
def test_going_on_otherwise_is_refused(half, people, validation, change):
    before = content(half)
    with pytest.raises(InputError, match=r"config\.json says that the run was started otherwise"):
        train.train(dataclasses.replace(EXPERIMENT, **change), people, validation, half, resume=True)
    assert content(half) == before


def moved(people, column):
    """The same people, but for one number."""
    values = getattr(people, column).copy()
    values.flat[0] += 1
    return dataclasses.replace(people, **{column: values})


def test_going_on_with_other_people_is_refused(half, people, validation):
    """The order of the people, the targets or the scores would be others; the folder of the images may have moved."""
    before = content(half)
    renamed = people.image_paths.tolist()
    renamed[people.image_index[3]] = str(Path(renamed[0]).with_name("other.jpg"))
    others = (people.take(slice(8)), moved(people, "boxes"), dataclasses.replace(people, image_paths=renamed))
    for other in others:
        with pytest.raises(
            InputError, match="was started with other training people; resume=True needs the same people"
        ):
            train.train(EXPERIMENT, other, validation, half, resume=True)
    for other in (moved(validation, "keypoints"), moved(validation, "reference_length")):
        with pytest.raises(InputError, match="was started with other validation people"):
            train.train(EXPERIMENT, people, other, half, resume=True)
    elsewhere = dataclasses.replace(people, image_paths=[f"/elsewhere{path}" for path in people.image_paths])
    assert data_hash(elsewhere, validation) == data_hash(people, validation)
    assert content(half) == before


@pytest.mark.slow
def test_a_teacher_takes_part_and_has_to_stay_the_same(finished, people, validation, tmp_path):
    """In one go and stopped in between; a share of 1 leaves the labels out of the loss, but not of the validation."""
    teacher = shutil.copy(finished.run / "last.keras", tmp_path / "teacher.keras")
    recipe = dataclasses.replace(EXPERIMENT.recipe, teacher=str(teacher), teacher_share=1.0)
    taught = dataclasses.replace(EXPERIMENT, recipe=recipe)
    whole = train.train(taught, people, validation, tmp_path / "whole")
    train.train(taught, people, validation, tmp_path / "parts", time_limit=0.0)
    teacher.write_bytes(b"other")
    with pytest.raises(InputError, match="parts was started with another teacher; resume=True needs the same teacher"):
        train.train(taught, people, validation, tmp_path / "parts", resume=True)
    shutil.copy(finished.run / "last.keras", teacher)
    parts = train.train(taught, people, validation, tmp_path / "parts", resume=True)
    for name in ("loss", "val_loss"):
        assert parts[name] == whole[name] != finished.history[name]


@pytest.mark.parametrize("content", [None, b"no network"])
def test_a_teacher_that_cannot_be_read_leaves_nothing(content, people, validation, tmp_path):
    teacher = tmp_path / "teacher.keras"
    if content:
        teacher.write_bytes(content)
    recipe = dataclasses.replace(EXPERIMENT.recipe, teacher=str(teacher))
    with pytest.raises(InputError, match=r"teacher\.keras is not a \.keras file that can be loaded"):
        train.train(dataclasses.replace(EXPERIMENT, recipe=recipe), people, validation, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_going_on_needs_the_config(half, people, validation, tmp_path):
    run = shutil.copytree(half, tmp_path / "run")
    (run / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json"):
        train.train(EXPERIMENT, people, validation, run, resume=True)


def test_going_on_needs_a_state(half, people, validation, tmp_path):
    """The networks of an imported or older run are whole, but cannot go on: not the averaged weights were trained."""
    run = shutil.copytree(half, tmp_path / "run")
    shutil.rmtree(run / "state")
    before = content(run)
    with pytest.raises(InputError, match=r"has last\.keras and no state to go on from"):
        train.train(EXPERIMENT, people, validation, run, resume=True)
    assert content(run) == before


# --- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_files(tmp_path):
    """The callback in a run with scores 0.3 and 0.5 behind it."""
    history = {name: [0.3, 0.5] for name in ("val_pck", "loss", "learning_rate")}
    model = train.build(EXPERIMENT, SimpleNamespace(skeleton=LSP, protocol="pck"), STEPS)
    callback = RunFiles(tmp_path, history, "val_pck", AveragedWeights(model, list))
    callback.set_model(model)
    return callback


def test_best_score_is_remembered(run_files, tmp_path):
    """0.5, of an earlier session, has to be surpassed; being equal is not better."""
    for score, best in ((0.4, False), (0.5, False), (0.6, True)):
        run_files.on_epoch_end(2, {"val_pck": score, "loss": 0.1})
        assert (tmp_path / "best.keras").exists() == best
    first_best = (tmp_path / "best.keras").read_bytes()
    run_files.on_epoch_end(2, {"val_pck": 0.55, "loss": 0.1})
    assert (tmp_path / "best.keras").read_bytes() == first_best
    assert json.loads((tmp_path / "history.json").read_text())["val_pck"] == [0.3, 0.5, 0.4, 0.5, 0.6, 0.55]
    assert files(tmp_path) == ["best.keras", "history.json", "last.keras"]


def test_a_save_that_dies_leaves_the_files_whole(run_files, tmp_path, monkeypatch):
    run_files.on_epoch_end(2, {"val_pck": 0.6, "loss": 0.1})
    before = content(tmp_path)

    def dies(path, **options):
        path.write_bytes(b"PK half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(run_files.model, "save", dies)
    with pytest.raises(OSError, match="No space"):
        run_files.on_epoch_end(3, {"val_pck": 0.7, "loss": 0.1})
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before


# --- build --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_build_keeps_the_precision_to_itself(precision):
    experiment = dataclasses.replace(
        EXPERIMENT, skeleton="lsp", recipe=dataclasses.replace(EXPERIMENT.recipe, precision=precision)
    )
    model = train.build(experiment, SimpleNamespace(skeleton=LSP, protocol="pck"), STEPS)
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.dtype_policy.name for layer in model.layers if "conv" in layer.name} == {precision, "float32"}
    assert isinstance(model.loss, HeatmapMSE) and model.loss.codec == model.codec == GaussianCodec(1.5)
    assert getattr(model.optimizer, "inner_optimizer", model.optimizer).epsilon == 1e-10


def test_precision_is_restored_when_building_fails(monkeypatch):
    def refuse(*arguments, **options):
        raise InputError("no such network")

    monkeypatch.setattr(train.networks, "build", refuse)
    recipe = dataclasses.replace(EXPERIMENT.recipe, precision="mixed_bfloat16")
    with pytest.raises(InputError, match="no such network"):
        train.build(
            dataclasses.replace(EXPERIMENT, recipe=recipe), SimpleNamespace(skeleton=COCO, protocol="ap"), STEPS
        )
    assert keras.config.dtype_policy().name == "float32"


# --- wrong --------------------------------------------------------------------------------------------------------


def test_run_folder_in_use_is_refused(half, people, validation):
    before = content(half)
    with pytest.raises(InputError, match="holds a run; go on with resume=True, replace it with overwrite=True"):
        train.train(EXPERIMENT, people, validation, half)
    assert content(half) == before


def test_a_run_is_kept_until_its_successor_stands(half, people, validation, monkeypatch):
    """A typing error in a file name must not cost a trained network."""
    monkeypatch.undo()
    before = content(half)

    def refuse(*arguments, **options):
        raise InputError("weights.npz: there is no such weights file.")

    monkeypatch.setattr(train.networks, "build", refuse)
    with pytest.raises(InputError, match="no such weights file"):
        train.train(EXPERIMENT, people, validation, half, overwrite=True)
    assert content(half) == before


def test_other_joints_are_refused(people, validation, tmp_path):
    lsp = dataclasses.replace(EXPERIMENT, skeleton="lsp")
    with pytest.raises(InputError, match="has coco joints, but experiment 'micro' is for lsp"):
        train.train(lsp, people, validation, tmp_path / "run")
    with pytest.raises(InputError, match="less than one batch of 4"):
        train.train(EXPERIMENT, people.take(slice(3)), validation, tmp_path / "run")
    with pytest.raises(InputError, match="has no people"):
        train.train(EXPERIMENT, people, validation.take([]), tmp_path / "run")
    assert not files(tmp_path)


def spoilt(people, row, path):
    """The same people, one of them in half a JPEG."""
    whole = Path(people.paths()[row]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    paths = people.image_paths.tolist()
    paths[people.image_index[row]] = str(path)
    return People(**{**vars(people), "image_paths": paths})


@pytest.mark.parametrize("which", ["training", "validation"])
def test_a_broken_image_is_named_and_nothing_stays(people, validation, which, tmp_path):
    broken = tmp_path / "half.jpg"
    if which == "training":
        people = spoilt(people, 0, broken)
    else:
        validation = spoilt(validation, 0, broken)
    with pytest.raises(InputError, match=rf"The image {broken} cannot be read"):
        train.train(EXPERIMENT, people, validation, tmp_path / "run")
    assert files(tmp_path) == ["half.jpg"]


def test_overwriting_replaces_the_whole_folder(half, people, validation, tmp_path, monkeypatch):
    run = shutil.copytree(half, tmp_path / "run")
    (run / "result.json").write_text("of the old network")
    found = []
    monkeypatch.setattr(networks.PoseModel, "fit", lambda *arguments, **options: found.extend(files(run)))
    train.train(EXPERIMENT, people, validation, run, overwrite=True)
    assert found == ["config.json", "data.json"]


@pytest.mark.parametrize(
    ("skeleton", "names"), [(COCO, ["oks_ap", "pck"]), (LSP, ["pck", "oks_ap"]), (MPII, ["pckh", "pck"])]
)
def test_a_training_is_judged_by_the_measure_of_its_data(skeleton, names):
    """The reference_length of MPII's people is the head size, of which OKS could make nothing."""
    assert [metric.name for metric in train.metrics(skeleton, GaussianCodec(1.5))] == names
    bare = Skeleton("bare", ("nose", "tail"))
    assert [metric.name for metric in train.metrics(bare, GaussianCodec(1.5))] == ["oks_ap"]


# --- a network of the caller's, and callbacks of the caller's ----------------------------------------------------


class Counter(keras.callbacks.Callback):
    """Has a state that the training changes, one that it does not, and one that JSON cannot hold."""

    def __init__(self, patience):
        super().__init__()
        self.patience = patience
        self.monitor = np.argmax

    def on_train_begin(self, logs=None):
        self.seen, self.best = 0, None

    def on_epoch_end(self, epoch, logs=None):
        self.seen += 1
        self.best = max(logs["val_pck"], -1 if self.best is None else self.best)


@pytest.mark.slow
def test_callbacks_go_on_as_they_were(people, validation, half, finished, tmp_path):
    """What the training changed in them is restored, what the caller gives is the caller's."""
    run, first, second = tmp_path / "run", Counter(3), Counter(4)
    train.train(EXPERIMENT, people, validation, run, callbacks=[first], time_limit=0.0)
    assert (first.seen, second.patience) == (1, 4)
    history = train.train(EXPERIMENT, people, validation, run, callbacks=[second], resume=True)
    assert (second.seen, second.patience) == (2, 4) and second.best == max(history["val_pck"])
    assert history["val_loss"] == finished.history["val_loss"]  # a callback changes nothing


@pytest.mark.slow
def test_a_network_that_is_built_already(people, validation, tmp_path):
    """It trains from its own weights, with its frozen layers; stopped and resumed as if it never had been."""
    recipe, augmentation = EXPERIMENT.recipe, EXPERIMENT.augmentation

    def network():
        keras.utils.set_random_seed(5)
        model = micro("", backbone="", input_shape=(96, 64, 3), skeleton=COCO, codec=GaussianCodec(1.5))
        model.get_layer("conv1").trainable = False
        return model

    options = {"recipe": recipe, "augmentation": augmentation}
    whole, part = network(), network()
    kernel = whole.get_layer("conv1").get_weights()
    history = train.train(whole, people, validation, tmp_path / "whole", **options)
    np.testing.assert_array_equal(whole.get_layer("conv1").get_weights(), kernel)
    train.train(part, people, validation, tmp_path / "part", **options, time_limit=0.0)
    shutil.copytree(tmp_path / "part", tmp_path / "thawed")
    resumed = train.train(network(), people, validation, tmp_path / "part", **options, resume=True)
    assert resumed["val_loss"] == history["val_loss"]
    config = Experiment.load(tmp_path / "whole" / "config.json")
    assert (config.recipe, config.augmentation, config.sigma) == (recipe, augmentation, 1.5)
    thawed = network()
    thawed.get_layer("conv1").trainable = True
    with pytest.raises(InputError, match=r"optimizer variables .* or other layers are frozen now"):
        train.train(thawed, people, validation, tmp_path / "thawed", **options, resume=True)


def test_what_a_network_cannot_be_trained_with_is_named(people, validation, tmp_path):
    model = micro("", backbone="", input_shape=(96, 64, 3), skeleton=COCO, codec=GaussianCodec(1.5))
    for trained, options, words in (
        (EXPERIMENT, {"recipe": Recipe()}, "An experiment has its own recipe and augmentation"),
        (model, {"recipe": Recipe(precision="mixed_bfloat16")}, "precision is 'mixed_bfloat16', but .* 'float32'"),
        (model, {"strategy": "mirrored"}, "trains on one device"),
    ):
        with pytest.raises(InputError, match=words):
            train.train(trained, people, validation, tmp_path / "run", **options)
