"""A trained model to a folder that ships: LiteRT files that passed the gate, and all that is needed to run them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from itertools import product
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.codecs import name_of
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError, lookup
from keras_mrpose.evaluation.provenance import of_network
from keras_mrpose.export import folders, litert, onnx
from keras_mrpose.export.golden import reference_case
from keras_mrpose.export.metadata import described
from keras_mrpose.export.origins import float_layers_of
from keras_mrpose.export.outputs import heatmaps, keypoints
from keras_mrpose.export.parity import SURE
from keras_mrpose.export.report import SHOWN, ExportReport, ToleranceError
from keras_mrpose.export.verify import TOLERANCES, Reference, Tolerance, cropped, measure
from keras_mrpose.geometry import PADDING
from keras_mrpose.models.networks import PoseModel
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime import interpreter
from keras_mrpose.runtime.litert import VERSION

FORMATS = (*litert.PRECISIONS, onnx.PRECISION)
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
    budgets: dict[str, Tolerance] | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Export a model to LiteRT, prove each file in the interpreter, and write all of them or nothing.

    Args:
        model: made by `keras_mrpose.build`; or its file or run folder.
        folder: new; see the README for what it holds.
        formats: of "float32", "float16" (weights), "dynamic" (int8 weights) and "int8" (everything) for LiteRT, and
            "onnx" (float32).
        people: to check on: labelled people, judged by their data set's protocol before and after; or crops
            ``(n, H, W, 3)``, RGB 0..255, of which only heatmaps and joints are compared.
        calibration: int8's ranges come from these; other people than those. They are augmented as for a training:
            rotated, scaled and mirrored crops cover more of what a phone will see than the same number of still ones,
            and a range that is a little too wide costs less than one that cuts. Or crops, taken as they are.
        twins: "heatmaps", "keypoints" (decoded inside), or both.
        input_type: "float32" or "uint8" images, 0..255 in both.
        output_type: of int8's heatmaps: "float32", or "uint8" or "int8" with a scale. All other outputs are float32.
        deconvolution: "depth_to_space" (faster), or "transpose".
        float_layers: layers that int8 leaves in float.
        budgets: form -> `Budget`, for those that shall not have the default.
        overwrite: replace an earlier export.

    Raises:
        OverBudgetError: an `InputError` with the report: an export is worse than its budget allows.
        InputError: any other mistake; nothing has been written then, either.
    """
    folder, predictor = Path(folder), Predictor(model, flip_test=False)
    formats, kinds = _chosen("form", formats, FORMATS), _chosen("output", outputs, OUTPUTS)
    lookup("input type", input_type, ("float32", "uint8"))
    lookup("output type", output_type, litert.TYPES)
    for form in budgets or {}:
        lookup("form", form, FORMATS)
    if not isinstance(predictor.model, PoseModel):
        raise InputError(f"{model} has been exported already; give the Keras model that it was made from.")
    if float_layers and "int8" not in formats:
        raise InputError(f"float_layers is for the form int8; leave it out for {' and '.join(formats)}.")
    if output_type != "float32" and ("int8" not in formats or "heatmaps" not in kinds or float_layers):
        raise InputError(
            f"output_type {output_type!r} is for heatmaps of the form int8 without layers in float; leave it out, or "
            "export those."
        )
    if onnx.PRECISION in formats:
        onnx.check_installed()
    if formats != (onnx.PRECISION,):
        interpreter.check_installed()
    folders.check(folder, overwrite)

    networks = {kind: OUTPUTS[kind](predictor.model, deconvolution) for kind in kinds}
    for network in networks.values():  # a wrong name is known before the long work, too
        float_layers_of(network, float_layers)
    crops = calibration_crops(predictor, calibration) if "int8" in formats else None
    keras_model = Reference(predictor, people, whole=input_type == "uint8")
    allowed = {form: (TOLERANCES | (budgets or {}))[form] for form in formats}
    files, entries, measured = {}, {}, {}
    for kind, form in product(kinds, formats):
        if form == onnx.PRECISION:
            name, conversion = f"{kind}.onnx", onnx.convert(networks[kind])
        else:
            name = f"{kind}_{form}.tflite"
            how = {"calibration": crops, "float_layers": float_layers} if form == "int8" else {}
            if form == "int8" and kind == "heatmaps":  # joints are decoded in float
                how["output_type"] = output_type
            conversion = litert.convert(networks[kind], form, input_type=input_type, **how)
            content = described(conversion.content, predictor.model.name, predictor.skeleton.joints, kind)
            conversion = replace(conversion, content=content)
        files[name], entries[name] = conversion.content, _entry(kind, conversion)
        measured[name] = measure(conversion, kind, keras_model, allowed[form])
    worst = () if crops is None else litert.worst_tensors(networks[kinds[0]], crops, float_layers=float_layers)[:SHOWN]
    report = _report(predictor, keras_model, crops, measured, allowed, worst)
    if not report.passed:
        raise ToleranceError(report)
    folders.write(folder, files, _sidecar(predictor, entries), reference_case(predictor, people, keras_model), report)
    return report


def calibration_crops(predictor: Predictor, source: People | np.ndarray | None) -> np.ndarray:
    """Crops ``(n, H, W, 3)`` that calibrate int8: of people, augmented; crops, as they are.

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
    return cropped(source, predictor.input_size, CALIBRATION, augmentation=Augmentation())


def _report(predictor: Predictor, keras_model: Reference, crops, measured: dict, allowed: dict, worst) -> ExportReport:
    return ExportReport(
        model=predictor.model.name,
        crops=len(keras_model.crops),
        metric=keras_model.metric,
        before=keras_model.value,
        calibration=0 if crops is None else len(crops),
        files=measured,
        budgets=allowed,
        worst=tuple(worst),
    )


def _chosen(kind: str, names: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(lookup(kind, name, known) for name in ([names] if isinstance(names, str) else names)))
    if not names:
        raise InputError(f"No {kind} to export; give some of {', '.join(known)}.")
    return names


def _sidecar(predictor: Predictor, entries: dict[str, dict]) -> dict:
    """What `model.json` says: all that running the files takes, without this library."""
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
        "crop": {"padding": PADDING},
        "threshold": SURE,
        "files": entries,
        "made_from": {
            "weights_sha256": network["weights_sha256"],
            "preprocessing": model.spec.get("preprocessing"),
            "versions": {"python": platform.python_version()}
            | {name: metadata.version(name.replace("_", "-")) for name in PACKAGES},
        },
    }


def _entry(output: str, conversion: litert.Conversion) -> dict:
    return {
        "output": output,
        "form": conversion.form,
        "input_type": conversion.input_type,
        "output_type": conversion.output_type,
        "float_layers": list(conversion.float_layers),
        "bytes": len(conversion.content),
        "sha256": hashlib.sha256(conversion.content).hexdigest(),
    }
