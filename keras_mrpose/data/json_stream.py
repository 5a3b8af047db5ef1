"""Streaming reader of large JSON files: field by field, lists item by item, never the whole file in memory.

Annotation files hold hundreds of megabytes, most of it outlines that nobody asks for, and take several times as much as
Python objects. Python's own decoder can decode the one value that begins at a place; here it is given the file piece by
piece.

Why not ijson: with its C backend it takes twice as long (150,000 people with outlines, 212 MB: 8.9 s against 4.6 s,
both with 7 MB of memory), refuses the NaN, large integers, byte order marks and UTF-16 that Python's decoder accepts,
and does not say at which character a file is damaged (ijson 3.6, yajl2_c).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from keras_mrpose.errors import InputError

CHUNK = 1 << 20  # characters read at a time
_decode = json.JSONDecoder().raw_decode
_BLANK = re.compile(r"[ \t\n\r]*")


def iter_fields(path: str | Path, advice: str) -> Iterator[tuple[str, object]]:
    """Fields of the object in a JSON file, in the file's order.

    Args:
        path: of a file whose outermost value is an object; of any other value there are no fields.
        advice: what to do if the file is missing.

    Yields:
        Name and value. A list comes as an iterator of its items, which ends when the next field is asked for.

    Raises:
        InputError: a file that is missing, or no JSON; the latter when the reading gets to it.
    """
    try:
        with Path(path).open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with Path(path).open(encoding=encoding) as file:
            yield from _fields(_Window(file, path))
    except FileNotFoundError:
        raise InputError(f"{path} is not there; {advice}.") from None
    except OSError as error:
        raise unreadable(path, error) from error


def read(path: str | Path, advice: str):
    """The value in a small JSON file, read at once; raises as `iter_fields`."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is not there; {advice}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | Path, why: Exception | str) -> InputError:
    """The `InputError` about a file that is not JSON."""
    return InputError(f"{path} cannot be read as JSON ({why}); download it again.")


def _fields(text: _Window) -> Iterator[tuple[str, object]]:
    if text.next() == "{":
        for _ in text.items("{", "}"):
            if text.next() != '"':
                text.fail("Expecting property name enclosed in double quotes")
            name = text.value()
            text.take(":")
            if text.next() == "[":
                items = (text.value() for _ in text.items("[", "]"))
                yield name, items
                for _ in items:  # those that were not asked for
                    pass
            else:
                yield name, text.value()
    else:
        text.value()
    if text.next():
        text.fail("Extra data")


class _Window:
    """The part of an open file that is being decoded."""

    def __init__(self, file: TextIO, path: str | Path):
        self.file, self.path = file, path
        self.text, self.place, self.before = "", 0, 0

    def next(self) -> str:
        """The next character that is not blank, which stays; "" at the end."""
        while True:
            self.place = _BLANK.match(self.text, self.place).end()
            if self.place < len(self.text):
                return self.text[self.place]
            if not self._read():
                return ""

    def take(self, character: str) -> None:
        """Go past this character."""
        if self.next() != character:
            self.fail(f"Expecting {character!r}")
        self.place += 1

    def value(self):
        """Decode the value that begins here, and go past it."""
        self.next()
        while True:
            try:
                value, end = _decode(self.text, self.place)
            except json.JSONDecodeError as error:
                if not self._read():
                    self.fail(error.msg, error.pos)
            except (RecursionError, ValueError) as error:  # the latter for numbers of thousands of digits
                raise unreadable(self.path, error) from error
            else:
                if end + 3 <= len(self.text) or not self._read():  # else 1 could go on as 1e+5
                    self.place = end
                    return value

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each item of an object or a list; whoever iterates goes past it."""
        self.take(opening)
        if self.next() != closing:
            yield
            while self.next() == ",":
                self.place += 1
                yield
        self.take(closing)

    def fail(self, message: str, place: int | None = None) -> None:
        """Say where the file is no JSON."""
        raise unreadable(self.path, f"{message}: char {self.before + (self.place if place is None else place)}")

    def _read(self) -> bool:
        """Move on; by as much as there is already, so that a long value is tried a few times only."""
        try:
            more = self.file.read(max(CHUNK, len(self.text) - self.place))
        except UnicodeError as error:
            raise unreadable(self.path, error) from error
        if more:
            self.before, self.text, self.place = self.before + self.place, self.text[self.place :] + more, 0
        return bool(more)
