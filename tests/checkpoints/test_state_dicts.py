"""Published checkpoints in and out: every number arrives, colours are right, and a wrong file changes nothing."""

import io
import resource
import zipfile

import keras
import numpy as np
import pytest
from published import SHAPE, formula_tensors, published_file

import keras_mrpose
from keras_mrpose.checkpoints import state_dicts
from keras_mrpose.checkpoints.torch_files import write_torch_file
from keras_mrpose.errors import InputError
from keras_mrpose.models import build

MODELS = keras_mrpose.list_models()


def rgb(seed=3):
    return np.random.default_rng(seed).integers(0, 256, (2, *SHAPE)).astype(np.float32)


def output(model, x):
    return keras.ops.convert_to_numpy(model(x))


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_keeps_every_bit(name, tmp_path):
    file = state_dicts.read_state_dict(published_file(tmp_path / "in.npz", name))
    model = build(name, "tiny_v1b", SHAPE, weights=tmp_path / "in.npz")
    for suffix in (".npz", ".pth", ".pth.tar"):
        keras_mrpose.save_state_dict(model, tmp_path / f"out{suffix}")
        back = state_dicts.read_state_dict(tmp_path / f"out{suffix}")
        assert back.notes == {}
        assert back.tensors.keys() == file.tensors.keys()
        for key, value in file.tensors.items():
            assert back.tensors[key].dtype == value.dtype
            np.testing.assert_array_equal(back.tensors[key], value, err_msg=key)
    again = build(name, "tiny_v1b", SHAPE, weights=tmp_path / "out.pth")
    np.testing.assert_array_equal(output(again, rgb()), output(model, rgb()))
    assert not list(tmp_path.glob(".*"))  # what was written aside is gone


@pytest.mark.slow
def test_keras_resnet_writes_its_biases_into_the_norms(tmp_path):
    """Caffe style: Keras' ResNet has biases and an epsilon of 1.001e-5; the file has neither, and computes the same."""
    model = build("simplebaseline", "resnet50", SHAPE, preprocessing="published")
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1, w.shape) for w in layer.get_weights()])
        elif layer.weights and layer.use_bias:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    keras_mrpose.save_state_dict(model, tmp_path / "caffe.npz")
    again = build("simplebaseline", "resnet50", SHAPE, weights=tmp_path / "caffe.npz")
    assert not np.any(again.get_layer("conv2_block1_1_conv").bias)
    wanted = output(model, rgb())
    # some 50 layers whose order of additions has changed, in float32
    np.testing.assert_allclose(output(again, rgb()), wanted, atol=50 * 2**-22 * np.abs(wanted).max())


