"""The folder of a page that runs an export in a browser.

It holds the exported `.tflite` files and their sidecar as they are, the page (`page/` of this package), and

- ``page.json``: what the page has to know besides: number types and scales of the files' inputs and outputs, the rules
  by which people are looked for, and of each file what Python's interpreter makes of the reference case;
- ``reference.bin``: the reference case: an image, its crop, the network's heatmaps.
"""

from __future__ import annotations

import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from keras_mrpose import presets
from keras_mrpose.calibration import DEFAULT_PERSON, Calibration
from keras_mrpose.errors import InputError
from keras_mrpose.geometry import PADDING
from keras_mrpose.predict import detectors, predictor, results, video
from keras_mrpose.runtime import decoder
from keras_mrpose.runtime.litert import SIDECAR, ExportedModel, open_interpreter
from keras_mrpose.web import library

PAGE = Path(__file__).resolve().parent / "page"
ABOUT, REFERENCE, DETECTOR = "page.json", "reference.bin", "detector.tflite"
# Crop pixels and probabilities that a file may be off its results in Python: other processors round in another order,
# by 1e-4 in float. A step of int8's heatmaps, or the half precision of graphics, moves a flat peak by more.
LIMITS = {"shift": 0.1, "scores": 0.01}
COARSE_LIMITS = {"shift": 1.0, "scores": 0.05}
CASES = 16  # crops of a preset, of which the surest is the reference case


def write_page(
    source: str | Path,
    folder: str | Path | None = None,
    *,
    vendor: str | Path | None = None,
    detector: str | Path | None = None,
    detector_range: tuple[float, float] = (0.0, 255.0),
) -> Path:
    """Write the folder of a page for an export; returns it. An earlier page there is written over.

    Args:
        source: the folder of an export, a run folder with one in ``export``, or the name of a network that comes with
            the package.
        folder: where; by default ``web`` in the folder of the export.
        vendor: a folder that npm has installed LiteRT.js into, which is copied: the page then loads nothing from
            elsewhere. None: the page loads it from a CDN, checked by hashes.
        detector: a `.tflite` file that finds people, as `predict.detectors.LiteRTDetector` takes; None: the page looks
            for one person.
        detector_range: what black and white are for a detector with a float input.

    Raises:
        InputError: no export, or its files cannot be read; a folder that is something else; no such detector; or
            another library.
    """
    export = _export_of(source)
    folder = Path(export / "web" if folder is None else folder)
    taken = any(folder.iterdir()) and not (folder / ABOUT).is_file() if folder.is_dir() else folder.exists()
    if taken:
        raise InputError(f"{folder} is there and is no page of an export (it has no {ABOUT}); give another folder.")
    copied_from = None if vendor is None else library.find(vendor)
    about = _read_json(export / SIDECAR)
    names = sorted((name for name in about["files"] if name.endswith(".tflite")), key=lambda name: _bytes(about, name))
    if not names:
        raise InputError(f"{export} has no .tflite file; export one, such as --formats float16.")
    models = {name: ExportedModel(export / name) for name in names}
    case = _reference(export, next(iter(models.values())), about)
    content = {
        "title": about["name"],
        "library": library.described(vendor is not None),
        "sides": models[names[0]].skeleton.sides,
        "files": [_file(export / name, model, about, case) for name, model in models.items()],
        "person": _person_map(about).to_dict(),
        "search": {
            "passes": predictor.PASSES,
            "settled": predictor.SETTLED,
            "margin": predictor.MARGIN,
            "min_joints": predictor.MIN_JOINTS,
            "joint_threshold": results.JOINT_THRESHOLD,
            "person_threshold": results.PERSON_THRESHOLD,
            "same_person": predictor.SAME_PERSON,
            "same_box": video.SAME,
            "every": 5,
        },
        "limits": {"crop": decoder.CROP_LIMIT, "joints": decoder.JOINTS_LIMIT},
        "detector": None if detector is None else _detector(Path(detector), detector_range),
        "card": _card(str(source), about, export),
    }
    content["reference"], arrays = _packed(case)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in PAGE.iterdir():
            shutil.copyfile(file, folder / file.name)
        page = (PAGE / "index.html").read_text(encoding="utf-8")
        for name, text in (("{title}", content["title"]), ("{policy}", policy(vendor is not None))):
            page = page.replace(name, html.escape(text))
        (folder / "index.html").write_text(page, encoding="utf-8")
        for name in (SIDECAR, *names):
            shutil.copyfile(export / name, folder / name)
        (folder / REFERENCE).write_bytes(arrays)
        if detector is not None:
            shutil.copyfile(detector, folder / DETECTOR)
        if copied_from is not None:
            library.copy(copied_from, folder)
        (folder / ABOUT).write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    return folder


