"""A page in headless Chromium: the same numbers as in Python, a camera, and red where something is wrong.

Needs node, and a folder with the npm packages @litertjs/core, puppeteer-core and @sparticuz/chromium (a headless
Chromium): `node_modules` of the checkout, or that of the folder in MRPOSE_NODE.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import keras_mrpose
from keras_mrpose import presets
from keras_mrpose.predict.detectors import LiteRTDetector
from keras_mrpose.web import library
from keras_mrpose.web.folder import write_page
from keras_mrpose.web.server import make_server

pytestmark = pytest.mark.slow

NODE = Path(os.environ.get("MRPOSE_NODE", ROOT))
PACKAGES = (f"@litertjs/core@{library.VERSION}", "puppeteer-core", "@sparticuz/chromium")
READY = "['good', 'bad'].some((kind) => document.getElementById('badge').classList.contains(kind))"
STATE = "const {state} = await import('./page.js'); const {litert, photos, ...others} = state; return others;"
PRESS_CAMERA = (  # and what is said then, how wide the page is, and the colour of its ground
    {"evaluate": "document.getElementById('camera').focus();"},
    {"keys": ["Enter"]},
    {"waitFor": "!document.getElementById('message').hidden"},
    {
        "evaluate": "return [document.getElementById('message').textContent, document.documentElement.scrollWidth,"
        " getComputedStyle(document.body).backgroundColor];"
    },
)
FORMATS = ("float32", "float16", "int8", "keypoints_int8")


@pytest.fixture(scope="module")
def browse():
    """Runs a job of `browser.mjs`; returns what was seen. The page may ask nobody but its own server."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    if not all((NODE / "node_modules" / name.removesuffix(f"@{library.VERSION}")).is_dir() for name in PACKAGES):
        pytest.skip(f"needs a browser: npm install --prefix DIR {' '.join(PACKAGES)}, then MRPOSE_NODE=DIR")

    def run(*steps, **job):
        command = ["node", str(ROOT / "tests" / "web" / "browser.mjs"), str(NODE)]
        text = json.dumps({**job, "steps": steps})
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert "failure" not in seen, seen
        addresses = {step["goto"].partition("?")[0] for step in steps if "goto" in step}
        own = tuple(f"{prefix}{address}" for address in addresses for prefix in ("", "blob:"))
        assert [
            method for method, url in seen["requests"] if method != "GET" or not url.startswith((*own, "data:"))
        ] == []
        return seen["results"]

    return run


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Exports of the network of the package; the int8 heatmaps come out as bytes with a scale."""
    folder = tmp_path_factory.mktemp("export") / "export"
    crops = presets.read_crops("people")
    keras_mrpose.export_litert("people", folder, FORMATS, people=crops, calibration=crops, output_type="uint8")
    return folder


@pytest.fixture(scope="module")
def page(people, browse):
    return write_page(people, vendor=NODE)


@contextlib.contextmanager
def served(folder):
    """Address of a page."""
    server = make_server(folder, port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def choose(name):
    """A step that chooses a network and comes back when it has been checked."""
    source = """
        document.getElementById('network').value = argument;
        document.getElementById('network').dispatchEvent(new Event('change'));
        await new Promise((done) => setTimeout(done, 200));
        while (!['good', 'bad'].some((kind) => document.getElementById('badge').classList.contains(kind)))
          await new Promise((done) => setTimeout(done, 50));
        const {state} = await import('./page.js');
        return {...state.checks, good: document.getElementById('badge').classList.contains('good')};
    """
    return {"evaluate": source, "argument": name}


@pytest.mark.parametrize("threads", [True, False])
def test_reference_case(page, browse, threads, monkeypatch):
    """Each file as in Python's interpreter: float within thousandths of a pixel, int8 within steps of its heatmaps."""
    if not threads:
        monkeypatch.delitem(make_server.__globals__["HEADERS"], "Cross-Origin-Opener-Policy")
    names = [file["name"] for file in json.loads((page / "page.json").read_text())["files"]]
    assert len(names) == len(FORMATS)
    with served(page) as address:
        state, *checks = browse({"goto": address}, {"waitFor": READY}, {"evaluate": STATE}, *map(choose, names))
    assert state["variant"] == ("threaded" if threads else "plain")
    for name, found in zip(names, checks, strict=True):
        assert found["good"] and found["decoder"]["cropOff"] < 1e-3 and found["decoder"]["jointsOff"] < 1e-3, name
        if "int8" not in name:
            assert found["network"]["shift"] < 0.01 and found["network"]["scores"] < 1e-3, name