def test_published_weights_eat_rgb(tmp_path):
    """What the published code computes on BGR pixels, normalised with RGB's mean, the model computes on RGB pixels."""
    path = published_file(tmp_path / "published.pth")
    model = build("mrfeanet2", "tiny_v1b", SHAPE, weights=path)
    assert model.spec["preprocessing"] == "published"
    bare = build("mrfeanet2", "tiny_v1b", SHAPE, include_preprocessing=False)
    keras_mrpose.load_state_dict(bare, path, preprocessing="torchvision")  # kernels as they are in the file
    bgr = rgb()[..., ::-1].astype(np.float64)
    eaten = (bgr / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    wanted = output(bare, eaten.astype(np.float32))
    # sums in another order, 14 layers deep: 14 x sqrt(576) roundings of 2**-24
    np.testing.assert_allclose(output(model, rgb()), wanted, atol=14 * 24 * 2**-24 * np.abs(wanted).max())
    assert np.abs(output(model, rgb()[..., ::-1]) - wanted).max() > 0.01 * np.abs(wanted).max()


def test_torchvision_backbone_meets_bgr_under_published_preprocessing(tmp_path):
    tensors = formula_tensors(build("simplebaseline", "tiny_v1b", SHAPE))
    write_torch_file(tmp_path / "r.pth", {k: v for k, v in tensors.items() if not k.startswith(("deconv", "final"))})
    plain = build("simplebaseline", "tiny_v1b", SHAPE, backbone_weights=tmp_path / "r.pth")
    published = build(
        "simplebaseline", "tiny_v1b", SHAPE, backbone_weights=tmp_path / "r.pth", preprocessing="published"
    )
    c5 = [keras.Model(m.input, m.get_layer("layer4_0_relu").output) for m in (plain, published)]
    wanted = output(c5[0], rgb())
    np.testing.assert_allclose(output(c5[1], rgb()[..., ::-1]), wanted, atol=14 * 24 * 2**-24 * wanted.max())


def test_another_preprocessing_is_noted_in_the_file(tmp_path):
    model = build("mrheatnet1", "tiny_v1b", SHAPE)
    for suffix in (".npz", ".pth"):
        path = tmp_path / f"ours{suffix}"
        keras_mrpose.save_state_dict(model, path)
        again = build("mrheatnet1", "tiny_v1b", SHAPE, weights=path)
        assert again.spec["preprocessing"] == "torchvision"
        np.testing.assert_array_equal(output(again, rgb()), output(model, rgb()))
        with pytest.raises(InputError, match="'torchvision' preprocessing"):
            build("mrheatnet1", "tiny_v1b", SHAPE, weights=path, preprocessing="published")
        published = build("mrheatnet1", "tiny_v1b", SHAPE, preprocessing="published")
        with pytest.raises(InputError, match="'torchvision' preprocessing"):
            keras_mrpose.load_state_dict(published, path)


def test_joints_come_from_the_file(tmp_path):
    path = published_file(tmp_path / "mpii.npz", joints=16)
    assert build("mrfeanet2", "tiny_v1b", SHAPE, weights=path).skeleton.name == "mpii"
    assert build("mrfeanet2", "tiny_v1b", SHAPE, 16, weights=path).skeleton.name == "mpii"


def test_report(tmp_path):
    extra = {"fc.weight": np.ones((3, 4), np.float32), "fc.bias": np.ones(3, np.float32)}
    path = published_file(tmp_path / "file.pth.tar", "mrheatnet2", 16, **extra)
    model = build("mrheatnet2", "tiny_v1b", SHAPE, 16, preprocessing="published")
    report = keras_mrpose.load_state_dict(model, path)
    tensors = state_dicts.read_state_dict(path).tensors
    assert set(report.used) | set(report.unused) == set(tensors)
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in report.unused)
    assert all(shape == tensors[name].shape for name, shape in report.used.items())
    assert len(report.joints) == 16 and report.new_joints == () and report.style == "pytorch"
    values = sum(tensors[name].size for name in report.used)
    text = str(report)
    for words in (str(path), "mrheatnet2", "16 joints", f"{len(report.used)} tensors ({values:,} values)", "pytorch"):
        assert words in text
    assert "num_batches_tracked" in text and "BGR" not in text


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mrfeanet2" else pytest.mark.slow) for name in MODELS]
)
@pytest.mark.parametrize("kind", [".npz", ".keras"])
def test_mapped_joints_keep_their_rows(name, kind, tmp_path):
    """17 COCO joints to 14 of LSP: 12 names are shared, neck and head top start small and random."""
    path = published_file(tmp_path / "coco.npz", name)
    coco = build(name, "tiny_v1b", SHAPE, weights=path)
    if kind == ".keras":
        path = tmp_path / "coco.keras"
        coco.save(path)
    lsp = build(name, "tiny_v1b", SHAPE, skeleton="lsp", weights=path, map_joints=True)
    assert lsp.spec["preprocessing"] == "published"
    names = [joint for joint in lsp.skeleton.joints if joint in coco.skeleton.joints]
    assert len(names) == 12
    here, there = ([skeleton.joints.index(joint) for joint in names] for skeleton in (lsp.skeleton, coco.skeleton))
    fresh = [i for i in range(14) if i not in here]
    for layer in lsp.layers:
        for ours, theirs in zip(layer.get_weights(), coco.get_layer(layer.name).get_weights(), strict=True):
            if ours.shape == theirs.shape:
                np.testing.assert_array_equal(ours, theirs, err_msg=layer.name)
            else:
                axes = [axis for axis in range(ours.ndim) if ours.shape[axis] == 14]
                for axis in axes:
                    theirs = np.take(theirs, there, axis)
                kept = ours
                for axis in axes:
                    kept = np.take(kept, here, axis)
                np.testing.assert_array_equal(kept, theirs, err_msg=layer.name)
    start = lsp.get_layer("final_layer").kernel.numpy()[..., fresh]
    assert 0 < np.abs(start).max() < 0.01  # normal(0, 0.001); formula weights are a hundred times larger
    if "heat" not in name:  # there, each joint's map comes from its own row alone
        np.testing.assert_array_equal(output(lsp, rgb())[..., here], output(coco, rgb())[..., there])


