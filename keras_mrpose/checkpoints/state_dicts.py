"""State dicts: checkpoints of the published PyTorch networks, and of MMPose, loaded into our networks and saved again.

A state dict is a PyTorch file (read without PyTorch) or a `.npz` with the same tensor names. MMPose's SimpleBaseline is
this library's on `resnet50_v1b`, 101 or 152, or on `mobilenetv2_torch`, trained with "torchvision" preprocessing.
Every tensor is checked before anything is assigned; a `LoadReport` lists what was used.
"""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_mrpose import skeletons
from keras_mrpose.checkpoints import tensor_names
from keras_mrpose.checkpoints.tensor_names import JointMap, WeightMap, torch_module
from keras_mrpose.checkpoints.torch_files import StateDict, read_torch_file, write_torch_file
from keras_mrpose.errors import InputError, short_message

SUFFIXES = (".npz", ".pth", ".pt", ".tar", ".bin")
_MAX_UNPACKING = 20  # times that a .npz unpacks to: weights hardly get smaller
_MAX_ZEROS = 2**24  # bytes that it may have on top, of zeros
MMPOSE = {"from": "MMPose", "preprocessing": "torchvision"}  # notes of its files
BGR = "published"  # the one preprocessing whose files have their first kernel for blue, green, red


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a file were used, and how they were read.

    Args:
        source: the file.
        network: what it holds, for example "mrfeanet2 on ResNet-50".
        style: which convolution of a ResNet's block strides in the network that took the tensors: "pytorch" the 3x3,
            "caffe" the first 1x1. Names and shapes are the same in both: the file does not tell.
        preprocessing: key of `PREPROCESSING` that the tensors were taken to be trained with.
        used: name -> shape of the tensors that the network has now.
        unused: names of those it has no place for: classifier and counters.
        joints: names of the joints whose heatmaps the file makes.
        new_joints: names of the joints that the file does not know; they start from random numbers.
        known: whether the file tells its preprocessing.
    """

    source: str
    network: str
    style: str
    preprocessing: str
    used: dict[str, tuple[int, ...]]
    unused: tuple[str, ...]
    joints: tuple[str, ...]
    new_joints: tuple[str, ...] = ()
    known: bool = False

    def __str__(self) -> str:
        values = sum(int(np.prod(shape)) for shape in self.used.values())
        unused = f"{len(self.unused)} unused ({_kinds(self.unused)})" if self.unused else "none unused"
        doubt = "" if self.known else " (tensors do not tell which)"
        lines = [
            f"{self.source}: {self.network}, {len(self.joints)} joints",
            f"read as {self.style} style with {self.preprocessing!r} preprocessing{doubt}",
            f"{len(self.used)} tensors ({values:,} values) used, {unused}, none missing",
        ]
        if self.new_joints:
            lines.append(f"joints that the file does not know, to be trained: {', '.join(self.new_joints)}")
        return "\n".join(lines)


def _kinds(names: tuple[str, ...]) -> str:
    """Last parts of tensor names, each once."""
    return ", ".join(dict.fromkeys(name.split(".")[-1] for name in names))


def read_state_dict(source: str | Path) -> StateDict:
    """Read a PyTorch file or a `.npz`, with the names of the published code and of torchvision.

    The "module." that PyTorch's DataParallel puts before names is removed; MMPose's names are changed to these
    (`tensor_names.respelled`), and such a file gets the notes `MMPOSE`.
    """
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: there is no such weights file.")
    file = _read_npz(path) if path.suffix == ".npz" else read_torch_file(path)
    tensors, notes = file.tensors, file.notes
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    if tensor_names.is_mmpose(tensors):
        notes = {**notes, **MMPOSE}
    return StateDict(tensor_names.respelled(tensors), notes)


def load_state_dict(
    model: keras.Model, source: str | Path, *, preprocessing: str = "published", map_joints: bool = False
) -> LoadReport:
    """Load a published checkpoint, or a file of `save_state_dict`, into a network.

    Args:
        model: made by `keras_mrpose.build` on a ResNet or a MobileNetV2, for the same `preprocessing`.
        source: a PyTorch file or a `.npz` with the published names or MMPose's.
        preprocessing: what the file's network was trained with, unless the file itself says so: "published" (blue,
            green, red with torchvision's red, green, blue mean and deviation) or "torchvision" (RGB).
        map_joints: the model may have another skeleton than the file: rows of the head whose joint names both have
            are taken, the others keep their random start, to be trained.

    Returns:
        What was used and what was not.

    Raises:
        InputError: the file cannot be read, or is of another network, depth, joint count or preprocessing. Nothing
            has been assigned then.
    """
    return assign(model, source, read_state_dict(source), preprocessing, map_joints)


def assign(model: keras.Model, source: str | Path, file: StateDict, preprocessing: str, map_joints: bool) -> LoadReport:
    """As `load_state_dict`, from a file that has been read; `source` is its name."""
    spec = model.spec
    preprocessing = str(file.notes.get("preprocessing", preprocessing))
    if preprocessing != spec["preprocessing"]:
        raise InputError(
            f"{source} was trained with {preprocessing!r} preprocessing, but the model was built with "
            f"{spec['preprocessing']!r}; build it with preprocessing={preprocessing!r}."
        )
    network, backbone, count = tensor_names.describe(file.tensors)
    _check_network(source, file, spec, network, backbone)
    skeleton = skeletons.for_joint_count(count)
    joints = None
    if count != spec["num_joints"] and not map_joints:
        raise InputError(
            f"{source}: tensor final_layer.weight is for {count} joints, the network has {spec['num_joints']}; "
            f"build it with num_joints={count}, or keep the joints that both know (map_joints)."
        )
    if map_joints:
        joints = JointMap(skeleton, model.skeleton)
    elif count == model.skeleton.num_joints:
        skeleton = model.skeleton
    plan = WeightMap(source, file.tensors, bgr=preprocessing == BGR)
    for layer in model.layers:
        if layer.weights:
            plan.add(layer, torch_module(layer.name), joints)
    unused = plan.assign(model.name)
    return LoadReport(
        source=str(source),
        network=tensor_names.network_label(network, backbone),
        style="pytorch" if _is_torch_style(spec["backbone"]) else "caffe",
        preprocessing=preprocessing,
        known="preprocessing" in file.notes,
        used=plan.used,
        unused=unused,
        joints=skeleton.joints,
        new_joints=joints.new_joints if joints else (),
    )


def _check_network(source, file: StateDict, spec: dict, network: str | None, backbone: str | None) -> None:
    """Raise unless a file is of the network and backbone that were built; single tensors come later."""
    wanted = spec["backbone"]
    if not has_torch_names(wanted):
        raise InputError(f"{source}: published checkpoints are of ResNets and MobileNetV2; not of {wanted}.")
    if network is None:
        if "final_layer.weight" in file.tensors:
            raise InputError(f"{source} is none of the networks of this library: it has no such head.")
        raise InputError(f"{source} has no pose head (no tensor final_layer.weight); give it as backbone_weights.")
    of_kind = next((key for key in tensor_names.LABELS if wanted.split("_")[0] == key), None)
    if network != spec["name"] or backbone != of_kind:
        has = tensor_names.network_label(network, backbone)
        raise InputError(f"{source} is {has}; {spec['name']} on {wanted} was asked for.")
    if file.notes.get("from") == MMPOSE["from"] and not _is_torch_style(wanted):
        raise InputError(
            f"{source} is MMPose's, which strides and pads as PyTorch does; build it on {torch_style(of_kind)}, not on "
            f"{wanted}."
        )


def save_state_dict(model: keras.Model, path: str | Path) -> None:
    """Save a network's weights under the published names, the inverse of `load_state_dict`.

    What was imported comes out with the same numbers, and the published PyTorch code can load it. A model that was not
    built with `preprocessing="published"` is written with a note: "preprocessing" beside the tensors, and its first
    kernel is for RGB. On Keras' own ResNets biases move into the batch norms that follow.

    Args:
        model: made by `keras_mrpose.build` on a ResNet.
        path: `.npz`, or `.pth` (`.pth.tar`, `.pt`) for a PyTorch file.

    Raises:
        InputError: another suffix or another backbone.
    """
    path, spec = Path(path), model.spec
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a state dict is written to a .npz or a .pth file.")
    if not is_resnet(spec["backbone"]):
        raise InputError(f"The backbone {spec['backbone']} has no published names; state dicts are for ResNets.")
    named = [(torch_module(layer.name), layer) for layer in model.layers if layer.weights]
    tensors = tensor_names.tensors_of(named, bgr=spec["preprocessing"] == BGR)
    notes = {} if spec["preprocessing"] == BGR else {"preprocessing": spec["preprocessing"]}
    if path.suffix != ".npz":
        write_torch_file(path, tensors, notes)
        return
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, **tensors, **{key: np.array(value) for key, value in notes.items()})
    part.replace(path)


def is_resnet(backbone: str) -> bool:
    """Whether the backbone of this name is a ResNet."""
    return backbone.startswith("resnet") or backbone.endswith("_v1b")


def has_torch_names(backbone: str) -> bool:
    """Whether torchvision's names fit the backbone of this name."""
    return is_resnet(backbone) or backbone.startswith("mobilenetv2")


