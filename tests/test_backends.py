"""A Keras user's way, from a folder to joints: the README's lines, and the backends of Keras other than TensorFlow."""

import importlib.util
import subprocess
import sys

import pytest
from commands import ENVIRONMENT, ROOT
from micro import draw

# Evaluated after the file is loaded again, the network has the numbers of its last validation.
WAY = """
import sys, keras, keras_mrpose
assert keras.backend.backend() == sys.argv[1]
people, val = (keras_mrpose.data.load(sys.argv[2], split) for split in ("train", "val"))
model = keras_mrpose.build("mrfeanet2", "tiny_v1b", (96, 64, 3), skeleton=people.skeleton)
model.backbone.trainable = False
still, moving = model.backbone.get_weights(), model.head.get_weights()
teacher = keras_mrpose.build("simplebaseline", "tiny_v1b", (96, 64, 3), skeleton="coco")
model.compile(metrics=["pck", "oks_ap"], teacher=teacher)
data, val_data = keras_mrpose.dataset(people, model, 8, augment=True), keras_mrpose.dataset(val, model, 4)
history = model.fit(data, validation_data=val_data, verbose=0).history
assert all((a == b).all() for a, b in zip(still, model.backbone.get_weights(), strict=True))
assert any((a != b).any() for a, b in zip(moving, model.head.get_weights(), strict=True))
model.save(sys.argv[3])
again = keras.models.load_model(sys.argv[3])
found = again.evaluate(val_data, return_dict=True, verbose=0)
assert {name: round(value, 6) for name, value in found.items()} == {
    name: round(history[f"val_{name}"][0], 6) for name in ("loss", "pck", "oks_ap")
}
assert again.predict(val_data, verbose=0).shape == (8, 24, 16, 17)
print(keras_mrpose.Predictor(again)(val.paths()[0], val.boxes[:2]).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_from_a_folder_to_joints(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed; pip install {backend}")
    draw(tmp_path)
    command = [sys.executable, "-c", WAY, backend, str(tmp_path), str(tmp_path / "model.keras")]
    environment = ENVIRONMENT | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "(2, 17, 3)"


@pytest.mark.slow
def test_the_lines_of_the_readme(tmp_path):
    """As they stand there, but for one epoch instead of ten, small crops, and a photograph of the folder."""
    draw(tmp_path / "folder")
    text = (ROOT / "README.md").read_text()
    lines = text.split("## In Python")[1].split("```python\n")[1].split("```")[0]
    for given, wanted in (
        ("epochs=10", "epochs=1"),
        ('"photo.jpg"', "val.paths()[0]"),
        ("skeleton=train.skeleton", "input_shape=(64, 64, 3), skeleton=train.skeleton"),
    ):
        assert given in lines
        lines = lines.replace(given, wanted)
    command = [sys.executable, "-c", lines]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "mine.keras").is_file() and (tmp_path / "drawn.jpg").is_file()
