"""The folder of an export: written whole, beside its place, and moved there when it is complete."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.export import decoder
from keras_mrpose.export.report import ExportReport
from keras_mrpose.runtime.litert import SIDECAR


def check(folder: Path, overwrite: bool) -> None:
    """Before hours of work: an `InputError` if `write` could not write, or would replace what is not to be replaced."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if there != folder.absolute():
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise InputError(f"{folder} cannot be made: {there} is no folder that can be written to.")
    elif not (folder / SIDECAR).is_file():
        raise InputError(f"{folder} is there and is no export (it has no {SIDECAR}); give another folder.")
    elif not overwrite:
        raise InputError(f"{folder} holds an earlier export; give another folder, or overwrite it.")
    elif not os.access(folder.absolute().parent, os.W_OK):
        raise InputError(f"{folder} cannot be replaced: nothing can be written to {folder.absolute().parent}.")


def write(
    folder: Path, files: dict[str, bytes], about: dict, case: dict[str, np.ndarray], report: ExportReport
) -> None:
    """An export, in the place of an earlier one if there is one.

    Args:
        folder: its place.
        files: name -> content of the networks.
        about: for the sidecar.
        case: the golden case.
        report: of the gate.

    Raises:
        InputError: it cannot be written; the earlier export, if there is one, is still there.
    """
    with _in_place_of(folder) as new:
        for name, content in files.items():
            (new / name).write_bytes(content)
        _write_json(new / SIDECAR, about)
        _write_json(new / "report.json", report.to_dict())
        (new / "report.md").write_text(report.markdown())
        shutil.copyfile(decoder.__file__, new / "decoder.py")
        np.savez_compressed(new / "golden.npz", **case)
        crop_off, joints_off = decoder.check(new)
        if not (crop_off < decoder.CROP_LIMIT and joints_off < decoder.JOINTS_LIMIT):
            raise RuntimeError(f"decoder.py is {crop_off} grey levels and {joints_off} pixels off the golden case.")


@contextlib.contextmanager
def _in_place_of(folder: Path) -> Iterator[Path]:
    """A new folder that takes its place if all goes well; if not, all is as it was."""
    folder = folder.absolute()
    made = [place for place in folder.parents if not place.exists()]
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        if isinstance(error, OSError):
            raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
