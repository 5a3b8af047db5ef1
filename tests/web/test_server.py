"""The server of a page: its files with the right headers, on this machine alone, and nothing outside the folder."""

import http.client
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from keras_mrpose import InputError
from keras_mrpose.web.server import make_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    (root / "secret.txt").write_text("secret")
    page = root / "page"
    (page / "litert").mkdir(parents=True)
    for name in ("index.html", "page.json", "page.js", "network.tflite", "litert/library.wasm"):
        (page / name).write_text(name)
    (page / "link.txt").symlink_to(root / "secret.txt")
    (page / "up").symlink_to(root)
    return page


@pytest.fixture(scope="module")
def address(folder):
    server = make_server(folder, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address
    server.shutdown()
    thread.join()
    server.server_close()


def ask(address, path, method="GET"):
    connection = http.client.HTTPConnection(*address, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/index.html", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.json", "application/json"),
        ("/network.tflite", "application/octet-stream"),
        ("/litert/library.wasm", "application/wasm"),
    ],
)
def test_files(address, path, kind):
    answer, content = ask(address, path)
    assert (answer.status, content.decode()) == (200, path[1:])
    assert answer.headers["Content-Type"] == kind and answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_folder_itself_is_the_page(address):
    assert ask(address, "/")[1] == b"index.html"


def test_it_is_isolated_and_has_a_policy(address):
    headers = ask(address, "/")[0].headers
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "form-action 'none'" in policy


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "//../../secret.txt",
        "/link.txt",
        "/up/secret.txt",
        "/up/",
        "/litert/",
        "/none",
    ],
)
def test_nothing_else(address, path):
    """Neither above the folder nor behind a link, and no list of a folder."""
    answer, content = ask(address, path)
    assert answer.status == 404 and b"secret" not in content and b"library" not in content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(address, method):
    assert ask(address, "/page.json", method)[0].status == 501


def test_it_listens_at_localhost_alone(address):
    assert address[0] == "127.0.0.1"


def test_https(folder, tmp_path):
    """With a certificate of its own, as one makes for a phone."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    pem, options = tmp_path / "phone.pem", ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *options, "-keyout", pem, "-out", pem]
    subprocess.run(made, check=True, capture_output=True)
    server = make_server(folder, port=0, certificate=pem)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        context = ssl.create_default_context(cafile=str(pem))
        connection = http.client.HTTPSConnection("localhost", server.server_address[1], context=context, timeout=30)
        connection.request("GET", "/page.json")
        assert connection.getresponse().read() == b"page.json"
        connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_mistakes(folder, tmp_path):
    with pytest.raises(InputError, match="is no page of an export"):
        make_server(tmp_path)
    with pytest.raises(InputError, match=r"is no PEM file"):
        make_server(folder, port=0, certificate=folder / "page.json")
    with pytest.raises(InputError, match=r"none\.pem is no PEM file"):
        make_server(folder, port=0, certificate=tmp_path / "none.pem")
    with pytest.raises(InputError, match=r"Port 99999 of 127\.0\.0\.1 cannot be had"):
        make_server(folder, port=99999)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot be had"):
            make_server(folder, port=taken.getsockname()[1])
