"""Costs of a network: its size, whatever was frozen."""

from keras_mrpose.models import backbones, networks
from keras_mrpose.predict.predictor import load_model
from keras_mrpose.study import costs


def test_frozen_layers_are_parameters_too(tmp_path):
    """Keras' count of a network in which nothing is frozen, for the same one frozen, saved and loaded."""
    model = networks.build("simplebaseline", "tiny_v1b", (64, 96, 3))
    parameters = sum(variable.value.shape.num_elements() for variable in model.trainable_variables)
    backbones.freeze(model, "tiny_v1b", 2)
    model.save(tmp_path / "last.keras")
    assert costs.sizes(load_model(tmp_path / "last.keras"))["parameters"] == parameters
