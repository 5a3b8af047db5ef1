"""Guards: where a training broke down, the batch set aside, and batch norms that do in evaluation what they should."""

import dataclasses
import math
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from micro import EXPERIMENT, STEPS, draw, people_of

from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.data import pipeline
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models import hardware, networks
from keras_mrpose.skeletons import COCO
from keras_mrpose.synthetic import dataset
from keras_mrpose.training import sanity_checks, train
from keras_mrpose.training.checkpointing import State, States, capture
from keras_mrpose.training.config import Recipe
from keras_mrpose.training.optimization import AveragedWeights
from keras_mrpose.training.sanity_checks import BN_GAP, BadBatch, BatchNormGuard, StopOnNaN, bn_train_eval_gap


def micro(
    name="micro",
    *,
    backbone=None,
    input_shape=(96, 64, 3),
    skeleton=COCO,
    codec=None,
    momentum=0.9,
    dropout=0.0,
    **others,
):
    """Two convolutions and what lies between them, in place of `zoo.build`."""
    image = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(8, 4, 4, use_bias=False, name="first")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name="norm")(x))
    x = keras.layers.Dropout(dropout, seed=1)(x)
    x = keras.layers.Conv2D(skeleton.num_joints, 1, dtype="float32", name="last")(x)
    codec = codec or GaussianCodec(1.5)
    return networks.PoseModel(image, x, skeleton=skeleton, codec=codec, spec={"input_shape": input_shape})


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return people_of(draw(tmp_path_factory.mktemp("drawn")))


@pytest.fixture(scope="module")
def people(tables):
    return tables[0]


@pytest.fixture(scope="module")
def validation(tables):
    return tables[1]


@pytest.fixture(scope="module")
def drawn_many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    dataset.write(folder, 120, size=(120, 160))
    dataset.write(folder, 16, split="val2017", first_index=120, size=(120, 160))
    return people_of(folder)


@pytest.fixture
def micro_networks(monkeypatch):
    monkeypatch.setattr(train.networks, "build", micro)


def compiled(**options):
    model = micro(**options)
    model.compile(keras.optimizers.Adam(1e-3), HeatmapMSE(model.codec))
    model.optimizer.build(model.trainable_variables)
    return model


def options(seed=3):
    return {"input_size": (96, 64), "batch_size": 4, "augmentation": EXPERIMENT.augmentation, "seed": seed}


def broken(people, row, monkeypatch):
    """The same people, one of whom has a target of no numbers: what no file can lead to, since `People` looks."""
    keypoints = people.keypoints.copy()
    keypoints[row] = (math.nan, math.nan, 2)
    changed = dataclasses.replace(people)
    object.__setattr__(changed, "keypoints", keypoints)
    whole = pipeline.target
    monkeypatch.setattr(
        pipeline,
        "target",
        lambda joints, *others: tf.where(tf.reduce_any(tf.math.is_nan(joints)), math.nan, whole(joints, *others)),
    )
    return changed


# --- a loss that is no number -------------------------------------------------------------------------------------


class Noted:
    """In place of `BadBatch`: notes which batch is asked for."""

    def __init__(self, run, broken=(), current=None):
        self.run, self.broken, self.states, self.written = run, list(broken), SimpleNamespace(current=current), []

    def remove(self):
        self.written = []

    def write(self, model, epoch, step):
        self.written.append((epoch, step))
        return self.broken


def stopper(noted, first=(0, 0)):
    callback = StopOnNaN(noted, first)
    callback.set_model(compiled())
    callback.on_train_begin()
    return callback


@pytest.mark.parametrize("loss", [math.nan, math.inf, np.float32("nan")])
def test_the_first_loss_that_is_no_number_ends_the_training(loss, tmp_path):
    noted = Noted(tmp_path)
    callback = stopper(noted)
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(5, {"loss": 0.1})
    assert noted.written == []
    with pytest.raises(InputError) as caught:
        callback.on_train_batch_end(6, {"loss": loss})
    assert noted.written == [(1, 6)]
    assert str(caught.value) == (
        f"The loss became {loss} in epoch 2, batch 7; the batch is in {tmp_path / 'bad-batch.npz'}, and to be looked "
        f"at in {tmp_path / 'bad-batch.png'}; no state was saved before; start another run with a lower learning rate "
        "(now 0.001), or fix these people."
    )