def torch_style(backbone: str) -> str:
    """The backbone that strides and pads as PyTorch's does, for a key of `tensor_names.LABELS`."""
    return f"{backbone}_torch" if backbone == "mobilenetv2" else f"{backbone}_v1b"


def _is_torch_style(backbone: str) -> bool:
    return backbone.endswith(("_v1b", "_torch"))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a `.npz` file, in its order; nothing in the file is ever run.

    Sizes are checked first: an archive can unpack to a thousand times its size. An array that claims more than there is
    fails when it is read; its memory is not touched before.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is damaged, is none, or holds something else than arrays of numbers, words or booleans.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_UNPACKING * path.stat().st_size + _MAX_ZEROS:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKING} times its size")
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as archive:
            warnings.simplefilter("ignore")  # of Python, about words in a header that is none
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile, zlib and the parser of headers raise many kinds for damage
        raise ValueError(f"{type(error).__name__}: {error}") from error
    for name, value in arrays.items():
        if not (isinstance(value, np.ndarray) and value.dtype.kind in "biufU"):  # a member that is no array is bytes
            raise ValueError(f"its member {name!r} is no array of numbers, words or booleans")
    return arrays


def _read_npz(path: Path) -> StateDict:
    """All arrays of the file; single words are notes."""
    try:
        tensors = read_npz(path)
        notes = {key: value.item() for key, value in tensors.items() if value.shape == () and value.dtype.kind == "U"}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable .npz file ({short_message(error)}); fetch it again.") from error
    return StateDict({key: value for key, value in tensors.items() if key not in notes}, notes)
