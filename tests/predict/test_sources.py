"""What `predict` is given: files, folders, patterns, URLs, standard input; read ahead, in order, a few at a time."""

import io
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from keras_mrpose.errors import InputError
from keras_mrpose.predict import sources

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def png(pixels=PIXELS):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Images, a video and other files, made in another order than that of their names."""
    for name in ("b.JPG", "c.mp4", "a.png", "notes.txt", ".a.png", "._b.jpg", "more/d.heic", "more/e.txt", "f.jpg/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


# --- names ------------------------------------------------------------------------------------------------------------


def test_folders_and_patterns(photos):
    """By name; what is no image, hidden, or a folder is left out."""
    assert sources.expand([str(photos)]) == [str(photos / name) for name in ("a.png", "b.JPG", "c.mp4")]
    assert sources.expand([str(photos / "*")]) == [str(photos / name) for name in ("a.png", "b.JPG", "c.mp4")]
    assert sources.expand([str(photos / "[ab].*")]) == [str(photos / name) for name in ("a.png", "b.JPG")]
    assert sources.expand([str(photos / "**" / "*.heic")]) == [str(photos / "more" / "d.heic")]


def test_the_order_is_that_of_the_arguments(photos, monkeypatch):
    monkeypatch.chdir(photos)
    given = ["z.jpg", "more", "http://a.b/*.jpg?x=[1]", "-", "0", "a.png", "notes.txt"]
    assert sources.expand(given) == ["z.jpg", "more/d.heic", *given[2:]]


def test_files_with_signs_of_patterns(photos):
    """A file of that name goes first."""
    (photos / "a[1].jpg").touch()
    assert sources.expand([str(photos / "a[1].jpg")]) == [str(photos / "a[1].jpg")]


def test_nothing_there(photos):
    for name, kind in (("f.jpg", "folder"), ("*.bmp", "pattern"), ("more/*.txt", "pattern")):
        with pytest.raises(InputError, match=rf"The {kind} .* has no images \(\.jpg .*\) and no videos"):
            sources.expand([str(photos / name)])


def test_kinds(photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "7").touch()
    assert [name for name in ("0", "12", "7", "-1", "0.jpg", "x") if sources.is_camera(name)] == ["0", "12"]
    assert [name for name in ("0", "7", "a.MP4", "a.jpg", "-") if sources.is_video(name)] == ["0", "a.MP4"]
    assert [name for name in ("http://a", "HTTPS://a", "ftp://a", "a") if sources.is_url(name)] == [
        "http://a", "HTTPS://a",
    ]  # fmt: skip


# --- pixels -----------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """A server of an image, of too much, of nothing, and of an answer that does not come."""

    def do_GET(self):
        if self.path.startswith("/good.png"):
            content = png()
        elif self.path == "/page.png":
            content = b"<html>welcome</html>"
        elif self.path == "/slow.png":
            self.server.released.wait(20)
            return
        elif self.path == "/short.png":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(png())
            return
        elif self.path == "/nonsense":
            self.wfile.write(b"what?\r\n\r\n")
            return
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Nothing on the terminal."""


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_image_of_a_url(server, monkeypatch):
    np.testing.assert_array_equal(sources.read_source(f"{server}/good.png?size=1"), PIXELS)
    monkeypatch.setattr(sources, "MAX_BYTES", len(png()))
    np.testing.assert_array_equal(sources.read_source(f"{server}/good.png"), PIXELS)


def refusal(url):
    with pytest.raises(InputError) as caught:
        sources.read_source(url)
    assert url in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_urls_that_send_no_image(server, monkeypatch):
    assert "cannot be fetched (Not Found)" in refusal(f"{server}/gone.png")
    assert "cannot be read" in refusal(f"{server}/page.png")
    assert f"broke off after {len(png())} bytes" in refusal(f"{server}/short.png")
    assert "cannot be fetched" in refusal(f"{server}/nonsense")
    assert "cannot be fetched" in refusal(f"{server}/with a space.png")
    assert "cannot be fetched" in refusal("http://127.0.0.1:1/a.png")
    assert "cannot be fetched" in refusal("http://[/a.png")
    monkeypatch.setattr(sources, "MAX_BYTES", len(png()) - 1)
    assert "sends more than 0 MB; fetch it yourself" in refusal(f"{server}/good.png")


def test_a_url_that_does_not_answer(server, monkeypatch):
    monkeypatch.setattr(sources, "TIMEOUT", 0.2)
    start = time.monotonic()
    assert "cannot be fetched (timed out)" in refusal(f"{server}/slow.png")
    assert time.monotonic() - start < 10


def test_standard_input(monkeypatch):
    for content, words in ((png(), None), (b"", "on standard input"), (b"no image", "on standard input")):
        monkeypatch.setattr(sys, "stdin", type("Stream", (), {"buffer": io.BytesIO(content)}))
        if words is None:
            np.testing.assert_array_equal(sources.read_source("-"), PIXELS)
            continue
        with pytest.raises(InputError, match=words):
            sources.read_source("-")


def test_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    np.testing.assert_array_equal(sources.read_source(str(tmp_path / "a.png")), PIXELS)
    with pytest.raises(InputError, match=r"gone\.png is not there"):
        sources.read_source(str(tmp_path / "gone.png"))


# --- ahead ------------------------------------------------------------------------------------------------------------


def test_the_order_is_kept_whatever_takes_longer():
    def slow(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number**2

    assert list(sources.ahead(slow, range(12), workers=3)) == [(number, number**2) for number in range(12)]
    assert list(sources.ahead(slow, [])) == []


def test_a_mistake_stands_in_the_place_of_its_result():
    def odd(number):
        if number == 1:
            raise InputError("one")
        return number

    found = list(sources.ahead(odd, range(3)))
    assert found[::2] == [(0, 0), (2, 2)] and isinstance(found[1][1], InputError)

    def broken(number):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(sources.ahead(broken, range(3)))


def test_only_a_few_are_made_ahead():
    """Of an endless stream: when a result is taken, at most so many others were asked for as there are workers."""
    asked = []

    def numbers():
        number = 0
        while True:
            asked.append(number)
            yield number
            number += 1

    stream = sources.ahead(lambda number: number, numbers(), workers=2)
    for wanted in range(20):
        assert next(stream) == (wanted, wanted)
        assert len(asked) <= wanted + 1 + 2
    stream.close()
    assert len(asked) <= 22
