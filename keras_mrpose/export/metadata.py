"""Metadata of a `.tflite` file: a signature, TFLite metadata, and the joints' names.

With the signature an app calls input and output by name. The metadata is what Android Studio, Netron and the metadata
extractors of the TFLite Support library show: the image's colours, size and range, what comes out, and the joints'
names in a file beside the network, in one archive (``unzip -l network.tflite``).

The schema of the metadata has no generated code here: each function below writes one table of it, whose fields go by
their number in the schema. A union takes two numbers, that of its kind and that of its table.

Source: TFLite metadata schema 1.2.1, `metadata_schema.fbs` of tflite-support.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from importlib import metadata

import flatbuffers
import numpy as np

from keras_mrpose.runtime.litert import schema

LABELS = "joints.txt"
SIGNATURE = "serving_default"
NAME, IDENTIFIER, PARSER = "TFLITE_METADATA", b"M001", "1.0.0"  # all fields below are those of the first version
PURPOSE = "Finds the joints of a person in an image."

_FEATURES, _IMAGE = 1, 2  # of the union of contents
_NORMALIZATION = 1  # of the union of process units
_RGB, _AXIS_LABELS = 1, 2
# What an output is, what its axes are, and the first and the last axis of one object: a map, a joint's three numbers.
_OUTPUTS = {
    "heatmaps": ("One map for each joint; its peak is the joint.", ["batch", "y", "x", "joint"], (1, 2)),
    "joints": ("For each joint x, y in pixels of the crop, and a score.", ["batch", "joint", "value"], (2, 2)),
}


def with_metadata(content: bytes, name: str, joints: Sequence[str], output: str) -> bytes:
    """A `.tflite` file with signature, metadata and labels added.

    Args:
        content: of a file of one image and one output, as `litert.convert` makes it.
        name: of the model.
        joints: their names, in order.
        output: "heatmaps" ``(1, h, w, joints)``, or "keypoints" ``(1, joints, 3)``.
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
    """The metadata, a flatbuffer of its own."""
    builder = flatbuffers.Builder(1024)
    made_by = builder.CreateString(f"keras_mrpose {metadata.version('keras-mrpose')}")
    image, found = _vector(builder, [_image(builder)]), _vector(builder, [_output(builder, output)])
    # SubGraphMetadata: name, description, inputs, outputs
    graph = _table(builder, 4, {0: builder.CreateString(name), 2: image, 3: found})
    # ModelMetadata: name, description, version, subgraphs, author, license, files, parser
    fields = {0: builder.CreateString(name), 1: builder.CreateString(PURPOSE), 2: made_by}
    fields |= {3: _vector(builder, [graph]), 7: builder.CreateString(PARSER)}
    builder.Finish(_table(builder, 8, fields), IDENTIFIER)
    return bytes(builder.Output())


def _image(builder: flatbuffers.Builder) -> int:
    """TensorMetadata of the input: an RGB image that the network normalises itself."""
    # ImageProperties: colours; Content: kind, properties, range
    content = _table(builder, 3, {1: _table(builder, 1, {}, {0: _RGB})}, {0: _IMAGE})
    # NormalizationOptions: mean, std; ProcessUnit: kind, options
    options = _table(builder, 2, {0: _floats(builder, 0), 1: _floats(builder, 1)})
    process = _vector(builder, [_table(builder, 2, {1: options}, {0: _NORMALIZATION})])
    stats = _table(builder, 2, {0: _floats(builder, 255), 1: _floats(builder, 0)})  # Stats: highest, lowest
    description = builder.CreateString("Crop of one person. RGB 0..255 as it is: the network normalises it itself.")
    fields = {0: builder.CreateString("image"), 1: description, 3: content, 4: process, 5: stats}
    return _table(builder, 7, fields)


def _output(builder: flatbuffers.Builder, output: str) -> int:
    """TensorMetadata of the output: what it is, its axes, and the names of the joints in a file."""
    what, dimensions, (first, last) = _OUTPUTS[output]
    builder.StartObject(2)  # ValueRange: first, last; the only numbers of four bytes
    builder.PrependInt32Slot(0, first, 0)
    builder.PrependInt32Slot(1, last, 0)
    axes = builder.EndObject()
    content = _table(builder, 3, {1: _table(builder, 0, {}), 2: axes}, {0: _FEATURES})  # FeatureProperties is empty
    # AssociatedFile: name, description, type
    names = {0: builder.CreateString(LABELS), 1: builder.CreateString("The joints' names.")}
    files = _vector(builder, [_table(builder, 3, names, {2: _AXIS_LABELS})])
    axes_names = _vector(builder, [builder.CreateString(name) for name in dimensions])
    fields = {0: builder.CreateString(output), 1: builder.CreateString(what), 2: axes_names, 3: content, 6: files}
    return _table(builder, 7, fields)


def _table(
    builder: flatbuffers.Builder, size: int, offsets: dict[int, int], small: dict[int, int] | None = None
) -> int:
    """Write a table; returns its offset.

    Args:
        builder: what is pointed to has been written to it already.
        size: number of fields of the table in the schema.
        offsets: field number -> offset of the string, vector or table that it points to.
        small: field number -> value, of fields of one byte.
    """
    builder.StartObject(size)
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in (small or {}).items():
        builder.PrependInt8Slot(field, value, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, value: float) -> int:
    return builder.CreateNumpyVector(np.float32([value]))
