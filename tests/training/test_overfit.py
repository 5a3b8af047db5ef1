"""The overfit proof: each of the five networks learns 32 real people by heart, measured as a user would measure it.

What this takes: loss, targets, preprocessing, gradients into every branch, decoding and evaluation that fit together.
"""

import time

import keras
import pytest

import keras_mrpose
from keras_mrpose import Augmentation, Experiment, Recipe, data, training
from keras_mrpose.data import pipeline

PEOPLE = slice(200, 232)  # with perfect heatmaps, the codec alone would reach 1.0 at this input size
GOAL = 0.95
ROUND = 10  # epochs between two looks at the score


@pytest.fixture(scope="module")
def people(shared):
    folder = shared / "data" / "lspet"
    if not folder.is_dir():
        pytest.skip("no real people here")
    return data.load(folder, "train").take(PEOPLE)


@pytest.mark.slow
@pytest.mark.parametrize("model", keras_mrpose.list_models())
def test_32_real_people_are_learned_by_heart(model, people):
    """From random weights, without augmentation, with the library's own loss, schedule and evaluation.

    Small batches: 4 steps an epoch, so that the moving averages of the batch norms (momentum 0.9) keep up with the
    weights, which predictions depend on.
    """
    experiment = Experiment(
        name="overfit",
        model=model,
        backbone="small_v1b",
        skeleton="lsp",
        input_size=(128, 128),
        sigma=1.5,
        augmentation=Augmentation(0, 0, 0, 0),
        recipe=Recipe(epochs=120, batch_size=8, learning_rate=1e-3, epsilon=1e-10, schedule="cosine", warmup=0.05),
    )
    keras.utils.set_random_seed(experiment.recipe.seed)
    steps = len(people) // experiment.recipe.batch_size
    network = training.train.build(experiment, people, steps)
    network.compile(network.optimizer, network.loss, jit_compile=False)  # metrics would only cost time
    ((crops, targets),) = pipeline.batches(people, experiment.input_size, len(people))  # nothing random: once is enough
    crops, targets = crops.numpy(), targets.numpy()
    predictor = keras_mrpose.Predictor(network, flip_test=False)  # it has seen no mirrored people
    begin, score = time.process_time(), 0.0
    for epoch in range(0, experiment.recipe.epochs, ROUND):
        history = network.fit(
            crops, targets, experiment.recipe.batch_size, initial_epoch=epoch, epochs=epoch + ROUND, verbose=0
        )
        score = keras_mrpose.evaluate(predictor, people, threshold=0.1).value
        print(
            f"{model}: epoch {epoch + ROUND}, loss {history.history['loss'][-1]:.6f}, PCK@0.1 {score:.3f}, "
            f"{time.process_time() - begin:.0f} s of processor time"
        )
        if score >= GOAL:
            break
    assert score >= GOAL