def policy(copied: bool) -> str:
    """Content security policy of the page: its own files, scripts of checked bytes, and the library's CDN or its copy.

    Args:
        copied: whether the page has a copy of the library.
    """
    connect = "'self'" if copied else f"'self' {library.CDN}"
    return (
        f"default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval'; worker-src blob:; connect-src {connect}; "
        "img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self'; base-uri 'none'; form-action 'none'"
    )


def _export_of(source: str | Path) -> Path:
    if str(source) in presets.PRESETS:
        return presets.exported_file(str(source)).parent
    places = [Path(source), Path(source) / "export"]
    for place in places:
        if (place / SIDECAR).is_file():
            return place
    raise InputError(
        f"{source} is no export (it has no {SIDECAR}); give the folder of one, or a network of the package (people)."
    )


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); export again.") from None


def _bytes(about: dict, name: str) -> int:
    return about["files"][name].get("bytes", 0)


def _person_map(about: dict) -> Calibration:
    """From the mean height of the peaks to the probability of a person, as the predictor takes it."""
    fitted = (about.get("calibration") or {}).get("person")
    return DEFAULT_PERSON if fitted is None else Calibration.from_dict(fitted)


# --- the reference case -----------------------------------------------------------------------------------------------


def _reference(export: Path, model: ExportedModel, about: dict) -> dict[str, np.ndarray]:
    """The case that ships with an export; of a network of the package, which has none, the surest of its crops."""
    path = export / "reference.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); export again.") from None
    if export.parent != presets.FOLDER:
        raise InputError(f"{export} has no {path.name}, which comes with every export; export again.")
    size, sides = about["input"]["size"], np.array(about["input"]["size"][::-1], np.float64)
    box = np.concatenate([sides / 2 * (1 - 1 / PADDING), sides / PADDING])  # whose padded window is the image
    matrix = decoder.crop_matrix(box, size, about["crop"]["padding"])
    cases = []
    for crop in presets.read_crops(export.name)[:CASES]:
        image = np.rint(crop).astype(np.uint8)
        pixels = decoder.crop(image, matrix, size)
        heatmaps = model.predict_on_batch(pixels[None])[0]
        joints = decoder.joints(heatmaps, matrix, about["codec"], about.get("calibration"))
        cases.append({"image": image, "box": box, "crop": pixels, "heatmaps": heatmaps, "joints": joints})
    case = max(cases, key=lambda case: case["joints"][:, 2].min())
    score = decoder.person(case["heatmaps"], about.get("calibration"))
    return case if score is None else {**case, "person": np.float64(score)}


def _packed(case: dict[str, np.ndarray]) -> tuple[dict, bytes]:
    """What ``page.json`` says of the reference case, and the content of ``reference.bin``: little-endian arrays."""
    content, arrays = b"", {}
    kinds = {"crop": "float32", "heatmaps": "float32", "image": "uint8"}  # floats first: they start at multiples of 4
    for name, kind in kinds.items():
        values = np.ascontiguousarray(case[name], np.dtype(kind).newbyteorder("<"))
        arrays[name] = {"type": kind, "offset": len(content), "shape": list(values.shape)}
        content += values.tobytes()
    return {
        "file": REFERENCE,
        "arrays": arrays,
        "box": case["box"].tolist(),
        "joints": case["joints"].tolist(),
        "person": float(case["person"]) if "person" in case else None,
    }, content


