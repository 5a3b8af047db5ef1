"""What happens when Keras is imported after this package: its backend is checked, and our classes are registered."""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from keras_mrpose.errors import InputError

BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")  # of Keras; each needs the module of its name


def check_backend() -> None:
    """Raise an `InputError` if Keras' backend is unknown or not installed, which says where it was chosen."""
    name, chosen_by = _chosen_backend()
    if name not in BACKENDS:
        raise InputError(
            f"{chosen_by} is {name!r}, which is no backend of Keras; this package trains with 'tensorflow' (the "
            "default), 'jax' or 'torch'."
        )
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"{chosen_by} is {name!r}, but {name} is not installed; `pip install {name}`, or choose 'tensorflow' there."
        )


def _chosen_backend() -> tuple[str, str]:
    """The backend that Keras will take, and what says so: the environment, else Keras' own file."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name, "KERAS_BACKEND"
    file = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras", "keras.json").expanduser()
    try:
        return str(json.loads(file.read_text())["backend"]), f"The backend in {file}"
    except (OSError, ValueError, KeyError, TypeError):  # Keras takes its default then
        return "tensorflow", "The backend"


class OnKerasImport(importlib.abc.MetaPathFinder):
    """Finder that checks the backend before `keras` is imported and calls a function afterwards, once.

    Args:
        then: called, unless a module of this package is what imports Keras: that one is not ready yet.
    """

    def __init__(self, then: Callable[[], None]):
        self._then = then
        self._asking = False

    def find_spec(self, fullname, path=None, target=None):
        """The spec that the other finders have for `keras`, with a loader that does more; None for all else."""
        if fullname != "keras" or self._asking:
            return None
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                check_backend()
                execute(module)
                sys.meta_path.remove(self)
                if not _being_imported():
                    self._then()

            spec.loader.exec_module = exec_module
        return spec


def _being_imported() -> bool:
    """Whether a module of this package is being imported right now."""
    package = __name__.partition(".")[0]
    return any(
        getattr(module.__spec__, "_initializing", False)
        for name, module in list(sys.modules.items())
        if name.startswith(f"{package}.")
    )
