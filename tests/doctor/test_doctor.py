"""The doctor: what it says of drawn people that were spoilt in every way, one at a time, and of real data."""

import json
import shutil

import numpy as np
import pytest
import scipy.io
from commands import call, refused
from PIL import Image

from keras_mrpose import data, doctor
from keras_mrpose.data import pipeline
from keras_mrpose.doctor import left_right
from keras_mrpose.doctor.findings import KINDS, MAX_EXAMPLES, NOTE, WARNING, IssueCollector
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton
from keras_mrpose.synthetic import dataset

WIDTH, HEIGHT = 128, 96


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    dataset.write(folder, 5, size=(HEIGHT, WIDTH))
    return dataset.write(folder, 3, split="val2017", first_index=5, size=(HEIGHT, WIDTH))


class Spoilt:
    """A copy of drawn people: training annotations to change, one whole person and her image."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "annotations" / "person_keypoints_train2017.json"
        self.content = json.loads(self.file.read_text())
        self.images, self.annotations = self.content["images"], self.content["annotations"]
        self.person = max(self.annotations, key=lambda one: one["num_keypoints"])
        self.image = next(one for one in self.images if one["id"] == self.person["image_id"])
        self.picture = folder / "train2017" / self.image["file_name"]

    def joint(self, name, x, y, v=2):
        place = 3 * COCO.joints.index(name)
        self.person["keypoints"][place : place + 3] = [x, y, v]

    def examine(self, **options):
        self.file.write_text(json.dumps(self.content))
        return doctor.examine(self.folder, **options)


@pytest.fixture
def spoilt(drawn, tmp_path):
    return Spoilt(shutil.copytree(drawn, tmp_path / "data"))


def whole(spoilt, **changes):
    """Give the person 17 joints inside the image, on a box of her own, as a figure that stands upright."""
    left = {"nose": (60, 12), "left_eye": (62, 10), "right_eye": (58, 10), "left_ear": (64, 11), "right_ear": (56, 11)}
    for y, part, half in ((20, "shoulder", 10), (35, "elbow", 12), (50, "wrist", 12), (50, "hip", 7)):
        left |= {f"left_{part}": (60 + half, y), f"right_{part}": (60 - half, y)}
    for y, part in ((68, "knee"), (86, "ankle")):
        left |= {f"left_{part}": (66, y), f"right_{part}": (54, y)}
    for name, place in (left | changes).items():
        spoilt.joint(name, *place)
    spoilt.person |= {"num_keypoints": 17, "bbox": [45, 6, 30, 84], "area": 1500.0}


# --- images -----------------------------------------------------------------------------------------------------


def cut_off(s):
    s.picture.write_bytes(s.picture.read_bytes()[:1500])


def another_size(s):
    Image.open(s.picture).resize((WIDTH - 1, HEIGHT)).save(s.picture)


def rotated(s, orientation=6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(s.picture).save(s.picture, exif=exif)


def in_both(s):
    val = s.folder / "val2017" / "000000000007.jpg"
    val.write_bytes(s.picture.read_bytes())


def twice(s, name="copy.jpg", number=77):
    s.picture.with_name(name).write_bytes(s.picture.read_bytes())
    s.images.append({**s.image, "id": number, "file_name": name})


PICTURES = {
    "gone": (lambda s: s.picture.unlink(), "missing image"),
    "in a file": (lambda s: s.image.update(file_name=f"{s.picture.name}/1.jpg"), "missing image"),
    "cut off": (cut_off, "unreadable image"),
    "empty": (lambda s: s.picture.write_bytes(b""), "unreadable image"),
    "no image": (lambda s: s.picture.write_text("<html>404"), "unreadable image"),
    "a folder": (lambda s: (s.picture.unlink(), s.picture.mkdir()), "unreadable image"),
    "another size": (another_size, "image size"),
    "rotated": (rotated, "rotated by EXIF"),
    "printed": (lambda s: Image.open(s.picture).convert("CMYK").save(s.picture), "colours"),
    "transparent": (lambda s: Image.open(s.picture).convert("RGBA").save(s.picture, format="PNG"), "colours"),
    "in train and val": (in_both, "image in train and val"),
    "twice": (twice, "image twice"),
}


def test_what_the_reader_reads_is_no_finding(spoilt):
    """Other formats, 16 bits, and a photograph that is turned just as its labels are."""
    stored = Image.open(spoilt.picture)
    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = Image.fromarray(np.asarray(stored.convert("L"), np.uint16) * 257)
    for image, options in (
        (stored, {"format": "TIFF"}),
        (stored, {"format": "WEBP"}),
        (sixteen, {"format": "PNG"}),
        (stored.transpose(Image.Transpose.ROTATE_90), {"exif": exif}),
    ):
        image.save(spoilt.picture, **options)
        assert spoilt.examine().findings == ()


def test_turned_photographs_whose_labels_may_not_be(spoilt):
    """Labelled as stored, or of a size that does not tell; labelled upright there is nothing to say."""
    rotated(spoilt, 6)
    (as_stored,) = spoilt.examine().findings
    rotated(spoilt, 3)
    (either_way,) = spoilt.examine().findings
    assert as_stored.kind.key == either_way.kind.key == "rotated by EXIF"
    assert as_stored.examples[0].value == "6, labelled as stored"
    assert either_way.examples[0].value == "3, the size does not tell"


# --- annotations --------------------------------------------------------------------------------------------------


def change(**fields):
    return lambda s: s.person.update(fields)


def upper_body_exchanged(s):
    whole(s)
    for part in ("shoulder", "elbow", "wrist"):
        s.joint(f"left_{part}", 50, {"shoulder": 20, "elbow": 35, "wrist": 50}[part])
        s.joint(f"right_{part}", 70, {"shoulder": 20, "elbow": 35, "wrist": 50}[part])


def keypoints(value, length=51):
    return lambda s: s.person.update(keypoints=[value, *s.person["keypoints"][1:length]])


RECORDS = {
    "no record": (lambda s: s.annotations.append("person"), "record"),
    "no id": (lambda s: s.person.pop("id"), "record"),
    "no box": (lambda s: s.person.pop("bbox"), "record"),
    "a word for a box": (change(bbox="wide"), "record"),
    "a box of three": (change(bbox=[1, 2, 3]), "record"),
    "an image without a name": (lambda s: s.images.append({"id": 9, "width": 5, "height": 5}), "record"),
    "an image that is not listed": (change(image_id=4711), "unknown image"),
    "16 joints": (lambda s: s.person["keypoints"].__delitem__(slice(48, 51)), "joint count"),
    "18 joints": (lambda s: s.person["keypoints"].extend((1, 2, 2)), "joint count"),
    "other joints": (lambda s: s.content["categories"][0].update(keypoints="all"), "joint count"),
    "a NaN joint": (keypoints(float("nan")), "not finite"),
    "an endless box": (change(bbox=[1, 2, float("inf"), 9]), "not finite"),
    "an unknown flag": (lambda s: s.joint("nose", 40, 40, 3), "joint flag"),
    "an image id twice": (
        lambda s: s.images.append(dict(s.image, file_name=s.images[0]["file_name"])),
        "duplicate id",
        "image twice",
    ),
    "no width": (lambda s: (whole(s), s.person.update(bbox=[60, 6, 0, 84])), "empty box"),
    "a negative height": (lambda s: (whole(s), s.person.update(bbox=[45, 90, 30, -84])), "empty box"),
    "a box elsewhere": (lambda s: (whole(s), s.person.update(bbox=[WIDTH, 6, 60, 84])), "box outside"),
    "a box over the border": (lambda s: (whole(s), s.person.update(bbox=[45, 6, 90, 84])), "box over border"),
    "no area": (change(area=0), "zero area"),
    "an area that is missing": (lambda s: s.person.pop("area"), "zero area"),
    "an area that is no number": (change(area="large"), "zero area"),
    "a box of a pixel": (lambda s: (whole(s), s.person.update(bbox=[60, 50, 1, 0.5])), "small box", "joint off box"),
    "a number in words": (change(num_keypoints="all"), "joint number"),
    "a joint outside": (lambda s: whole(s, left_ankle=(66, HEIGHT + 3)), "joint outside"),
    "a joint far outside": (lambda s: whole(s, left_ankle=(66, 5000)), "joint far outside", "joint off box"),
    "a joint off the box": (lambda s: (whole(s), s.person.update(bbox=[45, 6, 30, 30])), "joint off box"),
    "a wrong number": (change(num_keypoints=1), "joint number"),
    "the same person": (lambda s: s.annotations.append(dict(s.person, id=4711)), "person twice"),
    "shoulders and arms exchanged": (upper_body_exchanged, "left-right suspect"),
    "a face exchanged": (lambda s: whole(s, left_eye=(58, 10), right_eye=(62, 10)), "left-right suspect"),
    "wrists exchanged": (lambda s: whole(s, left_wrist=(48, 37), right_wrist=(72, 37)), "left-right suspect"),
}


@pytest.mark.parametrize(
    "spoil, key, also",
    [(spoil, key, also) for spoil, key, *also in [*PICTURES.values(), *RECORDS.values()]],
    ids=[*PICTURES, *RECORDS],
)
def test_each_mistake_alone(spoilt, spoil, key, also):
    """It is found, by its name, where it is; and nothing else is but what it brings along."""
    spoil(spoilt)
    report = spoilt.examine()
    assert report.kinds == [key, *also], report.findings
    (finding,) = [one for one in report.findings if one.kind.key == key]
    assert finding.count == 1 == len(finding.examples)
    assert str(spoilt.folder) in finding.examples[0].file and finding.examples[0].value
    assert report.clean == (KINDS[key].severity == WARNING)


def test_all_wrong_fields_of_a_record_are_found(spoilt):
    spoilt.person |= {"bbox": "wide", "area": float("inf"), "keypoints": spoilt.person["keypoints"][3:]}
    counts = {one.kind.key: one.count for one in spoilt.examine(images=False).findings}
    assert (counts["record"], counts["joint count"]) == (1, 1)


def test_ids_of_records_are_a_note(spoilt):
    """Evaluation numbers them itself: one that is 0, one twice, one that a crowd has, too."""
    spoilt.annotations[0]["id"] = 0
    spoilt.annotations[-1]["id"] = spoilt.annotations[1]["id"]
    spoilt.annotations.append({**spoilt.annotations[2], "iscrowd": 1, "keypoints": [0] * 51})
    report = spoilt.examine(images=False)
    assert report.clean and {one.kind.key: one.count for one in report.findings}["record id"] == 3
    assert report.left_out["train2017"]["crowd"] == 1


def test_a_whole_file_of_corners_and_shares(spoilt):
    """Named once for the file, with its numbers; the share of an image is no pixel."""
    original = json.dumps(spoilt.annotations)
    for person in spoilt.annotations:
        x, y, w, h = person["bbox"]
        person["bbox"] = [x, y, x + w, y + h]
    assert "boxes as corners" in spoilt.examine(images=False).kinds
    spoilt.content["annotations"] = json.loads(original)
    for person in spoilt.content["annotations"]:
        person["bbox"] = (np.array(person["bbox"]) / [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()
        points = np.reshape(person["keypoints"], (-1, 3)) / [WIDTH, HEIGHT, 1]
        person["keypoints"] = points.ravel().tolist()
    report = spoilt.examine(images=False)
    counted = sum(any(person["keypoints"][2::3]) for person in spoilt.content["annotations"])
    assert report.splits["train2017"] == 0 and report.left_out["train2017"]["box smaller than 2 px"] == counted
    (finding,) = [one for one in report.findings if one.kind.key == "normalised coordinates"]
    assert f"{counted} of {counted} boxes" in finding.examples[0].value and not report.clean


def test_without_validation_the_remedy_is_named(spoilt):
    (spoilt.folder / "annotations" / "person_keypoints_val2017.json").unlink()
    report = spoilt.examine(images=False)
    assert report.clean and report.kinds == ["no validation"]
    assert "--val-share 0.1" in report.findings[0].kind.meaning


def test_what_is_no_error():
    """Everything else stops a training, loses people, or teaches or measures something wrong."""
    severities = {severity: {key for key, kind in KINDS.items() if kind.severity == severity} for severity in SPARED}
    assert severities == SPARED


SPARED = {
    WARNING: {
        "rotated by EXIF", "colours", "image twice", "person twice", "box over border", "joint outside",
        "joint off box", "joint number", "left-right suspect", "zero area", "joint names", "category", "no validation",
    },
    NOTE: {"unlabelled person", "no scale", "record id"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("ankle", "box", "kinds"),
    [
        ((WIDTH + 1, 86), None, []),  # two pixels beyond the last one
        ((WIDTH + 1.5, 86), None, ["joint outside"]),
        ((-2, 86), None, []),
        ((-2.5, 86), None, ["joint outside"]),
        ((66, HEIGHT + 1.5), None, ["joint outside"]),
        ((2 * WIDTH - 1, 86), [45, 6, 200, 84], ["joint outside", "box over border"]),
        ((2 * WIDTH, 86), [45, 6, 200, 84], ["joint far outside", "box over border"]),
        (None, [45, 6, WIDTH - 45 + 2, 84], []),
        (None, [45, 6, WIDTH - 45 + 2.5, 84], ["box over border"]),
        (None, [-2, 6, 77, 84], []),
        (None, [-2.5, 6, 77, 84], ["box over border"]),
        (None, [45, -2.5, 30, 92], ["box over border"]),
        (None, [-72, 6, 72, 84], ["box outside"]),
        (None, [-72, 6, 73, 84], ["box over border"]),
        (None, [45, 6, 50, 30], []),  # the ankles are 50 pixels below
        (None, [45, 6, 49, 30], ["joint off box"]),
        (None, [105, 60, 20, 30], ["joint off box"]),  # the joints are to its left and above
    ],
    ids=str,
)
def test_where_borders_are(spoilt, ankle, box, kinds):
    whole(spoilt, **({"left_ankle": ankle} if ankle else {}))
    spoilt.person |= {"bbox": box or spoilt.person["bbox"]}
    assert set(spoilt.examine(images=False).kinds) == set(kinds)


def test_the_joint_farthest_off_is_named(spoilt):
    """The nose is not labelled."""
    whole(spoilt, nose=(-50, -50, 0), left_ankle=(66, HEIGHT + 2))
    spoilt.person |= {"num_keypoints": 16, "bbox": [45, 6, 30, 30]}
    values = [finding.examples[0].value for finding in spoilt.examine(images=False).findings]
    assert values == [f"left_ankle at [66.0, {HEIGHT + 2}.0] of {WIDTH}x{HEIGHT}", f"left_ankle {HEIGHT - 34} px away"]


@pytest.mark.parametrize("content", [b"", b"<html>404", b"\xff\xd8\xff cut off"])
def test_what_is_wrong_with_a_picture_is_told_without_tensorflows_graph(content, spoilt):
    spoilt.picture.write_bytes(content)
    (example,) = spoilt.examine().findings[0].examples
    assert example.value and "{{" not in example.value and "Op:" not in example.value
    assert f"{example.value};" in str(pipeline.explain_failure(data.load(spoilt.folder, "train"), None))


def test_the_upright_figure_is_clean(spoilt):
    """On which most mistakes above are made."""
    whole(spoilt)
    assert spoilt.examine().kinds == []


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_plain_pictures_of_all_kinds_are_clean(spoilt, mode):
    Image.open(spoilt.picture).convert(mode).save(spoilt.picture, format="PNG")
    assert spoilt.examine().kinds == []


def test_three_equal_files_are_two_too_many(spoilt):
    twice(spoilt)
    twice(spoilt, "again.jpg", 78)
    report = spoilt.examine()
    assert report.kinds == ["image twice"] and report.count(WARNING) == 2


def test_what_pillow_makes_of_a_picture_stops_nothing(drawn, monkeypatch):
    def broken(*_):
        raise SyntaxError("broken PNG file")

    monkeypatch.setattr(Image, "open", broken)
    assert doctor.examine(drawn).kinds == ["unreadable image"]


def test_an_orientation_without_meaning_turns_nothing(spoilt):
    rotated(spoilt, 0)
    assert spoilt.examine().kinds == []


def test_drawn_people_are_clean(drawn):
    report = doctor.examine(drawn)
    assert report.clean and report.kinds == [] and report.images == 8
    assert report.splits == {f"{split}2017": len(data.load(drawn, split)) for split in ("train", "val")}


def test_everything_at_once(spoilt):
    """One report tells all that does not hide something else, with counts."""
    people = sorted(spoilt.annotations, key=lambda one: -one["num_keypoints"])
    assert len(people) >= 6
    people[0]["keypoints"][0] = float("nan")
    people[1]["keypoints"].pop()
    people[2]["image_id"] = people[3]["image_id"] = 4711
    people[4]["area"] = -1
    spoilt.picture.unlink()
    report = spoilt.examine()
    counts = {one.kind.key: one.count for one in report.findings if one.kind.key != "unlabelled person"}
    assert counts == {"joint count": 1, "not finite": 1, "unknown image": 2, "zero area": 1, "missing image": 1}
    assert list(counts) == [key for key in KINDS if key in counts]
    assert report.count("error") == 5 and not report.clean
    assert report.splits["train2017"] == len(people) - 4 and report.images == 7


def test_without_images_no_file_is_opened(spoilt):
    shutil.rmtree(spoilt.picture.parent)
    report = spoilt.examine(images=False)
    assert report.kinds == [] and report.images == 0
    assert spoilt.examine().kinds == ["missing image"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"images": []}', '{"images": 3, "annotations": []}', "[" * 9999]
)
def test_a_refused_file_is_one_finding(spoilt, text):
    """The other split is looked at all the same."""
    spoilt.file.write_text(text)
    report = doctor.examine(spoilt.folder)
    assert [(one.kind.key, one.count) for one in report.findings] == [("annotations", 1)]
    assert report.splits["val2017"] > 0


def test_what_only_the_loader_refuses(drawn, monkeypatch):
    """What the doctor calls clean, training accepts: it asks."""

    def refuse(folder, split, require_images, skeleton):
        raise InputError(f"no {split}")

    monkeypatch.setattr(data, "read", refuse)
    (finding,) = doctor.examine(drawn).findings
    assert finding.kind.key == "refused" and [one.value for one in finding.examples] == ["no train2017", "no val2017"]


def test_unlabelled_people_are_noted_and_no_mistake(spoilt):
    spoilt.person |= {"keypoints": [0] * 51, "num_keypoints": 0, "bbox": [0, 0, 0, 0], "area": 0}
    report = spoilt.examine()
    assert report.clean and report.kinds == []
    assert {one.kind.key: one.count for one in report.findings} == {"unlabelled person": 1}


def test_problems_beyond_the_thousandth_are_counted():
    """Only the examples are cut, in number and in length."""
    notes = IssueCollector()
    for number in range(MAX_EXAMPLES + 5):
        notes.add("record", "file", number, "field", "x" * 100)
    (finding,) = notes.findings()
    assert (finding.count, len(finding.examples)) == (1005, 1000)
    assert finding.examples[-1].record == "999" and finding.examples[0].value == "x" * 77 + "..."


def test_crowds_and_other_things_are_left_alone(spoilt):
    spoilt.person.pop("num_keypoints")
    spoilt.annotations += [
        {"id": 800, "image_id": 1, "category_id": 1, "iscrowd": 1, "keypoints": None},
        {"id": 801, "image_id": 1, "category_id": 18, "iscrowd": 0},
    ]
    assert spoilt.examine().kinds == []


def test_pictures_pass_the_progress_bar(drawn):
    counts = []
    doctor.examine(drawn, watch=lambda looks, count: counts.append(count) or looks)
    assert counts == [8]


# --- other formats ------------------------------------------------------------------------------------------------


def pictures(folder, names, size=(60, 80)):
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", size, (50 * number, 20, 30)).save(folder / name)


def figure(joints):
    """Someone upright in 60x80 pixels, named joints only: shoulders broader than hips, left on the right."""
    rows = {"head": 8, "upper": 16, "neck": 16, "thorax": 20, "shoulder": 20, "elbow": 32, "wrist": 44, "pelvis": 45}
    rows |= {"hip": 45, "knee": 58, "ankle": 72}
    sides = {"left": 1, "right": -1}
    words = [name.split("_") for name in joints]
    return np.array(
        [
            (30 + sides.get(first, 0) * (10 if rows[[first, *rest][first in sides]] < 45 else 6),
             rows[[first, *rest][first in sides]])
            for first, *rest in words
        ],
        float,
    )  # fmt: skip


@pytest.fixture
def lsp(tmp_path):
    """Five people of the extended set: four to train, one to validate."""
    pictures(tmp_path / "images", [f"im{number:05d}.jpg" for number in range(1, 6)])
    joints = np.concatenate([figure(LSP.joints) + 1, np.ones((14, 1))], axis=1)
    return tmp_path, np.repeat(joints[..., None], 5, axis=2)


def lsp_report(folder, joints):
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    return doctor.examine(folder)


def test_lsp(lsp):
    folder, joints = lsp
    joints[0, 0, 0] = 62  # counted from 1: two pixels beyond the image
    report = lsp_report(folder, joints)
    assert report.clean and report.kinds == [] and report.splits == {"train": 4, "val": 1}
    joints[3, 0, 1] = np.nan
    joints[2, 2, 2] = 5
    joints[0, 1, 4] = 90
    joints[[8, 9], :, 3] = joints[[9, 8], :, 3]
    (folder / "images" / "im00004.jpg").unlink()
    report = lsp_report(folder, joints)
    assert report.splits == {"train": 2, "val": 1}
    assert {one.kind.key: [each.record for each in one.examples] for one in report.findings} == {
        "not finite": ["person 2"],
        "joint flag": ["person 3"],
        "missing image": ["person 4"],
        "joint outside": ["person 5"],
        "left-right suspect": ["person 4"],
    }


def test_lsp_files_of_other_kinds(lsp):
    folder, joints = lsp
    assert lsp_report(folder, joints[:13]).kinds == ["joint count"]
    original = joints.transpose(1, 0, 2).copy()
    original[2] = [0, 1, 0, 1, 0]  # its flags: labelled, visible or hidden
    original = lsp_report(folder, original)
    assert original.splits == {"train": 2, "val": 3}
    assert [one.kind.key for one in original.findings] == ["missing image"]  # whose names have four digits
    (folder / "joints.mat").write_bytes(b"no MATLAB")
    assert doctor.examine(folder).kinds == ["annotations"]


def test_lsp_leaves_out_people_without_a_joint(lsp):
    folder, joints = lsp
    joints[:, 2, 0] = 0
    report = lsp_report(folder, joints)
    assert report.kinds == [] and report.splits == {"train": 3, "val": 1}
    assert report.left_out == {"train": {"without a labelled joint": 1}, "val": {}}


def test_what_the_evaluation_would_refuse(lsp):
    """Nobody to validate on has PCK's torso: said before a training."""
    folder, joints = lsp
    joints[LSP.joints.index("left_shoulder"), 2, 4] = 0
    report = lsp_report(folder, joints)
    assert report.kinds == ["refused"] and "PCK's torso" in report.findings[0].examples[0].value


