"""Two devices do what one does: a step, a validation, a prediction, a training. conftest.py makes two CPU devices.

Tolerances: both do the same float32 operations but add the people up in another order, and layer by layer the network
and Adam make more of the difference. How much is seen on one device, with the same people in another order: for each
tensor its largest difference. Ten times that is allowed, and ten roundings of its largest value.
"""

import dataclasses
import functools
import json
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from micro import Killed, draw, people_of

from keras_mrpose import InputError
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models import networks
from keras_mrpose.models.normalization import BatchNorm, synchronize
from keras_mrpose.skeletons import COCO
from keras_mrpose.training import checkpointing, distributed, train
from keras_mrpose.training.checkpointing import States, Stopped, capture, restore
from keras_mrpose.training.config import Experiment, Recipe
from keras_mrpose.training.distributed import devices, per_sample

SIZE, MAPS, BATCH, JOINTS = (96, 64), (24, 16), 8, COCO.num_joints
RECIPE = Recipe(epochs=2, batch_size=BATCH, learning_rate=1e-2, epsilon=1e-6, milestones=())  # Adam is no mere sign
EXPERIMENT = Experiment("e", "mrfeanet1", "tiny_v1b", input_size=SIZE, sigma=1.5, recipe=RECIPE)


def micro(name, *, backbone, input_shape, skeleton, codec, **weights):
    """In place of `zoo.build`: quick to trace, with two batch norms of ours."""
    image = x = keras.Input(input_shape)
    for layer in (
        keras.layers.Rescaling(1 / 64),
        keras.layers.Conv2D(6, 4, 4, use_bias=False, name="conv1"),
        BatchNorm(momentum=0.9, name="norm1"),
        keras.layers.ReLU(),
        keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv2"),
        BatchNorm(momentum=0.9, name="norm2"),
        keras.layers.ReLU(),
        keras.layers.Conv2D(skeleton.num_joints, 1, dtype="float32", name="conv3"),
    ):
        x = layer(x)
    return networks.PoseModel(image, x, skeleton=skeleton, codec=codec, spec={"input_shape": input_shape})


@pytest.fixture(autouse=True)
def micro_networks(request, monkeypatch):
    if request.function is not test_a_step_of_a_whole_network:
        monkeypatch.setattr(train.networks, "build", micro)


def people(count, seed=0):
    """Crops of noise; targets with some joints unlabelled, all right within some pixels."""
    draw = np.random.default_rng(seed)
    images = draw.uniform(0, 255, (count, *SIZE, 3)).astype("float32") * draw.uniform(0.2, 1, (count, 1, 1, 1))
    points = draw.uniform(0, (MAPS[1], MAPS[0]), (count, JOINTS, 2))
    points[:, COCO.torso] = (0, 0), (MAPS[1] - 1, MAPS[0] - 1)
    weights = draw.random((count, JOINTS, 1)) < 0.7
    lengths = np.full((count, JOINTS, 1), 100.0)
    return images.astype("float32"), np.concatenate([points * weights, weights, lengths], -1).astype("float32")


PEOPLE = people(BATCH)
SHUFFLED = tuple(part[np.random.default_rng(3).permutation(BATCH)] for part in PEOPLE)


def batches(people, size=BATCH):
    return tf.data.Dataset.from_tensor_slices(people).batch(size)


