"""What a `.tflite` file says of itself, in the places that LiteRT has for it: a signature, and TFLite metadata.

With the signature an app calls input and output by name. The metadata is what Android Studio, Netron and the metadata
extractors of the TFLite Support library show: the image's colours, size and range, what comes out, and the joints'
names in a file beside the network, in one archive (``unzip -l network.tflite``).

Source: TFLite metadata schema 1.2.1, `metadata_schema.fbs` of tflite-support.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from importlib import metadata

import flatbuffers
import numpy as np

from keras_mrpose.runtime.interpreter import schema

LABELS = "joints.txt"
SIGNATURE = "serving_default"
NAME, IDENTIFIER, PARSER = "TFLITE_METADATA", b"M001", "1.0.0"  # all fields below are those of the first version

# The tables' fields in the schema's order, which is their number. A union takes two: its kind and itself.
_FIELDS = {
    "ModelMetadata": "name description version subgraphs author license files parser",
    "SubGraphMetadata": "name description inputs outputs",
    "TensorMetadata": "name description dimensions content process stats files",
    "Content": "kind properties range",
    "FeatureProperties": "",
    "ImageProperties": "colours",
    "ValueRange": "first last",
    "ProcessUnit": "kind options",
    "NormalizationOptions": "mean std",
    "Stats": "highest lowest",
    "AssociatedFile": "name description type",
}
_FEATURES, _IMAGE = 1, 2  # of the union of contents
_NORMALIZATION = 1  # of the union of process units
_RGB, _AXIS_LABELS = 1, 2

PURPOSE = "Finds the joints of a person in a image."
# What an output is, what its axes are, and the first and the last axis of one object: a map, a joint's three numbers.
_OUTPUTS = {
    "heatmaps": ("One map for each joint; its peak is the joint.", ["batch", "y", "x", "joint"], (1, 2)),
    "joints": ("For each joint x, y in pixels of the crop, and a score.", ["batch", "joint", "value"], (2, 2)),
}


class Byte(int):
    """A whole number of one byte; any other has four."""


class Table:
    """A table of the schema: its kind, and the values of the fields that are given."""

    def __init__(self, kind: str, /, **values):
        self.kind, self.values = kind, values


def described(content: bytes, name: str, joints: Sequence[str], output: str) -> bytes:
    """A `.tflite` file with signature, metadata and labels.

    Args:
        content: of a file of one image and one output, as `litert.convert` makes it.
        name: of the model.
        joints: their names, in order.
        twin: "heatmaps" ``(1, h, w, joints)``, or "keypoints" ``(1, joints, 3)``.
    """
    output = "heatmaps" if output == "heatmaps" else "joints"
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    model.signatureDefs = [_signature({"image": graph.inputs[0]}, {output: graph.outputs[0]})]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(name, output), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    builder = flatbuffers.Builder(len(content) + 65536)
    builder.Finish(model.Pack(builder), b"TFL3")
    file = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(file, "a") as archive:  # behind the network, which starts the file and tells its own length
        archive.writestr(zipfile.ZipInfo(LABELS), "".join(f"{joint}\n" for joint in joints))
    return file.getvalue()


def _signature(inputs: dict[str, int], outputs: dict[str, int]):
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.inputs, signature.outputs = SIGNATURE, [], []
    for place, tensors in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for name, index in tensors.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            place.append(entry)
    return signature


def _metadata(name: str, output: str) -> bytes:
    """The metadata's own flatbuffer."""
    made_by = f"keras_mrpose {metadata.version('keras-mrpose')}"
    graph = Table("SubGraphMetadata", name=name, inputs=[_picture()], outputs=[_found(output)])
    model = Table("ModelMetadata", name=name, description=PURPOSE, version=made_by, subgraphs=[graph], parser=PARSER)
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, model), IDENTIFIER)
    return bytes(builder.Output())


def _picture() -> Table:
    nothing_to_do = Table("NormalizationOptions", mean=np.float32([0]), std=np.float32([1]))
    return Table(
        "TensorMetadata",
        name="image",
        description="Crop of one person. RGB 0..255 as it is: the network normalises it itself.",
        content=Table("Content", kind=Byte(_IMAGE), properties=Table("ImageProperties", colours=Byte(_RGB))),
        process=[Table("ProcessUnit", kind=Byte(_NORMALIZATION), options=nothing_to_do)],
        stats=Table("Stats", highest=np.float32([255]), lowest=np.float32([0])),
    )


def _found(output: str) -> Table:
    what, dimensions, (first, last) = _OUTPUTS[output]
    axes = Table("ValueRange", first=first, last=last)
    return Table(
        "TensorMetadata",
        name=output,
        description=what,
        dimensions=dimensions,
        content=Table("Content", kind=Byte(_FEATURES), properties=Table("FeatureProperties"), range=axes),
        files=[Table("AssociatedFile", name=LABELS, description="The joints' names.", type=Byte(_AXIS_LABELS))],
    )


def _write(builder: flatbuffers.Builder, value) -> int:
    """A value that a table points to; returns its place. What it points to itself comes first."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        places = [_write(builder, item) for item in value]
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()
    fields = _FIELDS[value.kind].split()
    given = {fields.index(name): item for name, item in value.values.items()}
    written = {slot: item if isinstance(item, int) else _write(builder, item) for slot, item in given.items()}
    builder.StartObject(len(fields))
    for slot, item in written.items():
        if isinstance(given[slot], Byte):
            builder.PrependInt8Slot(slot, item, 0)
        elif isinstance(given[slot], int):
            builder.PrependInt32Slot(slot, item, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, item, 0)
    return builder.EndObject()
