"""Where network, loss, metrics and data meet: what does not fit is named, and what is left out is filled in."""

import gc
import re
import weakref
from dataclasses import replace

import keras
import numpy as np
import pytest
from micro import draw, micro, people_of

from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.errors import InputError
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.metrics import OKSAP, PCK, PCKh
from keras_mrpose.models import networks
from keras_mrpose.optimizers import Adam
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton
from keras_mrpose.training import train as training

SIZE = (96, 64)  # height, width


def network(codec=None, skeleton=COCO, size=SIZE):
    return micro("", backbone="", input_shape=(*size, 3), skeleton=skeleton, codec=codec or GaussianCodec(1.5))


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return people_of(folder)[0]


# --- compile ------------------------------------------------------------------------------------------------------


def test_loss_and_metrics_take_the_codec_of_the_network():
    model = network(UDPCodec(3))
    loss, metric, nested = HeatmapMSE(), PCK(torso=COCO.torso), OKSAP(COCO.sigmas)
    model.compile("adam", [loss], metrics=[metric], weighted_metrics=[[nested]])
    assert loss.codec == metric.codec == nested.codec == UDPCodec(3)
    with pytest.raises(InputError, match=r"'heatmap_mse' has the codec UDPCodec\(sigma=3\) and the network DarkCodec"):
        network(DarkCodec(3)).compile("adam", loss)  # it was the other's


@pytest.mark.skipif(networks.xla_pays(), reason="this machine has a GPU")
def test_xla_is_left_out_on_a_cpu_unless_asked_for():
    """It takes several times as long there, also in `predict` of a network that is not compiled."""
    model = network()
    assert not model.jit_compile
    model.compile()
    assert not model.jit_compile
    assert not keras.models.clone_model(model).jit_compile
    model.compile(jit_compile=True)
    assert model.jit_compile


def test_a_step_is_traced_once(people):
    """TensorFlow traces one again that makes variables, such as Adam's: seconds, with a large network."""
    traced = []

    class Counting(HeatmapMSE):
        def call(self, target, heatmaps):
            traced.append(target)
            return super().call(target, heatmaps)

    model = network()
    model.compile(loss=Counting())
    model.fit(pipeline.batches(people, SIZE, 4, augmentation=Augmentation()), epochs=2, verbose=0)
    assert len(traced) == 1


def test_a_trained_network_that_is_let_go_leaves_no_memory_behind(people):
    """The graph of its step has its weights and Adam's: half a gigabyte of a ResNet-50, of each in a study."""
    graphs = []

    class Remembering(HeatmapMSE):
        def call(self, target, heatmaps):
            graphs.append(weakref.ref(heatmaps.graph))
            return super().call(target, heatmaps)

    model = network()
    model.compile(loss=Remembering())
    model.fit(pipeline.batches(people, SIZE, 4, augmentation=Augmentation()), verbose=0)
    assert graphs[0]() is not None
    del model
    gc.collect()
    assert graphs[0]() is None


@pytest.mark.parametrize("own", [GaussianCodec(2), DarkCodec(1.5), UDPCodec(1.5)])
def test_another_codec_is_named(own):
    model = network(GaussianCodec(1.5))
    for what in (
        {"loss": HeatmapMSE(own)},
        {"metrics": [PCK(own, torso=COCO.torso)]},
        {"metrics": {"conv2": OKSAP(COCO.sigmas, own)}},
        {"weighted_metrics": [PCKh(own)]},
    ):
        with pytest.raises(InputError, match=re.escape(f"has the codec {own!r} and the network {model.codec!r}")):
            model.compile("adam", **what)
    model.compile("adam", HeatmapMSE(GaussianCodec(1.5)), metrics=[PCK(GaussianCodec(1.5), torso=COCO.torso), "mae"])


def test_without_a_network_the_codec_is_left_open():
    """A config of a loss without a codec stays one without."""
    for part in (HeatmapMSE(), PCK(torso=COCO.torso)):
        again = type(part).from_config(part.get_config())
        assert part.get_config()["codec"] is None and again.codec == GaussianCodec() and not again.codec_given


def test_a_file_of_old_with_another_codec_loads_with_a_warning(caplog):
    """Files could be saved so before."""
    model = network(UDPCodec(2))
    keras.Model.compile(model, "adam", HeatmapMSE(GaussianCodec(2)))
    again = network(UDPCodec(2))
    again.compile_from_config(model.get_compile_config())
    assert again.compiled and again.loss.codec == GaussianCodec(2)
    assert "has the codec GaussianCodec" in caplog.text and isinstance(again.optimizer, keras.optimizers.Adam)


