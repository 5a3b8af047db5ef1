"""Exported `.tflite` files that run as networks.

- `LiteRTModel` runs a file in the LiteRT interpreter, as a phone would; needs ai-edge-litert.
- `nodes` and `operations` list what a file computes.
- `ExportedModel` is a file with the interface of a `PoseModel`, for the predictor and the evaluation. It reads the
  sidecar `model.json` beside the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_mrpose.calibration import Calibration
from keras_mrpose.errors import InputError, lookup, require, short_message
from keras_mrpose.runtime.decoder import DECODERS
from keras_mrpose.skeletons import Skeleton

if TYPE_CHECKING:
    from keras_mrpose.codecs import Codec

try:  # there are machines that it has no wheel for, and most of the package works without
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    Interpreter = schema = None

SIDECAR, VERSION = "model.json", 1
OUTPUTS = ("heatmaps", "keypoints")
_FLIP_SHIFT = {"gaussian": 1, "dark": 0.75, "udp": 0}  # columns that mirrored maps are moved by
CODEC_FIELDS = {"name", "scale", "sigma", "flip_shift", "published_border"}  # of all codecs


def is_installed() -> bool:
    """Whether ai-edge-litert is there."""
    return Interpreter is not None


def check_installed() -> None:
    """Raise an `InputError` that says what to install if ai-edge-litert is missing."""
    if not is_installed():
        raise InputError(
            "LiteRT files are run here, exports too before they ship; that takes ai-edge-litert: pip install "
            "ai-edge-litert."
        )


@contextlib.contextmanager
def silence_native_logs() -> Iterator[None]:
    """Context without output on stdout or stderr, from C++ neither, and without warnings; exceptions pass.

    For libraries that write past every log level.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with warnings.catch_warnings(), open(os.devnull, "w") as devnull:
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(devnull), contextlib.redirect_stderr(devnull):
                yield
    finally:
        for number, stream in enumerate(kept, 1):
            os.dup2(stream, number)
            os.close(stream)
        os.close(nowhere)


def open_interpreter(content: bytes, threads: int) -> Any:
    """An interpreter that is ready to run a `.tflite` file's content, opened without a word on the terminal.

    It reads from the content and does not hold it: whoever keeps the interpreter has to keep that, too.
    """
    with silence_native_logs():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    return interpreter


class LiteRTModel:
    """A `.tflite` network that runs on crops in the LiteRT interpreter.

    Args:
        source: a `.tflite` file, or its content.
        threads: CPU threads.

    Attributes:
        input_shape: ``(batch, height, width, 3)``.
        output_shape: ``(batch, ...)``.
        input_type: NumPy type of the file's own input; whatever it is, the network is called with values 0..255.
        output_type: NumPy type of the file's own output; a call always returns float32.

    Raises:
        InputError: ai-edge-litert is not installed; no such file, or it is damaged or no network for one image.
    """

    def __init__(self, source: str | Path | bytes, threads: int = 2):
        name, content = _read_content(source)
        try:
            self._interpreter = open_interpreter(content, threads)
        except (ValueError, RuntimeError) as error:
            raise _damaged(name, error) from error
        self._content = content  # see `open_interpreter`
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
        """Float32 outputs ``(n, ...)`` for crops ``(n, H, W, 3)``, RGB 0..255, float or uint8.

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
            found[begin : begin + batch] = self._dequantized(self._interpreter.get_tensor(self._output["index"]))
        return found

    def _quantized(self, crops: np.ndarray) -> np.ndarray:
        """Values 0..255 in the number type and scale of the file's input."""
        if self.input_type.kind == "f":
            return crops.astype(self.input_type)
        scale, zero = self._input["quantization"]  # a scale of 0: whole numbers as they are
        limits = np.iinfo(self.input_type)
        steps = np.rint(crops.astype(np.float32) / (scale or 1)) + zero
        return steps.clip(limits.min, limits.max).astype(self.input_type)

    def _dequantized(self, output: np.ndarray) -> np.ndarray:
        scale, zero = self._output["quantization"]
        return (output.astype(np.float32) - zero) * np.float32(scale) if scale else output


class Node(NamedTuple):
    """One operation of a `.tflite` file.

    Attributes:
        operation: its kind, such as ``CONV_2D``.
        tensor: name of its output tensor.
        constants: names of its constant inputs, such as a kernel.
    """

    operation: str
    tensor: str
    constants: list[str]


def nodes(source: str | Path | bytes) -> list[Node]:
    """All operations of a `.tflite` file in order, with the names of their tensors.

    Raises:
        InputError: no such file, or it is damaged; ai-edge-litert is not installed.
    """
    name, content = _read_content(source)
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
    """Name of an operator code. Old converters wrote it to a field that is too small for today's codes."""
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    names = [key for key, value in vars(schema.BuiltinOperator).items() if value == number]
    return code.customCode.decode() if names == ["CUSTOM"] else names[0]


def operations(source: str | Path | bytes) -> list[str]:
    """Kinds of a file's operations in order, such as ``CONV_2D``; one that is not built in goes by its own name.

    Raises:
        InputError: as `nodes`.
    """
    return [node.operation for node in nodes(source)]


def _read_content(source: str | Path | bytes) -> tuple[str, bytes]:
    """Name of a network for messages, and its bytes."""
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


