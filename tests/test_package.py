"""The installed package: what importing it costs and gives, and what a wheel of it holds."""

import ast
import configparser
import importlib
import shutil
import subprocess
import sys

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
    model.compile(Adam(1e-3), "mse", metrics=[keras_mrpose.PCK(model.codec)])
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(file)
    return file


@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_mrpose",  # as sorted imports stand
        "import tensorflow, keras_mrpose, keras",
        "import keras_mrpose\nkeras_mrpose.PCK\nimport keras",
        "from keras_mrpose import Skeleton\nimport keras",
    ],
)
def test_keras_loads_what_was_saved(imports, saved):
    """After `import keras_mrpose` alone where Keras comes first, else after any public name of it."""
    code = f"{imports}\nimport sys\nmodel = keras.models.load_model(sys.argv[1])\nprint(model.codec, model.compiled)"
    printed = python(code, saved)
    assert "DarkCodec" in printed and printed.endswith("True"), printed


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