def test_what_is_left_out_is_the_networks_own():
    """The skeleton's torso, right hip (12) to left shoulder (5); a skeleton without one has OKS-AP."""
    model = network(UDPCodec(3))
    model.compile()
    (metric,) = model._compile_metrics._user_metrics
    assert isinstance(model.loss, HeatmapMSE) and model.loss.codec == metric.codec == UDPCodec(3)
    assert (type(metric), metric.torso, metric.threshold) == (PCK, (12, 5), 0.2)
    assert isinstance(model.optimizer, Adam) and model.optimizer.epsilon == 1e-8
    bare = network(skeleton=Skeleton("bare", ("nose", "left_eye", "right_eye")))
    bare.compile()
    assert type(bare._compile_metrics._user_metrics[0]) is OKSAP


def test_what_is_given_goes_first():
    """A loss of the caller's brings no metric."""
    model = network()
    for loss, metrics, wanted in (
        (None, [], HeatmapMSE),
        ("mse", None, str),
        (HeatmapMSE(ohkm_topk=8), None, HeatmapMSE),
    ):
        model.compile("sgd", loss, metrics=metrics)
        assert type(model.loss) is wanted and not getattr(model._compile_metrics, "_user_metrics", None)
    assert model.loss.ohkm_topk == 8


def test_losses_and_metrics_by_name():
    """MPII's PCKh leaves out its joints 6 and 7, pelvis and thorax."""
    model = network(DarkCodec(2), MPII)
    model.compile("adam", "heatmap_mse", metrics=["pck", "pckh", "mae"], weighted_metrics={"conv2": "oks_ap"})
    pck, pckh, mae = model._compile_metrics._user_metrics
    assert (pck.torso, pckh.exclude, mae) == (MPII.torso, (6, 7), "mae")
    assert pck.codec == pckh.codec == model.loss.codec == DarkCodec(2)
    model = network(skeleton=Skeleton("bare", ("nose", "left_eye", "right_eye")))
    with pytest.raises(InputError, match="'pck' has no torso to divide by"):
        model.compile(metrics=["pck"])


# TensorFlow 2.21's variables under NumPy 2.4, whenever Keras saves them; neither side is ours.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_own_metrics_come_back_from_a_file(tmp_path):
    model = network()
    model.compile()
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.loss, HeatmapMSE) and again._compile_metrics._user_metrics[0].torso == COCO.torso


# --- data ---------------------------------------------------------------------------------------------------------


def compiled(model=None, metrics=()):
    model = model or network()
    model.compile("sgd", HeatmapMSE(), metrics=list(metrics))
    return model


def test_data_of_another_size_or_other_joints_are_named(people):
    model, lsp = compiled(), compiled(network(skeleton=LSP))
    smaller = pipeline.batches(people, (64, 96), 4)
    right = pipeline.batches(people, SIZE, 4)
    arrays = np.zeros((2, *SIZE, 3), np.float32), np.zeros((2, 14, 4), np.float32)
    for run in (model.fit, model.evaluate):
        with pytest.raises(InputError, match=r"images are 64x96 \(height x width\), but the network takes 96x64"):
            run(smaller.map(lambda images, targets: (images, targets)), verbose=0)
        with pytest.raises(InputError, match="targets have 14 joints, but the network 17"):
            run(*arrays, verbose=0)
    with pytest.raises(InputError, match="targets have 17 joints, but the network 14"):
        lsp.fit(*arrays, validation_data=right, verbose=0, shuffle=False)
    with pytest.raises(InputError, match=r"'heatmap_mse' got a target of shape \(2, 14, 4\)"):
        HeatmapMSE()(arrays[1], np.zeros((2, 24, 16, 17), np.float32))


def test_data_for_another_codec_are_named(people):
    """UDP's scale is (16 - 1) / (64 - 1) in x where the others' is 1/4; their sigma makes no difference to targets."""
    model = compiled(network(UDPCodec(1.5)))
    with pytest.raises(InputError, match=r"made for the codec GaussianCodec\(sigma=2.*network's UDPCodec\(sigma=1.5\)"):
        model.evaluate(pipeline.batches(people, SIZE, 4), verbose=0)
    for codec, its in ((UDPCodec(1.5), UDPCodec(3)), (GaussianCodec(3), DarkCodec(2))):
        data = pipeline.batches(people, SIZE, 4, codec=its)
        compiled(network(codec)).evaluate(data.take(1), verbose=0)
        compiled(network(codec)).evaluate(data, steps=1, verbose=0)


