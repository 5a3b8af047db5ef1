"""The command line, called; and what holds for every command: a mistake is one sentence and leaves nothing."""

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "experiments" / "run.py"
# For processes in other folders: this checkout, whether it is installed or not.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def call(run, *arguments):
    """The exit code; a mistake that argparse finds exits by itself."""
    try:
        return run.main([str(argument) for argument in arguments])
    except SystemExit as done:
        return done.code


def refused(run, arguments, words, places, capfd):
    """Call it, placeholders replaced by `places`: exit code 2, one sentence of these words, and WORK as it was."""
    for placeholder, path in places.items():
        arguments = [re.sub(rf"^{placeholder}(?=/|$)", str(path), argument) for argument in arguments]
    before = contents(places["WORK"])
    capfd.readouterr()
    assert call(run, *arguments) == 2
    errors = capfd.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n"), errors
    assert re.search(words, errors), errors
    assert contents(places["WORK"]) == before


def contents(folder):
    """Every file with the time it was written, every folder."""
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in folder.rglob("*")}
