"""A JSON file piece by piece gives what Python's decoder gives of the whole, wherever the pieces end."""

import json

import pytest

from keras_mrpose.data import json_stream
from keras_mrpose.errors import InputError

CONTENT = {
    "info": {"text": 'brackets ]}[{, "quotes" and \\ in a string', "umlaut": "äöü €"},
    "empty": [],
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2}],
    "numbers": [0, -1, 12.5, 1e5, -1.25e-7, 10**20],
    "nested": [[1, [2, 3]], {"a": [{}]}, "x", True, None],
    "number": 12345.678e2,
    "none": None,
    "last": {},
}
FORMS = {
    "compact": json.dumps(CONTENT, separators=(",", ":")),
    "spaced": json.dumps(CONTENT, indent=3).replace(":", " :\t").replace("\n", "\r\n"),
    "unicode": json.dumps(CONTENT, ensure_ascii=False),
}


def read(file):
    return {
        name: list(value) if not isinstance(value, dict | str | int | float | None) else value
        for name, value in json_stream.iter_fields(file, "bring it")
    }


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
def test_every_piece_size_gives_the_whole(form, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    file = tmp_path / "file.json"
    file.write_bytes(FORMS[form].encode())
    found = read(file)
    assert found == json.loads(FORMS[form])
    assert list(found) == list(json.loads(FORMS[form]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_encodings_are_those_of_json(encoding, tmp_path):
    file = tmp_path / "file.json"
    file.write_bytes(FORMS["unicode"].encode(encoding))
    assert json.loads(file.read_bytes()) == CONTENT == read(file)


def test_items_that_nobody_asks_for_are_passed_over(tmp_path):
    file = tmp_path / "file.json"
    file.write_text(FORMS["compact"])
    found = {
        name: next(iter(value), None)
        for name, value in json_stream.iter_fields(file, "")
        if name in ("nested", "images")
    }
    assert found == {"images": {"id": 1, "file_name": "a.jpg"}, "nested": [1, [2, 3]]}


def test_a_long_list_is_never_in_memory(tmp_path):
    """The window holds a piece, not the file: 40 pieces of it, and items of a thousandth of a piece."""
    file = tmp_path / "file.json"
    item = json.dumps(list(range(200)))
    count = 40 * json_stream.CHUNK // len(item)
    file.write_text('{"items": [' + ", ".join([item] * count) + "]}")
    ((name, items),) = ((name, sum(1 for _ in value)) for name, value in json_stream.iter_fields(file, ""))
    assert (name, items) == ("items", count)
    with file.open() as opened:
        window = json_stream._Window(opened, file)
        for place, _ in enumerate(json_stream._fields(window)):
            assert place == 0
        assert len(window.text) <= 2 * json_stream.CHUNK


@pytest.mark.parametrize("content", ["[1, 2]", "3", '"text"', "null"])
def test_other_values_have_no_fields(content, tmp_path):
    file = tmp_path / "file.json"
    file.write_text(content)
    assert list(json_stream.iter_fields(file, "")) == []


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "content",
    [
        *(
            "",
            " ",
            "{",
            '{"a"',
            '{"a":',
            '{"a": 1',
            '{"a": [1',
            '{"a": [1,',
            '{"a": [1,]}',
            '{"a": [1 2]}',
            '{"a": 1,}',
        ),
        *('{"a": tru}', '{"a": 1} x', "{1: 2}", '{"a" 1}', '{"a": [}', "[1, 2", '{"a": 1.}', '{"a": "x}', "{'a': 1}"),
    ],
)
def test_what_is_no_json_is_refused_as_by_pythons_decoder(content, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    file = tmp_path / "file.json"
    file.write_text(content)
    with pytest.raises(ValueError):
        json.loads(content)
    with pytest.raises(
        InputError, match=r"file\.json cannot be read as JSON \(.*char \d+\); download it again"
    ) as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_the_place_is_that_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 8)
    file = tmp_path / "file.json"
    file.write_text('{"list": [1, 2, 3, 4, 5, 6, x]}')
    with pytest.raises(InputError, match=rf"Expecting value: char {file.read_text().index('x')}\)"):
        read(file)


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"file\.json is not there; bring it\."):
        read(tmp_path / "file.json")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read(tmp_path)
    (tmp_path / "file.json").write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(InputError, match=r"file\.json cannot be read as JSON \(.*utf-8.*\); download it again"):
        read(tmp_path / "file.json")


def test_what_is_no_json_is_told_with_advice(tmp_path):
    file = tmp_path / "some.json"
    with pytest.raises(InputError, match=r"some\.json is not there; bring it\."):
        json_stream.read(file, "bring it")
    file.write_text("{")
    with pytest.raises(InputError, match=r"some\.json cannot be read as JSON \(.*\); download it again"):
        json_stream.read(str(file), "bring it")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        json_stream.read(tmp_path, "bring it")
    file.write_text("[1, 2]")
    assert json_stream.read(file, "bring it") == [1, 2]
