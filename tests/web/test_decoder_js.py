"""The decoder in JavaScript: the same numbers as `decoder.py`, run in node."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT

from keras_mrpose.calibration import Calibration
from keras_mrpose.codecs import CODECS
from keras_mrpose.nms import oks_nms
from keras_mrpose.predict import detectors, predictor
from keras_mrpose.runtime import decoder

PAGE = ROOT / "keras_mrpose" / "web" / "page"
SIZE = (96, 64)


def node(source, argument):
    """What JavaScript makes of an argument: the value of `source`, in which the page's modules are imported."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    program = (
        f"const [decoder, people, detector, network] = await Promise.all(['decoder', 'people', 'detector', 'network']"
        f".map((name) => import('{PAGE.as_uri()}/' + name + '.js')));\n"
        "const argument = JSON.parse((await import('node:fs')).readFileSync(0, 'utf8'));\n"
        f"console.log(JSON.stringify(await (async () => {{{source}}})()));"
    )
    command = ["node", "--input-type=module", "--no-warnings", "-e", program]
    done = subprocess.run(command, input=json.dumps(argument), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def pixels(rng, height, width):
    """An image, and the same as an ImageData."""
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    rgba = np.concatenate([image, np.full((height, width, 1), 255, np.uint8)], axis=-1)
    return image, {"width": width, "height": height, "data": rgba.ravel().tolist()}


@pytest.mark.parametrize("box", [(20, 10, 50, 70), (-30, -20, 60, 90), (80, 60, 90, 20), (31.3, 12.7, 1.5, 3.5)])
def test_crops(box):
    """To float32's rounding of grey levels."""
    image, data = pixels(np.random.default_rng(1), 70, 111)
    matrix = decoder.crop_matrix(box, SIZE, 1.25)
    found = node(
        "const matrix = decoder.cropMatrix(argument.box, argument.size, 1.25);"
        "return {matrix, crop: [...decoder.crop(argument.image, matrix, argument.size)]};",
        {"box": box, "size": SIZE, "image": data},
    )
    np.testing.assert_allclose([found["matrix"][key] for key in ("scale", "x", "y")], matrix[[0, 0, 1], [0, 2, 2]])
    wanted = decoder.crop(image, matrix, SIZE)
    np.testing.assert_allclose(np.reshape(found["crop"], (*SIZE, 3)), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("name", CODECS)
def test_joints(name, border):
    """Clean and noisy Gaussians, peaks at every border, flat, empty and negative maps."""
    rng = np.random.default_rng(0)
    codec = CODECS[name](1.5, published_border=border) if name == "gaussian" else CODECS[name](1.5)
    points = rng.uniform((-1, -1), (17, 25), (1, 40, 2)).astype(np.float32)
    points[0, :8] = [[0, 0], [1, 1], [15, 23], [14, 22], [1, 12], [2, 12], [13, 12], [8, 2]]
    maps = np.array(codec.encode(points, np.ones((1, 40), np.float32), (24, 16))[0])
    maps[..., 20:] += rng.normal(0, 0.1, maps[..., 20:].shape)
    maps[..., 36], maps[..., 37], maps[..., 38] = 0, -1, 0.5
    maps = maps.astype(np.float32)
    about = {"name": name, "scale": codec.scale(SIZE).tolist(), **codec.get_config()}
    fitted = {"scores": [0.1, 0.3, 0.9], "probabilities": [0.05, 0.3, 0.95]}
    calibration = {**fitted, "person": {"scores": [0.2, 0.8], "probabilities": [0.1, 1.0]}}
    matrix = decoder.crop_matrix((13.0, -7.5, 80.0, 170.0), SIZE, 1.25)
    found = node(
        "const matrix = decoder.cropMatrix([13, -7.5, 80, 170], argument.size, 1.25);"
        "const joints = decoder.decode(Float32Array.from(argument.maps), argument.shape, argument.codec);"
        "const heights = joints.map((joint) => joint[2]);"
        "return {joints: decoder.toImage(joints, matrix, argument.calibration),"
        " person: decoder.person(heights, argument.calibration.person)};",
        {"maps": maps.ravel().tolist(), "shape": maps.shape[1:] if maps.ndim == 4 else maps.shape, "codec": about}
        | {"calibration": calibration, "size": SIZE},
    )
    maps = maps.reshape(24, 16, 40)
    wanted = decoder.joints(maps, matrix, about, calibration)
    np.testing.assert_allclose(found["joints"], wanted, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["person"], decoder.person(maps, calibration), rtol=0, atol=1e-12)


def test_interpolation_is_that_of_a_calibration():
    """Knots, between them, and beyond."""
    calibration = Calibration((0.1, 0.3, 0.9), (0.05, 0.3, 0.95), "right")
    values = [-1, 0.1, 0.2, 0.3, 0.31, 0.75, 0.9, 2]
    found = node("return argument.values.map((value) => decoder.interpolate(value, argument.map));",
                 {"values": values, "map": calibration.to_dict()})  # fmt: skip
    np.testing.assert_allclose(found, calibration(values), rtol=0, atol=1e-12)


def test_boxes_of_joints():
    rng = np.random.default_rng(2)
    search = {"margin": predictor.MARGIN, "min_joints": predictor.MIN_JOINTS}
    people = [np.column_stack([rng.uniform(-20, 150, (5, 2)), rng.uniform(0, 1, 5)]) for _ in range(20)]
    people.append(np.array([[30, y, 1.0] for y in (5, 20, 40, 60, 68)]))  # in one line
    found = node("return argument.people.map((joints) => people.boxOf(joints, {width: 111, height: 70}, 0.3,"
                 " argument.search));", {"people": [one.tolist() for one in people], "search": search})  # fmt: skip
    wanted = [predictor.box_of(one, (70, 111), 0.3) for one in people]
    assert any(box is None for box in wanted)
    for box, right in zip(found, wanted, strict=True):
        assert (box is None) == (right is None)
        if box is not None:
            np.testing.assert_allclose(box, right, rtol=0, atol=1e-9)


def test_nobody_is_found_twice():
    rng = np.random.default_rng(3)
    sigmas = rng.uniform(0.03, 0.1, 6)
    middles = rng.uniform(0, 100, (4, 1, 2))[rng.integers(0, 4, 12)]
    points = np.concatenate(
        [middles + rng.normal(0, 3, (12, 6, 2)) * (np.arange(12) % 3)[:, None, None], np.ones((12, 6, 1))], -1
    )
    boxes, scores = np.column_stack([np.zeros((12, 2)), rng.uniform(30, 90, (12, 2))]), rng.uniform(0, 1, 12)
    people = [{"joints": points[row].tolist(), "box": boxes[row].tolist(), "score": scores[row]} for row in range(12)]
    found = node("return people.distinct(argument.people, argument.sigmas, 0.6).map((one) => one.score);",
                 {"people": people, "sigmas": sigmas.tolist()})  # fmt: skip
    kept = oks_nms(points, boxes[:, 2] * boxes[:, 3], scores, sigmas, 0.6)
    assert 1 < len(kept) < 12
    np.testing.assert_allclose(found, sorted(scores[kept], reverse=True))


@pytest.mark.parametrize("sides", [(70, 111), (20, 33), (300, 90), (32, 48)])
def test_letterbox(sides):
    """Larger, smaller, higher and as large as the input; a grey level, where a half is rounded in another direction."""
    image, data = pixels(np.random.default_rng(4), *sides)
    wanted, scale = detectors.letterbox(image, (32, 48))
    found = node(
        "const {pixels, scale} = detector.letterbox(argument, [32, 48]); return {pixels: [...pixels], scale};", data
    )
    np.testing.assert_allclose(found["scale"], scale)
    np.testing.assert_allclose(np.reshape(found["pixels"], (32, 48, 3)), wanted, rtol=0, atol=1)


def test_quantised_values():
    """By hand: (v / scale + zero) rounded and cut; and back."""
    found = node(
        "const tensor = {type: 'int8', scale: 0.5, zero: -10};"
        "const values = network.quantized([0, 1.3, 100, -100], tensor);"
        "const plain = network.quantized([0.4, 254.6], {type: 'uint8', scale: 0, zero: 0});"
        "return [values, network.dequantized(values, tensor), plain].map((list) => [...list]);",
        None,
    )
    assert found == [[-10, -7, 127, -128], [0, 1.5, 68.5, -59], [0, 255]]
