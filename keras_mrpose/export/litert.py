"""Keras models to LiteRT (`.tflite`): built-in operations only, in four forms."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.errors import InputError, lookup
from keras_mrpose.export.origins import float_layers_of, layers_of, nodes_of
from keras_mrpose.runtime.interpreter import Node, nodes
from keras_mrpose.runtime.quiet import silence_native_logs

PRECISIONS = ("float32", "float16", "dynamic", "int8")
TYPES = {"float32": tf.float32, "uint8": tf.uint8, "int8": tf.int8}
MIN_CROPS = 32


@dataclass(frozen=True)
class Conversion:
    """A converted network.

    Attributes:
        content: of the `.tflite` file.
        form: one of `FORMS`.
        input_type: of the image: "float32" or "uint8", 0..255 in both.
        output_type: "float32"; "uint8" or "int8" are quantized.
        float_layers: names of the layers that an int8 network computes in float.
    """

    content: bytes
    form: str
    input_type: str
    output_type: str
    float_layers: tuple[str, ...]


@dataclass(frozen=True)
class QuantizedTensor:
    """What quantization does to one tensor, the operation before it alone: its inputs are those of the int8 network.

    Attributes:
        layers: names of those that it comes from, such as `convert` takes for `float_layers`.
        operation: that computes it.
        rmse: root of the mean square of quantized minus float.
        largest: the largest difference.
        scale: of one of the 256 levels.
    """

    layers: tuple[str, ...]
    operation: str
    rmse: float
    largest: float
    scale: float

    @property
    def levels(self) -> float:
        """The error in levels: rounding alone is 0.29."""
        return self.rmse / self.scale


def convert(
    model: keras.Model,
    form: str,
    calibration: Iterable[np.ndarray] | None = None,
    *,
    input_type: str = "float32",
    output_type: str = "float32",
    float_layers: Sequence[str] = (),
    least_crops: int = MIN_CROPS,
) -> Conversion:
    """A `.tflite` file of a model; nothing is written to stdout or stderr.

    Args:
        model: Functional, from images ``(batch, H, W, 3)``, RGB 0..255; `twins` makes them. No batch is one image.
        form: "float32"; "float16", the weights; "dynamic", the weights int8, per channel; "int8", all of it.
        calibration: for int8, crops ``(H, W, 3)`` as the network will see them, 0..255: they set the ranges.
        input_type: "float32" or "uint8".
        output_type: "float32"; for int8 also "uint8" or "int8".
        float_layers: names of layers that int8 leaves in float. A `Decoder` always is: 256 levels are no positions.
        least_crops: fewer for calibration are refused.

    Raises:
        InputError: an unknown form, type or layer, crops that cannot calibrate this network, or an operation that
            LiteRT does not have built in.
    """
    form = lookup("form", form, PRECISIONS)
    lookup("input type", input_type, ("float32", "uint8"))
    lookup("output type", output_type, TYPES)
    kept = float_layers_of(model, float_layers) if form == "int8" else ()
    if float_layers and form != "int8":
        raise InputError(f"float_layers is for the form int8; leave it out for {form}.")
    if output_type != "float32" and (form != "int8" or kept):
        kind = f"an int8 network whose {', '.join(kept)} is in float" if form == "int8" else f"the form {form}"
        raise InputError(f"The output of {kind} is float32; {output_type!r} is asked for.")

    if form != "int8":
        content = _converted(_converter(model, form, input_type).convert)
    else:
        crops = checked_crops(calibration, model, least_crops)
        if kept:
            debugger = _debugger(model, crops, kept, input_type)
            content = _converted(debugger.get_nondebug_quantized_model)
        else:
            converter = _converter(model, form, "float32", crops)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = TYPES[input_type]
            converter.inference_output_type = TYPES[output_type]
            content = _converted(converter.convert)
    return Conversion(bytes(content), form, input_type, output_type, kept)


def worst_tensors(
    model: keras.Model,
    calibration: Iterable[np.ndarray],
    *,
    float_layers: Sequence[str] = (),
    least_crops: int = MIN_CROPS,
) -> list[QuantizedTensor]:
    """What int8 does to each tensor of a network, the one that loses most levels first.

    Args: as for `convert`. The errors are those on the crops of the calibration.
    """
    crops = checked_crops(calibration, model, least_crops)
    debugger = _debugger(model, crops, float_layers_of(model, float_layers), "float32")
    table = io.StringIO()
    with silence_native_logs():
        debugger.run()
        debugger.layer_statistics_dump(table)
    table.seek(0)
    known = {node.tensor: node for node in nodes(debugger.calibrated_model)}
    found = []
    for row in csv.DictReader(table):
        node = known.get(row["tensor_name"], Node(row["op_name"], row["tensor_name"], []))
        rmse, largest = float(row["mean_squared_error"]) ** 0.5, float(row["max_abs_error"])
        found.append(QuantizedTensor(layers_of(model, node), row["op_name"], rmse, largest, float(row["scale"])))
    return sorted(found, key=lambda tensor: -tensor.levels)


def checked_crops(calibration: Iterable[np.ndarray] | None, model: keras.Model, least: int = MIN_CROPS) -> np.ndarray:
    """Crops that can calibrate a network: ``(n, H, W, 3)`` float32.

    Raises:
        InputError: too few, of another shape, or not RGB 0..255.
    """
    crops = [] if calibration is None else [np.asarray(crop) for crop in calibration]
    if len(crops) < max(least, 1):
        raise InputError(f"int8 is calibrated with {len(crops)} crops; give at least {max(least, 1)}, better hundreds.")
    size = tuple(model.input_shape[1:])
    for number, crop in enumerate(crops):
        if crop.shape != size:
            raise InputError(f"Crop {number} of the calibration has shape {crop.shape}; this network takes {size}.")
    crops = np.stack(crops).astype(np.float32)
    low, high = crops.min(), crops.max()
    if not (low >= -0.5 and 1.5 < high <= 255.5):  # NaN is refused as well
        raise InputError(
            f"The crops of the calibration have values from {low:g} to {high:g}; give RGB 0..255: the network brings "
            "them into its own range itself."
        )
    return crops


def _converter(model: keras.Model, form: str, input_type: str, crops: np.ndarray | None = None):
    """A `tf.lite.TFLiteConverter` of one function of static shape, whose variables become constants."""
    shape = (model.input_shape[0] or 1, *model.input_shape[1:])
    function = tf.function(lambda image: model(tf.cast(image, "float32"), training=False), autograph=False)
    with silence_native_logs():
        concrete = function.get_concrete_function(tf.TensorSpec(shape, TYPES[input_type], name="image"))
    # The function in the place of an object that owns it: no detour through a saved model, which keeps variables.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if form != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if form == "int8":
        converter.representative_dataset = _batches(crops, shape[0], input_type)
    return converter


def _batches(crops: np.ndarray, batch: int, input_type: str) -> Callable:
    """A function that yields the crops as the converter wants them."""
    crops = np.rint(crops).astype("uint8") if input_type == "uint8" else crops
    return lambda: ([crops[begin : begin + batch]] for begin in range(0, len(crops) - batch + 1, batch))


def _debugger(model: keras.Model, crops: np.ndarray, kept: Sequence[str], input_type: str):
    """TensorFlow's quantization debugger: it alone can leave some operations in float."""
    converter = _converter(model, "int8", input_type, crops)
    kit, data = tf.lite.experimental, converter.representative_dataset
    debugger = _converted(lambda: kit.QuantizationDebugger(converter=converter, debug_dataset=data))
    if kept:
        names = nodes_of(model, debugger.calibrated_model, kept)
        with silence_native_logs():
            debugger.options = kit.QuantizationDebugOptions(denylisted_nodes=names)
    return debugger


def _converted(work: Callable):
    """What a converter's work gives, in silence; operations that LiteRT lacks are the user's to know."""
    try:
        with silence_native_logs():
            return work()
    except Exception as error:  # the converter's own class is not public
        lacking = set(re.findall(r"'(?:tf|tfl)\.(\w+)' op is neither", str(error)))
        for names in re.findall(r"(?:TF Select|Custom|Flex) ops: ([\w, ]+)", str(error)):
            lacking.update(names.split(", "))
        if not lacking:
            raise
        raise InputError(
            f"LiteRT has no built-in operation for TensorFlow's {', '.join(sorted(lacking))}, which this model "
            "computes; take it out of the model."
        ) from error
