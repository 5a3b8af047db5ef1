"""Multiplications of a network: the arithmetic of each kind of layer."""

import keras
import pytest
from keras import layers

from keras_mrpose.errors import InputError
from keras_mrpose.models import networks
from keras_mrpose.models.fuse import fuse_for_inference
from keras_mrpose.models.macs import count_macs

KINDS = {  # on 12x8 pixels of 6 channels
    "conv": (layers.Conv2D(5, 3, 2, padding="same"), 6 * 4 * 5 * 3 * 3 * 6),
    "conv, not square, not padded": (layers.Conv2D(5, (3, 2)), 10 * 7 * 5 * 3 * 2 * 6),
    "grouped": (layers.Conv2D(4, 3, padding="same", groups=2), 12 * 8 * 4 * 3 * 3 * 3),
    "depthwise": (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), 12 * 8 * 12 * 3 * 3),
    "transposed": (layers.Conv2DTranspose(5, 4, 2, padding="same"), 12 * 8 * 6 * 4 * 4 * 5),
    "dense": (layers.Dense(7), 12 * 8 * 6 * 7),
    "none": (layers.BatchNormalization(), 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer(kind):
    layer, macs = KINDS[kind]
    image = keras.Input((12, 8, 6))
    assert count_macs(keras.Model(image, layer(image))) == macs


def test_a_model_in_a_model():
    image = keras.Input((12, 8, 6))
    inner = keras.Model(image, layers.Conv2D(5, 1)(image))
    outer = keras.Input((12, 8, 6))
    assert count_macs(keras.Model(outer, layers.Dense(2)(inner(outer)))) == 12 * 8 * (6 * 5 + 5 * 2)


def test_an_unknown_layer_is_refused():
    image = keras.Input((12, 8, 6))
    with pytest.raises(InputError, match="mixing is a EinsumDense"):
        count_macs(keras.Model(image, layers.EinsumDense("bhwc,wi->bhic", (12, 4, 6), name="mixing")(image)))


def test_fusion_leaves_them_as_they_are():
    """A transposed convolution of stride 2 is four of a quarter of its kernel on the same pixels."""
    model = networks.build("mrheatnet2", "tiny_v1b", (64, 96, 3))
    assert count_macs(fuse_for_inference(model)) == count_macs(model)


@pytest.mark.slow
def test_a_published_number():
    """He et al. 2016, table 1: ResNet-50 takes 3.8 x 10^9 multiply-adds at 224x224."""
    backbone = keras.applications.ResNet50(weights=None, input_shape=(224, 224, 3))
    assert count_macs(backbone) / 1e9 == pytest.approx(3.8, abs=0.1)
