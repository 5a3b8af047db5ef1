"""LiteRT.js, which runs `.tflite` files in a browser: one version, whose every file is known by its hash."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path

from keras_mrpose.errors import InputError

VERSION = "2.5.3"
CDN = "https://cdn.jsdelivr.net"
FOLDER = "litert"  # of a page that has a copy
# Files of the npm packages @litertjs/core and @litertjs/wasm-utils, and what the browser has to find in them.
INTEGRITY = {
    "core/dist/index.js": "sha384-MapSVJ/DPwvaWpp7q+Bid9O3uY1oB0KOU1QRMP+Mm5zdz5oMme/BUyX6dVAMWnPg",
    "wasm-utils/dist/index.js": "sha384-HIPwlWsctS5BRqrnvJKDVJ8SvqKB0QmiImdr6+hpP7+8UqeMJX/qrBkdfKQV2WZ/",
    "core/wasm/litert_wasm_internal.js": "sha384-NB/Wc4iozynQO5jzJ2VFoMKbqMvwwFGWxJL/o63IJT6W2JfZbsSLxA2cF6H/mLpQ",
    "core/wasm/litert_wasm_internal.wasm": "sha384-AZ/Ak4CbDpjqpSr8WsnoL3Dcx6bDFA/k9b/jahok1TGHZ2OqIRjLBMiEmiNedhlC",
    "core/wasm/litert_wasm_jspi_internal.js": "sha384-Y6/AvIxciaLSzSWRJcd1FVuRAhc/f2HeaLQuYuwdN/Y0aipWnFoBrszL8JHT0GHD",
    "core/wasm/litert_wasm_jspi_internal.wasm": (
        "sha384-FBGaMKCEjTkeIOEl4TMyiD0fjfNzVbruCGIwX4FQdVmfp4GBiSCTmniGAPU5olS+"
    ),
    "core/wasm/litert_wasm_compat_internal.js": (
        "sha384-oh4nb8zDq6eVOpGeZE5gwDOJ16QujHLL8k/HEXt3XiPxr+8zn3YnkXP8P3BlJET1"
    ),
    "core/wasm/litert_wasm_compat_internal.wasm": (
        "sha384-glAZ6WjS7tLRt89pbTPXvLC1c7DCaVSfL2ngn5gZJiUuPs76fWYJy7ZeFaD0PJXx"
    ),
    "core/wasm/litert_wasm_threaded_internal.js": (
        "sha384-yzheND5ZxfO4+9po2DFoaMqr56eo7p10JiuyDXIbNqi2MOTw/8AIm1CtEe5Dqz62"
    ),
    "core/wasm/litert_wasm_threaded_internal.wasm": (
        "sha384-W0YLgt+poOZCNAm54r2Ga6K2PmHezmLMKtO5RvIFQtK8ji5wvIW56LEwGn4eH0Cb"
    ),
}
VARIANTS = {  # what the page chooses from
    "plain": "litert_wasm_internal",
    "compat": "litert_wasm_compat_internal",
    "threaded": "litert_wasm_threaded_internal",
    "jspi": "litert_wasm_jspi_internal",
}


def described(copied: bool) -> dict:
    """Address and hash of each file, for the page: of the copy beside it, or of the CDN's.

    Args:
        copied: whether the page has a copy.
    """

    def file(name: str) -> dict[str, str]:
        package, _, path = name.partition("/")
        url = f"{FOLDER}/{name}" if copied else f"{CDN}/npm/@litertjs/{package}@{VERSION}/{path}"
        return {"url": url, "integrity": INTEGRITY[name]}

    variants = {
        variant: {kind: file(f"core/wasm/{stem}.{kind}") for kind in ("js", "wasm")}
        for variant, stem in VARIANTS.items()
    }
    return {
        "version": VERSION,
        "index": file("core/dist/index.js"),
        "utils": file("wasm-utils/dist/index.js"),
        **variants,
    }


def find(folder: str | Path) -> Path:
    """The folder ``@litertjs`` in a folder that npm has installed it into, every file checked.

    Raises:
        InputError: it is not there, or of another version.
    """
    command = f"npm install --prefix {folder} @litertjs/core@{VERSION}"
    places = [Path(folder, *parts) for parts in (("node_modules", "@litertjs"), ("@litertjs",), ())]
    found = next((place for place in places if (place / "core").is_dir()), None)
    if found is None:
        raise InputError(f"{folder} has no copy of LiteRT.js; put one there: {command}.")
    for name, integrity in INTEGRITY.items():
        try:
            digest = hashlib.sha384((found / name).read_bytes()).digest()
        except OSError as error:
            raise InputError(
                f"{found / name} cannot be read ({error.strerror}); install it again: {command}."
            ) from None
        if f"sha384-{base64.b64encode(digest).decode()}" != integrity:
            raise InputError(f"{found / name} is not the file of LiteRT.js {VERSION}; install that: {command}.")
    return found


def copy(source: Path, page: Path) -> None:
    """Copy the library from where `find` found it to a page's folder."""
    for name in INTEGRITY:
        (page / FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, page / FOLDER / name)
