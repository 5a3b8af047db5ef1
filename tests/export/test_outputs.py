"""The exported networks: the same function as the model, of a static batch, and joints as the predictor finds them."""

import keras
import numpy as np
import pytest
from dots import network, picture
from small_networks import SIZE, crops, each, trained

from keras_mrpose.codecs import DarkCodec, GaussianCodec, UDPCodec
from keras_mrpose.errors import InputError
from keras_mrpose.export import outputs
from keras_mrpose.models import networks
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import Skeleton

CODECS = [GaussianCodec(1.5), GaussianCodec(1.5, published_border=False), DarkCodec(1.5), UDPCodec(1.5)]
PAIRED = Skeleton("pair", ("left_hip", "right_hip", "nose"), edges=((0, 1),))


@pytest.mark.parametrize("deconvolution", ["depth_to_space", "transpose"])
def test_heatmaps_are_those_of_the_model(deconvolution):
    model = trained("mrheatnet1")
    before = [weight.copy() for weight in model.get_weights()]
    output = outputs.heatmaps(model, deconvolution)
    assert output.input_shape == (1, *SIZE, 3) and output.output_shape == (1, 16, 24, 17)
    images = crops(3)
    expected = np.asarray(model(images))
    # float32 sums of the same numbers in another order: some 1e-6 of the largest
    np.testing.assert_allclose(each(output, images), expected, rtol=0, atol=1e-5 * abs(expected).max())
    kinds = [type(layer) for layer in _flat(output)]
    assert not any(issubclass(kind, keras.layers.BatchNormalization) for kind in kinds)
    assert (keras.layers.Conv2DTranspose in kinds) == (deconvolution == "transpose")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def _flat(model):
    for layer in model.layers:
        yield from _flat(layer) if isinstance(layer, keras.Model) else [layer]


def test_a_batch_may_be_larger():
    model = trained()
    images = crops(2)
    output = outputs.heatmaps(model, batch=2)
    assert output.output_shape == (2, 16, 24, 17)
    expected = np.asarray(model(images))
    np.testing.assert_allclose(np.asarray(output(images)), expected, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_joints_are_those_of_the_predictor(codec):
    size = (96, 64)
    model = network(size, PAIRED, codec)
    people = np.random.default_rng(0).uniform([20, 20], [43, 75], (6, 1, 3, 2))
    images = np.stack([picture(size, person) for person in people]).astype("float32")
    images[0] = 0  # no peak anywhere: (0, 0) and the maximum
    output = outputs.keypoints(model)
    assert output.input_shape == (1, *size, 3) and output.output_shape == (1, 3, 3)
    found = each(output, images)
    points, scores = Predictor(model, flip_test=False).keypoints(images)
    # log and division of the unbiased codecs: sums of float32, at most 1e-3 of a crop pixel where maps are flat
    np.testing.assert_allclose(found[..., :2], points, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found[..., 2], scores, rtol=0, atol=1e-6)
    assert (found[0] == 0).all()
    # the network is exact, and so is the truth: the published codec is up to half a heatmap pixel off
    assert abs(found[1:, :, :2] - people[1:, 0]).max() < (2.5 if isinstance(codec, GaussianCodec) else 0.5)


def test_a_network_that_does_not_take_images_is_refused():
    model = networks.build("mrfeanet1", "tiny_v1b", (*SIZE, 3), include_preprocessing=False)
    for output in (outputs.heatmaps, outputs.keypoints):
        with pytest.raises(InputError, match="built with include_preprocessing=False"):
            output(model)
