"""`mrpose predict`: what goes in, what is written, and that one bad image stops nobody."""

import csv
import hashlib
import json
import subprocess
import sys

import cv2
import dots
import numpy as np
import pytest
from commands import ENVIRONMENT, ROOT, call
from PIL import Image

from keras_mrpose import skeletons
from keras_mrpose.cli.predict import _Output, summary
from keras_mrpose.data.images import read_image
from keras_mrpose.export import litert, outputs
from keras_mrpose.predict.results import Pose
from keras_mrpose.predict.video import VideoWriter

TRUTH = {"wide": [[25, 25], [70, 30], [45, 55]], "tall": [[30, 50], [60, 90], [40, 20]]}
SIZES = {"wide": (70, 90), "tall": (120, 90)}
BOXES = {"wide": [15, 15, 65, 50], "tall": [20, 10, 50, 90]}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The file of a network that finds dots."""
    path = tmp_path_factory.mktemp("network") / "dots.keras"
    dots.network().save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two images of one person each, and what is no image."""
    (tmp_path / "photos").mkdir()
    for name, size in SIZES.items():
        Image.fromarray(dots.picture(size, [TRUTH[name]])).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def predict(run, network, *arguments, out):
    return call(run, "predict", network, *arguments, "--out", out)


def records(out):
    return json.loads((out / "keypoints.json").read_text())


