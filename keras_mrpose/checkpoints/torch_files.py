"""PyTorch's checkpoint files, read and written without PyTorch.

Nothing in a file is ever run, every size in it is checked against the file before memory is taken, and only the
storages of the one state dict are read (not those of an optimizer).

Source: what `torch.save` of torch 0.4 to 2.13 writes; `torch.load(weights_only=True)` reads what is written here.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_mrpose.checkpoints.restricted_unpickler import UnsafeFile, shown
from keras_mrpose.checkpoints.torch_containers import BFLOAT16, DTYPES, Storage, Stream, TensorRef, Zip, open_container
from keras_mrpose.errors import InputError

_USUAL_NAMES = ("state_dict", "model_state_dict", "model", "net", "best_state_dict")


@dataclass(frozen=True)
class StateDict:
    """The tensors of a network by name, and what stood beside them.

    `tensors`: names as stored (with "module." if it is there), in the file's order. The arrays can be read-only and can
    share memory.
    `notes`: the plain values of the dict that holds the tensors, and of the dict around that (epoch, perf).
    """

    tensors: dict[str, np.ndarray]
    notes: dict[str, str | int | float | bool]


def read_torch_file(path: Path) -> StateDict:
    """The state dict in a file of `torch.save`; nothing of the file is ever run.

    The saved object is a dict of tensors, or a dict with such a dict under "state_dict", "model_state_dict", "model",
    "net" or "best_state_dict" (the first of these), or with only one such dict. Optimizer states are passed over.

    Args:
        path: `.pth`, `.pth.tar`, `.pt`; the suffix does not matter.

    Returns:
        the tensors in their own dtypes, except that bfloat16 comes as float32, which holds it exactly. Values are
        not checked: they can be NaN.

    Raises:
        InputError: the file cannot be read, is damaged, holds no state dict or more than one, or would run something.
    """
    try:
        if not path.is_file():
            raise UnsafeFile("there is no such file.")
        with path.open("rb") as file:
            container = open_container(file)
            tensors, notes = _state_dict(container.saved)
            return StateDict(_arrays(tensors, container), notes)
    except UnsafeFile as refusal:
        raise InputError(f"{path}: {refusal}") from refusal
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error


def _state_dict(saved: object) -> tuple[dict[str, TensorRef], dict[str, str | int | float | bool]]:
    """The tensors of the one state dict, and the plain values beside it and in it."""
    around = {}
    if not _is_state_dict(saved):
        around, saved = saved, _inner_state_dict(saved)
    plain = {
        name: value
        for part in (around, saved)
        for name, value in part.items()
        if isinstance(name, str) and isinstance(value, str | int | float)
    }
    return {name: value for name, value in saved.items() if isinstance(value, TensorRef)}, plain


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(
            isinstance(name, str) and isinstance(entry, TensorRef | str | int | float) for name, entry in value.items()
        )
        and any(isinstance(entry, TensorRef) for entry in value.values())
    )


def _inner_state_dict(saved: object) -> dict:
    if not isinstance(saved, dict):
        kind = {TensorRef: "a single tensor", list: "a list", tuple: "a tuple"}.get(type(saved), "a single value")
        raise UnsafeFile(f"it holds {kind}, not a state dict; save model.state_dict().")
    values = {id(value): value for value in saved.values()}  # one dict can be there under a million names
    state_dicts = {key for key, value in values.items() if _is_state_dict(value)}
    found = {name: value for name, value in saved.items() if id(value) in state_dicts}
    for name in _USUAL_NAMES:
        if name in found:
            return found[name]
    if len(found) > 1:
        raise UnsafeFile(f"it holds several state dicts ({_listed(found)}); save the one that is wanted alone.")
    if not found:
        raise UnsafeFile(f"it holds a dict without a state dict ({_listed(saved)}); save model.state_dict().")
    return next(iter(found.values()))


def _listed(names: dict) -> str:
    few = [shown(name) for name in list(names)[:5]] + ["..."] * (len(names) > 5)
    return "keys: " + (", ".join(few) or "none")


def _arrays(tensors: dict[str, TensorRef], container: Zip | Stream) -> dict[str, np.ndarray]:
    """Reads the storages that these tensors are views of, each once."""
    storages = dict.fromkeys(tensor.storage for tensor in tensors.values())
    if sum(storage.size for storage in storages) > container.total:  # also when members of an archive overlap
        raise UnsafeFile("its tensors are larger than the file; it is cut short or damaged, fetch it again.")
    flat = {storage: _elements(container.read(storage), storage, container.order) for storage in storages}
    return {name: _view(name, tensor, flat[tensor.storage]) for name, tensor in tensors.items()}


def _elements(data: bytes, storage: Storage, order: str) -> np.ndarray:
    """The elements of a storage, `(count,)`, in the byte order of this machine."""
    if len(data) < storage.size:
        raise UnsafeFile(f"its storage {shown(storage.key)} is too short; fetch it again.")
    stored = np.ndarray(storage.count, storage.dtype.newbyteorder(order), data)
    if storage.kind == BFLOAT16:
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if storage.kind == "Bool":  # a damaged file can have other bytes than 0 and 1, with which NumPy would go astray
        return stored.view(np.uint8) != 0
    return stored.astype(storage.dtype, copy=False)


def _view(name: str, tensor: TensorRef, elements: np.ndarray) -> np.ndarray:
    """One tensor as a read-only view; none of its elements lies outside of its storage."""
    count = math.prod(tensor.shape)
    if count == 0:
        return np.empty(tensor.shape, elements.dtype)
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
    if last >= elements.size or count > elements.size:  # the latter: a few elements, repeated with a stride of 0
        raise UnsafeFile(f"tensor {shown(name)} of shape {tensor.shape} needs more elements than its storage has.")
    strides = [step * elements.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)


# --- writing ---------------------------------------------------------------------------------------------------------

_KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write_torch_file(
    path: Path, tensors: dict[str, np.ndarray], notes: dict[str, str | int | float | bool] | None = None
) -> None:
    """Writes a state dict as `torch.save` does; the same tensors give the same bytes.

    Args:
        path: replaced in one piece when all is written.
        tensors: float32, float64, float16, integers that PyTorch has, or bool; written in this order.
        notes: plain values; with them the saved object is ``{"state_dict": tensors, **notes}``, else the tensors.

    Raises:
        InputError: a tensor or note that cannot be written, or the file cannot be. An old file is still there then.
    """
    for name, value in tensors.items():
        if value.dtype.name not in _KINDS:
            raise InputError(f"{path}: tensor {name} has dtype {value.dtype}; give one of {', '.join(_KINDS)}.")
    for name, value in (notes or {}).items():
        if name == "state_dict" or type(value) not in (str, int, float, bool):
            raise InputError(f"{path}: note {name} ({type(value).__name__}): give a text or number, not as state_dict.")
    aside = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(aside, "w") as archive:

            def member(name: str, data: bytes) -> None:
                archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}"), data)  # dated 1980

            member("data.pkl", _pickled(tensors, notes))
            member("byteorder", b"little")
            for key, value in enumerate(tensors.values()):
                member(f"data/{key}", value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
            member("version", b"3\n")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise InputError(f"{path} cannot be written ({error.strerror}).") from error


def _pickled(tensors: dict[str, np.ndarray], notes: dict | None) -> bytes:
    """The saved object in pickle's instructions; tensor number i is the whole of storage i."""
    parts = [b"\x80\x02"]
    if notes:
        parts += [b"}(", _literal("state_dict")]
    parts += [_ORDERED_DICT, b"("]
    for key, (name, value) in enumerate(tensors.items()):
        strides = tuple(math.prod(value.shape[axis + 1 :]) for axis in range(value.ndim))
        parts += [
            _literal(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _literal("storage"),
            f"ctorch\n{_KINDS[value.dtype.name]}Storage\n".encode(),
            *(_literal(field) for field in (str(key), "cpu", value.size)),
            b"tQ",  # the storage, by its persistent identity
            *(_literal(field) for field in (0, value.shape, strides, False)),
            _ORDERED_DICT,  # of hooks
            b"tR",
        ]
    parts.append(b"u")
    if notes:
        parts += [*(_literal(field) for note in notes.items() for field in note), b"u"]
    return b"".join([*parts, b"."])


def _literal(value: str | int | float | tuple) -> bytes:
    """The instructions for a plain value: a pickle without its first and last one."""
    return pickle.dumps(value, 2)[2:-1]
