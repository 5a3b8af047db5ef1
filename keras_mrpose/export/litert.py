"""Conversion of Keras models to LiteRT (`.tflite`), in four precisions, with built-in operations only."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from keras_mrpose.errors import InputError, lookup
from keras_mrpose.export.outputs import Decoder
from keras_mrpose.runtime.litert import nodes, silence_native_logs

PRECISIONS = ("float32", "float16", "dynamic", "int8")
TYPES = {"float32": tf.float32, "uint8": tf.uint8, "int8": tf.int8}
MIN_CROPS = 32


@dataclass(frozen=True)
class Conversion:
    """A converted network.

    Attributes:
        content: bytes of the file.
        precision: one of `PRECISIONS`, or "onnx" for an ONNX file (float32).
        input_type: type of the image: "float32" or "uint8", 0..255 in both.
        output_type: "float32"; "uint8" or "int8" are quantized.
        float_layers: names of the layers that an int8 network computes in float.
    """

    content: bytes
    precision: str
    input_type: str
    output_type: str
    float_layers: tuple[str, ...]


@dataclass(frozen=True)
class QuantizedTensor:
    """The error that quantization adds to one tensor; the inputs of its operation are those of the int8 network.

    Attributes:
        layers: names of the layers that it comes from, as `convert` takes them for `float_layers`.
        operation: kind of the operation that computes it.
        rmse: root mean square of quantized minus float.
        largest: the largest absolute difference.
        scale: size of one of the 256 levels.
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
    precision: str,
    calibration: Iterable[np.ndarray] | None = None,
    *,
    input_type: str = "float32",
    output_type: str = "float32",
    float_layers: Sequence[str] = (),
    min_crops: int = MIN_CROPS,
) -> Conversion:
    """Convert a model to a `.tflite` file; nothing is written to stdout or stderr.

    Args:
        model: Functional, from images ``(batch, H, W, 3)``, RGB 0..255, as `outputs` makes it. A batch of None becomes
            one image.
        precision: "float32"; "float16" (weights); "dynamic" (int8 weights, per channel); "int8" (everything).
        calibration: for int8, crops ``(H, W, 3)`` as the network will see them, 0..255: they set the ranges.
        input_type: "float32" or "uint8".
        output_type: "float32"; for int8 also "uint8" or "int8".
        float_layers: names of layers that int8 leaves in float. A `Decoder` always is: 256 levels are too coarse for
            positions.
        min_crops: the least number of crops for calibration.

    Raises:
        InputError: an unknown precision, type or layer, crops that cannot calibrate this network, or an operation that
            LiteRT does not have built in.
    """
    precision = lookup("precision", precision, PRECISIONS)
    lookup("input type", input_type, ("float32", "uint8"))
    lookup("output type", output_type, TYPES)
    all_float_layers = float_layers_of(model, float_layers) if precision == "int8" else ()
    if float_layers and precision != "int8":
        raise InputError(f"float_layers is for int8; leave it out for {precision}.")
    if output_type != "float32" and (precision != "int8" or all_float_layers):
        kind = f"an int8 network whose {', '.join(all_float_layers)} is in float" if precision == "int8" else precision
        raise InputError(f"The output of {kind} is float32; {output_type!r} is asked for.")

    if precision != "int8":
        content = _run_converter(_converter(model, precision, input_type).convert)
    else:
        crops = checked_crops(calibration, model, min_crops)
        if all_float_layers:
            debugger = _debugger(model, crops, all_float_layers, input_type)
            content = _run_converter(debugger.get_nondebug_quantized_model)
        else:
            converter = _converter(model, precision, "float32", crops)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = TYPES[input_type]
            converter.inference_output_type = TYPES[output_type]
            content = _run_converter(converter.convert)
    return Conversion(bytes(content), precision, input_type, output_type, all_float_layers)


def worst_tensors(
    model: keras.Model,
    calibration: Iterable[np.ndarray],
    *,
    float_layers: Sequence[str] = (),
    min_crops: int = MIN_CROPS,
) -> list[QuantizedTensor]:
    """The int8 error of each tensor of a network on the calibration crops, the most levels first.

    Args: as for `convert`.
    """
    crops = checked_crops(calibration, model, min_crops)
    debugger = _debugger(model, crops, float_layers_of(model, float_layers), "float32")
    table = io.StringIO()
    with silence_native_logs():
        debugger.run()
        debugger.layer_statistics_dump(table)
    table.seek(0)
    layers = layer_map(model, debugger.calibrated_model)
    found = []
    for row in csv.DictReader(table):
        name, operation = row["tensor_name"], row["op_name"]
        rmse, largest = float(row["mean_squared_error"]) ** 0.5, float(row["max_abs_error"])
        of_tensor = layers[name] if name in layers else _layers_of_tensor(model, name)
        found.append(QuantizedTensor(of_tensor, operation, rmse, largest, float(row["scale"])))
    return sorted(found, key=lambda tensor: -tensor.levels)


