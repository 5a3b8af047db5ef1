"""The folder that ships: exported files that passed verification, and all that is needed to run them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from itertools import product
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.codecs import name_of
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.people import People
from keras_mrpose.data.pipeline import Skipped
from keras_mrpose.errors import InputError, lookup
from keras_mrpose.evaluation.provenance import of_network
from keras_mrpose.export import litert, onnx
from keras_mrpose.export.metadata import with_metadata
from keras_mrpose.export.outputs import heatmaps, keypoints
from keras_mrpose.export.report import MAX_WORST, ExportReport, ToleranceError
from keras_mrpose.export.verify import (
    CONFIDENT,
    TOLERANCES,
    FormatReport,
    Reference,
    Tolerance,
    cropped,
    measure,
    reference_case,
)
from keras_mrpose.geometry import PADDING
from keras_mrpose.models.networks import PoseModel
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime import decoder
from keras_mrpose.runtime.litert import SIDECAR, VERSION
from keras_mrpose.runtime.litert import check_installed as check_litert

FORMATS = (*litert.PRECISIONS, onnx.FORMAT)
OUTPUTS = {"heatmaps": heatmaps, "keypoints": keypoints}
CALIBRATION = 256  # crops
PACKAGES = ("keras_mrpose", "keras", "tensorflow", "numpy", "ai-edge-litert")


def export_litert(
    model: keras.Model | str | Path,
    folder: str | Path,
    formats: Sequence[str] = ("float32", "float16", "int8"),
    *,
    people: People | np.ndarray,
    calibration: People | np.ndarray | None = None,
    outputs: Sequence[str] = ("heatmaps",),
    input_type: str = "float32",
    output_type: str = "float32",
    deconvolution: str = "depth_to_space",
    float_layers: Sequence[str] = (),
    tolerances: dict[str, Tolerance] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Export a model to LiteRT, verify each file in the interpreter, and write all of them or nothing.

    Args:
        model: made by `keras_mrpose.build`; or its file or run folder.
        folder: new; see the README for what it holds.
        formats: of "float32", "float16" (weights), "dynamic" (int8 weights) and "int8" (everything) for LiteRT, and
            "onnx" (float32). "keypoints_int8" names an output, too: then a file is made for this pair alone.
        people: what to verify on: labelled people, whose metric is computed before and after; or crops
            ``(n, H, W, 3)``, RGB 0..255, of which only heatmaps and joints are compared.
        calibration: int8's ranges come from these; other people than those. They are augmented as for a training:
            rotated, scaled and mirrored crops cover more of what a phone will see than the same number of still ones,
            and a range that is a little too wide costs less than one that cuts. People whose image cannot be read are
            left out and listed in the report. Or crops, taken as they are.
        outputs: "heatmaps", "keypoints" (decoded inside), or both; of the formats that name no output.
        input_type: "float32" or "uint8" images, 0..255 in both.
        output_type: of int8's heatmaps: "float32", or "uint8" or "int8" with a scale. All other outputs are float32.
        deconvolution: "depth_to_space" (faster), or "transpose".
        float_layers: layers that int8 leaves in float.
        tolerances: format -> `Tolerance`, for those that shall not have the default.
        overwrite: replace an earlier export.

    Raises:
        ToleranceError: an `InputError` with the report: a file lost more than its tolerance allows.
        InputError: any other mistake; nothing has been written then, either.
    """
    folder, predictor = Path(folder), Predictor(model, flip_test=False)
    pairs = _pairs(formats, outputs)
    kinds, formats = (tuple(dict.fromkeys(column)) for column in zip(*pairs, strict=True))
    lookup("input type", input_type, ("float32", "uint8"))
    lookup("output type", output_type, litert.TYPES)
    for name in tolerances or {}:
        lookup("format", name, FORMATS)
    if not isinstance(predictor.model, PoseModel):
        raise InputError(f"{model} has been exported already; give the Keras model that it was made from.")
    if float_layers and "int8" not in formats:
        raise InputError(f"float_layers is for int8; leave it out for {' and '.join(formats)}.")
    if output_type != "float32" and (("heatmaps", "int8") not in pairs or float_layers):
        raise InputError(
            f"output_type {output_type!r} is for heatmaps of int8 without layers in float; leave it out, or export "
            "those."
        )
    if onnx.FORMAT in formats:
        onnx.check_installed()
    if formats != (onnx.FORMAT,):
        check_litert()
    _check_place(folder, overwrite)

    networks = {kind: OUTPUTS[kind](predictor.model, deconvolution) for kind in kinds}
    for network in networks.values():  # a wrong name is known before the long work, too
        litert.float_layers_of(network, float_layers)
    skipped = Skipped()
    crops = calibration_crops(predictor, calibration, skipped) if "int8" in formats else None
    reference = Reference(predictor, people, whole=input_type == "uint8")
    allowed = {name: (TOLERANCES | (tolerances or {}))[name] for name in formats}
    files, entries, measured = {}, {}, {}
    for kind, fmt in pairs:
        if fmt == onnx.FORMAT:
            name, conversion = f"{kind}.onnx", onnx.convert(networks[kind])
        else:
            name = f"{kind}_{fmt}.tflite"
            options = {"calibration": crops, "float_layers": float_layers} if fmt == "int8" else {}
            if fmt == "int8" and kind == "heatmaps":  # joints are decoded in float
                options["output_type"] = output_type
            conversion = litert.convert(networks[kind], fmt, input_type=input_type, **options)
            content = with_metadata(conversion.content, predictor.model.name, predictor.skeleton.joints, kind)
            conversion = replace(conversion, content=content)
        files[name], entries[name] = conversion.content, _entry(kind, conversion)
        measured[name] = measure(conversion, kind, reference, allowed[fmt])
    worst = (
        () if crops is None else litert.worst_tensors(networks[kinds[0]], crops, float_layers=float_layers)[:MAX_WORST]
    )
    report = _report(predictor, reference, crops, skipped, measured, allowed, worst)
    if not report.passed:
        raise ToleranceError(report)
    _write(folder, files, _sidecar(predictor, entries), reference_case(predictor, people, reference), report)
    return report