def whole_batches(people):
    """As `data.pipeline.batches` fills up the last one: with some without labelled joints, who count for nothing."""
    count = len(people[0])
    rows = np.minimum(np.arange(-(-count // BATCH) * BATCH), count - 1)
    images, targets = (part[rows] for part in people)
    targets[count:, :, :3] = 0
    return batches((images, targets, np.full(len(rows), len(rows) / count, "float32")))


def built(name, frozen=False, **recipe):
    """The network as `train` builds it."""
    experiment = dataclasses.replace(EXPERIMENT, recipe=dataclasses.replace(RECIPE, **recipe))
    keras.utils.set_random_seed(0)
    with devices(name, BATCH).scope():
        model = train.build(experiment, SimpleNamespace(skeleton=COCO, protocol="ap"), 1)
        for layer in model.layers:
            layer.trainable = not (frozen and isinstance(layer, BatchNorm))
    return model


def values(model):
    """Name -> value of every variable, the same on all devices. Adam's momentum after a step is 0.1 * gradient."""
    found = {}
    for variable in model.variables + model.optimizer.variables:
        name = variable.path.split("/", variable.path.startswith("adam"))[-1]
        copies = [copy.numpy() for copy in getattr(variable.value, "values", [variable.value])]
        assert len(copies) == model.distribute_strategy.num_replicas_in_sync
        for copy in copies:
            np.testing.assert_array_equal(copy, copies[0], err_msg=name)
        found[name] = copies[0]
    return found


def step(name, people, **how):
    """One step of `fit`: what it logs, and every variable after it."""
    model = built(name, **how)
    logs = model.fit(batches(people), epochs=1, shuffle=False, verbose=0).history
    assert model.optimizer.iterations.numpy() == 1
    return {name: value for name, (value,) in logs.items()}, values(model)


def assert_alike(one, two, shuffled):
    assert set(one) == set(two) == set(shuffled)
    for name, value in one.items():
        spread = np.abs(value - shuffled[name]).max() + np.finfo("float32").eps * np.abs(value).max()
        np.testing.assert_allclose(two[name], value, rtol=0, atol=10 * spread, err_msg=name)
        assert value.dtype.kind == "i" or 10 * spread <= 1e-2 * np.abs(value).max(), name


# --- one step -----------------------------------------------------------------------------------------------------

STEPS = [
    {"sync_batch_norm": True},
    pytest.param({"frozen": True}, marks=pytest.mark.slow),
    pytest.param({"ema": 0.9, "optimizer": "adamw", "weight_decay": 0.1, "frozen": True}, marks=pytest.mark.slow),
]


def check_step(how):
    (one, state), (two, state_of_two) = step("none", PEOPLE, **how), step("mirrored", PEOPLE, **how)
    logs, shuffled = step("none", SHUFFLED, **how)
    assert set(one) == {"loss", "pck", "oks_ap"} and 0.1 < one["pck"] < 0.9 and 0.1 < one["oks_ap"] < 0.9
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)  # 8 sums of thousands of float32, each rounded to 6e-8
    assert (two["pck"], two["oks_ap"]) == (logs["pck"], logs["oks_ap"]) == (one["pck"], one["oks_ap"])
    assert_alike(state, state_of_two, shuffled)


@pytest.mark.parametrize("how", STEPS)
def test_a_step_on_two_devices_is_that_on_one(how):
    check_step(how)


@pytest.mark.slow
def test_a_step_with_a_teacher(tmp_path):
    """Its loss is the mean over all people, too."""
    teacher = built("none")
    rng = np.random.default_rng(0)
    teacher.get_layer("conv3").kernel.assign(rng.normal(0, 0.3, teacher.get_layer("conv3").kernel.shape))
    teacher.save(tmp_path / "teacher.keras")
    check_step({"sync_batch_norm": True, "teacher": str(tmp_path / "teacher.keras"), "teacher_share": 0.7})


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"sync_batch_norm": True}, {"frozen": True}])
def test_a_step_of_a_whole_network(how):
    check_step(how)


@pytest.mark.slow
def test_batch_norms_that_are_not_synchronised_see_one_share_each():
    """Gradients and moving averages are then the mean of those of two devices that have half of the people each."""
    _, both = step("mirrored", PEOPLE)
    halves = [step("none", tuple(part[half] for part in PEOPLE))[1] for half in (slice(4), slice(4, 8))]
    for name, value in both.items():
        if "momentum" in name or "moving" in name:
            expected = (halves[0][name] + halves[1][name]) / 2
            bound = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(value, expected, rtol=0, atol=bound, err_msg=name)
            assert np.abs(halves[0][name] - halves[1][name]).max() > 100 * bound


@pytest.mark.slow
def test_two_steps_of_gradients_are_one_step_of_all():
    """Gradients of two steps under two devices: two batches of 8 make the update of a batch of 16, and wait alike."""
    more = people(2 * BATCH, seed=1)
    results = {}
    for name, size, gradient_accumulation_steps in (("mirrored", BATCH, 2), ("none", 2 * BATCH, 1)):
        model = built(name, frozen=True, gradient_accumulation_steps=gradient_accumulation_steps)
        model.fit(batches(more, size), epochs=1, shuffle=False, verbose=0)
        results[name] = values(model)
    for name, value in results["none"].items():
        if "iteration" not in name:
            bound = 1e-4 * np.abs(value).max()  # of a step that Adam divides by its own size
            np.testing.assert_allclose(results["mirrored"][name], value, rtol=0, atol=bound, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(precision):
    """Eight bits of a number are kept by bfloat16, eleven by float16: 1% for a mean over people, layer by layer."""
    how = {"precision": precision, "sync_batch_norm": True}
    (one, state), (two, state_of_two) = step("none", PEOPLE, **how), step("mirrored", PEOPLE, **how)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-2)
    for name in (name for name in state if "moving" in name):
        bound = 1e-2 * np.abs(state[name]).max()
        np.testing.assert_allclose(state_of_two[name], state[name], rtol=0, atol=bound, err_msg=name)


# --- validation and prediction --------------------------------------------------------------------------------------