def checked_crops(
    calibration: Iterable[np.ndarray] | None, model: keras.Model, min_crops: int = MIN_CROPS
) -> np.ndarray:
    """Calibration crops as one float32 array ``(n, H, W, 3)``.

    Raises:
        InputError: too few, of another shape, or not RGB 0..255.
    """
    crops = [] if calibration is None else [np.asarray(crop) for crop in calibration]
    if len(crops) < max(min_crops, 1):
        raise InputError(
            f"int8 is calibrated with {len(crops)} crops; give at least {max(min_crops, 1)}, better hundreds."
        )
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


# --- TensorFlow's converter -------------------------------------------------------------------------------------------


def _converter(model: keras.Model, precision: str, input_type: str, crops: np.ndarray | None = None):
    """A `tf.lite.TFLiteConverter` of one function with a static shape, whose variables become constants."""
    shape = (model.input_shape[0] or 1, *model.input_shape[1:])
    function = tf.function(lambda image: model(tf.cast(image, "float32"), training=False), autograph=False)
    with silence_native_logs():
        concrete = function.get_concrete_function(tf.TensorSpec(shape, TYPES[input_type], name="image"))
    # The function in the place of an object that owns it: no detour through a saved model, which keeps variables.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], function)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = _batches(crops, shape[0], input_type)
    return converter


def _batches(crops: np.ndarray, batch: int, input_type: str) -> Callable:
    """A function that yields the crops as the converter wants them."""
    crops = np.rint(crops).astype("uint8") if input_type == "uint8" else crops
    return lambda: ([crops[begin : begin + batch]] for begin in range(0, len(crops) - batch + 1, batch))


def _debugger(model: keras.Model, crops: np.ndarray, all_float_layers: Sequence[str], input_type: str):
    """TensorFlow's quantization debugger: it alone can leave some operations in float."""
    converter = _converter(model, "int8", input_type, crops)
    experimental, data = tf.lite.experimental, converter.representative_dataset
    debugger = _run_converter(lambda: experimental.QuantizationDebugger(converter=converter, debug_dataset=data))
    if all_float_layers:
        names = _tensors_of_layers(model, debugger.calibrated_model, all_float_layers)
        with silence_native_logs():
            debugger.options = experimental.QuantizationDebugOptions(denylisted_nodes=names)
    return debugger


def _run_converter(work: Callable):
    """Result of a converter's work, run silently; an `InputError` names operations that LiteRT lacks."""
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


# --- tensors of the file, layers of the model -------------------------------------------------------------------------


def layer_map(model: keras.Model, content: bytes) -> dict[str, tuple[str, ...]]:
    """The layers of a model that each tensor of its `.tflite` file comes from: tensor name -> layer names."""
    return {node.tensor: _layers_of_tensor(model, node.tensor, node.constants) for node in nodes(content)}


def float_layers_of(model: keras.Model, float_layers: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers that int8 leaves in float: those asked for, and every `Decoder`.

    Raises:
        InputError: the model has no layer of that name.
    """
    names = [layer.name for layer in _layers(model)]
    for name in float_layers:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`summary(expand_nested=True)` shows them."
            raise InputError(f"float_layers names {name!r}, which is no layer of {model.name}; {hint}")
    decoders = (layer.name for layer in _layers(model) if isinstance(layer, Decoder))
    return tuple(dict.fromkeys([*float_layers, *decoders]))


def _tensors_of_layers(model: keras.Model, content: bytes, wanted: Sequence[str]) -> list[str]:
    """Names of the tensors that some layers compute.

    Raises:
        InputError: one of the layers computes none.
    """
    layers = layer_map(model, content)
    for name in wanted:
        if not any(name in of_tensor for of_tensor in layers.values()):
            raise InputError(
                f"float_layers names {name!r}, which has become a part of the operations around it; name these."
            )
    return [tensor for tensor, of_tensor in layers.items() if any(name in of_tensor for name in wanted)]


def _layers_of_tensor(model: keras.Model, tensor: str, constants: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the layers that a tensor comes from, by its name and the constants of its operation.

    A tensor is named after all operations that were fused: ``net_1/relu_1/Relu;net_1/conv1_1/convolution``, where the
    numbers after the layers' names count the calls of a layer. The model's output is called ``Identity``; its
    kernel tells where that comes from.
    """
    names, found = {layer.name for layer in _layers(model)}, []
    parts = re.split("[/;]", tensor)
    if parts == ["Identity"]:
        parts = [_output_layer(model), *re.split("[/;]", ";".join(constants))]
    for part in parts:
        bare = re.sub(r"_\d+$", "", part)
        found += [name for name in (bare, part) if name in names][:1]
    return tuple(dict.fromkeys(found))


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, also those of models in it."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _output_layer(model: keras.Model) -> str:
    """Name of the layer that computes the output."""
    layer = model.get_layer(model.output_names[0])
    return _output_layer(layer) if isinstance(layer, keras.Model) else layer.name