def points(record):
    """``(people, 3, 3)`` of a record of keypoints.json."""
    return np.array([list(person["keypoints"].values()) for person in record["people"]])


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_folder_of_images(run, network, photos, tmp_path, capsys):
    """Dots are found within half a heatmap pixel, of which 16 are 1.25 x the image's width."""
    out = tmp_path / "out"
    assert predict(run, network, photos, "--save", "images,json,csv,coco", out=out) == 0
    written = sorted(path.name for path in out.iterdir())
    drawings = ["tall_joints.jpg", "wide_joints.jpg"]
    assert written == sorted([*drawings, "keypoints.json", "keypoints.csv", "coco_results.json"])
    printed = capsys.readouterr()
    assert not printed.err
    assert printed.out.splitlines() == [
        "no detector: one person is looked for in each image; --detector FILE finds everybody",
        *(
            f"{photos / f'{name}.png'}: 1 person, 3 of 3 joints confident -> {out / f'{name}_joints.jpg'}"
            for name in ("tall", "wide")
        ),
    ]
    tall, wide = records(out)
    for record, name in ((tall, "tall"), (wide, "wide")):
        assert record["image"] == str(photos / f"{name}.png") and len(record["people"]) == 1
        assert list(record["people"][0]) == ["box", "score", "keypoints"]
        assert list(record["people"][0]["keypoints"]) == list(dots.DOTS.joints)
        assert np.abs(points(record)[0, :, :2] - TRUTH[name]).max() < 4
        before, after = read_image(photos / f"{name}.png"), read_image(out / f"{name}_joints.jpg")
        assert before.shape == after.shape
        for x, y in TRUTH[name]:
            assert np.abs(after[y, x].astype(int) - before[y, x]).max() > 50  # something is drawn there
    with (out / "keypoints.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "person", "person_score", "joint", "x", "y", "score"]
    assert [row["joint"] for row in rows] == 2 * list(dots.DOTS.joints)
    found = np.array([[float(row[name]) for name in ("x", "y", "score")] for row in rows])
    np.testing.assert_array_equal(found, np.concatenate([points(tall)[0], points(wide)[0]]))
    coco = json.loads((out / "coco_results.json").read_text())
    assert [(record["image_id"], record["file_name"]) for record in coco] == [
        (1, str(photos / "tall.png")),
        (2, str(photos / "wide.png")),
    ]
    np.testing.assert_allclose(np.reshape(coco[0]["keypoints"], (3, 3)), points(tall)[0], atol=0.0051)


def test_only_what_is_asked_for(run, network, photos, tmp_path, capsys):
    assert predict(run, network, photos / "wide.png", "--save", "csv", out=tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["keypoints.csv"]
    assert capsys.readouterr().out.endswith("joints confident\n")
    for save in ("pictures", "json,pictures", "", ","):
        assert predict(run, network, photos / "wide.png", "--save", save, out=tmp_path / "none") == 2
        wrong = "pictures" if save.strip(",") else ""
        assert capsys.readouterr().err == f"error: --save has '{wrong}'; give some of images,json,csv,coco.\n"
    for option, value, words in (("--quality", 96, "from 1 to 95"), ("--every", 0, "of at least 1")):
        assert predict(run, network, photos / "wide.png", option, value, out=tmp_path / "none") == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_quality_is_that_of_the_file(run, network, photos, tmp_path):
    sizes = []
    for quality in (20, 95):
        assert predict(run, network, photos / "wide.png", "--quality", quality, out=tmp_path / f"{quality}") == 0
        sizes.append((tmp_path / f"{quality}" / "wide_joints.jpg").stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]


def test_images_of_one_name(run, network, photos, tmp_path):
    """Each has its own drawing, also where a number that is given away is another's name."""
    for name in ("a/photo.png", "b/photo.png", "b/photo.jpg", "b/PHOTO_2.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(dots.picture(SIZES["wide"], [TRUTH["wide"]])).save(path)
    given = [tmp_path / name for name in ("a/photo.png", "b/photo.png", "b/photo.jpg", "b/PHOTO_2.png")]
    assert predict(run, network, *given, out=tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == [
        "PHOTO_2_2_joints.jpg", "photo_2_joints.jpg", "photo_3_joints.jpg", "photo_joints.jpg",
    ]  # fmt: skip
    assert [record["image"] for record in records(tmp_path / "out")] == list(map(str, given))


def pose(source, skeleton=skeletons.COCO, frame=None):
    keypoints = np.random.default_rng(0).uniform(0, 50, (1, skeleton.num_joints, 3))
    return Pose(keypoints, np.array([[0, 0, 50, 50.0]]), np.array([0.75]), skeleton, source=source, frame=frame)


def test_ids_of_coco_results(run, tmp_path):
    """The number in a name is the id; images without one, or with one that is taken, get those that are left."""
    names = ["b.jpg", "000000000001.jpg", "x/1.png", "c.jpg", "3.jpg", "3.mp4"]
    args = run.make_parser().parse_args(["predict", "a.jpg", "--out", str(tmp_path)])
    with _Output(names, ["coco"], args) as output:
        output._open()
        for name in names[:-1]:
            output._write(pose(name))
        for frame in range(2):
            output._write(pose("3.mp4", frame=frame))
    found = json.loads((tmp_path / "coco_results.json").read_text())
    assert [(one["image_id"], one.get("file_name"), one.get("frame")) for one in found] == [
        (2, "b.jpg", None), (1, None, None), (4, "x/1.png", None), (5, "c.jpg", None), (3, None, None),
        (6, "3.mp4", 0), (7, "3.mp4", 1),
    ]  # fmt: skip


def test_coco_results_have_cocos_joints(run, tmp_path):
    """A network that knows more of them writes COCO's 17 in their order; one that lacks some, its own."""
    more = skeletons.Skeleton("more", (*reversed(skeletons.COCO.joints), "neck"))
    args = run.make_parser().parse_args(["predict", "a.jpg", "--out", str(tmp_path)])
    given = {"more.jpg": pose("more.jpg", more), "dots.jpg": pose("dots.jpg", dots.DOTS)}
    with _Output(list(given), ["coco"], args) as output:
        output._open()
        for one in given.values():
            output._write(one)
    found = [np.reshape(one["keypoints"], (-1, 3)) for one in json.loads((tmp_path / "coco_results.json").read_text())]
    np.testing.assert_allclose(found[0], given["more.jpg"].keypoints[0, 16::-1], atol=6e-5)
    np.testing.assert_allclose(found[1], given["dots.jpg"].keypoints[0], atol=6e-5)


def test_a_line_for_each_image():
    one = pose("a.jpg")
    one.keypoints[:] = 0.4
    one.keypoints[0, :5, 2] = 0.2
    assert summary(one, 0.3) == "1 person, 12 of 17 joints confident"
    assert summary(one.take([0, 0]), 0.3) == "2 people, 24 of 34 joints confident"
    assert summary(one.take([]), 0.3) == "nobody found"


# --- who is looked for ------------------------------------------------------------------------------------------------


def test_boxes_and_nobody_in_one(run, network, photos, tmp_path, capsys):
    options = ["--box", *BOXES["wide"], "--box", 0, 60, 12, 8]
    assert predict(run, network, photos / "wide.png", *options, out=tmp_path / "out") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{photos / 'wide.png'}: nobody in the box 0 60 12 8 (person score 0.02)"
    assert "1 person, 3 of 3" in printed[1] and len(printed) == 2
    (person,) = records(tmp_path / "out")[0]["people"]
    assert person["box"] == BOXES["wide"]
    assert predict(run, network, photos / "wide.png", *options, "--person-threshold", 0, out=tmp_path / "all") == 0
    assert len(records(tmp_path / "all")[0]["people"]) == 2


def test_a_file_of_boxes(run, network, photos, tmp_path, capsys):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x,y,w,h,score\nwide.png,{},{},{},{},0.9\n".format(*BOXES["wide"]))
    assert predict(run, network, photos, "--detector", boxes, out=tmp_path / "out") == 0
    tall, wide = records(tmp_path / "out")
    assert not tall["people"] and wide["people"][0]["box"] == BOXES["wide"]
    assert f"{photos / 'tall.png'}: no box in {boxes}\n" in capsys.readouterr().out
    assert predict(run, network, photos, "--detector", tmp_path / "gone.csv", out=tmp_path / "none") == 2
    assert capsys.readouterr().err == f"error: The file of boxes {tmp_path / 'gone.csv'} is not there.\n"
    assert predict(run, network, photos, "--detector", "yolo", out=tmp_path / "none") == 2
    assert "Unknown detector 'yolo'; give a .tflite file" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_one_bad_image_of_three(run, network, photos, tmp_path, capsys):
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    assert predict(run, network, photos, tmp_path / "gone.jpg", out=tmp_path / "out") == 1
    assert [record["image"] for record in records(tmp_path / "out")] == [
        str(photos / f"{name}.png") for name in ("tall", "wide")
    ]
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "2 of 4 could not be done:" and len(errors) == 3
    assert str(photos / "bad.jpg") in errors[1] and "gone.jpg is not there" in errors[2]


def test_a_box_that_one_image_is_too_small_for(run, network, photos, tmp_path, capsys):
    """It is a mistake for that image."""
    assert predict(run, network, photos, "--box", 10, 75, 80, 40, out=tmp_path / "out") == 1
    assert [record["image"] for record in records(tmp_path / "out")] == [str(photos / "tall.png")]
    assert "lies outside the image of 90x70 pixels" in capsys.readouterr().err


def test_all_bad(run, network, photos, tmp_path, capsys):
    """Nothing is written, no network is loaded."""
    (photos / "bad.jpg").write_bytes(b"no image")
    gone = tmp_path / "gone.keras"
    gone.touch()
    assert predict(run, gone, photos / "bad.jpg", tmp_path / "gone.jpg", out=tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith("2 of 2 could not be done:\n")
    assert predict(run, gone, photos / "bad.jpg", out=tmp_path / "out") == 2
    errors = capsys.readouterr()
    assert errors.err.startswith("error: The image ") and errors.err.count("\n") == 1 and not errors.out
    assert not (tmp_path / "out").exists()


# --- videos -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def video(tmp_path):
    """A person who goes to the right by two pixels a frame."""
    path = tmp_path / "people.mp4"
    with VideoWriter(path, 10) as writer:
        for number in range(6):
            writer.write(dots.picture(SIZES["wide"], [np.add(TRUTH["wide"], (2 * number, 0))]))
    return path


def test_a_video(run, network, photos, video, tmp_path, capsys):
    """Beside an image; one result for each frame, and a video of as many frames."""
    out = tmp_path / "out"
    save = ("--save", "images,json,csv,coco", "--no-smooth")
    assert predict(run, network, video, photos / "tall.png", *save, out=out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f"{video}: 6 frames, 1 person -> {out / 'people_joints.mp4'} (") for line in lines)
    found = records(out)
    assert [record.get("frame") for record in found] == [*range(6), None]  # in the order that they were given
    for number, record in enumerate(found[:6]):
        (person,) = record["people"]
        assert person["track_id"] == 0
        assert np.abs(points(record)[0, :, :2] - np.add(TRUTH["wide"], (2 * number, 0))).max() < 4
    with (out / "keypoints.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * 3 and [row["frame"] for row in rows[::3]] == [*"012345", ""]
    assert rows[-1]["image"] == str(photos / "tall.png") and rows[-1]["joint"] == "nose"
    assert len({record["image_id"] for record in json.loads((out / "coco_results.json").read_text())}) == 7
    capture = cv2.VideoCapture(str(out / "people_joints.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6 and capture.get(cv2.CAP_PROP_FPS) == 10
    assert (capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == SIZES["wide"]
    capture.release()


def test_a_video_that_cannot_be(run, network, photos, video, tmp_path, capfd):
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[:400])
    assert predict(run, network, tmp_path / "cut.mp4", photos / "tall.png", out=tmp_path / "out") == 1
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 2 and f"The video {tmp_path / 'cut.mp4'} cannot be read" in errors[1]
    assert predict(run, network, video, "--box", *BOXES["wide"], out=tmp_path / "none") == 2
    assert "are of images; give a detector for a video" in capfd.readouterr().err
    assert not (tmp_path / "none").exists()


# --- an exported network ----------------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path):
    """A LiteRT file of the network, with the least that its sidecar must say."""
    model = dots.network()
    content = litert.convert(outputs.heatmaps(model), "float32", None).content
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "net.tflite").write_bytes(content)
    entry = {"output": "heatmaps", "precision": "float32", "sha256": hashlib.sha256(content).hexdigest()}
    codec = model.codec
    about = {
        "version": 1, "name": "dots", "model": None, "backbone": None, "input": {"size": [96, 64]},
        "heatmaps": {"size": [24, 16]}, "skeleton": model.skeleton.to_dict(), "made_from": {},
        "codec": {"name": "gaussian", "scale": codec.scale((96, 64)).tolist(), **codec.get_config()},
        "files": {"net.tflite": entry},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(about))
    return folder / "net.tflite"


WITHOUT = """
import sys
from keras_mrpose.cli.main import main
code = main(["predict", *sys.argv[1:]])
loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "keras", "jax", "torch"})
print("loaded:", *loaded)
raise SystemExit(code)
"""


def test_an_exported_network_predicts_without_tensorflow(exported, photos, tmp_path):
    command = [sys.executable, "-c", WITHOUT, exported, photos / "wide.png", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert np.abs(points(records(tmp_path / "out")[0])[0, :, :2] - TRUTH["wide"]).max() < 4
    assert done.stdout.splitlines()[-1] == "loaded:"
