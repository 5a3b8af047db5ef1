"""What a loader says of a wrong record, and to whom: by default it raises; the doctor collects and goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_mrpose.errors import InputError


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with a record of an annotation file.

    Attributes:
        kind: key of `doctor.findings.KINDS`, such as ``"joint count"``.
        source: the annotation file.
        record: the record in it, such as ``"annotation 12"``.
        field: of the record.
        value: what stands there, in short.
        message: the whole sentence, for an `InputError`; empty where the loader goes on in any case: without the
            record, or with a number of its own.
    """

    kind: str
    source: str
    record: str
    field: str
    value: str
    message: str = ""


Report = Callable[[Issue], None]  # may return: then the loader goes on without the record


def raise_issue(issue: Issue) -> None:
    """An `InputError` with the issue's message, if it has one: the default `Report` of all loaders."""
    if issue.message:
        raise InputError(issue.message)


def float_array(values) -> tuple[np.ndarray | None, str, str]:
    """Values as float64, and what is wrong with them.

    Returns:
        The array and two empty strings; or None, the kind of the issue (``"record"``: these are no numbers;
        ``"not finite"``) and what stands there.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or values is None:
        return None, "record", f"{values!r:.80}"
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(np.argwhere(~finite)[0].tolist())
        return None, "not finite", f"{array[place]} at {list(place)}"
    return array, "", ""
