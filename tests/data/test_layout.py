"""Folders as annotation tools write them, paths of other machines, and shares of the images for validation."""

import hashlib
import json

import pytest

from keras_mrpose import data
from keras_mrpose.data import layout
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO

PERSON = {"bbox": [10, 20, 30, 40], "area": 900, "category_id": 1, "keypoints": [15, 25, 2] + [30, 50, 2] * 16}


def content(*names):
    """A person in each of these images."""
    return {
        "images": [{"id": n, "file_name": name, "width": 100, "height": 80} for n, name in enumerate(names)],
        "annotations": [{**PERSON, "id": n, "image_id": n} for n in range(len(names))],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}],
    }


def write(root, file, images, *names):
    """An annotation file, and empty image files."""
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content(*names or [name.split("/")[-1] for name in images])))
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()


LAYOUTS = {
    "COCO": ("annotations/person_keypoints_val2017.json", "val2017/a.jpg", "val"),
    "no year": ("annotations/person_keypoints_val.json", "images/val/a.jpg", "val"),
    "CVAT": ("annotations/person_keypoints_default.json", "images/default/a.jpg", "default"),
    "the only file": ("annotations/person_keypoints_default.json", "images/default/a.jpg", "train"),
    "instances": ("annotations/instances_train.json", "images/a.jpg", "train"),
    "flat": ("annotations/instances_default.json", "images/a.jpg", "default"),
    "a name": ("annotations/mine.json", "images/a.jpg", "mine"),
    "Roboflow": ("valid/_annotations.coco.json", "valid/a.jpg", "val"),
    "Roboflow's test": ("test/_annotations.coco.json", "test/a.jpg", "test"),
    "Label Studio": ("result.json", "images/a.jpg", "train"),
    "one file": ("annotations.json", "images/a.jpg", "annotations"),
    "FiftyOne": ("labels.json", "data/a.jpg", "train"),
    "FiftyOne's splits": ("validation/labels.json", "validation/data/a.jpg", "val"),
    "images beside": ("coco.json", "a.jpg", "train"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name, tmp_path):
    file, image, split = LAYOUTS[name]
    write(tmp_path, file, [image])
    (tmp_path / "notes.json").write_text('{"images": 3}')  # which is none
    people = data.load(tmp_path, split)
    assert people.source == str(tmp_path / file) and people.paths().tolist() == [str(tmp_path / image)]


def test_several_splits_keep_to_themselves(tmp_path):
    """An image of the same name in another split is another one."""
    for split in ("train", "valid", "test"):
        write(tmp_path, f"{split}/_annotations.coco.json", [f"{split}/a.jpg"])
    assert sorted(layout.annotation_files(tmp_path)) == ["test", "train", "valid"]
    for name, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        assert data.load(tmp_path, name).paths().tolist() == [str(tmp_path / folder / "a.jpg")]
    (tmp_path / "valid" / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"valid/a\.jpg is missing"):
        data.load(tmp_path, "val")


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ("cam1\\x.jpg", "cam1/x.jpg"),
        (".\\cam1\\x.jpg", "cam1/x.jpg"),
        ("C:\\data\\cam1\\x.jpg", "cam1/x.jpg"),
        ("C:\\data\\cam1\\x.jpg", "x.jpg"),
        ("\\\\server\\share\\x.jpg", "x.jpg"),
        ("D:/photos/x.jpg", "x.jpg"),
        ("/home/somebody/photos/x.jpg", "x.jpg"),
        ("x.jpg", "cam1/night/x.jpg"),
        ("X.JPG", "x.jpg"),
        ("../images/x.jpg", "x.jpg"),
    ],
)
def test_paths_of_another_machine(written, image, tmp_path):
    write(tmp_path, "annotations/person_keypoints_val2017.json", [f"val2017/{image}"], written)
    assert data.load(tmp_path, "val").paths().tolist() == [str(tmp_path / "val2017" / image)]


def test_an_image_that_may_be_two_is_missing(tmp_path):
    """As much of its path as is there tells it from others; else it is not guessed."""
    images = ["val2017/cam1/x.jpg", "val2017/cam2/x.jpg"]
    write(tmp_path, "annotations/person_keypoints_val2017.json", images, "E:\\shots\\cam2\\x.jpg", "cam1\\x.jpg")
    assert data.load(tmp_path, "val").paths().tolist() == [str(tmp_path / image) for image in images[::-1]]
    write(tmp_path, "annotations/person_keypoints_val2017.json", images, "E:\\shots\\x.jpg")
    with pytest.raises(InputError, match=r"image .*val2017/x\.jpg is missing \(1 of 1 are\)"):
        data.load(tmp_path, "val")


def test_a_missing_split_names_those_that_there_are(tmp_path):
    write(tmp_path, "annotations/person_keypoints_default.json", ["images/default/a.jpg"])
    with pytest.raises(InputError, match=r"the only split is default: give .* \(val_share=0\.1\)"):
        data.load(tmp_path, "val")
    write(tmp_path, "annotations/person_keypoints_val.json", ["images/val/a.jpg"])
    with pytest.raises(InputError, match=r"the folder has the splits default, val: give one by its name\.$"):
        data.load(tmp_path, "test")


# --- a share held out ---------------------------------------------------------------------------------------------


def test_a_share_held_out_is_drawn_by_image(tmp_path):
    """Images in the order of SHA-256 of "seed/id": 3 of 12 to validate on, the other 9 to train on."""
    names = [f"{n}.jpg" for n in range(12)]
    write(tmp_path, "annotations/person_keypoints_train2017.json", [f"train2017/{name}" for name in names])
    drawn = {}
    for seed in (0, 7):
        order = sorted(range(12), key=lambda n, seed=seed: hashlib.sha256(f"{seed}/{n}".encode()).hexdigest())
        splits = data.held_out("train", 0.25, seed)
        assert splits == (f"train@{seed}[25%:]", f"train@{seed}[:25%]")
        train, val = data.load_splits(tmp_path, splits)
        assert val.image_ids.tolist() == sorted(order[:3]) and train.image_ids.tolist() == sorted(order[3:])
        assert sorted([*train.ids, *val.ids]) == list(range(12))
        drawn[seed] = set(val.image_ids.tolist())
    assert drawn[0] != drawn[7]
    assert data.whole_split(splits[1]) == "train" == data.whole_split("train")


@pytest.mark.parametrize("share", [0, 1, -0.1, 10, float("nan"), 1e-9])
def test_shares_that_cannot_be(share):
    with pytest.raises(InputError, match=r"give a share of the images above 0 and below 1, such as 0\.1"):
        data.held_out("train", share)


def test_too_small_a_share_is_an_error(tmp_path):
    write(tmp_path, "annotations/person_keypoints_train2017.json", ["train2017/a.jpg", "train2017/b.jpg"])
    with pytest.raises(InputError, match=r"'train@0\[:10%\]' .* has nobody: the split has 2 images"):
        data.load(tmp_path, data.held_out("train", 0.1)[1])