def test_an_epoch_that_was_begun_before_counts_from_there(tmp_path):
    """`fit` counts the batches that it makes; the state that it went on from lies 5 batches into epoch 3."""
    noted = Noted(tmp_path, broken=[12, 7], current="runs/state/a.npz")
    callback = stopper(noted, first=(2, 5))
    callback.on_epoch_begin(2)
    with pytest.raises(
        InputError, match=r"epoch 3, batch 7; .*, where people 12, 7 are not finite: remove them; "
    ) as e:
        callback.on_train_batch_end(1, {"loss": math.nan})
    assert "runs/state/a.npz is the last whole state" in str(e.value)
    callback.on_epoch_begin(3)
    with pytest.raises(InputError, match="epoch 4, batch 2;"):
        callback.on_train_batch_end(1, {"loss": math.nan})
    assert noted.written == [(2, 6), (3, 1)]


def test_validation_that_is_no_number_ends_the_training(tmp_path):
    callback = stopper(Noted(tmp_path))
    callback.on_epoch_end(1, {"loss": 0.1, "val_loss": 0.2})
    with pytest.raises(InputError, match=r"After epoch 2, val_loss is nan; no state .* lower learning rate"):
        callback.on_epoch_end(1, {"loss": 0.1, "val_loss": math.nan})


@pytest.mark.parametrize("error", [OSError("No space left on device\nat all"), InputError("half.jpg cannot be read.")])
def test_a_batch_that_cannot_be_set_aside_hides_nothing(error, tmp_path):
    noted = Noted(tmp_path)
    callback = stopper(noted)
    callback.on_epoch_begin(0)

    def fails(*arguments):
        raise error

    noted.write = fails
    with pytest.raises(
        InputError, match=r"loss became nan in epoch 1, batch 3; the batch could not be set aside \("
    ) as e:
        callback.on_train_batch_end(2, {"loss": math.nan})
    assert "at all" not in str(e.value)  # one line


def test_another_precision_is_advised(tmp_path):
    with networks.precision("mixed_float16"):
        model = compiled()
    callback = StopOnNaN(Noted(tmp_path))
    callback.set_model(model)
    with pytest.raises(InputError, match=r"\(now 0\.001\), use another precision than mixed_float16, or fix"):
        callback.on_epoch_end(0, {"loss": math.nan})