def calibration_crops(
    predictor: Predictor, source: People | np.ndarray | None, skipped: Skipped | None = None
) -> np.ndarray:
    """Crops ``(n, H, W, 3)`` that calibrate int8: of people, augmented; crops, as they are.

    Args:
        predictor: of the network.
        source: people or crops.
        skipped: gets the people whose image cannot be read: the others calibrate.

    Raises:
        InputError: too few people or crops, or crops that are not RGB 0..255.
    """
    if not isinstance(source, People):
        return litert.checked_crops(source, predictor.model)
    if len(source) < litert.MIN_CROPS:
        raise InputError(
            f"{source.source} has {len(source)} people to calibrate int8 with; give at least {litert.MIN_CROPS}, "
            "better hundreds."
        )
    pixels_only = replace(source.skeleton, pairs_from_names=False)  # whose joints may be of an unknown side
    source = replace(source, skeleton=pixels_only)
    skipped = Skipped() if skipped is None else skipped
    crops = cropped(
        source, predictor.input_size, CALIBRATION, augmentation=Augmentation(), on_bad_record="skip", skipped=skipped
    )
    crops = crops[crops.any(axis=(1, 2, 3))]  # without the black ones
    if len(crops) < litert.MIN_CROPS:
        raise InputError(
            f"{source.source} has {len(crops)} people to calibrate int8 with, {skipped.sentence()}; give at least "
            f"{litert.MIN_CROPS} whose images can be read."
        )
    return crops


def _report(
    predictor: Predictor, reference: Reference, crops, skipped: Skipped, measured: dict[str, FormatReport],
    allowed: dict, worst,
) -> ExportReport:  # fmt: skip
    return ExportReport(
        model=predictor.model.name,
        crops=len(reference.crops),
        metric=reference.metric,
        before=reference.value,
        calibration=0 if crops is None else len(crops),
        skipped=tuple(skipped.records()),
        files=measured,
        tolerances=allowed,
        worst=tuple(worst),
    )


