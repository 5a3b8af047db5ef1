"""Left and right in joint names: which side of the body a name says, what is left of it, and which two are a pair.

Annotation tools, laboratories and languages write ``left_hip``, ``HipL``, ``lhip`` or ``hip_links``. These marks are
read, the clearest first, each in the names that are no pair yet:

- a word (``left``, ``links``, ``gauche``), which says a side whether or not the other side is there;
- an abbreviation that stands alone (``hip_l``, ``LHip``, ``li hip``);
- a word or a letter that is written together with the rest (``kneeleft``, ``lhip``, ``lf_paw``, ``RASI``).

The last two make a pair where both sides exist: by themselves, ``rear``, ``lip`` and ``root`` say no side.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# Words of joint names that say which half of the body they belong to.
UPPER_BODY = {"nose", "eye", "ear", "mouth", "head", "neck", "thorax", "shoulder", "elbow", "wrist", "hand"}
LOWER_BODY = {"pelvis", "hip", "hips", "knee", "ankle", "heel", "toe", "foot"}
# Beside these, a letter is a side; but "rear" is a word.
BODY = (UPPER_BODY | LOWER_BODY | {"arm", "leg", "finger", "thumb", "paw", "hoof", "wing", "fin"}) - {"ear"}

# Spellings of one joint, as `canonical_names` leaves them.
ALIASES = {
    "top_head": "head_top",
    "head_tip": "head_top",
    "headtop": "head_top",
    "top_of_head": "head_top",
    "crown": "head_top",
}

# Of each language the words for left and for right.
WORDS = (
    ("left", "right"),
    ("links linke linken linker linkes", "rechts rechte rechten rechter rechtes"),  # German, Dutch
    ("gauche", "droit droite"),
    ("izquierda izquierdo", "derecha derecho"),
    ("sinistra sinistro", "destra destro"),
    ("esquerda esquerdo", "direita direito"),
    ("sinister", "dexter"),
    ("vänster vänstra", "höger högra"),
    ("venstre", "højre høyre"),
    ("vasen", "oikea"),
    ("lewa lewe lewy", "prawa prawe prawy"),
    ("levá levé levý", "pravá pravé pravý"),
    ("левая левое левый", "правая правое правый"),
    ("hidari", "migi"),
    ("左", "右"),
    ("왼쪽", "오른쪽"),
)
ABBREVIATIONS = (
    ("l", "r"),
    ("lt lft", "rt rgt"),
    ("li", "re"),
    ("g", "d"),
    ("izq", "der dcha"),
    ("sx", "dx"),
    ("esq", "dir"),
    ("sol", "sağ"),
    ("лев", "прав"),
)
ENGLISH, LETTERS = WORDS[0], ABBREVIATIONS[0]

SIDE = "\0"  # stands for a mark in the rest of a name
SHORTEST = 3  # letters beside a mark that is not separated from them, so that bright and leg have none
VOWELS = set("aeiouy")  # without which fewer letters are an abbreviation, as in lf and rfp

_LOW, _UP = "a-zß-öø-ÿа-яё", "A-ZÀ-ÖØ-ÞА-ЯЁ"
# Between two words: at what is no letter, at numbers, and at a capital after a small letter or before one.
_BETWEEN = re.compile(rf"(?<=[{_LOW}])(?=[{_UP}])|(?<=[{_UP}])(?=[{_UP}][{_LOW}])|(?<=[\W\d_])|(?=[\W\d_])")
_RUN = re.compile(r"[^\W\d_]+")


class Reading(NamedTuple):
    """A name with its marks of a side taken out.

    Attributes:
        rest: the name with `SIDE` for each mark.
        marks: of each mark the row of `WORDS` or `ABBREVIATIONS` that it is of, and 0 for left or 1 for right.
    """

    rest: str
    marks: tuple[tuple[tuple[str, str], int], ...] = ()

    @property
    def side(self) -> str | None:
        """``"left"`` or ``"right"``; None if there is no mark, or there are both."""
        sides = {side for _, side in self.marks}
        return ("left", "right")[sides.pop()] if len(sides) == 1 else None

    @property
    def words(self) -> list[str]:
        """Words and numbers of the rest, in small letters."""
        return [piece.lower() for piece in _BETWEEN.split(self.rest) if piece.isalnum()]

    @property
    def letters(self) -> str:
        """Letters of the rest, small."""
        return "".join(filter(str.isalpha, self.rest.lower()))


class Pair(NamedTuple):
    """The other side of a joint: its index, and the reading (and which of `_READINGS`) that says so."""

    partner: int
    reading: Reading
    kind: int


def side_of(joint: str) -> str | None:
    """``"left"`` or ``"right"``, as the joint's name alone says; None if it says neither or both."""
    return _alone(joint).side


