"""A server for the folder of a page: its files, to be read, and nothing else."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import ssl
from pathlib import Path

from keras_mrpose.errors import InputError
from keras_mrpose.web.folder import ABOUT, policy

logger = logging.getLogger(__name__)

LOCALHOST, PORT = "127.0.0.1", 8000
HEADERS = {
    # Isolated from other origins, a page may run threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A page with a copy of the library has a stricter one of its own; this holds for every file.
    "Content-Security-Policy": f"{policy(copied=False)}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}


class _Files(http.server.SimpleHTTPRequestHandler):
    """GET and HEAD of a folder's files, with `HEADERS`."""

    extensions_map = TYPES  # all others are bytes
    server_version, sys_version = "mrpose", ""

    def guess_type(self, path) -> str:
        """MIME type by the ending, whatever the machine's own tables say."""
        return TYPES.get(Path(path).suffix.lower(), "application/octet-stream")

    def send_head(self):
        """The file of a request; nothing outside the folder, where a link could lead."""
        found = os.path.realpath(self.translate_path(self.path))
        if not Path(found).is_relative_to(os.path.realpath(self.directory)):
            return self.send_error(404)
        return super().send_head()

    def list_directory(self, path):
        """Nothing: folders are not listed."""
        self.send_error(404)

    def end_headers(self) -> None:
        """The headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args) -> None:
        """Requests are of interest to who looks for a fault."""
        logger.debug(format, *args)


class _Server(http.server.ThreadingHTTPServer):
    """Goes on without a word when a browser breaks off, as it does over a certificate that it does not know."""

    def handle_error(self, request, client_address) -> None:
        """What went wrong with one request, for who looks for it."""
        logger.debug("a request of %s broke off", client_address, exc_info=True)


def make_server(
    folder: str | Path, host: str = LOCALHOST, port: int = PORT, certificate: str | Path | None = None
) -> http.server.ThreadingHTTPServer:
    """A server that is bound and answers once `serve_forever` is called.

    Args:
        folder: of a page, as `folder.write_page` wrote it.
        host: address to listen at; ``"127.0.0.1"`` is this machine alone, ``"0.0.0.0"`` every network.
        port: 0 takes a free one.
        certificate: PEM file with a certificate and its key: https.

    Raises:
        InputError: no page there, an address that cannot be had, or a file that is no certificate.
    """
    if not Path(folder, ABOUT).is_file():
        raise InputError(f"{folder} is no page of an export (it has no {ABOUT}); give the folder of one.")
    handler = functools.partial(_Files, directory=str(folder))
    try:
        server = _Server((host, port), handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"Port {port} of {host} cannot be had ({error}); give another one.") from None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(certificate)
        except OSError as error:  # ssl's own among them
            server.server_close()
            raise InputError(f"{certificate} is no PEM file with a certificate and its key ({error}).") from None
        # Who connects and says nothing must not hold up the others: each request's own thread shakes hands.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server
