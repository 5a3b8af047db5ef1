"""Runs a `.tflite` file, as a phone would, and looks inside."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.runtime.quiet import silence_native_logs

try:  # an extra: only who exports or runs exported networks needs it
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    Interpreter = schema = None


def check_installed() -> None:
    """An `InputError` that says what to install, if it is missing."""
    if Interpreter is None:
        raise InputError(
            "LiteRT files are run here, exports too before they ship; that takes ai-edge-litert: "
            "pip install 'keras_mrpose[litert]'."
        )


class Interpreter:
    """An exported network, ready to run.

    Args:
        source: a `.tflite` file, or its content.
        threads: of the CPU.

    Attributes:
        input_shape: ``(batch, height, width, 3)``.
        output_shape: ``(batch, ...)``.
        input_type: NumPy type of the file's own input; whatever it is, the network is called with values 0..255.
        output_type: the same of the output; a call always returns float32.

    Raises:
        InputError: ai-edge-litert is not installed; no such file, or it is damaged or no network for one image.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 2):
        name, content = _read(source)
        try:
            with silence_native_logs():
                self._interpreter = Interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise _damaged(name, error) from error
        self._content = content  # the interpreter reads from it and does not hold it
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shapes = [tuple(int(side) for side in tensor["shape"]) for tensor in (*inputs, *outputs)]
        if len(shapes) != 2 or len(shapes[0]) != 4 or shapes[0][3] != 3 or not shapes[1]:
            raise InputError(
                f"{name} has inputs and outputs of shapes {shapes}; give a network from one image (1, H, W, 3)."
            )
        self._input, self._output = inputs[0], outputs[0]
        self.input_shape, self.output_shape = shapes
        self.input_type, self.output_type = np.dtype(inputs[0]["dtype"]), np.dtype(outputs[0]["dtype"])

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Float32 outputs ``(n, ...)`` of crops ``(n, H, W, 3)``, RGB 0..255, float or uint8.

        Raises:
            InputError: crops of another size, or a number of them that is no multiple of the network's batch.
        """
        crops = np.asarray(crops)
        batch, *size = self.input_shape
        if crops.ndim != 4 or list(crops.shape[1:]) != size or len(crops) % batch:
            several = "" if batch == 1 else f", n a multiple of {batch}"
            raise InputError(
                f"The crops have shape {crops.shape}; this network takes (n, {', '.join(map(str, size))}){several}."
            )
        found = np.empty((len(crops), *self.output_shape[1:]), np.float32)
        for begin in range(0, len(crops), batch):
            self._interpreter.set_tensor(self._input["index"], self._quantized(crops[begin : begin + batch]))
            self._interpreter.invoke()
            found[begin : begin + batch] = self._real(self._interpreter.get_tensor(self._output["index"]))
        return found

    def _quantized(self, crops: np.ndarray) -> np.ndarray:
        """Values 0..255 as the numbers that the file takes for them."""
        if self.input_type.kind == "f":
            return crops.astype(self.input_type)
        scale, zero = self._input["quantization"]  # a scale of 0: whole numbers as they are
        limits = np.iinfo(self.input_type)
        steps = np.rint(crops.astype(np.float32) / (scale or 1)) + zero
        return steps.clip(limits.min, limits.max).astype(self.input_type)

    def _real(self, output: np.ndarray) -> np.ndarray:
        scale, zero = self._output["quantization"]
        return (output.astype(np.float32) - zero) * np.float32(scale) if scale else output


def ops(source: str | Path | bytes) -> list[str]:
    """The operations of a `.tflite` file in their order: ``CONV_2D`` ...; one that is not built in has its own name.

    Raises:
        InputError: as `Network`.
    """
    return [node.operation for node in nodes(source)]


class Node(NamedTuple):
    """An operation of a `.tflite` file.

    Attributes:
        operation: its kind, as `ops` has it.
        tensor: name of what it computes.
        constants: names of the constants that it takes, such as a kernel.
    """

    operation: str
    tensor: str
    constants: list[str]


def nodes(source: str | Path | bytes) -> list[Node]:
    """The operations of a `.tflite` file with the names of their tensors.

    Raises:
        InputError: as `Network`.
    """
    name, content = _read(source)
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        found = []
        for graph in model.subgraphs:
            for operator in graph.operators:
                taken = [graph.tensors[index] for index in operator.inputs if index >= 0]  # -1 is none
                constants = [tensor.name.decode() for tensor in taken if model.buffers[tensor.buffer].data is not None]
                result = graph.tensors[operator.outputs[0]].name.decode()
                found.append(Node(_operation(model.operatorCodes[operator.opcodeIndex]), result, constants))
        return found
    except Exception as error:  # whatever reading garbage as numbers and offsets may end in
        raise _damaged(name, error) from error


def _operation(code) -> str:
    """The name of an operator code. Old converters wrote it to a field that has become too small for all of them."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = [key for key, value in vars(schema.BuiltinOperator).items() if value == number]
    return code.customCode.decode() if names == ["CUSTOM"] else names[0]


def levels_used(outputs: np.ndarray) -> int:
    """How many different values there are in outputs of an int8 network, of the 256 that it could give."""
    return len(np.unique(outputs))


def _read(source: str | Path | bytes) -> tuple[str, bytes]:
    """What to call it in a message, and its bytes."""
    check_installed()
    if isinstance(source, bytes):
        return "The network", source
    try:
        return str(source), Path(source).read_bytes()
    except OSError as error:
        raise InputError(f"The network {source} cannot be read: {error.strerror}.") from None


def _damaged(name: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{name} is damaged or not a .tflite file ({reason}); export it again.")
