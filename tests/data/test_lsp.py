"""LSP folders: the real one against SciPy, made-up ones in both layouts, and what can be wrong with them."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from keras_mrpose import data
from keras_mrpose.data import lsp
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import LSP


def made_up(folder, people=10, original=False, change=None):
    """A folder of so many people; returns x, y, flag as in the file, ``(people, 14, 3)``."""
    rng = np.random.default_rng(0)
    joints = np.concatenate([rng.uniform(1, 100, (people, 14, 2)), rng.integers(0, 2, (people, 14, 1))], axis=-1)
    joints[:, :3, 2] = [1, 1, 0]
    if change:
        change(joints)
    (folder / "images").mkdir()
    digits = 4 if original else 5
    for number in range(1, people + 1):
        (folder / "images" / f"im{number:0{digits}d}.jpg").touch()
    savemat(folder / "joints.mat", {"joints": joints.transpose((2, 1, 0) if original else (1, 2, 0))})
    return joints


# --- real ---------------------------------------------------------------------------------------------------------


def test_real_people_are_those_of_the_file(shared):
    folder = shared / "data" / "lspet"
    joints = loadmat(folder / "joints.mat")["joints"]  # (14, 3, 4000)
    train, val = (data.load(folder, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3200, 800)
    np.testing.assert_array_equal(train.ids, np.arange(1, 3201))
    np.testing.assert_array_equal(val.ids, np.arange(3201, 4001))
    for people in (train, val):
        assert people.skeleton is LSP
        for row in range(0, len(people), 97):
            number = people.ids[row]
            assert people.paths()[row].endswith(f"im{number:05d}.jpg")
            for joint in range(14):
                x, y, flag = joints[joint, :, number - 1]
                assert people.keypoints[row, joint].tolist() == [x - 1, y - 1, 2 * flag]
    labelled = val.keypoints[..., 2] > 0
    assert labelled.sum(axis=1).min() >= 12
    low, high = val.boxes[:, None, :2], val.boxes[:, None, :2] + val.boxes[:, None, 2:]
    inside = ((val.keypoints[..., :2] >= low - 1e-9) & (val.keypoints[..., :2] <= high + 1e-9)).all(axis=-1)
    assert inside[labelled].all()


# --- made up ------------------------------------------------------------------------------------------------------


def test_extended_layout(tmp_path):
    """Flag 1 is labelled; the first 80 % train."""
    joints = made_up(tmp_path)
    everybody = lsp.load(tmp_path)
    np.testing.assert_array_equal(everybody.keypoints[..., :2], joints[..., :2] - 1)
    np.testing.assert_array_equal(everybody.keypoints[..., 2], 2 * joints[..., 2])
    np.testing.assert_array_equal(lsp.load(tmp_path, "train").ids, np.arange(1, 9))
    np.testing.assert_array_equal(lsp.load(tmp_path, "val").ids, [9, 10])
    np.testing.assert_array_equal(lsp.load(tmp_path, "val").keypoints, everybody.keypoints[8:])


def test_original_layout(tmp_path):
    """Flag 1 is hidden, everybody is labelled; halved; four digits."""
    joints = made_up(tmp_path, original=True)
    train, val = (data.load(tmp_path, split) for split in ("train", "val"))
    np.testing.assert_array_equal(val.keypoints[..., :2], joints[5:, :, :2] - 1)
    np.testing.assert_array_equal(val.keypoints[..., 2], 2 - joints[5:, :, 2])
    assert train.ids.tolist() == [1, 2, 3, 4, 5]
    assert train.paths()[0].endswith("im0001.jpg")


def test_box_and_area_are_those_of_the_labelled_joints(tmp_path):
    joints = made_up(tmp_path)
    people = lsp.load(tmp_path)
    for person in range(10):
        seen = joints[person][joints[person, :, 2] > 0, :2] - 1
        x, y = seen.min(axis=0)
        w, h = np.ptp(seen, axis=0)
        np.testing.assert_allclose(people.boxes[person], (x, y, w, h))
        assert people.areas[person] == pytest.approx(0.53 * w * h)
        assert people.reference_length[person] == pytest.approx(np.sqrt(0.53 * w * h))


# --- wrong --------------------------------------------------------------------------------------------------------


def set_to(place, value):
    def change(joints):
        joints[place] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_to((6, 0, 0), np.nan), "record 7 has a value in keypoints that is not a finite number"),
        (set_to((6, slice(None), slice(0, 2)), 5), "record 7 has a box of zero or negative size"),
    ],
)
def test_wrong_records_are_named(change, message, tmp_path):
    made_up(tmp_path, change=change)
    with pytest.raises(InputError, match=message) as caught:
        lsp.load(tmp_path, "train")
    assert str(tmp_path / "joints.mat") in str(caught.value)
    assert len(lsp.load(tmp_path, "val")) == 2  # the other split does not suffer


def test_people_without_a_labelled_joint_are_left_out_and_counted(tmp_path):
    made_up(tmp_path, change=set_to((6, slice(None), 2), 0))
    people = lsp.load(tmp_path, "train")
    assert people.ids.tolist() == [1, 2, 3, 4, 5, 6, 8] and people.left_out == {"without a labelled joint": 1}
    assert people.paths()[-1].endswith("im00008.jpg") and lsp.load(tmp_path, "val").left_out == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"joints": np.ones((16, 3, 5))}, r"joints has shape \(16, 3, 5\), expected .*14 joints"),
        ({"joints": np.ones((14, 2, 5))}, r"joints has shape \(14, 2, 5\)"),
        ({"joints": np.ones((14, 3))}, r"joints has shape \(14, 3\)"),
        ({"joints": np.array(["a", "b"], object)}, "joints are no numbers"),
        ({"points": np.ones((14, 3, 5))}, "has no variable 'joints'"),
        (b"", "cannot be read as a MATLAB file"),
        (b"MATLAB 5.0 MAT-file, " + bytes(range(200)), "cannot be read as a MATLAB file"),
    ],
)
def test_wrong_files_are_named(content, message, tmp_path):
    file = tmp_path / "joints.mat"
    file.write_bytes(content) if isinstance(content, bytes) else savemat(file, content)
    with pytest.raises(InputError, match=message) as caught:
        lsp.load(tmp_path)
    assert str(file) in str(caught.value)


def test_truncated_file_is_named(tmp_path):
    made_up(tmp_path, people=50)
    file = tmp_path / "joints.mat"
    file.write_bytes(file.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"joints\.mat cannot be read as a MATLAB file"):
        lsp.load(tmp_path)


def test_missing_file_image_and_split_are_named(tmp_path):
    with pytest.raises(InputError, match=r"joints\.mat is not there"):
        lsp.load(tmp_path)
    made_up(tmp_path)
    with pytest.raises(InputError, match=r"Unknown split 'test' .*train, val"):
        lsp.load(tmp_path, "test")
    (tmp_path / "images" / "im00001.jpg").unlink()
    with pytest.raises(InputError, match=r"image .*im00001\.jpg is missing \(1 of 8 are\)"):
        lsp.load(tmp_path, "train")
    assert len(data.load(tmp_path, "train", require_images=False)) == 8
