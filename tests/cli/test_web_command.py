"""`mrpose web` and `mrpose serve`: a folder, an address, and Ctrl-C."""

import json
import signal
import subprocess
import sys
import urllib.request
from functools import partial

import pytest
from commands import ENVIRONMENT, call, refused


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "page"
    assert call(run, "web", "people", "--out", folder) == 0
    return folder


def test_web_says_what_to_do_next(run, page, capsys):
    assert call(run, "web", "people", "--out", page) == 0  # over the earlier one
    assert capsys.readouterr().out == f"written to {page}; look at it: mrpose serve {page}\n"


def test_a_network_of_the_package_goes_to_saved_models(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(run, "web", "people") == 0
    assert (tmp_path / "saved_models" / "people" / "web" / "index.html").is_file()


def test_serve(page):
    """Without TensorFlow; the line says where, the page is there, Ctrl-C ends it."""
    command = [sys.executable, "-m", "keras_mrpose", "serve", str(page), "--port", "0"]
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores it
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=heeded) as process:
        try:
            line = process.stdout.readline()
            address = line.split(" at ")[1].split(" ")[0]
            assert address.startswith("http://localhost:") and line.startswith(f"{page} at ")
            with urllib.request.urlopen(f"{address}page.json", timeout=60) as answer:
                assert json.load(answer)["title"] == "mrfeanet1_mobilenetv2"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("web", "WORK/none"), "none is no export"),
        (("web", "people", "--out", "WORK", "--vendor", "WORK"), "is no page of an export"),
        (("web", "people", "--out", "WORK/new", "--vendor", "WORK"), "npm install --prefix"),
        (("web", "people", "--out", "WORK/new", "--detector", "keras_hub:dfine_nano_coco"), r"is no \.tflite file"),
        (("serve", "WORK"), "is no page of an export"),
    ],
)
def test_mistakes(run, arguments, words, tmp_path, capfd):
    (tmp_path / "mine.txt").write_text("mine")
    refused(run, list(arguments), words, {"WORK": tmp_path}, capfd)
