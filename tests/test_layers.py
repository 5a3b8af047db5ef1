"""Imports go down only, and stand at the top of their file: the map of the package is enforced here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "keras_mrpose"

# From the bottom up. The modules of one layer do not import each other; a folder (data/, models/) is one entry, and
# what it holds may. `errors` lies below everything: it is the one exception that all of them raise.
LAYERS = (
    {"errors", "joint_names"},
    {"keras_import", "skeletons"},
    {"calibration", "checkpoints", "codecs", "geometry", "presets"},
    {"losses", "metrics", "optimizers"},
    {"data", "models", "nms", "runtime", "synthetic", "visualization"},
    {"predict", "training"},
    {"evaluation", "paper"},
    {"doctor", "export", "web"},
    {"study"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names}
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))
SCRIPTS = sorted(path for folder in ("experiments", "benchmarks") for path in (ROOT / folder).glob("*.py"))
# These import late: `--help` answers at once, and `import keras_mrpose` imports no TensorFlow; an exported network runs
# without it, and what takes an extra imports that where it is used.
LATE = [
    ROOT / "benchmarks" / "run.py",
    ROOT / PACKAGE / "__init__.py",
    *(ROOT / PACKAGE / "cli").glob("*.py"),
    *(ROOT / PACKAGE / "predict").glob("*.py"),
    ROOT / PACKAGE / "runtime" / "litert.py",
]


def part(path):
    """Which entry of the map a file belongs to."""
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


def imported(tree):
    """The package's parts that a file imports; `__init__` is the package itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == PACKAGE:
                yield rest.partition(".")[0] or "__init__"


def late_imports(tree):
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return sorted(
        {
            node.lineno
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
    )


def test_map_is_complete():
    assert {part(path) for path in SOURCES} == set(LAYER)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = part(path)
    for name in imported(ast.parse(path.read_text())):
        assert name in LAYER, f"{path} imports {PACKAGE}.{name}: import the module that it is made in"
        assert name == here or LAYER[name] < LAYER[here], f"{path} imports {name}, which is not in a layer below"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stand_at_the_top(path):
    if path not in LATE:
        assert not late_imports(ast.parse(path.read_text())), f"{path} imports inside a function"


def test_the_checks_can_fail():
    tree = ast.parse("from keras_mrpose import geometry\nimport keras_mrpose.data.coco\ndef f():\n    import json\n")
    assert list(imported(tree)) == ["geometry", "data"]
    assert late_imports(tree) == [4]
