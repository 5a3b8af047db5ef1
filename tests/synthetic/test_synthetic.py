"""Drawn people: the same for the same seed, exact, honest about what is hidden, and written as COCO would."""

import json
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest

from keras_mrpose.data import coco
from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO
from keras_mrpose.synthetic import dataset, pose
from keras_mrpose.synthetic.render import OBJECT, PARTS, Canvas, DrawnPerson, hull_outlines, sample_clothing

SIZE = (240, 320)
NOSE, LEFT_EYE, RIGHT_EYE, LEFT_SHOULDER, RIGHT_SHOULDER = (
    COCO.joints.index(name) for name in ("nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder")
)


@pytest.fixture(scope="module")
def drawings():
    return [dataset.draw(7, index) for index in range(40)]


def blank(size=SIZE):
    return Canvas(np.full((*size, 3), 128, np.uint8), light=np.array((0.0, -1.0)))


def standing_person(yaw, number=0, place=(160.0, 120.0), stature=180.0):
    """A person upright with hanging arms, turned by yaw degrees; the pose is searched, as `sample` draws at random."""
    for seed in range(2000):
        body = pose.sample(np.random.default_rng(seed))
        head_yaw = np.degrees(np.arctan2(body.head[0, 2], body.head[2, 2]))
        shoulders = body.points[LEFT_SHOULDER] - body.points[RIGHT_SHOULDER]
        trunk_yaw = np.degrees(np.arctan2(-shoulders[2], shoulders[0]))
        low = body.points[[9, 10], 1].min() > -0.1  # both wrists below the waist
        upright = body.points[[13, 14], 1].min() > 0.2  # both knees well below the hips
        near = all(abs((angle - yaw + 180) % 360 - 180) < 15 for angle in (head_yaw, trunk_yaw))
        clothing = sample_clothing(np.random.default_rng(seed), np.full(3, 128.0))
        if near and low and upright and not body.sits and not clothing.long_hair:
            return DrawnPerson(body, clothing, stature, np.array(place), number)
    raise AssertionError(f"no pose with yaw {yaw}")