@pytest.fixture
def mpii(tmp_path):
    """Two people to train, one to validate."""
    pictures(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg"])
    joints = (figure(MPII.joints) + 1).tolist()
    person = {"center": [30.0, 40.0], "scale": 0.3, "joints": joints, "joints_vis": [1] * 16}
    splits = {
        "train": [{**person, "image": name} for name in ("a.jpg", "b.jpg")],
        "valid": [{**person, "image": "c.jpg"}],
    }
    (tmp_path / "annot").mkdir()
    return tmp_path, splits


def mpii_report(folder, splits):
    for name, records in splits.items():
        (folder / "annot" / f"{name}.json").write_text(json.dumps(records))
    return doctor.examine(folder)


@pytest.mark.parametrize(
    "change, key",
    [
        ({}, None),
        ({"joints": [[61.0, 82.0]] + [[62.0, 20.0]] * 15}, None),  # counted from 1: two pixels beyond the image
        ({"scale": "large"}, "record"),
        ({"image": 3}, "record"),
        ({"center": [1.0]}, "record"),
        ({"joints": [[1.0, 2.0]] * 15}, "joint count"),
        ({"joints_vis": [1] * 14}, "joint count"),
        ({"joints_vis": [2] * 16}, "joint flag"),
        ({"scale": float("nan")}, "not finite"),
        ({"scale": 0.0}, "empty box"),
        ({"image": "d.jpg"}, "missing image"),
        ({"image": "c.jpg"}, "image in train and val"),
        ({"image": "b.jpg"}, "person twice"),
        ({"joints": [[300.0, 20.0]] * 16}, "joint far outside"),
    ],
)
def test_mpii(mpii, change, key):
    folder, splits = mpii
    splits["train"][0].update(change)
    report = mpii_report(folder, splits)
    assert report.kinds == ([key] if key else []) and set(report.splits) == {"train", "val"}


def test_mpii_people_without_a_scale_are_noted(mpii):
    folder, splits = mpii
    splits["train"][0]["scale"] = -1
    report = mpii_report(folder, splits)
    assert report.clean and [one.kind.key for one in report.findings] == ["no scale"]


def test_mpii_trainval_is_no_training_set(mpii):
    """It holds the validation images by its name."""
    folder, splits = mpii
    assert mpii_report(folder, {**splits, "trainval": splits["train"] + splits["valid"]}).kinds == []


# --- left and right -----------------------------------------------------------------------------------------------

UPPER, FACE = ("shoulder", "elbow", "wrist"), ("eye", "ear")


def exchanged(keypoints, skeleton, parts):
    keypoints = keypoints.copy()
    for part in parts:
        pair = [skeleton.joints.index(f"{side}_{part}") for side in ("left", "right")]
        keypoints[:, pair] = keypoints[:, pair[::-1]]
    return keypoints


def share(keypoints, skeleton):
    return np.any(list(left_right.suspects(keypoints, skeleton).values()), axis=0).mean()


@pytest.mark.parametrize(
    "name, split, alarms, parts, found",
    [
        ("lspet", None, 0.03, UPPER, 0.7),  # most of these alarms are mistakes indeed
        ("mpii", "val", 0.015, UPPER, 0.65),
        ("coco", "val", 0.0, UPPER, 0.45),
        ("lspet", None, 0.03, ("wrist",), 0.4),
        ("mpii", "val", 0.015, ("wrist",), 0.3),
        ("coco", "val", 0.0, FACE, 0.25),
    ],
)
def test_left_and_right_in_real_data(shared, name, split, alarms, parts, found):
    """As it is, few are suspected; with parts exchanged, those whom a image shows from the front or from behind."""
    folder = shared / "data" / name
    splits = (split,) if split else ("train", "val")
    people = [data.load(folder, each, require_images=False) for each in splits]
    keypoints, skeleton = np.concatenate([each.keypoints for each in people]), people[0].skeleton
    assert share(keypoints, skeleton) <= alarms
    assert share(exchanged(keypoints, skeleton, parts), skeleton) >= found


@pytest.mark.parametrize(("apart", "kinds"), [(0.1, []), (0.5, ["left-right suspect"])])
def test_eyes_on_one_line_with_the_spine_say_nothing(spoilt, apart, kinds):
    """They are 10 pixels above the shoulders: exchanged by more than 0.02 of that, they are a suspect."""
    whole(spoilt, left_eye=(60 - apart / 2, 10), right_eye=(60 + apart / 2, 10))
    assert spoilt.examine(images=False).kinds == kinds


def test_a_person_turned_is_a_person(drawn):
    """No cue asks where up is, how large somebody is, or for a skeleton of its own."""
    keypoints = np.concatenate([data.load(drawn, split).keypoints for split in ("train", "val")])
    wrong = exchanged(keypoints, COCO, UPPER)
    turned = wrong.copy()
    turned[..., :2] = wrong[..., :2] @ np.array([[-3.0, 4.0], [-4.0, -3.0]]) + 1000
    for cue, those in left_right.suspects(wrong, COCO).items():
        np.testing.assert_array_equal(those, left_right.suspects(turned, COCO)[cue])
    nameless = Skeleton("nameless", tuple(f"joint_{i}" for i in range(17)))
    assert share(wrong, COCO) > 0 and share(wrong, nameless) == 0
    short = Skeleton("short", [name.replace("left_", "l").replace("right_", "R") for name in COCO.joints])
    assert share(wrong, short) == share(wrong, COCO)


# --- real data ----------------------------------------------------------------------------------------------------


def test_real_coco_is_clean(shared):
    report = doctor.examine(shared / "data" / "coco")
    assert report.clean and report.kinds == [] and report.images == 153


def test_real_annotations_raise_no_error(shared):
    """(The five people of MPII's training file are in its validation file too; without images that is not seen.)"""
    for name in ("lspet", "mpii"):
        report = doctor.examine(shared / "data" / name, images=False)
        assert report.clean and report.kinds == ["left-right suspect"]


@pytest.mark.slow
def test_real_lsp_pictures_raise_no_error(shared):
    report = doctor.examine(shared / "data" / "lspet")
    assert report.clean and report.images == 4000
    assert {one.kind.key: one.count for one in report.findings}["joint outside"] < 10


# --- skeletons ----------------------------------------------------------------------------------------------------

HAND = {
    "name": "hand",
    "joints": ("wrist", "left_tip", "right_tip"),
    "flip_pairs": ((1, 2),),
    "sigmas": (0.1, 0.2, 0.3),
}


@pytest.mark.parametrize(
    "change, found",
    [
        ({}, {}),
        ({"sigmas": (0.1, 1.0, 7.0)}, {"sigmas": 2}),
        ({"flip_pairs": ()}, {"swap pairs": 1}),  # left_tip and right_tip are no pair
        ({"flip_pairs": ((0, 1),)}, {"swap pairs": 2}),
        ({"joints": ("one", "two", "three")}, {}),  # names that tell nothing
        ({"joints": ("one", "two", "three"), "flip_pairs": None}, {"no left and right": 1}),
        ({"joints": ("left_one", "left_two", "right_two"), "flip_pairs": None}, {"one-sided joint": 1}),
        ({"joints": ("left_one", "left_two", "right_two")}, {}),  # given: the first has no other side
        ({"joints": ("tip", "lear", "rear"), "flip_pairs": ()}, {}),  # letters are no proof
    ],
)
def test_skeletons(change, found):
    findings = doctor.check_skeleton(Skeleton(**{**HAND, **change}))
    assert {one.kind.key: one.count for one in findings} == found


def test_a_skeleton_is_told_once_for_all_splits(drawn):
    broad = Skeleton("broad", COCO.joints, COCO.flip_pairs, sigmas=[2] * 17)
    report = doctor.examine(drawn, images=False, skeleton=broad)
    assert report.kinds == ["sigmas"] and report.count("error") == 17


@pytest.mark.parametrize("skeleton", [COCO, MPII, LSP], ids=lambda skeleton: skeleton.name)
def test_the_built_in_skeletons(skeleton):
    assert doctor.check_skeleton(skeleton) == ()


def test_a_skeleton_of_ones_own(run, spoilt, tmp_path, capsys):
    """The file's joints as it names them, or a skeleton file's; what does not fit is a finding."""
    own = ["nose", *(f"{side}_paw" for side in ("left", "right"))]
    for person in (content := json.loads(spoilt.file.read_text()))["annotations"]:
        person |= {"keypoints": [60, 20, 2, 65, 40, 2, 55, 40, 2], "num_keypoints": 3, "id": person["id"]}
        person["keypoints"][0] += person["id"]
    content["categories"][0] |= {"keypoints": own, "skeleton": [[1, 2]]}
    spoilt.content = content
    report = spoilt.examine()
    assert set(report.kinds) <= {"joint off box"} and report.splits["train2017"] == len(content["annotations"])

    file = tmp_path / "skeleton.json"
    file.write_text(json.dumps({"name": "cat", "joints": own, "sigmas": [0.1, 2, 0.1], "swap": []}))
    shutil.rmtree(spoilt.folder / "val2017")
    (spoilt.folder / "annotations" / "person_keypoints_val2017.json").unlink()
    assert call(run, "doctor", "--data", spoilt.folder, "--skeleton", file) == 1
    text = capsys.readouterr().out
    assert "skeleton cat: left_paw sigmas: 2" in text and "left_paw and right_paw flip_pairs: no pair" in text
    file.write_text(json.dumps({"name": "dog", "joints": own[::-1]}))
    assert call(run, "doctor", "--data", spoilt.folder, "--skeleton", file) == 1
    assert "joint count" in capsys.readouterr().out


# --- the command --------------------------------------------------------------------------------------------------


def test_command(run, spoilt, capsys, monkeypatch):
    """80 columns are enough for the table, and the exit code tells."""
    monkeypatch.setenv("COLUMNS", "80")
    out = spoilt.folder / "new" / "report.json"
    assert call(run, "doctor", "--data", spoilt.folder, "--json", out) == 0
    assert "clean" in capsys.readouterr().out and json.loads(out.read_text())["clean"]
    rotated(spoilt)
    assert call(run, "doctor", "--data", spoilt.folder) == 0
    text = capsys.readouterr().out
    assert "\nrotated by EXIF:\n  train2017/" in text and text.endswith("\nclean: 1 warning\n")

    for record in spoilt.annotations[:7]:
        record["area"] = 0
        record["keypoints"][2] = 2
        record["num_keypoints"] = sum(v > 0 for v in record["keypoints"][2::3])
    spoilt.person["bbox"] = [1, 2, 3]
    spoilt.examine()
    assert call(run, "doctor", "--data", spoilt.folder, "--json", out) == 1
    text, report = capsys.readouterr().out, json.loads(out.read_text())
    table = text[text.index("Findings") : text.index("\n\n", text.index("Findings"))]
    assert max(map(len, table.splitlines())) <= 80 and "…" not in table
    for words in ("zero area", "record", "rotated by EXIF", "not clean"):
        assert words in text
    assert text.endswith("\nnot clean: 1 error, 7 warnings\n")
    assert text.split("\nzero area, 5 of 6:\n")[1].split("\n\n")[0].count("\n") == 4
    assert str(spoilt.folder) not in text.split("\n", 2)[2]
    assert not report["clean"] and report["findings"][0]["kind"]["key"] == "record"
    assert call(run, "doctor", "--data", spoilt.folder, "--no-images") == 1
    assert "rotated" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data", "WORK/none"], "none is not there; give the folder"),
        (["--data", "WORK"], r"holds none of joints\.mat"),
        (["--data", "WORK", "--json", "WORK"], "cannot be written; give another --json FILE"),
        (["--data", "WORK", "--skeleton", "WORK/none.json"], "is not there"),
        ([], "--data"),
    ],
)
def test_a_users_mistake_at_the_command(run, tmp_path, arguments, words, capfd):
    refused(run, ["doctor", *arguments], words, {"WORK": tmp_path}, capfd)
