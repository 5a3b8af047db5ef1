"""A training of seconds: a network of two convolutions on a few drawn people, with everything that has a state."""

from dataclasses import replace

import keras

from keras_mrpose import data
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.models import networks
from keras_mrpose.synthetic import dataset
from keras_mrpose.training.config import Experiment, Recipe

EXPERIMENT = Experiment(
    name="micro",
    backbone="tiny_v1b",
    input_size=(96, 64),
    sigma=1.5,
    augmentation=Augmentation(scale=0.1, rotation=10.0),
    recipe=Recipe(epochs=2, batch_size=4, learning_rate=3e-3, epsilon=1e-10, schedule="cosine", warmup=0.1),
)
# with all that a training can carry along; an epoch ends between two updates
EXPERIMENT_OF_ALL = replace(
    EXPERIMENT,
    recipe=replace(
        EXPERIMENT.recipe, epochs=3, optimizer="adamw", weight_decay=0.1, ema=0.9, gradient_accumulation_steps=3
    ),
)
STEPS = 4  # 19 drawn people in batches of 4


def micro(name, *, backbone, input_shape, skeleton, codec, **weights):
    """In place of `zoo.build`: quick to trace, yet with everything that has a state."""
    image = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(8, 4, 4, use_bias=False, name="conv1")(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9, name="bn1")(x))
    x = keras.layers.Conv2D(skeleton.num_joints, 1, dtype="float32", name="conv2")(x)
    return networks.PoseModel(image, x, skeleton=skeleton, codec=codec, spec={"input_shape": input_shape})


class Killed(BaseException):
    """What nobody handles."""


def draw(folder):
    """Draw people: 19 to train on, 8 to validate on."""
    dataset.write(folder, 8, size=(120, 160))
    return dataset.write(folder, 4, split="val2017", first_index=8, size=(120, 160))


def people_of(folder):
    """Those to train on and those to validate on."""
    return data.load(folder, "train"), data.load(folder, "val")