def flip_pairs_of(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Index pairs of joints whose names differ in left and right only."""
    return tuple((joint, pair.partner) for joint, pair in sorted(_pairs(joints).items()) if joint < pair.partner)


def one_sided(joints: Sequence[str]) -> tuple[str, ...]:
    """Joints whose name says a side, where the other side is missing.

    A word always says one, a letter beside a part of the body (`BODY`) too; an abbreviation if it does so in other
    names.
    """
    pairs = _pairs(joints)
    kinds = {pair.kind for pair in pairs.values()}
    rows = {row for pair in pairs.values() for row, _ in pair.reading.marks}
    return tuple(
        name
        for joint, name in enumerate(joints)
        if joint not in pairs and (_clear(name) or _is_half(name, kinds, rows))
    )


def sides_and_rests(joints: Sequence[str]) -> list[tuple[str | None, str]]:
    """For each joint its side, None if it has none, and its name without it, as ``upper_arm``."""
    pairs = _pairs(joints)
    readings = [pairs[joint].reading if joint in pairs else _alone(name) for joint, name in enumerate(joints)]
    return [
        (reading.side, "_".join(reading.words)) if reading.side else (None, "_".join(Reading(name).words))
        for name, reading in zip(joints, readings, strict=True)
    ]


def canonical_names(joints: Sequence[str]) -> tuple[str, ...]:
    """Names in one spelling: ``LShoulder``, ``shoulder.l``, ``Left Shoulder`` are ``left_shoulder``.

    So is ``lshoulder``, if ``rshoulder`` is there, too.
    """
    return tuple(
        f"{side}_{rest}" if side else ALIASES.get(rest, rest or joint)
        for joint, (side, rest) in zip(joints, sides_and_rests(joints), strict=True)
    )


def canonical(joint: str) -> str:
    """A joint's name in one spelling, by itself, see `canonical_names`."""
    return canonical_names([joint])[0]


def _clear(name: str) -> bool:
    """Whether a word of the name says a side."""
    reading = _alone(name)
    return reading.side is not None and any(row in WORDS for row, _ in reading.marks)


def _is_half(name: str, kinds: set[int], rows: set[tuple[str, str]]) -> bool:
    """Whether a name without a partner has a mark that makes pairs of others, or l or r beside a part of the body."""
    for kind, read in enumerate(_READINGS):
        for reading in read(name):
            usual = kind in kinds and rows.issuperset(row for row, _ in reading.marks)
            letter = kind != _LAST_LETTER and all(row in (*WORDS, LETTERS) for row, _ in reading.marks)
            if reading.side is None or not (usual or letter) or re.search(rf"{SIDE}\d", reading.rest):  # L5, a vertebra
                continue
            if kind <= _ALONE:
                if BODY.intersection(reading.words) or (usual and max(map(len, reading.words), default=0) > 1):
                    return True
            elif beside := re.search(rf"[^\W\d_]+(?={SIDE})|(?<={SIDE})[^\W\d_]+", reading.rest):
                word = beside[0].lower()
                if word in BODY or (usual and len(word) == 1 and BODY.intersection(reading.words)):  # lhand, lf_paw
                    return True
    return False


def _pairs(joints: Sequence[str]) -> dict[int, Pair]:
    """The joints that have a partner, each by the clearest reading, names that differ in nothing else first."""
    names = [unicodedata.normalize("NFC", name) for name in joints]
    found: dict[int, Pair] = {}
    for kind, read in enumerate(_READINGS):
        for same in (str, _alike):
            open_ = {joint: read(name) for joint, name in enumerate(names) if joint not in found}
            pairs = {
                joint: Pair(partner, reading, kind)
                for joint, partner, reading in _matches(open_, same)
                if not _in_a_row(reading, names)
            }
            if kind != _LAST_LETTER or _is_usual(pairs, names):
                found |= {joint: pair for joint, pair in pairs.items() if pairs[pair.partner].partner == joint}
    return found


def _matches(readings: dict[int, list[Reading]], same: Callable[[str], str]) -> Iterator[tuple[int, int, Reading]]:
    """Joint, partner and reading, where exactly one joint of either side has the same rest."""
    places = defaultdict(list)
    for joint, several in readings.items():
        for reading in several:
            places[same(reading.rest), reading.marks].append((joint, reading))
    for (rest, marks), here in places.items():
        there = places.get((rest, tuple((row, 1 - side) for row, side in marks)), ())
        if marks and len(here) == len(there) == 1:
            yield here[0][0], there[0][0], here[0][1]


def _alike(rest: str) -> str:
    """Letters and numbers of a rest in small letters, without accents: what stands between, and where, is left out."""
    return "".join(filter(str.isalnum, _plain(rest)))


def _in_a_row(reading: Reading, names: list[str]) -> bool:
    """Whether two letters are two of an alphabet, as in point_a, point_b and so on: all between them are there."""
    (left, right), _ = reading.marks[0]
    if len(reading.marks) > 1 or len(left) > 1:
        return False
    between = range(ord(min(left, right)) + 1, ord(max(left, right)))
    lower = {name.lower() for name in names}
    return all(reading.rest.replace(SIDE, chr(letter)).lower() in lower for letter in between)


def _is_usual(pairs: dict[int, Pair], names: list[str]) -> bool:
    """Whether small letters at the ends of names are sides: of several names, or of one part of the body."""
    return len(pairs) > 2 or any(
        names[joint].isupper() or BODY & {*pair.reading.words} for joint, pair in pairs.items()
    )


# --- how a name is read -----------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """The text in small letters without accents, letter by letter."""
    letters = ((letter, unicodedata.normalize("NFD", letter)) for letter in text.lower())
    return "".join(parts[0] if len(parts) > 1 and unicodedata.combining(parts[1]) else one for one, parts in letters)


def _vocabulary(rows) -> dict[str, tuple[tuple[str, str], int]]:
    return {_plain(word): (row, side) for row in rows for side in (0, 1) for word in row[side].split()}


_WORDS, _SHORT = _vocabulary(WORDS), _vocabulary(WORDS + ABBREVIATIONS)
_CLEAR, _ENGLISH, _L_AND_R = _vocabulary((*WORDS, LETTERS)), _vocabulary((ENGLISH,)), _vocabulary((LETTERS,))


def _whole(name: str, vocabulary: dict) -> Reading:
    """All words of the name that are in the vocabulary."""
    pieces = [(piece, vocabulary.get(_plain(piece))) for piece in _BETWEEN.split(name)]
    rest = "".join(SIDE if mark else piece for piece, mark in pieces)
    return Reading(rest, tuple(mark for _, mark in pieces if mark))


def _together(name: str, vocabulary: dict, at_end: bool) -> list[Reading]:
    """What the name may be with a word of the vocabulary at the beginning, or at the end, of one of its parts."""
    found = {}
    for begin, end in _parts(name):
        part = _plain(name[begin:end])
        for word, mark in vocabulary.items():
            if part.endswith(word) if at_end else part.startswith(word):
                cut = (end - len(word), end) if at_end else (begin, begin + len(word))
                reading = Reading(name[: cut[0]] + SIDE + name[cut[1] :], (mark,))
                found[len(word), reading.rest] = reading
    return [found[key] for key in sorted(found, reverse=True)]  # droite before droit


def _parts(name: str) -> Iterator[tuple[int, int]]:
    """Where runs of letters lie in a name, and the words of capitals in them."""
    for run in _RUN.finditer(name):
        yield run.span()
        at = run.start()
        for piece in _BETWEEN.split(run[0]):
            if piece.isupper() and len(piece) < len(run[0]):
                yield at, at + len(piece)
            at += len(piece)


def _letter(name: str, at_end: bool) -> list[Reading]:
    """What the name may be with an l or r that begins, or ends, one of its parts; a name that is clear is not that."""
    readings = [] if _clear(name) else _together(name, _L_AND_R, at_end)
    return [
        reading
        for reading in readings
        if len(reading.letters) >= SHORTEST or name.isupper() or not VOWELS.intersection(reading.letters)
    ]


def _alone(name: str) -> Reading:
    """A name by itself: words and single letters, or an English word at its beginning (leftfoot)."""
    name = unicodedata.normalize("NFC", name)
    whole = _whole(name, _CLEAR)
    first = [] if whole.marks else _together(name, _ENGLISH, at_end=False)
    return first[0] if first else whole


# The clearest first.
_READINGS: tuple[Callable[[str], list[Reading]], ...] = (
    lambda name: [_whole(name, _WORDS)],
    lambda name: [_whole(name, _SHORT)],
    lambda name: _together(name, _WORDS, at_end=False),
    lambda name: [reading for reading in _together(name, _WORDS, at_end=True) if len(reading.letters) >= SHORTEST],
    lambda name: _letter(name, at_end=False),
    lambda name: _letter(name, at_end=True),
)
_ALONE, _LAST_LETTER = 1, 5  # of these, the last of words that stand alone; a letter at the end
