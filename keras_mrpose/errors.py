"""The one exception for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MAX_MESSAGE = 200  # characters


class InputError(ValueError):
    """Something the caller gave is wrong: a file, a record, a name, a size.

    The message is one sentence for a person: it names the file, record and field, and says what to do.
    The command line prints it and exits with 2; every other exception is a bug of ours and keeps its traceback.
    """


def short_message(error: Exception) -> str:
    """Another exception's message for the sentence of an `InputError`: its first line, at most 200 characters.

    (A damaged file can have words of megabytes, and libraries quote them.)
    """
    lines = str(error).strip().splitlines()
    words = lines[0] if lines else type(error).__name__
    if isinstance(error, KeyError):
        words = f"no {words}"
    return words if len(words) <= MAX_MESSAGE else f"{words[:MAX_MESSAGE]}..."


def lookup(kind: str, name: str, known: Iterable[str]) -> str:
    """`name` in lower case if it is one of `known`; else raise an `InputError` with the list and the nearest names."""
    known = list(known)
    key = name.lower() if isinstance(name, str) else name
    if key in known:
        return key
    near = difflib.get_close_matches(str(key), known, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(f"Unknown {kind} {name!r}.{hint} Known are: {', '.join(known)}.")


def require(condition: bool, what: str, field: str, value, wanted: str) -> None:
    """Raise an `InputError` unless the condition holds: which field has which value, and what to give.

    Args:
        condition: whether the value is right.
        what: that has the field, such as ``"recipe"``.
        field: its name.
        value: of it.
        wanted: what to give instead.
    """
    if not condition:
        raise InputError(f"The {what}'s {field} is {value!r:.200}; give {wanted}.")


def install_command(extra: str = "") -> str:
    """The command that installs an extra, or the package again: from this checkout, or from the package index.

    Args:
        extra: such as ``"litert"``; empty is none.
    """
    checkout = Path(__file__).resolve().parents[1]
    wanted = f"[{extra}]" if extra else ""
    if (checkout / "setup.cfg").is_file():
        return f"pip install -e '{checkout}{wanted}'"
    return f"pip install 'keras-mrpose{wanted}'"
