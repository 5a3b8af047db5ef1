"""`mrpose web`: an export as a page that runs in a browser; `mrpose serve`: this page, on this machine."""

from __future__ import annotations

from pathlib import Path

from keras_mrpose.cli.saved_models import SAVED
from keras_mrpose.web.library import VERSION


def register_parser(subparsers) -> None:
    """The options of `web` and of `serve`."""
    summary = "Write a page that runs an export in a browser: camera or photos in, skeletons out."
    sub = subparsers.add_parser("web", help=summary, description=summary)
    sub.set_defaults(handle=handle, needs_tensorflow=lambda arguments: False)
    sub.add_argument("export", help="folder of an export, run folder, or the name of a network of the package (people)")
    sub.add_argument("--out", metavar="DIR", help="folder of the page (default: web in the folder of the export)")
    sub.add_argument(
        "--vendor", metavar="DIR",
        help=f"copy LiteRT.js from here, where `npm install --prefix DIR @litertjs/core@{VERSION}` has put it; "
        "without, the page loads it from a CDN, checked by hashes",
    )  # fmt: skip
    sub.add_argument("--detector", metavar="FILE", help="a .tflite detector: the page finds several people")
    sub.add_argument(
        "--detector-range", type=float, nargs=2, metavar=("BLACK", "WHITE"), default=(0.0, 255.0),
        help="what a detector with a float input wants for black and white, such as -1 1 (default: 0 255)",
    )  # fmt: skip

    summary = "Serve the folder of a page, on this machine alone unless --host says otherwise."
    sub = subparsers.add_parser("serve", help=summary, description=summary)
    sub.set_defaults(handle=serve, needs_tensorflow=lambda arguments: False)
    sub.add_argument("folder", help="of a page, as `mrpose web` wrote it")
    sub.add_argument("--port", type=int, default=8000, help="default: 8000")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen at, 0.0.0.0 for every network")
    sub.add_argument(
        "--certificate", metavar="FILE",
        help="PEM file with a certificate and its key: https, without which phones give the page no camera",
    )  # fmt: skip


def handle(args) -> None:
    """Write the page, and say how to serve it."""
    from keras_mrpose.presets import PRESETS
    from keras_mrpose.web.folder import write_page

    out = args.out or (SAVED / args.export / "web" if args.export in PRESETS else None)
    folder = write_page(
        args.export, out, vendor=args.vendor, detector=args.detector, detector_range=tuple(args.detector_range)
    )
    print(f"written to {folder}; look at it: {args.program} serve {folder}")


def serve(args) -> None:
    """Serve until Ctrl-C."""
    from keras_mrpose.web.server import LOCALHOST, make_server

    server = make_server(args.folder, args.host, args.port, args.certificate)
    host, port = server.server_address[:2]
    scheme = "https" if args.certificate else "http"
    name = "localhost" if host == LOCALHOST else str(host)
    print(f"{Path(args.folder)} at {scheme}://{name}:{port}/ (Ctrl-C ends it)", flush=True)
    with server:
        server.serve_forever()