def _expected(model: ExportedModel, about: dict, case: dict[str, np.ndarray]) -> dict:
    """What Python makes of the reference case with a file: joints in image pixels, and the person's score."""
    size, calibration = about["input"]["size"], about.get("calibration")
    matrix = decoder.crop_matrix(case["box"], size, about["crop"]["padding"])
    found = model.predict_on_batch(decoder.crop(case["image"], matrix, size)[None])[0].astype(np.float64)
    if model.output == "heatmaps":
        found = decoder.joints(found.astype(np.float32), matrix, about["codec"])
    else:
        found[:, :2] = (found[:, :2] - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
    person = float(_person_map(about)(found[:, 2].mean()))
    if calibration:
        found[:, 2] = np.interp(found[:, 2], calibration["scores"], calibration["probabilities"])
    return {"joints": found.tolist(), "person": person}


# --- files ------------------------------------------------------------------------------------------------------------


def _file(path: Path, model: ExportedModel, about: dict, case: dict[str, np.ndarray]) -> dict:
    """What the page has to know of an exported file."""
    entry = about["files"][path.name]
    return {
        "name": path.name,
        "label": f"{entry['output']} {entry['precision']}, {_bytes(about, path.name) / 1e6:.0f} MB",
        "output": entry["output"],
        **_tensors(path.read_bytes()),
        "expected": _expected(model, about, case),
        "limits": {"wasm": COARSE_LIMITS if entry["precision"] == "int8" else LIMITS, "webgpu": COARSE_LIMITS},
    }


def _tensors(content: bytes) -> dict:
    """Types, shapes and scales of a file's input and outputs."""
    interpreter = open_interpreter(content, 1)
    return {
        "input": _tensor(interpreter.get_input_details()[0]),
        "outputs": [_tensor(details) for details in interpreter.get_output_details()],
    }


def _tensor(details: dict[str, Any]) -> dict:
    scale, zero = details["quantization"]  # a scale of 0: none
    shape = [int(side) for side in details["shape"]]
    return {"type": np.dtype(details["dtype"]).name, "shape": shape, "scale": float(scale), "zero": int(zero)}


def _detector(path: Path, value_range: tuple[float, float]) -> dict:
    """What the page has to know of a detector, which is opened here to see that it is one."""
    if path.suffix != ".tflite":
        raise InputError(f"The detector {path} is no .tflite file, and a browser runs no other.")
    opened = detectors.LiteRTDetector(path, value_range=value_range)
    return {
        "name": DETECTOR,
        **_tensors(path.read_bytes()),
        "person_class": opened.person_class,
        "score_threshold": opened.score_threshold,
        "nms_threshold": detectors.NMS_THRESHOLD,
        "range": list(value_range),
    }


def _card(source: str, about: dict, export: Path) -> list[tuple[str, str]]:
    """The model's card: what is shown, row by row."""
    calibration, made = about.get("calibration"), about["made_from"]
    crop, heatmaps = (" x ".join(map(str, about[what]["size"])) for what in ("input", "heatmaps"))
    rows = [
        ("Network", f"{about['model']} on {about['backbone']}"),
        ("Joints", f"{len(about['skeleton']['joints'])} ({about['skeleton']['name']})"),
        ("Crop", f"{crop} pixels (height, width), heatmaps {heatmaps}, read by {about['codec']['name']}"),
        ("Confidence", f"probability: {calibration['criterion']}" if calibration else "height of the heatmap's peak"),
    ]
    if source in presets.PRESETS:
        preset = presets.PRESETS[source]
        rows += [("Trained on", preset.data), ("Licence", preset.licence)]
    if (export / "report.json").is_file():
        report = _read_json(export / "report.json")
        for name, one in report["files"].items():
            if one.get("value") is not None:
                values = f"{100 * report['before']:.2f} -> {100 * one['value']:.2f}"
                rows.append((name, f"{report['metric']} {values} on {report['crops']} people"))
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    rows += [("Weights", f"SHA-256 {made['weights_sha256'][:16]}"), ("Made with", versions)]
    return [*rows, ("Runs with", f"LiteRT.js {library.VERSION}")]
