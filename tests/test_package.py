"""The installed package: what importing it costs and gives, and what a wheel of it holds."""

import ast
import configparser
import importlib
import json
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import wheel_contents
from commands import ENVIRONMENT, ROOT

import keras_mrpose
from keras_mrpose.optimizers import Adam

PACKAGE = ROOT / "keras_mrpose"


def python(code, *arguments):
    """What a process of its own prints last."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


# --- the import ---------------------------------------------------------------------------------------------------


def test_import_is_light_until_a_public_name_is_used():
    code = (
        "import sys, keras_mrpose\n"
        "def heavy(): return [name for name in ('numpy', 'keras', 'tensorflow') if name in sys.modules]\n"
        "dir(keras_mrpose), keras_mrpose.__version__, keras_mrpose.errors.InputError\n"
        "hasattr(keras_mrpose, 'nothing')\n"
        "before = heavy()\n"
        "from keras_mrpose import build\n"
        "print(before, heavy())"
    )
    assert python(code) == "[] ['numpy', 'keras', 'tensorflow']"


def test_public_names():
    """Each is the one of its module, for people and for type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    homes = {
        alias.name: node.module.removeprefix("keras_mrpose.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == keras_mrpose._HOMES and sorted(homes) == sorted(keras_mrpose.__all__)
    for name, home in homes.items():
        module = importlib.import_module(f"keras_mrpose.{home}")
        assert getattr(keras_mrpose, name) is getattr(module, name)
    assert set(keras_mrpose.__all__) | {"__version__"} <= set(dir(keras_mrpose))


def test_version():
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    assert keras_mrpose.__version__ in (options["metadata"]["version"], "0+unknown")


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'keras_mrpose' has no attribute 'buld'"):
        keras_mrpose.buld  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'buld'"):
        from keras_mrpose import buld  # noqa: F401


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A compiled network: layers, codec, metrics and optimizer are classes of this package."""
    model = keras_mrpose.build("mrheatnet1", "tiny_v1b", (64, 32, 3), codec=keras_mrpose.DarkCodec(1.5))
    model.compile(Adam(1e-3), keras_mrpose.HeatmapMSE(), metrics=[keras_mrpose.PCK(torso=(2, 3))])
    model.optimizer.build(model.trainable_variables)
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(file)
    return file


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import keras, keras_mrpose", marks=pytest.mark.slow),  # as sorted imports stand
        pytest.param("import tensorflow, keras_mrpose, keras", marks=pytest.mark.slow),
        pytest.param("import keras_mrpose\nkeras_mrpose.PCK\nimport keras", marks=pytest.mark.slow),
        "import keras_mrpose\nimport tensorflow, keras",
        pytest.param("from keras_mrpose import Skeleton\nimport keras", marks=pytest.mark.slow),
    ],
)
def test_keras_loads_what_was_saved(imports, saved):
    """After `import keras_mrpose` alone, before or after Keras, and after any public name of it."""
    code = f"{imports}\nimport sys\nmodel = keras.models.load_model(sys.argv[1])\nprint(model.codec, model.compiled)"
    printed = python(code, saved)
    assert "DarkCodec" in printed and printed.endswith("True"), printed


def failing(code, *arguments, **environment):
    """The last line of what a process of its own complains, and all of it."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = ENVIRONMENT | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1], done.stderr


def test_keras_without_the_package_says_what_to_import(saved):
    """Keras imports no module of ours by itself; its error would quote the whole network, 84 kB."""
    said, _ = failing("import sys, keras\nkeras.models.load_model(sys.argv[1])", saved)
    assert "PoseModel (first: from keras_mrpose import build)" in said and len(said) < 200


def test_an_h5_file(tmp_path):
    """Keras' legacy format knows classes by their plain names; loss and metrics come back too."""
    model = keras_mrpose.build("mrheatnet2", "tiny_v1b", (64, 32, 3), num_joints=3, codec="udp")
    model.compile("adam", keras_mrpose.HeatmapMSE(), metrics=[keras_mrpose.PCK(torso=(0, 1))])
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    assert (type(again), again.codec, again.loss.codec) == (type(model), model.codec, model.codec)
    assert again.skeleton == model.skeleton and again.spec == model.spec
    for mine, its in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_saving_leaves_the_class(saved, tmp_path):
    """What is saved is a `PoseModel` again, and also what could not be."""
    model = keras.models.load_model(saved)
    kind = type(model)
    model.save(tmp_path / "again.keras")
    assert (
        type(model) is kind is type(keras.models.load_model(tmp_path / "again.keras")) is keras_mrpose.models.PoseModel
    )
    with zipfile.ZipFile(saved) as file:
        assert json.loads(file.read("config.json"))["registered_name"] == "keras_mrpose>PoseModel"
    with pytest.raises(OSError):
        model.save(tmp_path / "missing" / "again.keras")
    assert type(model) is kind


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("nonsense", "KERAS_BACKEND is 'nonsense', which is no backend of Keras"),
        ("absent", "KERAS_BACKEND is 'absent', but absent is not installed; `pip install absent`"),
    ],
)
@pytest.mark.parametrize("start", ["keras_mrpose.build", "import keras", "from keras_mrpose.codecs import DarkCodec"])
def test_a_backend_that_is_not_there(start, backend, said):
    """`absent` stands for a backend whose package is not installed, whatever is installed here."""
    code = f"import keras_mrpose\nkeras_mrpose.keras_import.BACKENDS += ('absent',)\n{start}"
    last, everything = failing(code, KERAS_BACKEND=backend)
    assert last.startswith(f"keras_mrpose.errors.InputError: {said}") and "During handling" not in everything


def test_a_backend_of_keras_own_file(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "nonsense"}')
    last, _ = failing("import keras_mrpose\nkeras_mrpose.build", KERAS_HOME=str(tmp_path), KERAS_BACKEND="")
    assert f"The backend in {tmp_path / 'keras.json'} is 'nonsense'" in last


def test_a_command_on_a_backend_that_is_not_there():
    last, everything = failing("from keras_mrpose.cli.main import main\nexit(main(['list']))", KERAS_BACKEND="nonsense")
    assert last.startswith("error: KERAS_BACKEND is 'nonsense'") and "Traceback" not in everything


@pytest.mark.slow
def test_a_predictor_of_its_own_module_loads_it(saved):
    """Nothing but that module is imported."""
    code = "import sys\nfrom keras_mrpose.predict.predictor import Predictor\nprint(Predictor(sys.argv[1]).model.codec)"
    assert "DarkCodec" in python(code, saved)


# --- the wheel ----------------------------------------------------------------------------------------------------


def test_every_folder_is_a_package():
    """`find:` leaves others out of the wheel."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.slow
def test_wheel(tmp_path):
    """`.ci/wheel` also installs it; this one needs no network."""
    pytest.importorskip("wheel", reason="building without isolation takes the package wheel")
    source = tmp_path / "source"  # a copy, into which setuptools may write
    shutil.copytree(PACKAGE, source / "keras_mrpose")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel_contents.missing(wheel) == set()