def test_mapping_reports_the_new_joints(tmp_path):
    path = published_file(tmp_path / "coco.npz")
    model = build("mrfeanet2", "tiny_v1b", SHAPE, skeleton="lsp", preprocessing="published")
    report = keras_mrpose.load_state_dict(model, path, map_joints=True)
    assert report.new_joints == ("neck", "head_top") and "neck, head_top" in str(report)
    alien = keras_mrpose.Skeleton("alien", ("antenna", "tail"))
    with pytest.raises(InputError, match="no joint name in common"):
        build("mrfeanet2", "tiny_v1b", SHAPE, skeleton=alien, weights=path, map_joints=True)


def test_prefix_of_data_parallel(tmp_path):
    tensors = state_dicts.read_state_dict(published_file(tmp_path / "a.npz")).tensors
    write_torch_file(tmp_path / "b.pth", {f"module.{name}": value for name, value in tensors.items()})
    assert state_dicts.read_state_dict(tmp_path / "b.pth").tensors.keys() == tensors.keys()


NAN = np.full((17, 16, 1, 1), np.nan, np.float32)
WRONG = {
    "nan": ({"final_layer.weight": NAN}, {}, ["final_layer.weight", "finite"]),
    "text": ({"final_layer.bias": np.array(["a"] * 17)}, {}, ["final_layer.bias", "finite"]),
    "missing": ({"deconv21.0.weight": None}, {}, ["deconv21.0.weight", "missing"]),
    "left over": ({"aux.weight": np.ones(3, np.float32)}, {}, ["aux.weight", "no place"]),
    "shape": ({"bn1.bias": np.ones(9, np.float32)}, {}, ["bn1.bias", "(9,)", "(8,)"]),
    "variance": ({"bn1.running_var": -np.ones(8, np.float32)}, {}, ["bn1.running_var", "negative"]),
    "network": ({}, {"name": "mrheatnet1"}, ["mrfeanet2", "mrheatnet1"]),
    "tapering": ({}, {"name": "mrfeanet1"}, ["mrfeanet2", "mrfeanet1"]),
    "depth": ({}, {"backbone": "resnet50_v1b"}, ["backbone of another kind", "resnet50_v1b"]),
    "backbone": ({}, {"backbone": "efficientnetv2b0"}, ["efficientnetv2b0", "ResNet"]),
    "joints": ({}, {"num_joints": 16}, ["final_layer.weight", "17", "16"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_one_sentence(case, tmp_path):
    changes, arguments, words = WRONG[case]
    path = published_file(tmp_path / "wrong.npz", **changes)
    with pytest.raises(InputError) as error:
        build(**{"name": "mrfeanet2", "backbone": "tiny_v1b", "input_shape": SHAPE, "weights": path, **arguments})
    assert all(word in str(error.value) for word in [*words, str(path)])
    assert "\n" not in str(error.value)


def test_another_depth_is_named(tmp_path):
    tensors = {
        f"layer{k}.{i}.conv1.weight": np.ones((1, 1, 1, 1)) for k, n in enumerate((3, 4, 23, 3), 1) for i in range(n)
    }
    tensors |= {"deconv_layers.0.weight": np.ones((1, 1, 4, 4)), "final_layer.weight": np.ones((17, 1, 1, 1))}
    np.savez(tmp_path / "r101.npz", **tensors)
    with pytest.raises(InputError, match="simplebaseline on ResNet-101; simplebaseline on resnet50_v1b was asked for"):
        build("simplebaseline", "resnet50_v1b", SHAPE, weights=tmp_path / "r101.npz")


def test_a_failed_import_changes_nothing(tmp_path):
    model = build("mrfeanet2", "tiny_v1b", SHAPE, preprocessing="published")
    before = model.get_weights()
    with pytest.raises(InputError):
        keras_mrpose.load_state_dict(model, published_file(tmp_path / "x.npz", **{"final_layer.bias": None}))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_backbone_alone_is_no_network(tmp_path):
    path = published_file(tmp_path / "r.npz", "simplebaseline")
    tensors = state_dicts.read_state_dict(path).tensors
    np.savez(path, **{k: v for k, v in tensors.items() if not k.startswith(("deconv", "final"))})
    with pytest.raises(InputError, match="give it as backbone_weights"):
        build("simplebaseline", "tiny_v1b", SHAPE, weights=path)


def test_colours_must_be_said(tmp_path):
    """A published file in a network for RGB would lose 7 AP silently."""
    path = published_file(tmp_path / "p.npz")
    with pytest.raises(InputError, match="preprocessing='published'"):
        keras_mrpose.load_state_dict(build("mrfeanet2", "tiny_v1b", SHAPE), path)
    assert build("mrfeanet2", "tiny_v1b", SHAPE, weights=path, preprocessing="torchvision").spec["preprocessing"] == (
        "torchvision"
    )


def test_where_state_dicts_do_not_go(tmp_path):
    with pytest.raises(InputError, match="ResNets"):
        keras_mrpose.save_state_dict(build("simplebaseline", "mobilenetv2", SHAPE), tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"\.npz or a \.pth"):
        keras_mrpose.save_state_dict(build("simplebaseline", "tiny_v1b", SHAPE), tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


# --- .npz files: what NumPy wrote, and nothing that a file claims without having it -----------------------------------

ARRAYS = {
    **{
        kind: np.arange(24).reshape(2, 3, 4).astype(kind)
        for kind in ("float16", "float32", "float64", "int64", "uint8")
    },
    **{"turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "one": np.array(2.5), "none": np.zeros((0, 3))},
    **{"yes": np.array([True, False]), "word": np.array("torchvision"), "big": np.arange(3, dtype=">i4")},
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_wrote(save, tmp_path):
    save(tmp_path / "a.npz", **ARRAYS)
    found = state_dicts.read_npz(tmp_path / "a.npz")
    assert list(found) == list(ARRAYS)
    for name, value in ARRAYS.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_long_headers(tmp_path):
    """Version 2 of the format."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(3.0), version=(2, 0))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", stream.getvalue())
    np.testing.assert_array_equal(state_dicts.read_npz(tmp_path / "a.npz")["a"], np.arange(3.0), strict=True)


def header(descr, shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("<f4", (2**40,)), "EOF: reading array data|Unable to allocate"),
        (header("<f4", (-1,)) + bytes(8), "negative dimensions"),
        (header("<f4", (3,)) + bytes(8), "expected 12 bytes got 8"),
        (header("|O", (1,)) + b"cos\nsystem\n(S'true'\ntR.", "allow_pickle=False"),
        (header([("a", "<f4")], (1,)) + bytes(4), "is no array of"),
        (header("<f4", (1,))[:20], "EOF|array header"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': open(1}", "ValueError|Error"),
        (b"\x93NUMPY\x09\x00", "format version"),
        (b"no array", "is no array of"),
    ],
)
def test_hostile_arrays(content, words, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=words):
        state_dicts.read_npz(tmp_path / "a.npz")


def test_a_bomb_is_not_unpacked(tmp_path):
    """64 MB of zeros in 64 kB; 20 times that and 16 MB are allowed."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header("|u1", (2**26,)) + bytes(2**26))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="unpacks to more than 20 times its size"):
        state_dicts.read_npz(tmp_path / "a.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**14  # KiB


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_files_of_another_kind(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a zip file"):
        state_dicts.read_npz(tmp_path / "a.npz")
    with pytest.raises(OSError, match="No such file"):
        state_dicts.read_npz(tmp_path / "b.npz")
