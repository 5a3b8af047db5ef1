"""The one exception for a user's mistake."""

from __future__ import annotations

MOST = 200  # characters


class InputError(ValueError):
    """Something the caller gave is wrong: a file, a record, a name, a size.

    The message is one sentence for a person: it names the file, record and field, and says what to do.
    The command line prints it and exits with 2; every other exception is a bug of ours and keeps its traceback.
    """


def reason(error: Exception) -> str:
    """What another exception says, fit for the sentence of an `InputError`: the first line, no longer than 200 letters.

    (A damaged file can have words of megabytes, and libraries quote them.)
    """
    lines = str(error).strip().splitlines()
    words = lines[0] if lines else type(error).__name__
    if isinstance(error, KeyError):
        words = f"no {words}"
    return words if len(words) <= MOST else f"{words[:MOST]}..."
