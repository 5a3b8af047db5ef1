"""The folder of a page: what is in it, what it says of the files, and what is refused."""

import base64
import hashlib
import json
import shutil

import numpy as np
import pytest
from conftest import ROOT

from keras_mrpose import InputError, presets
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.runtime import decoder
from keras_mrpose.web import library
from keras_mrpose.web.folder import write_page

PEOPLE = presets.exported_file("people").parent


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "new" / "page"
    assert write_page("people", folder) == folder
    return folder


def test_it_holds_the_export_and_the_page(page):
    source = ROOT / "keras_mrpose" / "web" / "page"
    files = {path.name for path in source.iterdir()} | {"model.json", "page.json", "reference.bin", presets.LITERT}
    assert {path.name for path in page.iterdir()} == files
    for name in ("model.json", presets.LITERT):
        assert (page / name).read_bytes() == (PEOPLE / name).read_bytes()


def test_page_loads_from_itself_and_the_library_alone(page):
    """Nothing but the policy names an address, and the policy is not loose."""
    policy = "connect-src &#x27;self&#x27; https://cdn.jsdelivr.net; img-src"
    html = (page / "index.html").read_text()
    assert policy in html and "default-src &#x27;none&#x27;" in html and "unsafe-inline" not in html
    assert "<script>" not in html and " style=" not in html and "onclick" not in html
    texts = {path.name: path.read_text() for path in page.iterdir() if path.suffix in (".js", ".css", ".html")}
    texts["index.html"] = html.replace("https://cdn.jsdelivr.net", "")
    assert not [name for name, text in texts.items() if "https://" in text.replace("https:// or", "")]


def test_reference_case_is_what_python_makes_of_it(page):
    about, model = (json.loads((page / name).read_text()) for name in ("page.json", "model.json"))
    content, case = (page / "reference.bin").read_bytes(), about["reference"]
    arrays = {
        name: np.frombuffer(content, one["type"], int(np.prod(one["shape"])), one["offset"]).reshape(one["shape"])
        for name, one in case["arrays"].items()
    }
    assert arrays["image"].shape == arrays["crop"].shape == (256, 192, 3)
    assert arrays["heatmaps"].shape == (64, 48, 19) and all(one["offset"] % 4 == 0 for one in case["arrays"].values())
    matrix = decoder.crop_matrix(case["box"], (256, 192), 1.25)
    np.testing.assert_array_equal(decoder.crop(arrays["image"], matrix, (256, 192)), arrays["crop"])
    wanted = decoder.joints(arrays["heatmaps"], matrix, model["codec"], model["calibration"])
    np.testing.assert_allclose(case["joints"], wanted)
    (file,) = about["files"]
    pose = Predictor(flip_test=False)(arrays["image"], np.array([case["box"]]))
    np.testing.assert_allclose(file["expected"]["joints"], pose.keypoints[0], rtol=0, atol=0.02)  # OpenCV's crop
    np.testing.assert_allclose(file["expected"]["person"], pose.person_scores[0], rtol=0, atol=1e-3)


def test_files_are_described(page):
    about = json.loads((page / "page.json").read_text())
    (file,) = about["files"]
    plain = {"type": "float32", "scale": 0.0, "zero": 0}
    assert file["input"] == {**plain, "shape": [1, 256, 192, 3]}
    assert file["outputs"] == [{**plain, "shape": [1, 64, 48, 19]}]
    assert file["label"] == "heatmaps float16, 10 MB" and about["detector"] is None
    assert dict(about["card"])["Network"] == "mrfeanet1 on mobilenetv2"
    assert dict(about["card"])["Licence"].startswith("MIT")


def test_without_a_person_map_the_predictors_own_is_taken(tmp_path):
    export = shutil.copytree(PEOPLE, tmp_path / "run" / "export")
    about = json.loads((export / "model.json").read_text())
    about["calibration"] = None
    (export / "model.json").write_text(json.dumps(about))
    maps = np.zeros((64, 48, 19), np.float32)
    maps[30, 20] = 0.2
    case = {"image": np.zeros((40, 30, 3), np.uint8), "box": np.array([1.0, 2, 20, 30])}
    np.savez(export / "reference.npz", **case, crop=np.zeros((256, 192, 3)), heatmaps=maps, joints=np.zeros((19, 3)))
    page = json.loads((write_page(tmp_path / "run") / "page.json").read_text())  # a run folder's export
    assert page["person"]["probabilities"] == [0.02, 0.2, 0.5, 0.8, 0.98] and page["reference"]["person"] is None
    assert (export / "web" / "index.html").is_file()
    write_page(export)  # over the earlier one


def test_library_is_one_version_known_by_its_hashes(tmp_path, monkeypatch):
    """A copy whose every file is right is taken, from each of the places where npm puts it."""
    content = {name: name.encode() for name in library.INTEGRITY}
    hashes = {
        name: f"sha384-{base64.b64encode(hashlib.sha384(one).digest()).decode()}" for name, one in content.items()
    }
    monkeypatch.setattr(library, "INTEGRITY", hashes)
    for name, one in content.items():
        path = tmp_path / "npm" / "node_modules" / "@litertjs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one)
    for place in ("npm", "npm/node_modules", "npm/node_modules/@litertjs"):
        found = library.find(tmp_path / place)
        assert found == tmp_path / "npm" / "node_modules" / "@litertjs"
    page = write_page("people", tmp_path / "page", vendor=tmp_path / "npm")
    files = json.loads((page / "page.json").read_text())["library"]
    assert files["index"] == {"url": "litert/core/dist/index.js", "integrity": hashes["core/dist/index.js"]}
    assert (page / files["plain"]["wasm"]["url"]).read_bytes() == b"core/wasm/litert_wasm_internal.wasm"
    assert "cdn.jsdelivr.net" not in (page / "index.html").read_text()
    (found / "core" / "wasm" / "litert_wasm_internal.wasm").write_bytes(b"another")
    with pytest.raises(InputError, match=r"litert_wasm_internal\.wasm is not the file of LiteRT\.js 2\.5\.3; install"):
        library.find(tmp_path / "npm")


def test_from_the_cdn(page):
    files = json.loads((page / "page.json").read_text())["library"]
    assert files["utils"]["url"] == "https://cdn.jsdelivr.net/npm/@litertjs/wasm-utils@2.5.3/dist/index.js"
    assert files["threaded"]["js"]["url"].endswith("/@litertjs/core@2.5.3/wasm/litert_wasm_threaded_internal.js")
    assert all(one["integrity"].startswith("sha384-") for one in (files["index"], files["compat"]["wasm"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "none"}, "none is no export .*model.json.*people"),
        ({"vendor": "EMPTY"}, r"has no copy of LiteRT\.js; put one there: npm install --prefix"),
        ({"detector": "EMPTY/boxes.json"}, "is no .tflite file"),
        ({"detector": "EMPTY/none.tflite"}, "none.tflite is not there"),
        ({"folder": "TAKEN"}, "TAKEN is there and is no page"),
        ({"folder": "TAKEN/file"}, "file is there and is no page"),
        ({"folder": "TAKEN/file/page"}, "cannot be written"),
    ],
)
def test_mistakes(options, words, tmp_path):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TAKEN").mkdir()
    (tmp_path / "TAKEN" / "file").write_text("mine")
    options = {
        name: tmp_path / value if value.startswith(("EMPTY", "TAKEN")) else value for name, value in options.items()
    }
    with pytest.raises(InputError, match=words):
        write_page(**{"source": "people", "folder": tmp_path / "page", **options})
    assert not (tmp_path / "page").exists() and (tmp_path / "TAKEN" / "file").read_text() == "mine"