@functools.cache
def pair():
    """The same network on one device and on two."""
    one, two = built("none"), built("mirrored")
    weights = [np.random.default_rng(i).normal(0.2, 0.3, w.shape) ** 2 for i, w in enumerate(one.weights)]
    for model in (one, two):
        model.set_weights(weights)
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("count", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 8)), 3, 13])
def test_any_number_of_people_is_validated_and_predicted_in_order(count):
    """Fewer people than devices, than a batch; a batch; and one that ends with shares of 3 and 2 people."""
    (one, two), everybody = pair(), people(count, seed=2)
    whole = whole_batches(everybody)
    expected, found = (m.evaluate(d, verbose=0, return_dict=True) for m, d in ((one, batches(everybody)), (two, whole)))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6) and expected["loss"] > 0
    assert {**found, "loss": 0} == {**expected, "loss": 0} and expected["oks_ap"] > 0
    heatmaps = two.predict(whole, verbose=0)
    assert len(heatmaps) == -(-count // BATCH) * BATCH
    alone = np.concatenate([one.predict_on_batch(image[None]) for image in everybody[0]])
    np.testing.assert_allclose(heatmaps[:count], alone, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("count", [1, 3])
def test_without_them_keras_fails(count):
    """Why they are made. When this fails, a newer Keras can do without."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same size and shape"):
        pair()[1].evaluate(batches(people(count)), verbose=0)


# --- a training ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """19 drawn people to train on, 8 to validate on."""
    return people_of(draw(tmp_path_factory.mktemp("drawn")))


TRAINED = dataclasses.replace(
    EXPERIMENT,
    augmentation=Augmentation(scale=0.1, rotation=10.0),
    recipe=dataclasses.replace(RECIPE, sync_batch_norm=True, ema=0.5, batch_size=4, learning_rate=1e-3),
)


@pytest.mark.slow
@pytest.mark.parametrize("validated", [1, 3, 8])
def test_a_training_on_two_devices_is_that_on_one(drawn, tmp_path, validated):
    """Eight steps: each makes ten times more of a rounding at most; here 1e-4 is left of it."""
    table, validation = drawn[0], drawn[1].take(slice(validated))
    histories = {
        name: train.train(TRAINED, table, validation, tmp_path / name, strategy=name) for name in ("none", "mirrored")
    }
    assert set(histories["mirrored"]) == set(histories["none"])
    for name in ("loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(histories["mirrored"][name], histories["none"][name], rtol=1e-4, err_msg=name)
    one, two = (keras.models.load_model(tmp_path / name / "last.keras") for name in histories)
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-3 * np.abs(a).max(), err_msg=a.path)
    images = people(2)[0]
    np.testing.assert_allclose(two.predict_on_batch(images), one.predict_on_batch(images), atol=1e-4)
    assert json.loads((tmp_path / "mirrored" / "history.json").read_text()) == histories["mirrored"]


@pytest.mark.slow
def test_going_on_with_two_devices(drawn, tmp_path):
    """As in one go: weights, moments, average and batch norms of both devices are restored."""
    whole = train.train(TRAINED, *drawn, tmp_path / "whole", strategy="mirrored")
    train.train(TRAINED, *drawn, tmp_path / "halves", strategy="mirrored", time_limit=0.0)
    halves = train.train(TRAINED, *drawn, tmp_path / "halves", strategy="mirrored", resume=True)
    for name in ("loss", "val_loss", "learning_rate"):
        np.testing.assert_allclose(halves[name], whole[name], rtol=1e-5, err_msg=name)
    one, two = (keras.models.load_model(tmp_path / name / "last.keras") for name in ("whole", "halves"))
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * np.abs(a).max(), err_msg=a.path)


@pytest.mark.slow
def test_stops_within_epochs_with_two_devices(drawn, tmp_path, monkeypatch):
    """Killed in the first epoch and stopped in the second, with gradients gathered: the same bits as in one go."""
    recipe = dataclasses.replace(TRAINED.recipe, optimizer="adamw", weight_decay=0.1, gradient_accumulation_steps=3)
    experiment, run = dataclasses.replace(TRAINED, recipe=recipe), tmp_path / "stops"
    whole = train.train(experiment, *drawn, tmp_path / "whole", strategy="mirrored", save_every=None)
    original, done = checkpointing.SaveState.on_train_batch_end, []

    def ends(self, *arguments, **options):
        done.append(self.epoch)
        if len(done) == 5:
            signal.raise_signal(signal.SIGTERM)
        original(self, *arguments, **options)
        if len(done) == 2:
            raise Killed

    monkeypatch.setattr(checkpointing.SaveState, "on_train_batch_end", ends)
    with pytest.raises(Killed):
        train.train(experiment, *drawn, run, strategy="mirrored", save_every=0.0)
    with pytest.raises(Stopped, match="saved after batch 1 of epoch 2"):
        train.train(experiment, *drawn, run, strategy="mirrored", save_every=None, resume=True)
    history = train.train(experiment, *drawn, run, strategy="mirrored", save_every=None, resume=True)
    assert done == [0] * 4 + [1] * 4  # each step once
    assert {**history, "images_per_second": None} == {**whole, "images_per_second": None}
    one, two = (States(folder / "state").newest() for folder in (tmp_path / "whole", run))
    assert one.variables.keys() == two.variables.keys() and any("gradient_sum" in name for name in one.variables)
    for name, value in one.variables.items():
        np.testing.assert_array_equal(two.variables[name], value, err_msg=name)


@pytest.mark.slow
def test_running_metrics_are_restored_on_two_devices():
    """In the middle of an epoch: whole numbers, which TensorFlow would deal out to the devices and round down."""
    model = built("mirrored")
    model.evaluate(whole_batches(people(5)), verbose=0)
    before = capture(model)
    assert any(value.dtype.kind == "i" and (value % 2).any() for name, value in before.items() if "metrics" in name)
    model.reset_metrics()
    restore(model, before, "metrics")
    assert capture(model).keys() == before.keys() and any(name.startswith("copies/metrics/") for name in before)
    for name, value in capture(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    one = built("none")  # a training may go on on another number of devices
    one.evaluate(batches(people(5)), verbose=0)
    one.reset_metrics()
    restore(one, before, "metrics")
    for name, value in capture(one).items():
        if name.startswith("metrics/"):
            np.testing.assert_array_equal(value, before[name], err_msg=name)


# --- what is refused ----------------------------------------------------------------------------------------------


def test_devices():
    assert devices("none", 3).num_replicas_in_sync == devices("auto", 3).num_replicas_in_sync == 1  # no GPU here
    assert devices("mirrored", 6).num_replicas_in_sync == 2
    with pytest.raises(InputError, match="batch_size is 5, which 2 devices cannot share equally; give a multiple of 2"):
        devices("mirrored", 5)
    with pytest.raises(InputError, match="strategy is 'horovod'; give auto, none, mirrored"):
        devices("horovod", 4)


def test_auto_takes_several_gpus(monkeypatch):
    two = tf.config.list_logical_devices("CPU")  # of the same name, so that it stays one strategy in this process
    for found, replicas in ((two, 2), (two[:1], 1)):
        monkeypatch.setattr(distributed.tf.config, "list_logical_devices", lambda kind, found=found: found)
        chosen = devices("auto", 4)
        assert chosen.num_replicas_in_sync == replicas
        assert isinstance(chosen, tf.distribute.MirroredStrategy) == (replicas > 1)


def test_jax_has_no_strategy(monkeypatch):
    monkeypatch.setattr(distributed.keras.backend, "backend", lambda: "jax")
    assert devices("auto", 3).num_replicas_in_sync == devices("none", 3).num_replicas_in_sync == 1
    with pytest.raises(InputError, match="'mirrored' needs Keras on TensorFlow, this is Keras on jax"):
        devices("mirrored", 4)


def test_a_training_that_cannot_be_shared_leaves_nothing(drawn, tmp_path):
    odd = dataclasses.replace(TRAINED, recipe=dataclasses.replace(TRAINED.recipe, batch_size=3))
    with pytest.raises(InputError, match="batch_size is 3"):
        train.train(odd, *drawn, tmp_path / "run", strategy="mirrored")
    assert not list(tmp_path.iterdir())


class Scalar(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred)) + 0 * keras.ops.sum(y_true)


class OneForAll(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred), keepdims=True)[0, 0, 0] + 0 * keras.ops.sum(y_true)


class OfJoints(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_pred), axis=(1, 2)) + 0 * y_true[..., 0]


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (Scalar(), r"'scalar' returns shape \(\) for 2 people; give one value per person"),
        (OneForAll(), r"'one_for_all' returns shape \(1,\) for 2 people"),
        (OfJoints(), r"'of_joints' returns shape \(2, 17\) for 2 people"),
        (HeatmapMSE(reduction="sum"), "'heatmap_mse' has the reduction 'sum'; give 'sum_over_batch_size'"),
    ],
)
def test_a_loss_that_devices_cannot_share_is_refused(loss, words, monkeypatch):
    with pytest.raises(InputError, match=words):
        per_sample(loss, pair()[0])
    monkeypatch.setattr(train, "HeatmapMSE", lambda *_, **__: loss)
    with pytest.raises(InputError, match=words):
        built("none")


def test_a_loss_per_person_is_taken():
    loss = HeatmapMSE()
    assert per_sample(loss, pair()[0]) is loss


def test_synchronised_layers_are_saved_as_such():
    model = micro("", backbone="", input_shape=(*SIZE, 3), skeleton=COCO, codec=HeatmapMSE().codec)
    synchronize(model)
    again = networks.PoseModel.from_config(model.get_config())
    assert [layer.synchronized for layer in again.layers if isinstance(layer, BatchNorm)] == [True, True]