def test_fit_and_evaluate_on_data_sets(people):
    """Two passes of four whole batches; joints, size and codec need no word."""
    model, seen = network(UDPCodec(1.5), size=(64, 96)), Seen()
    model.compile()
    train, val = pipeline.dataset(people, model, 4, augment=True), pipeline.dataset(people, model)
    history = model.fit(train, validation_data=val, epochs=2, callbacks=[seen], verbose=0).history
    assert seen.batches == [4, 4] and history.keys() == {"loss", "pck", "val_loss", "val_pck"}
    assert model.predict(val, verbose=0).shape == (19, 16, 24, 17)


def test_a_metric_of_another_data_set_is_named(people):
    of_area, of_heads = (pipeline.batches(replace(people, protocol=name), SIZE, 4) for name in ("ap", "pckh"))
    assert (of_area.reference_length, of_heads.reference_length) == ("square root of the area", "head size")
    torso = PCK(torso=COCO.torso)
    pckh, ap = compiled(metrics=[PCKh(), torso]), compiled(metrics=[OKSAP(COCO.sigmas), torso])
    with pytest.raises(InputError, match=r"'pckh' divides by the head size, but .* is the square root of the area"):
        pckh.evaluate(of_area, steps=1, verbose=0)
    with pytest.raises(InputError, match=r"'oks_ap' divides by the square root of the area, but .* is the head size"):
        ap.evaluate(of_heads, steps=1, verbose=0)
    pckh.evaluate(of_heads, steps=1, verbose=0)
    ap.evaluate(of_area, steps=1, verbose=0)


def test_training_measures_by_the_protocol_of_the_people(people):
    """Joints with MPII's names in COCO's format have areas, and no head sizes."""
    names = [metric.name for metric in training.metrics(COCO, GaussianCodec(), people=replace(people, protocol="pckh"))]
    assert names == ["pckh", "pck"]
    names = [metric.name for metric in training.metrics(COCO, GaussianCodec(), people=replace(people, protocol="ap"))]
    assert names == ["oks_ap", "pck"]


# --- data without end ---------------------------------------------------------------------------------------------


class Seen(keras.callbacks.Callback):
    """Counts the batches of each epoch."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.append(0)

    def on_train_batch_end(self, batch, logs=None):
        self.batches[-1] += 1


def test_an_endless_pipeline_ends_its_epochs(people):
    """19 people in batches of 4 are 4 steps."""
    data = pipeline.batches(people, SIZE, 4, augmentation=Augmentation(), seed=3)
    assert (len(people), data.steps_per_epoch) == (19, 4)
    model, seen = compiled(), Seen()
    model.fit(data, epochs=2, validation_data=data, callbacks=[seen], verbose=0, shuffle=False)
    assert seen.batches == [4, 4]
    model.evaluate(data, verbose=0)  # ends


@pytest.mark.slow
def test_an_endless_pipeline_trains_as_with_the_number_given(people):
    """Equal weights, so the second epoch has other batches than the first in both."""
    data = pipeline.batches(people, SIZE, 4, augmentation=Augmentation(), seed=3)
    keras.utils.set_random_seed(0)
    first = compiled()
    second = compiled(network())
    second.set_weights(first.get_weights())
    first.fit(data, epochs=2, verbose=0, shuffle=False)
    second.fit(data, epochs=2, steps_per_epoch=4, verbose=0, shuffle=False)
    for mine, its in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_data_without_end_or_length_are_refused(people):
    """What `map` makes of an endless pipeline knows that it is endless, and no more."""
    data = pipeline.batches(people, SIZE, 4, augmentation=Augmentation()).map(lambda *batch: batch)
    finite = pipeline.batches(people, SIZE, 4)
    with pytest.raises(InputError, match="no end and do not say how long an epoch is; give steps_per_epoch"):
        compiled().fit(data, verbose=0, shuffle=False)
    with pytest.raises(InputError, match="give steps, such as"):
        compiled().evaluate(data, verbose=0)
    with pytest.raises(InputError, match="give validation_steps"):
        compiled().fit(finite, validation_data=data, verbose=0, shuffle=False)
    with pytest.raises(InputError, match="give steps_per_epoch"):
        compiled().fit(finite.repeat(), verbose=0, shuffle=False)
    compiled().fit(data, steps_per_epoch=1, verbose=0, shuffle=False)