def test_graphics(page, browse):
    """By WebGPU, here in software: float16 as in Python, and what it does not know runs on the processor."""
    software = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU"]
    adapter = {"evaluate": "return Boolean(navigator.gpu && (await navigator.gpu.requestAdapter()));"}
    with served(page) as address:
        steps = [{"goto": address}, adapter, {"goto": f"{address}?on=webgpu"}, {"waitFor": READY}]
        names = [f"{name}.tflite" for name in ("heatmaps_float16", "keypoints_int8")]
        there, *checks, state = browse(*steps, *map(choose, names), {"evaluate": STATE}, args=software)
    if not there:
        pytest.skip("this browser has no WebGPU")
    assert state["accelerator"] == "webgpu" and all(found["good"] for found in checks)
    assert checks[0]["network"]["shift"] < 0.01


def test_photos_as_in_python(page, browse, tmp_path):
    """Within half a pixel, joints by joints: the search for the one person is the same, too."""
    image = np.full((400, 560, 3), 90, np.uint8)
    image[90:346, 200:392] = person_of(page)
    photos = [tmp_path / "photo.png"]
    Image.fromarray(image).save(photos[0])
    skier = ROOT.parent / "shared" / "data" / "coco" / "val2017" / "000000000785.jpg"
    photos += [skier] if skier.is_file() else []
    step = {"waitFor": f"document.querySelectorAll('#gallery figure').length === {len(photos)}"}
    result = {"evaluate": "const {state} = await import('./page.js'); return state.photos;"}
    with served(page) as address:
        ready = [{"goto": address}, {"waitFor": READY}, choose("heatmaps_float32.tflite")]
        *_, found = browse(*ready, {"upload": [str(path) for path in photos]}, step, result)
    predictor = keras_mrpose.Predictor(page / "heatmaps_float32.tflite", flip_test=False)
    assert [photo["name"] for photo in found] == [path.name for path in photos]
    for path, photo in zip(photos, found, strict=True):
        (person,), pose = photo["people"], predictor(path)
        np.testing.assert_allclose(np.array(person["joints"])[:, :2], pose.keypoints[0, :, :2], rtol=0, atol=0.5)
        np.testing.assert_allclose(np.array(person["joints"])[:, 2], pose.scores[0], rtol=0, atol=0.02)
        np.testing.assert_allclose(person["score"], pose.person_scores[0], rtol=0, atol=0.01)


def test_several_people_by_a_detector(people, browse, shared, tmp_path):
    """Boxes and joints as in Python within two pixels: the detector sees an image scaled down by another rounding."""
    detector = shared / "data" / "detectors" / "nanodet_person.tflite"
    photo = shared / "data" / "coco" / "val2017" / "000000252219.jpg"
    page = write_page(people, tmp_path / "page", vendor=NODE, detector=detector)
    result = {"evaluate": "const {state} = await import('./page.js'); return state.photos[0].people;"}
    drawn = {"waitFor": "document.querySelector('#gallery figure')"}
    with served(page) as address:
        ready = [{"goto": address}, {"waitFor": READY}, choose("heatmaps_float32.tflite")]
        *_, found = browse(*ready, {"upload": [str(photo)]}, drawn, result)
    model = page / "heatmaps_float32.tflite"
    pose = keras_mrpose.Predictor(model, flip_test=False, detector=LiteRTDetector(detector))(photo)
    assert len(pose) == len(found) > 1
    for row, person in enumerate(found):
        np.testing.assert_allclose(person["box"], pose.boxes[row], rtol=0, atol=2)
        sure = pose.scores[row] > 0.5
        joints = np.array(person["joints"])
        np.testing.assert_allclose(joints[sure, :2], pose.keypoints[row, sure, :2], rtol=0, atol=2)


@pytest.mark.parametrize("wrong", ["codec", "colours", "quantisation", "library"])
def test_red(page, browse, wrong, tmp_path):
    """Another codec, exchanged colours, another scale; and a changed library does not run at all."""
    copy = shutil.copytree(page, tmp_path / "page")
    about, model = (json.loads((copy / name).read_text()) for name in ("page.json", "model.json"))
    about["files"] = [file for file in about["files"] if file["name"] == "heatmaps_int8.tflite"]
    if wrong == "codec":
        model["codec"]["name"] = "gaussian"
        model["codec"]["published_border"] = True
    elif wrong == "quantisation":
        about["files"][0]["outputs"][0]["scale"] *= 1.5
    elif wrong == "colours":
        image = about["reference"]["arrays"]["image"]
        content = bytearray((copy / "reference.bin").read_bytes())
        pixels = np.frombuffer(content, np.uint8, int(np.prod(image["shape"])), image["offset"]).reshape(-1, 3)
        pixels[:] = pixels[:, ::-1].copy()
        (copy / "reference.bin").write_bytes(content)
    else:
        with (copy / about["library"]["threaded"]["js"]["url"]).open("a") as file:
            file.write("\n")
    (copy / "page.json").write_text(json.dumps(about))
    (copy / "model.json").write_text(json.dumps(model))
    source = "return ['badge', 'message'].map((id) => document.getElementById(id).textContent);"
    with served(copy) as address:
        ((badge, message),) = browse({"goto": address}, {"waitFor": READY}, {"evaluate": source})
    expected = {"codec": "crop or decoder", "colours": "crop or decoder", "quantisation": "the network differs"}
    assert badge.startswith(expected.get(wrong, "not loaded"))
    assert bool(message) == (wrong == "library")