def _pairs(formats: str | Sequence[str], outputs: str | Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Output and format of each file; a format such as "keypoints_int8" says both."""
    whole = [f"{kind}_{fmt}" for kind, fmt in product(OUTPUTS, FORMATS)]
    chosen, kinds = _chosen("format", formats, (*FORMATS, *whole)), _chosen("output", outputs, OUTPUTS)
    pairs = []
    for kind in (None, *kinds):  # outputs in turn, with all their formats each
        for name in chosen:
            if name in whole and kind is None:
                pairs.append(tuple(name.split("_", 1)))
            elif name not in whole and kind is not None:
                pairs.append((kind, name))
    return tuple(dict.fromkeys(pairs))


def _chosen(kind: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names that were asked for, each once and spelled as the known ones."""
    names = tuple(dict.fromkeys(lookup(kind, name, known) for name in ([names] if isinstance(names, str) else names)))
    if not names:
        raise InputError(f"No {kind} to export; give some of {', '.join(known)}.")
    return names


def _sidecar(predictor: Predictor, entries: dict[str, dict]) -> dict:
    """Content of `model.json`: all that running the files takes, without this library."""
    model, codec, (height, width) = predictor.model, predictor.codec, predictor.input_size
    network = of_network(predictor)
    return {
        "version": VERSION,
        "name": model.name,
        "model": network["model"],
        "backbone": network["backbone"],
        "input": {"size": [height, width], "colour": "RGB", "range": [0, 255]},
        "heatmaps": {"size": list(model.output_shape[1:3])},
        "skeleton": predictor.skeleton.to_dict(),
        "codec": {
            "name": name_of(codec),
            "scale": codec.scale(predictor.input_size).tolist(),
            **codec.get_config(),
        },
        "calibration": None if predictor.calibration is None else predictor.calibration.to_dict(),
        "crop": {"padding": PADDING},
        "threshold": CONFIDENT,
        "files": entries,
        "made_from": {
            "weights_sha256": network["weights_sha256"],
            "preprocessing": model.spec.get("preprocessing"),
            "versions": {"python": platform.python_version()}
            | {name: metadata.version(name.replace("_", "-")) for name in PACKAGES},
        },
    }


def _entry(output: str, conversion: litert.Conversion) -> dict:
    """What `model.json` says of one file."""
    return {
        "output": output,
        "precision": conversion.precision,
        "input_type": conversion.input_type,
        "output_type": conversion.output_type,
        "float_layers": list(conversion.float_layers),
        "bytes": len(conversion.content),
        "sha256": hashlib.sha256(conversion.content).hexdigest(),
    }


# --- the folder -------------------------------------------------------------------------------------------------------


def _check_place(folder: Path, overwrite: bool) -> None:
    """Raise before hours of work: an `InputError` if a folder could not be written or must not be replaced."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    if there != folder.absolute():
        if not (there.is_dir() and os.access(there, os.W_OK)):
            raise InputError(f"{folder} cannot be made: {there} is no folder that can be written to.")
    elif not (folder / SIDECAR).is_file():
        raise InputError(f"{folder} is there and is no export (it has no {SIDECAR}); give another folder.")
    elif not overwrite:
        raise InputError(f"{folder} holds an earlier export; give another folder, or overwrite it.")
    elif not os.access(folder.absolute().parent, os.W_OK):
        raise InputError(f"{folder} cannot be replaced: nothing can be written to {folder.absolute().parent}.")


def _write(
    folder: Path, files: dict[str, bytes], about: dict, case: dict[str, np.ndarray], report: ExportReport
) -> None:
    """Write an export, in the place of an earlier one if there is one.

    Args:
        folder: its place.
        files: name -> content of the networks.
        about: content of the sidecar.
        case: the reference case.
        report: of the verification.

    Raises:
        InputError: it cannot be written; the earlier export, if there is one, is still there.
    """
    with _replaced(folder) as new:
        for name, content in files.items():
            (new / name).write_bytes(content)
        _write_json(new / SIDECAR, about)
        _write_json(new / "report.json", report.to_dict())
        (new / "report.md").write_text(report.markdown())
        shutil.copyfile(decoder.__file__, new / "decoder.py")
        np.savez_compressed(new / "reference.npz", **case)
        crop_off, joints_off = decoder.check(new)
        if not (crop_off < decoder.CROP_LIMIT and joints_off < decoder.JOINTS_LIMIT):
            raise RuntimeError(f"decoder.py is {crop_off} grey levels and {joints_off} pixels off the reference case.")


@contextlib.contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder beside the old one, which it replaces if all goes well; if not, all is as it was."""
    folder = folder.absolute()
    made = [place for place in folder.parents if not place.exists()]
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        if isinstance(error, OSError):
            raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
