"""Fields of annotation files, checked without stopping: what is wrong is noted, and the answer is that it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from keras_mrpose.doctor.findings import Notes


def content_of(file: Path, kind: type, notes: Notes):
    """What is in the file; None if it is not JSON of this type."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        notes.add("annotations", file, "-", "-", f"no JSON: {error}")
        return None
    if not isinstance(content, kind):
        notes.add("annotations", file, "-", "-", f"a {type(content).__name__}, not a {kind.__name__}")
        return None
    return content


def has_fields(record, fields: dict[str, type], file, name: str, notes: Notes) -> bool:
    """Whether all fields are of their types."""
    if not isinstance(record, dict):
        notes.add("record", file, name, "-", f"a {type(record).__name__}, not a dict")
        return False
    wrong = [key for key, kind in fields.items() if not isinstance(record.get(key), kind)]
    for key in wrong:
        notes.add("record", file, name, key, record.get(key, "missing"))
    return not wrong


def numbers(record: dict, key: str, shape: tuple[int, ...], file, name: str, notes: Notes) -> np.ndarray | None:
    """A field of finite numbers of this shape; None, and a note, if it is not."""
    try:
        values = np.asarray(record.get(key), np.float64)
    except (TypeError, ValueError, OverflowError):
        notes.add("record", file, name, key, record.get(key, "missing"))
        return None
    if key not in record or values.shape != shape:
        joints = key in ("keypoints", "joints", "joints_vis") and values.ndim == len(shape)
        found = f"shape {values.shape}, not {shape}" if key in record else "missing"
        notes.add("joint count" if joints else "record", file, name, key, found)
        return None
    if not np.isfinite(values).all():
        place = tuple(np.argwhere(~np.isfinite(values))[0].tolist())
        notes.add("not finite", file, name, key, f"{values[place]} at {list(place)}")
        return None
    return values


def flagged(flags: np.ndarray, known: tuple[int, ...], file, name: str, key: str, notes: Notes) -> bool:
    """Whether all flags are known."""
    wrong = ~np.isin(flags, known)
    if wrong.any():
        notes.add("joint flag", file, name, key, f"flag {flags[first(wrong)]:g} of joint {first(wrong)}")
    return not wrong.any()


def first(mask: np.ndarray) -> int:
    """The place of the first that is true."""
    return int(np.argmax(mask))