def test_a_drawing_depends_on_its_seed_and_index_alone():
    first = dataset.draw(3, 11)
    dataset.draw(3, 10)
    again = dataset.draw(3, 11)
    for field in ("image", "keypoints", "boxes", "areas"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    for other in (dataset.draw(4, 11), dataset.draw(3, 12), dataset.draw(11, 3)):
        assert (other.image != first.image).mean() > 0.5


@pytest.mark.parametrize("size", [(240, 320), (256, 192), (64, 96), (400, 80)])
def test_shapes_types_and_ranges(size):
    height, width = size
    for index in range(6):
        drawing = dataset.draw(0, index, size)
        people = len(drawing.keypoints)
        assert drawing.image.shape == (height, width, 3)
        assert drawing.image.dtype == np.uint8
        assert 1 <= people <= 3
        assert drawing.keypoints.shape == (people, 17, 3)
        assert drawing.boxes.shape == (people, 4)
        assert drawing.areas.shape == (people,)
        assert {a.dtype for a in (drawing.keypoints, drawing.boxes, drawing.areas)} == {np.dtype(np.float64)}
        x, y, w, h = drawing.boxes.T
        assert (x >= 0).all() and (y >= 0).all() and (x + w <= width).all() and (y + h <= height).all()
        assert (drawing.areas > 0).all() and (drawing.areas <= w * h).all()
        jx, jy, v = np.moveaxis(drawing.keypoints, -1, 0)
        assert set(np.unique(v)) <= {0, 1, 2}
        assert ((jx >= 0) & (jx <= width - 1) & (jy >= 0) & (jy <= height - 1)).all()
        assert (jx[v == 0] == 0).all() and (jy[v == 0] == 0).all()


def test_discs_are_painted_where_they_are_said_to_be():
    # The centroid of what a disc adds to the image, against the disc's centre: OpenCV rounds corners to 1/16 pixel
    # (error of a mean over 24 of them well below 1/32), and colours to 1/255.
    for centre in ((31.37, 20.71), (40.0, 25.5)):
        canvas = Canvas(np.zeros((48, 72, 3), np.uint8), light=np.zeros(2))
        canvas.hull(np.array([centre]), np.array([9.3]), np.full(3, 255.0), surface=5)
        weight = canvas.image[..., 0].astype(np.float64)
        rows, columns = np.mgrid[:48, :72]
        centroid = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(centroid, centre, atol=0.04)
        assert canvas.surface[round(centre[1]), round(centre[0])] == 5


def test_outlines_are_the_convex_hull_of_discs():
    rng = np.random.default_rng(0)
    centres, radii = rng.uniform(0, 50, (5, 4, 2)), rng.uniform(1, 9, (5, 4))
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for outline, discs, sizes in zip(hull_outlines(centres, radii), centres, radii, strict=True):
        for corner, angle in zip(outline, angles, strict=True):  # the hull's reach in a direction, disc by disc
            direction = np.array((np.cos(angle), np.sin(angle)))
            reach = max(float(c @ direction) + r for c, r in zip(discs, sizes, strict=True))
            assert corner @ direction == pytest.approx(reach)
            assert (outline @ direction).max() == pytest.approx(reach)


def test_bones_keep_their_length_in_every_pose():
    edges = [(a, b) for a, b in COCO.edges if min(a, b) >= 5 and abs(a - b) == 2]  # upper arms, forearms, thighs, shins
    assert len(edges) == 8
    for seed in range(50):
        points = pose.sample(np.random.default_rng(seed)).points
        lengths = np.array([np.linalg.norm(points[a] - points[b]) for a, b in edges])
        assert (
            (lengths > 0.15 * 0.8) & (lengths < 0.245 * 1.25)
        ).all()  # their mean +- four standard deviations of 5 %
        by_name = {(a % 2, b): n for (a, b), n in zip(edges, lengths, strict=True)}
        for (odd, b), length in by_name.items():
            if odd:  # left joints have odd numbers: both sides are alike
                assert length == pytest.approx(by_name[0, b + 1])


def test_knees_bend_the_human_way():
    for seed in range(100):
        body = pose.sample(np.random.default_rng(seed))
        points = dict(zip(pose.POINTS, body.points, strict=True))
        across = points["left_hip"] - points["right_hip"]
        for side in ("left", "right"):
            thigh = points[f"{side}_knee"] - points[f"{side}_hip"]
            shin = points[f"{side}_ankle"] - points[f"{side}_knee"]
            # Image axes are left-handed (y down), hence the sign; 0.09: legs spread up to 30 degrees lean outwards.
            assert np.dot(np.cross(thigh, shin), across) < 0.09 * np.linalg.norm(across) * np.linalg.norm(thigh)


def test_left_and_right_are_the_persons_own():
    front, back = standing_person(0), standing_person(180)
    assert front.points[LEFT_SHOULDER, 0] > front.points[RIGHT_SHOULDER, 0] + 20
    assert front.points[LEFT_EYE, 0] > front.points[RIGHT_EYE, 0]
    assert back.points[LEFT_SHOULDER, 0] < back.points[RIGHT_SHOULDER, 0] - 20


def test_a_face_is_seen_from_the_front_and_hidden_from_behind():
    for yaw, expected in ((0, 2), (180, 1)):
        person, canvas = standing_person(yaw), blank()
        person.paint(canvas)
        v = person.visibility(canvas.surface)
        assert v[:3].tolist() == [expected] * 3, yaw
        assert v[[5, 6, 13, 14, 15, 16]].min() == 2, yaw  # nothing covers shoulders, knees and ankles


def test_the_far_side_of_a_profile_is_hidden():
    person, canvas = standing_person(90), blank()
    person.paint(canvas)
    far, near = sorted((LEFT_SHOULDER, RIGHT_SHOULDER), key=lambda joint: person.figure.depth[joint])
    v = person.visibility(canvas.surface)
    assert (v[far], v[near]) == (1, 2)


def test_what_is_painted_over_a_joint_hides_it():
    person, canvas = standing_person(0), blank()
    person.paint(canvas)
    before = person.visibility(canvas.surface)
    knee = 13
    assert before[knee] == 2
    canvas.hull(person.points[knee][None], np.array((6.0,)), np.full(3, 90.0), OBJECT)
    after = person.visibility(canvas.surface)
    assert after[knee] == 1
    assert (np.delete(after, knee) == np.delete(before, knee)).all()  # 6 px reach no other joint


def test_a_nearer_person_hides_and_a_farther_one_does_not():
    far, near, canvas = standing_person(0), standing_person(0, number=1), blank()  # the same pose at the same place
    far.paint(canvas)
    alone = far.visibility(canvas.surface)
    near.paint(canvas)
    assert (far.visibility(canvas.surface) == 1).all()
    np.testing.assert_array_equal(near.visibility(canvas.surface), alone)


def test_joints_outside_the_picture_are_unlabelled():
    person = standing_person(0, place=(160.0, 200.0))
    canvas = blank()
    person.paint(canvas)
    below = person.joints[:, 1] > SIZE[0] - 1
    assert below.any() and not below.all()
    np.testing.assert_array_equal(person.visibility(canvas.surface) == 0, below)


def test_boxes_and_areas_are_of_the_visible_pixels():
    person, canvas = standing_person(0), blank()
    person.paint(canvas)
    canvas.surface[:, 160:] = OBJECT  # as if a wall stood before the right half
    _, box, area = dataset._annotate(person, canvas.surface)
    rows, columns = np.nonzero((canvas.surface >= 1) & (canvas.surface <= len(PARTS)))
    assert area == len(rows)
    top, left = rows.min(), columns.min()
    assert box == (left, top, columns.max() + 1 - left, rows.max() + 1 - top)
    assert columns.max() < 160


def test_visible_joints_lie_in_the_box(drawings):
    for drawing in drawings:
        for keypoints, (x, y, w, h) in zip(drawing.keypoints, drawing.boxes, strict=True):
            seen = keypoints[keypoints[:, 2] == 2, :2]
            # a seen joint's nearest pixel is the person's: at most half a pixel outside the range of pixel centres
            assert ((seen >= (x - 0.5, y - 0.5)) & (seen <= (x + w - 0.5, y + h - 0.5))).all()


def test_there_is_something_to_learn_and_it_can_be_learned(drawings):
    keypoints = np.concatenate([drawing.keypoints for drawing in drawings])
    labelled = keypoints[..., 2] > 0
    hidden = keypoints[..., 2] == 1
    assert 0.10 < hidden.sum() / labelled.sum() < 0.35
    assert 0.001 < 1 - labelled.mean() < 0.10  # some people are cut by the image's edge
    assert hidden[:, NOSE].any() and not hidden[:, NOSE].all()  # back and front views
    both = labelled[:, [LEFT_SHOULDER, RIGHT_SHOULDER]].all(axis=1)
    ahead = (keypoints[:, LEFT_SHOULDER, 0] > keypoints[:, RIGHT_SHOULDER, 0])[both]
    assert 0.4 < ahead.mean() < 0.95
    assert {1, 2, 3} == {len(drawing.keypoints) for drawing in drawings}
    heights = np.concatenate([drawing.boxes[:, 3] for drawing in drawings])
    assert np.median(heights) > 0.45 * SIZE[0] and heights.max() > 0.85 * SIZE[0]


def test_people_stand_out_from_the_ground(drawings):
    # At a seen wrist, elbow, knee or ankle the image differs from its surroundings more often than not.
    contrasts = []
    for drawing in drawings:
        smooth = cv2.blur(drawing.image, (41, 41)).astype(float)
        for x, y, v in drawing.keypoints[:, 7:].reshape(-1, 3):
            if v == 2:
                at = round(y), round(x)
                contrasts.append(np.abs(drawing.image[at] - smooth[at]).mean())
    assert np.median(contrasts) > 20


def test_written_folder_is_what_was_drawn(tmp_path):
    root = dataset.write(tmp_path / "new" / "set", 5, seed=2, split="val2017", first_index=3, size=(96, 128), threads=2)
    content = json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
    assert [image["id"] for image in content["images"]] == [4, 5, 6, 7, 8]
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    for index, image in zip(range(3, 8), content["images"], strict=True):
        drawing = dataset.draw(2, index, (96, 128))
        records = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert (image["height"], image["width"]) == (96, 128)
        written = np.array([a["keypoints"] for a in records]).reshape(-1, 17, 3)
        np.testing.assert_allclose(written, drawing.keypoints, atol=0.0005000001)  # three decimals
        np.testing.assert_array_equal([a["bbox"] for a in records], drawing.boxes)
        np.testing.assert_array_equal([a["area"] for a in records], drawing.areas)
        np.testing.assert_array_equal(
            [a["num_keypoints"] for a in records], (drawing.keypoints[..., 2] > 0).sum(axis=1)
        )
        picture = cv2.imread(str(root / "val2017" / image["file_name"]))[..., ::-1]
        error = np.abs(picture.astype(float) - drawing.image)
        assert error.mean() < 8  # quality 95, colours at half resolution; a swapped channel gives tens


def test_written_folder_loads_in_pycocotools_and_here(tmp_path):
    from pycocotools.coco import COCO as Reference

    dataset.write(tmp_path, 3, size=(96, 128))
    with redirect_stdout(None):
        reference = Reference(str(tmp_path / "annotations" / "person_keypoints_train2017.json"))
    assert reference.getCatIds(catNms=["person"]) == [1]
    assert tuple(reference.cats[1]["keypoints"]) == COCO.joints
    people = coco.load(tmp_path, "train")
    annotations = reference.loadAnns(reference.getAnnIds(imgIds=[1, 2, 3]))
    np.testing.assert_array_equal(people.keypoints.reshape(len(annotations), -1), [a["keypoints"] for a in annotations])


def test_threads_do_not_change_the_files(tmp_path):
    contents = []
    for threads in (1, 3):
        root = dataset.write(tmp_path / str(threads), 6, size=(64, 96), threads=threads)
        contents.append({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    assert len(contents[0]) == 7
    assert contents[0] == contents[1]


def test_write_keeps_what_is_there_and_refuses_to_change_it(tmp_path):
    dataset.write(tmp_path, 2, size=(64, 96))
    picture = tmp_path / "train2017" / "000000000001.jpg"
    stamp = picture.stat().st_mtime_ns
    assert dataset.write(tmp_path, 2, size=(64, 96)) == tmp_path
    assert picture.stat().st_mtime_ns == stamp
    for changed in ({"count": 3}, {"seed": 1}, {"first_index": 1}, {"size": (96, 64)}):
        with pytest.raises(InputError, match=r"train2017.*already there"):
            dataset.write(**({"folder": tmp_path, "count": 2, "size": (64, 96)} | changed))
    dataset.write(tmp_path, 1, size=(64, 96), split="val2017", first_index=2)  # another split is another matter
    picture.unlink()
    with pytest.raises(InputError, match="lacks images"):
        dataset.write(tmp_path, 2, size=(64, 96))


def test_write_leaves_foreign_data_alone(tmp_path):
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017" / "mine.jpg").write_bytes(b"precious")
    with pytest.raises(InputError, match="not written by this"):
        dataset.write(tmp_path, 1, size=(64, 96))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text("{")
    with pytest.raises(InputError, match="not written by this"):
        dataset.write(tmp_path, 1, size=(64, 96), split="val2017")
    assert (tmp_path / "train2017" / "mine.jpg").read_bytes() == b"precious"


def test_a_failed_write_leaves_nothing_half_made(tmp_path, monkeypatch):
    def fails_at_the_third(seed, index, size, draw=dataset.draw):
        if index == 2:
            raise KeyboardInterrupt
        return draw(seed, index, size)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "draw", fails_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            dataset.write(tmp_path, 4, size=(64, 96), threads=1)
    assert [p for p in tmp_path.rglob("*") if p.name != "annotations"] == []
    dataset.write(tmp_path, 4, size=(64, 96))
    assert len(list((tmp_path / "train2017").iterdir())) == 4


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"count": 0}, "count"),
        ({"count": -1}, "count"),
        ({"seed": -1}, "seed"),
        ({"first_index": 0.5}, "first_index"),
        ({"size": (63, 96)}, "size"),
        ({"size": (96,)}, "size"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong, named):
    with pytest.raises(InputError, match=named):
        dataset.write(**({"folder": tmp_path / "out", "count": 1} | wrong))
    assert not (tmp_path / "out").exists()