# --- the batch ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aside(people, tmp_path_factory):
    """Folder, network and file of a batch in the middle."""
    folder, model = tmp_path_factory.mktemp("aside"), compiled()
    before = capture(model)
    states = States(folder / "state")
    states.write(State(1, variables=capture(compiled())))  # of no use: these weights are whole
    assert BadBatch(folder, people, options(), states).write(model, 1, 2) == []
    after = capture(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    return SimpleNamespace(folder=folder, model=model, file=written(folder))


def written(folder):
    with np.load(folder / "bad-batch.npz") as file:
        return dict(file)


def test_the_batch_is_the_one_of_the_training(people, aside):
    """The seventh, bit for bit; its people go by the joints that they have labelled, mirrored or not."""
    batches = list(pipeline.batches(people, **options()).take(STEPS + 3).as_numpy_iterator())
    np.testing.assert_array_equal(aside.file["images"], batches[-1][0], strict=True)
    np.testing.assert_array_equal(aside.file["targets"], batches[-1][1], strict=True)
    assert (aside.file["epoch"], aside.file["step"]) == (1, 2)
    rows = [people.ids.tolist().index(number) for number in aside.file["ids"]]
    assert aside.file["image_paths"].tolist() == people.paths()[rows].tolist()
    labelled, given = people.keypoints[rows, :, 2] > 0, aside.file["targets"][..., 2] > 0
    for mine, theirs in zip(given, labelled, strict=True):
        assert (mine == theirs).all() or (mine == theirs[list(COCO.flip_indices)]).all()
    # a length becomes longer as the crop is enlarged, at most by 1 / (1 - 0.1) or 1 / (1 + 0.1)
    widths = np.maximum(people.boxes[rows, 2] * 1.25 / 16, people.boxes[rows, 3] * 1.25 / 24)
    ratio = aside.file["targets"][:, 0, 3] / (people.reference_length[rows] / widths)
    assert ((ratio > 0.9) & (ratio < 1.12)).all()


def test_rows_are_those_of_an_epoch(people):
    """Everybody at most once in an epoch, and otherwise in each."""
    order = {"batch_size": 4, "seed": 3}
    epochs = [
        np.concatenate([pipeline.rows(people, **order, first_epoch=epoch, first_step=step) for step in range(STEPS)])
        for epoch in range(2)
    ]
    assert all(len(set(rows.tolist())) == 16 and rows.max() < 19 for rows in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def losses_of(model, images, targets):
    """In training mode, float64; of a copy, because that moves averages."""
    output = compiled()
    output.set_weights(model.get_weights())
    maps = np.float64(keras.ops.convert_to_numpy(output(images, training=True)))
    wanted, weights = model.codec.encode(targets[..., :2], targets[..., 2], maps.shape[1:3])
    error = np.float64(weights)[:, None, None] * (maps - np.float64(wanted))
    return 0.5 * (error**2).mean(axis=(1, 2, 3))


def test_losses_are_those_of_a_training_step(aside):
    """Float32 sums of 24 x 16 x 17 squares: 1e-5 of their size."""
    found = aside.file
    np.testing.assert_allclose(found["losses"], losses_of(aside.model, found["images"], found["targets"]), rtol=1e-5)
    assert len(set(found["losses"].tolist())) == 4


def test_broken_weights_give_way_to_those_of_the_last_state(people, tmp_path):
    """Without a state the losses say nothing, but the people are there all the same."""
    model, states = compiled(), States(tmp_path / "state")
    good = compiled()
    for network in (model, None):
        model.get_layer("first").kernel.assign(np.full((4, 4, 3, 8), np.nan))
        if network is None:
            states.write(State(1, 2, variables=capture(good)))
        assert BadBatch(tmp_path, people, options(), states).write(model, 0, 2) == []
        found = written(tmp_path)
        assert found["ids"].shape == (4,)
        assert np.isnan(found["losses"]).all() == (network is not None)
    np.testing.assert_allclose(found["losses"], losses_of(good, found["images"], found["targets"]), rtol=1e-5)


def test_a_crop_that_is_not_finite_is_told(people, tmp_path, monkeypatch):
    images, targets = (part.numpy() for part in next(iter(pipeline.batches(people, **options()))))
    images[2, 5, 5] = math.nan
    batch = tf.data.Dataset.from_tensors((images, targets))
    monkeypatch.setattr(pipeline, "batches", lambda *arguments, **others: batch)
    found = BadBatch(tmp_path, people, options(), States(tmp_path / "state")).write(compiled(), 0, 0)
    assert found == [written(tmp_path)["ids"][2]]


def test_the_batch_of_an_earlier_attempt_is_forgotten(people, tmp_path):
    for name in ("bad-batch.npz", "bad-batch.png"):
        (tmp_path / name).touch()
    StopOnNaN(BadBatch(tmp_path, people, options(), States(tmp_path / "state"))).on_train_begin()
    assert not names(tmp_path)


def test_the_picture_has_everybody_with_joints(aside):
    """Crops 64 wide are shown three times as large, with a line of text and a frame; joints where the targets are."""
    sheet = cv2.imread(str(aside.folder / "bad-batch.png"))[..., ::-1].astype(int)
    height, width = 96 * 3 + 18 + 2, 64 * 3 + 2
    assert sheet.shape == (2 * height, 3 * width, 3)
    for person, (image, target) in enumerate(zip(aside.file["images"], aside.file["targets"], strict=True)):
        top, left = person // 3 * height + 1, person % 3 * width + 1
        tile = sheet[top : top + 96 * 3, left : left + 64 * 3]
        plain = cv2.resize(image.clip(0, 255).astype(np.uint8), None, fx=3, fy=3, interpolation=cv2.INTER_LINEAR)
        changed = (tile != plain).any(axis=-1)
        inside = [(x, y) for x, y, weight, _ in target if weight and 1 <= x < 15 and 1 <= y < 23]
        assert inside
        for x, y in inside:
            assert changed[round((y * 4 + 0.5) * 3 - 0.5), round((x * 4 + 0.5) * 3 - 0.5)]
        assert changed.mean() < 0.5


# --- a whole training ---------------------------------------------------------------------------------------------


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_an_exploding_training_keeps_the_batch(people, validation, micro_networks, tmp_path):
    """With this learning rate the first step's weights overflow, the second or third step's loss is no number."""
    wild = dataclasses.replace(EXPERIMENT, recipe=Recipe(epochs=2, batch_size=4, learning_rate=1e30))
    with pytest.raises(InputError, match=r"The loss became (nan|inf) in epoch 1, batch [234]; the batch is .* whole s"):
        train.train(wild, people, validation, tmp_path / "run")
    assert names(tmp_path / "run") >= {"bad-batch.npz", "bad-batch.png", "config.json"}
    assert not names(tmp_path / "run") & {"last.keras", "best.keras", "history.json"}
    assert written(tmp_path / "run")["ids"].shape == (4,)


@pytest.mark.slow
def test_a_person_that_breaks_the_training_is_named(people, validation, micro_networks, monkeypatch, tmp_path):
    """A new start forgets."""
    order = {"batch_size": 4, "seed": 0, "first_epoch": 0}
    row = pipeline.rows(people, first_step=2, **order)[1]
    with pytest.raises(InputError, match=rf"epoch 1, batch 3; .* where people {people.ids[row]} are not finite"):
        train.train(EXPERIMENT, broken(people, row, monkeypatch), validation, tmp_path / "run")
    found = written(tmp_path / "run")
    assert found["ids"][1] == people.ids[row]
    assert np.isnan(found["targets"]).any(axis=(1, 2)).tolist() == [False, True, False, False]
    history = train.train(EXPERIMENT, people, validation, tmp_path / "run", overwrite=True, time_limit=0.0)
    assert not names(tmp_path / "run") & {"bad-batch.npz", "bad-batch.png"}
    model = keras.models.load_model(tmp_path / "run" / "last.keras")
    first = next(iter(pipeline.batches(validation, (96, 64), 4)))[0]
    assert history[BN_GAP] == [pytest.approx(bn_train_eval_gap(model, first), abs=1e-6)]


# --- batch norm ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(people):
    return next(iter(pipeline.batches(people, (96, 64), 8)))[0].numpy()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_gap_is_one_less_the_correlation_and_changes_nothing(images, dropout):
    """Float32 maps of 8 x 24 x 16 x 17 values; their correlation is good to 1e-6."""
    model = compiled(dropout=dropout)
    before = capture(model)
    gap = bn_train_eval_gap(model, images)
    after = capture(model)
    assert set(before) == set(after) and all(np.array_equal(before[name], after[name]) for name in before)
    assert gap == bn_train_eval_gap(model, images)
    maps = [keras.ops.convert_to_numpy(model(images, training=mode)).ravel() for mode in (False, True)]
    assert gap == pytest.approx(1 - np.corrcoef(*np.float64(maps))[0, 1], abs=1e-6)
    assert 1e-4 < gap < 2


def test_the_gap_is_that_of_the_averaged_weights(images):
    run = Steps(images, 0)
    run.model.compile(keras.optimizers.Adam(1e-3, use_ema=True), "mse")
    run.model.optimizer.build(run.model.trainable_variables)
    for average in run.model.optimizer._model_variables_moving_average:
        average.assign(keras.ops.zeros(average.shape))
    assert run.gap() == 0  # flat both times


def test_the_gap_at_its_ends(images):
    model = compiled()
    norm, last = model.get_layer("norm"), model.layers[-1]
    last.set_weights([np.zeros_like(values) for values in last.get_weights()])
    assert bn_train_eval_gap(model, images) == 0  # flat both times
    plain = keras.Sequential([keras.Input((96, 64, 3)), keras.layers.Conv2D(17, 4, 4)])
    assert bn_train_eval_gap(plain, images) == pytest.approx(0, abs=1e-12)
    model = compiled()
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.full(8, 1e6))  # nothing gets through the ReLU
    assert bn_train_eval_gap(model, images) == 1
    norm.moving_mean.assign(np.full(8, np.nan))
    assert math.isnan(bn_train_eval_gap(model, images))


class Steps:
    """A guard on a network that has taken so many steps."""

    def __init__(self, images, steps):
        self.model = compiled()
        self.guard = BatchNormGuard([(images, None)], AveragedWeights(self.model, lambda: [(images, None)]))
        self.guard.set_model(self.model)
        self.guard.on_train_begin()
        self.model.optimizer.iterations.assign(steps)

    def gap(self, epoch=0):
        logs = {}
        self.guard.on_epoch_end(epoch, logs)
        return logs.get(BN_GAP)


def test_a_wide_gap_is_told_once_and_not_at_once(images, caplog):
    run = Steps(images, 49)
    run.model.get_layer("norm").moving_mean.assign(np.full(8, 1e6))
    assert run.gap() == 1
    assert not caplog.records
    run.model.optimizer.iterations.assign(50)
    assert run.gap(3) == 1
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "bn_train_eval_gap is 1.00 after epoch 4" in record.getMessage()
    assert run.gap(4) == 1
    assert caplog.records == [record]


def test_a_narrow_gap_is_not_told(images, caplog):
    run = Steps(images, 1000)
    for _ in range(120):
        run.model(run.guard.images, training=True)  # the averages become those of the batch: 0.9**120 is 3e-6
    assert run.gap() < 1e-3
    assert not caplog.records


def test_averages_that_are_no_numbers_end_the_training(images):
    run = Steps(images, 0)
    run.model.get_layer("norm").moving_variance.assign(np.full(8, np.inf))
    with pytest.raises(InputError, match="After epoch 3, the batch norm norm has values that are not finite numbers"):
        run.gap(2)


def test_a_network_without_batch_norm_has_no_gap(images):
    run = Steps(images, 50)
    run.guard.set_model(keras.Sequential([keras.Input((96, 64, 3)), keras.layers.Conv2D(17, 4, 4)]))
    assert run.gap() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("momentum", "scale", "broken"), [(0.9, 1, False), (0.9999, 1, True), (1.0, 1, True), (0.9, 1 / 255, True)]
)
def test_real_networks_on_both_sides_of_the_border(drawn_many, momentum, scale, broken, caplog):
    """Two epochs of 36 steps: well; averages that lag, that stand still, and those of another range of pixels."""
    people, validation = drawn_many
    experiment = dataclasses.replace(
        EXPERIMENT, model="simplebaseline", recipe=Recipe(epochs=2, batch_size=8, learning_rate=2e-3, epsilon=1e-10)
    )
    model = train.build(experiment, people, 36)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
    batches = pipeline.batches(people, (96, 64), 8, codec=model.codec, augmentation=experiment.augmentation)
    guard = BatchNormGuard(pipeline.batches(validation, (96, 64), 8), AveragedWeights(model, list))
    scaled = batches.map(lambda images, targets: (images * scale, targets))
    history = model.fit(scaled, steps_per_epoch=36, epochs=2, verbose=0, shuffle=False, callbacks=[guard]).history
    assert (history[BN_GAP][-1] > sanity_checks.MAX_BN_GAP) == broken
    assert ("bn_train_eval_gap" in caplog.text) == broken


# --- precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "words", "warned"),
    [("mixed_bfloat16", "avx2", True), ("mixed_bfloat16", "avx512_bf16", False), ("float32", "avx2", False)],
)
def test_bfloat16_without_instructions_for_it_is_warned_of(precision, words, warned, tmp_path, monkeypatch, caplog):
    (tmp_path / "cpuinfo").write_text(f"flags\t: fpu {words} sse2\n")
    monkeypatch.setattr(hardware, "CPU_FACTS", tmp_path / "cpuinfo")
    sanity_checks.warn_of_slow_precision(precision)
    assert ("several times as long as float32" in caplog.text) == warned