class ExportedModel:
    """A `.tflite` file that predicts and is evaluated like the Keras model that it was made from.

    Args:
        path: the file, as it was exported: the sidecar ``model.json`` in its folder says what it is.

    Attributes:
        name: name of the Keras model.
        skeleton: its joints.
        codec_config: of the codec, as `decoder` takes it: its name, scale and fields.
        output: "heatmaps", or "keypoints" for joints ``(joints, 3)``: x, y in crop pixels, score.
        input_shape: ``(1, height, width, 3)``.
        spec: name, backbone and preprocessing as of a `PoseModel`; None where the sidecar does not say.
        precision: "litert" and the file's precision, such as "litert int8".
        sha256: hash of the file.

    Raises:
        InputError: no such file; a sidecar that is missing, damaged or does not describe it; another file than the
            one that was exported; or ai-edge-litert is not installed.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        sidecar = path.with_name(SIDECAR)
        self.sha256 = _sha256(path)
        about = _read_sidecar(sidecar, path)
        try:
            hashed, shapes = self._describe(about, about["files"][path.name])
        except KeyError as missing:
            raise InputError(f"{sidecar} has no entry {missing}, which {path.name} needs; export it again.") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            why = short_message(error).rstrip(".")
            raise InputError(f"{sidecar} does not describe a network ({why}); export it again.") from error
        if hashed != self.sha256:
            raise InputError(
                f"{path} is not the file that {sidecar} describes (its SHA-256 is another): it is damaged, or one of "
                "the two is of another export; export it again."
            )
        self._network = LiteRTModel(path)
        self.input_shape = self._network.input_shape
        if (made := (self.input_shape, self._network.output_shape)) != shapes:
            raise InputError(
                f"{path} makes {made[1]} of {made[0]}, but {sidecar} describes a network that makes {shapes[1]} of "
                f"{shapes[0]}; export it again."
            )

    def _describe(self, about: dict, entry: dict) -> tuple[str, tuple]:
        """Set the attributes from the sidecar; returns the file's hash and input and output shapes by the sidecar."""
        self.codec_config: dict = about["codec"]
        lookup("codec", self.codec_config["name"], DECODERS)
        if unknown := set(self.codec_config) - CODEC_FIELDS:
            raise TypeError(f"codec got an unexpected keyword argument {min(unknown)!r}")
        require(self.codec_config["sigma"] > 0, "codec", "sigma", self.codec_config["sigma"], "a positive number")
        self.name: str = about["name"]
        self.skeleton = Skeleton.from_dict(about["skeleton"])
        calibration = about.get("calibration")
        self.calibration = None if calibration is None else Calibration.from_dict(calibration)
        self.output = lookup("output", entry["output"], OUTPUTS)
        self.precision = f"litert {entry['precision']}"
        preprocessing = about["made_from"].get("preprocessing")
        self.spec = {"name": about["model"], "backbone": about["backbone"], "preprocessing": preprocessing}
        joints = self.skeleton.num_joints
        made = (*about["heatmaps"]["size"], joints) if self.output == "heatmaps" else (joints, 3)
        return entry["sha256"], ((1, *about["input"]["size"], 3), (1, *made))

    @cached_property
    def codec(self) -> Codec:
        """Decodes the heatmaps, or has decoded them inside the network; imports Keras."""
        import keras  # noqa: F401  before modules of ours do: all our classes are registered then

        from keras_mrpose.codecs import CODECS

        fields = {name: value for name, value in self.codec_config.items() if name not in ("name", "scale")}
        return CODECS[self.codec_config["name"]].from_config(fields)

    def predict_on_batch(self, crops: np.ndarray) -> np.ndarray:
        """Float32 heatmaps ``(n, height / 4, width / 4, joints)``, or joints ``(n, joints, 3)``; runs crop by crop.

        Args:
            crops: ``(n, height, width, 3)``, RGB 0..255.
        """
        return self._network(crops)

    def merge_flipped(self, heatmaps: np.ndarray, flipped_heatmaps: np.ndarray) -> np.ndarray:
        """Merge a flip test ``(n, h, w, joints)`` as the codec's `merge_flipped` does, without Keras."""
        about = self.codec_config
        back = flipped_heatmaps[:, :, ::-1, list(self.skeleton.flip_indices)]
        columns = _FLIP_SHIFT[about["name"]] if about.get("flip_shift") else 0
        if columns:
            first = back if about.get("published_border") else heatmaps
            moved = (1 - columns) * back[:, :, 1:] + columns * back[:, :, :-1]
            back = np.concatenate([first[:, :, :1], moved], axis=2)
        return (heatmaps + back) * np.float32(0.5)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"The network {path} cannot be read: {error.strerror}.") from None


def _read_sidecar(sidecar: Path, path: Path) -> dict:
    """Content of a sidecar of this version that has an entry for the network."""
    try:
        about = json.loads(sidecar.read_text())
        version = about["version"]
        files = list(about["files"])
    except FileNotFoundError:
        raise InputError(f"{sidecar} is not there: it tells what {path.name} is; keep the two together.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{sidecar} is damaged or not of an export ({short_message(error)}); export {path.name} again."
        ) from error
    if version != VERSION:
        raise InputError(
            f"{sidecar} is of version {version!r:.100}, this library reads {VERSION}; export {path.name} again."
        )
    if path.name not in files:
        raise InputError(
            f"{sidecar} knows no {path.name}, only {', '.join(map(str, files))}; keep the names of an export."
        )
    return about