def person_of(page):
    """The image ``(256, 192, 3)`` of the reference case: a person whose joints are all sure."""
    image = json.loads((page / "page.json").read_text())["reference"]["arrays"]["image"]
    content = (page / "reference.bin").read_bytes()
    return np.frombuffer(content, np.uint8, int(np.prod(image["shape"])), image["offset"]).reshape(image["shape"])


def video(path, person):
    """A person who moves through a dark room, 20 frames of 320x240, as raw Y4M."""
    person = cv2.resize(person, (150, 200), interpolation=cv2.INTER_AREA)
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W320 H240 F10:1 Ip A1:1 C420jpeg\n")
        for number in range(20):
            frame = np.full((240, 320, 3), 60, np.uint8)
            left = 20 + 6 * (number if number < 10 else 20 - number)
            frame[20:220, left : left + 150] = person
            file.write(b"FRAME\n" + cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes())


def test_camera(page, browse, tmp_path):
    """A hundred frames: somebody in nearly all of them, and no more memory than after the first ones."""
    video(tmp_path / "camera.y4m", person_of(page))
    camera = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}",
    ]
    # So many frames, then stop, and what is still held.
    measure = """
        const {state} = await import('./page.js');
        const [button, speed] = ['camera', 'speed'].map((id) => document.getElementById(id));
        let [frames, seen] = [0, 0];
        await new Promise((done) => {
          new MutationObserver(() => {
            seen += state.people.length;
            if (++frames === argument) done();
          }).observe(speed, {childList: true});
          button.click();
        });
        button.click();
        for (let i = 0; i < 3; i++) {
          await new Promise((done) => setTimeout(done, 1000));
          gc();
        }
        return {seen, speed: speed.textContent, heap: performance.memory.usedJSHeapSize,
          wasm: state.litert.getGlobalLiteRt().liteRtWasm.HEAPU8.byteLength};
    """
    with served(page) as address:
        steps = [{"goto": address}, {"waitFor": READY}, {"waitFor": "!document.getElementById('camera').disabled"}]
        runs = [{"evaluate": measure, "argument": frames} for frames in (10, 100)]
        before, after = browse(*steps, *runs, args=camera, size=[390, 844])
    assert after["seen"] >= 80 and "person" in after["speed"] and after["speed"].endswith("ms a frame")
    assert after["heap"] < before["heap"] + 2e6 and after["wasm"] == before["wasm"], (before, after)


def test_keyboard_phone_and_a_refused_camera(page, browse, tmp_path):
    """Everything is reached by Tab, nothing is wider than a phone, and a refused camera says what to do."""
    focus = {"evaluate": "return document.activeElement.id;"}
    walk = [step for _ in range(3) for step in ({"keys": ["Tab"]}, focus)]
    refuse = {
        "evaluate": "navigator.mediaDevices.getUserMedia = async () => {"
        "  throw new DOMException('', 'NotAllowedError'); };"
    }
    with served(page) as address:
        start = [{"goto": address}, {"waitFor": READY}, {"waitFor": "!document.getElementById('camera').disabled"}]
        shot = {"screenshot": str(tmp_path / "dark.png")}
        *order, _, (none, *_), _, _, (words, width, ground) = browse(
            *start, *walk, *PRESS_CAMERA, refuse, *PRESS_CAMERA, shot, size=[360, 740], dark=True
        )
    assert order[:2] == ["camera", "photos"]
    assert none == "There is no camera here. Photos work without."
    assert words.startswith("The browser refused the camera. Allow it for this page")
    assert width == 360 and ground == "rgb(20, 22, 26)"


def test_address_without_https(page, browse):
    """As on a phone that asks another machine: no camera, one thread; all else works, and that is said."""
    with served(page) as address:
        elsewhere = address.replace("localhost", "phone.example")
        ready = [{"goto": elsewhere}, {"waitFor": READY}, {"waitFor": "!document.getElementById('camera').disabled"}]
        rule = ["--host-resolver-rules=MAP phone.example 127.0.0.1"]
        state, _, (words, _, ground) = browse(*ready, {"evaluate": STATE}, *PRESS_CAMERA, args=rule)
    assert state["checks"]["network"]["passed"] and state["variant"] == "plain" and ground == "rgb(251, 251, 249)"
    assert words.startswith("Browsers give the camera to pages of https:// or http://localhost only.")
