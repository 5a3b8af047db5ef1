"""What an exported file says of itself, read by the field numbers of the published schema and by the interpreter."""

import io
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from flatbuffers import number_types as numbers

from keras_mrpose.runtime import litert as runtime

if runtime.Interpreter is None:
    pytest.skip("ai-edge-litert is not installed: pip install ai-edge-litert", allow_module_level=True)

from keras_mrpose.export import litert, metadata

JOINTS = ("nose", "left_wrist", "right_wrist")
SHAPES = {"heatmaps": (8, 4, 3), "keypoints": (3, 3)}


@pytest.fixture(scope="module", params=SHAPES)
def file(request):
    """Its output, its bytes before and after."""
    image = keras.Input(batch_shape=(1, 32, 16, 3), name="image")
    x = keras.layers.Conv2D(3, 4, 4)(image)
    if request.param == "keypoints":
        x = keras.layers.Reshape((32, 3))(x)[:, :3]
    content = litert.convert(keras.Model(image, x), "float32").content
    return request.param, content, metadata.with_metadata(content, "mrfeanet9", JOINTS, request.param)


class Reader:
    """A table of a flatbuffer, its fields by their number in the schema."""

    def __init__(self, content, place):
        self.table = flatbuffers.table.Table(content, place)

    @classmethod
    def root(cls, content):
        return cls(content, flatbuffers.encode.Get(numbers.UOffsetTFlags.packer_type, content, 0))

    def _offset(self, field):
        return self.table.Offset(4 + 2 * field)

    def scalar(self, field, kind=numbers.Int8Flags):
        return self.table.GetSlot(4 + 2 * field, 0, kind)

    def string(self, field):
        return self.table.String(self._offset(field) + self.table.Pos).decode()

    def below(self, field):
        return Reader(self.table.Bytes, self.table.Indirect(self._offset(field) + self.table.Pos))

    def tables(self, field):
        begin, count = self.table.Vector(self._offset(field)), self.table.VectorLen(self._offset(field))
        return [Reader(self.table.Bytes, self.table.Indirect(begin + 4 * i)) for i in range(count)]

    def strings(self, field):
        begin, count = self.table.Vector(self._offset(field)), self.table.VectorLen(self._offset(field))
        return [self.table.String(begin + 4 * i).decode() for i in range(count)]

    def floats(self, field):
        begin, count = self.table.Vector(self._offset(field)), self.table.VectorLen(self._offset(field))
        return np.frombuffer(self.table.Bytes, "<f4", count, begin).tolist()


def root_of(content):
    model = runtime.schema.ModelT.InitFromPackedBuf(content, 0)
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    data = bytes(model.buffers[entry.buffer].data)
    assert data[4:8] == b"M001"
    return Reader.root(data)


def test_the_network_is_the_same(file):
    _, before, after = file
    crops = np.random.default_rng(0).uniform(0, 255, (3, 32, 16, 3))
    np.testing.assert_array_equal(runtime.LiteRTModel(before)(crops), runtime.LiteRTModel(after)(crops))
    assert runtime.nodes(before) == runtime.nodes(after)


def test_input_and_output_have_names(file):
    output, _, after = file
    runner = runtime.Interpreter(model_content=after).get_signature_runner()
    crop = np.random.default_rng(1).uniform(0, 255, (1, 32, 16, 3)).astype(np.float32)
    (name, found), *rest = runner(image=crop).items()
    assert (name, rest) == ("heatmaps" if output == "heatmaps" else "joints", [])
    np.testing.assert_array_equal(found, runtime.LiteRTModel(after)(crop))


def test_the_model_and_its_image(file):
    """Model 0 name, 3 subgraphs, 7 parser; subgraph 2 inputs; tensor 3 content, 4 process units, 5 statistics."""
    model = root_of(file[2])
    assert (model.string(0), model.string(7)) == ("mrfeanet9", "1.0.0")
    (graph,) = model.tables(3)
    (image,) = graph.tables(2)
    assert image.string(0) == "image"
    content = image.below(3)
    assert content.scalar(0) == 2 and content.below(1).scalar(0) == 1  # image properties: RGB
    (unit,) = image.tables(4)
    assert unit.scalar(0) == 1  # normalization
    assert (unit.below(1).floats(0), unit.below(1).floats(1)) == ([0.0], [1.0])  # nothing to do
    assert (image.below(5).floats(0), image.below(5).floats(1)) == ([255.0], [0.0])


def test_what_comes_out(file):
    """TensorMetadata 2 dimensions, 3 content (2 range), 6 files; AssociatedFile 0 name, 2 type."""
    output, _, after = file
    (found,) = root_of(after).tables(3)[0].tables(3)
    maps = output == "heatmaps"
    assert found.string(0) == ("heatmaps" if maps else "joints")
    assert len(found.strings(2)) == 1 + len(SHAPES[output])
    content = found.below(3)
    assert content.scalar(0) == 1  # features
    first, last = (content.below(2).scalar(field, numbers.Int32Flags) for field in (0, 1))
    assert (first, last) == ((1, 2) if maps else (2, 2))
    (labels,) = found.tables(6)
    assert (labels.string(0), labels.scalar(2)) == ("joints.txt", 2)  # names of an axis


def test_the_joints_names_are_in_the_file(file):
    with zipfile.ZipFile(io.BytesIO(file[2])) as archive:
        assert archive.namelist() == ["joints.txt"]
        assert archive.read("joints.txt").decode().splitlines() == list(JOINTS)


def test_it_is_the_same_every_time(file):
    output, before, after = file
    assert metadata.with_metadata(before, "mrfeanet9", JOINTS, output) == after
