"""Where run folders lie: in `saved_models` of the current directory, unless a path is given."""

from __future__ import annotations

import os
from pathlib import Path

SAVED = Path("saved_models")


def run_folder(name: str) -> Path:
    """A bare name is a folder of `saved_models`, a path is itself."""
    return Path(name) if os.sep in name or name in ("", ".", "..") else SAVED / name
