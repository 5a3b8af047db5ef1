"""Images: facts about single pixels, on images that are not square."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from keras_mrpose import skeletons
from keras_mrpose.codecs import GaussianCodec, UDPCodec
from keras_mrpose.errors import InputError
from keras_mrpose.visualization import curves
from keras_mrpose.visualization import heatmaps as tiles
from keras_mrpose.visualization import skeletons as visualize
from keras_mrpose.visualization.heatmaps import CROSS
from keras_mrpose.visualization.skeletons import LEFT, MIDDLE, RIGHT

SKELETON = skeletons.Skeleton(
    "four", ("nose", "left_hand", "right_hand", "left_foot"), flip_pairs=((1, 2),), edges=((0, 1), (0, 2), (1, 2))
)
GRAY = (90, 120, 60)


@pytest.fixture
def image():
    return np.full((120, 200, 3), GRAY, np.uint8)


def person(*joints):
    """(1, 4, 3) from (x, y, score) of each joint."""
    return np.array([joints], float)


SURE = person((30, 20, 0.9), (160, 30, 0.8), (40, 100, 0.2), (150, 90, 1))


def pixel(picture, x, y):
    return tuple(int(value) for value in picture[y, x])


# --- draw_skeleton


def test_sure_joints_have_their_sides_colour_at_their_centre(image):
    drawn = visualize.draw_skeleton(image, SURE, SKELETON)
    assert [pixel(drawn, x, y) for x, y in ((30, 20), (160, 30), (40, 100), (150, 90))] == [MIDDLE, LEFT, RIGHT, LEFT]
    assert drawn.shape == image.shape and drawn.dtype == np.uint8


def test_limbs_have_the_colour_of_the_side_they_touch(image):
    drawn = visualize.draw_skeleton(image, SURE, SKELETON)
    assert pixel(drawn, 95, 25) == LEFT  # nose to left hand, half way
    assert pixel(drawn, 35, 60) == RIGHT  # nose to right hand
    assert pixel(drawn, 100, 65) == MIDDLE  # left hand to right hand


def test_unsure_joints_are_hollow_rings_with_dashed_limbs(image):
    keypoints = SURE.copy()
    keypoints[0, 1, 2] = 0.19
    drawn = visualize.draw_skeleton(image, keypoints, SKELETON)
    assert pixel(drawn, 160, 30) == GRAY  # nothing in the ring
    near = drawn[22:39, 152:169].reshape(-1, 3)
    assert (near == LEFT).all(axis=1).any()  # the ring itself
    along = [pixel(drawn, x, round(20 + (x - 30) / 13)) for x in range(45, 145)]
    assert 0.1 < np.mean([p == GRAY for p in along]) < 0.7  # gaps
    assert 0.1 < np.mean([p == LEFT for p in along]) < 0.7  # dashes
    assert pixel(drawn, 35, 60) == RIGHT  # the edge between confident joints stays solid


def test_threshold_decides_what_is_unsure(image):
    assert pixel(visualize.draw_skeleton(image, SURE, SKELETON, threshold=0.21), 40, 100) == GRAY
    assert pixel(visualize.draw_skeleton(image, SURE, SKELETON, threshold=0.0), 40, 100) == RIGHT


def test_visibility_hides_unlabelled_and_rings_hidden_joints(image):
    keypoints = person((30, 20, 2), (160, 30, 1), (40, 100, 0), (150, 90, 2))
    drawn = visualize.draw_skeleton(image, keypoints, SKELETON, visibility=True)
    assert [pixel(drawn, x, y) for x, y in ((30, 20), (160, 30), (150, 90))] == [MIDDLE, GRAY, LEFT]
    assert (drawn[85:115, 20:60] == GRAY).all()  # no joint, and no edge to it
    assert (drawn[22:39, 152:169] != GRAY).any()


@pytest.mark.parametrize("x, y", [(np.nan, 30), (np.inf, 30), (200, 30), (-30, 10), (160, 119.6)])
def test_joints_outside_or_nan_are_left_out_with_their_limbs(image, x, y):
    keypoints, without = SURE.copy(), SURE.copy()
    keypoints[0, 1, :2] = x, y
    without[0, 1, :2] = np.nan
    drawn = visualize.draw_skeleton(image, keypoints, SKELETON)
    np.testing.assert_array_equal(drawn, visualize.draw_skeleton(image, without, SKELETON))
    assert pixel(drawn, 30, 20) == MIDDLE


def test_positions_are_sub_pixel(image):
    """The centroid of what one disc changes is its position, to less than a tenth of a pixel."""
    rows, columns = np.mgrid[:120, :200]
    for x, y in ((50.0, 40.0), (50.25, 40.5), (50.75, 40.1)):
        lone = person(*[(x, y, 1)] + [(np.nan, 0, 0)] * 3)
        change = np.abs(visualize.draw_skeleton(image, lone, SKELETON).astype(int) - image).sum(axis=-1)
        centroid = (change * columns).sum() / change.sum(), (change * rows).sum() / change.sum()
        np.testing.assert_allclose(centroid, (x, y), atol=0.1)


def test_larger_people_get_larger_joints():
    image = np.zeros((600, 800, 3), np.uint8)
    small, large = SURE.copy(), SURE.copy()
    large[..., :2] *= 4
    inked = [(visualize.draw_skeleton(image, k, SKELETON, threshold=0) == LEFT).all(-1).sum() for k in (small, large)]
    assert inked[1] > 8 * inked[0]  # both ways: 16 times the area


def test_input_stays_and_nobody_changes_nothing(image):
    before, keypoints = image.copy(), SURE.copy()
    visualize.draw_skeleton(image, keypoints, SKELETON)
    empty = visualize.draw_skeleton(image, np.zeros((0, 4, 3)), SKELETON)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(keypoints, SURE)
    np.testing.assert_array_equal(empty, before)
    assert empty is not image


def test_joints_on_one_point_are_drawn(image):
    drawn = visualize.draw_skeleton(image, person(*[(50, 50, 1)] * 4), SKELETON)
    assert pixel(drawn, 50, 50) in (LEFT, RIGHT, MIDDLE)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"keypoints": np.zeros((4, 3))}, r"\(4, 3\); give \(people, 4, 3\)"),
        ({"keypoints": np.zeros((1, 17, 3))}, r"\(1, 17, 3\); give \(people, 4, 3\)"),
        ({"image": np.zeros((9, 12, 3))}, "float64; give"),
        ({"image": np.zeros((9, 12), np.uint8)}, r"\(9, 12\)"),
    ],
)
def test_draw_skeleton_tells_wrong_shapes(image, change, message):
    with pytest.raises(InputError, match=message):
        visualize.draw_skeleton(**{"image": image, "keypoints": SURE, "skeleton": SKELETON, **change})


# --- heatmaps


def test_a_heatmaps_peak_is_where_the_joint_is():
    crop = np.zeros((48, 64, 3), np.uint8)
    points = np.array([[[3, 2], [12, 5], [8, 9], [1, 10]]], float)
    maps = np.array(GaussianCodec(sigma=1.0).encode(points, np.ones((1, 4)), (12, 16))[0])[0]
    for joint, (x, y) in enumerate(points[0] * 4):
        lone = maps * (np.arange(4) == joint)
        row = tiles.target_and_prediction(crop, np.zeros((4, 3)), lone, lone, np.full((4, 3), np.nan), SKELETON)
        width = row.shape[1] // 4
        assert width == 64 * 3 + 2  # 64 < 160: enlarged three times, and framed
        for left in (width + 1, 2 * width + 1):
            tile = row[1:145, left : left + 192].astype(int).sum(-1)
            bright = np.argwhere(tile == tile.max()).mean(axis=0)[::-1]
            np.testing.assert_allclose(bright, ((x + 0.5) * 3 - 0.5, (y + 0.5) * 3 - 0.5), atol=0.51)
            assert row[146:161, left : left + 60].max() > 200  # what it is


def test_a_flat_heatmap_shows_the_dimmed_crop():
    crop = np.full((160, 200, 3), 100, np.uint8)
    flat = np.zeros((40, 50, 4))
    row = tiles.target_and_prediction(crop, np.zeros((4, 3)), flat, flat, np.full((4, 3), np.nan), SKELETON)
    assert (row[10, 202 + 10 : 202 + 190] == 50).all()
    assert (crop == 100).all()


def test_target_and_prediction_is_a_row_of_four():
    crop = np.full((192, 256, 3), GRAY, np.uint8)
    target = np.array([[10, 10, 1, 9], [40, 12, 1, 9], [12, 40, 0, 9], [50, 36, 1, 9]], float)
    predicted = np.array([[10, 16, 0.9], [40, 20, 0.9], [20, 40, 0.9], [50, 44, 0.05]])
    codec = GaussianCodec()
    maps = [
        np.array(codec.encode(points[None, :, :2], np.ones((1, 4)), (48, 64))[0])[0] for points in (target, predicted)
    ]
    row = tiles.target_and_prediction(crop, target, *maps, predicted, SKELETON)
    width = row.shape[1] // 4
    assert row.dtype == np.uint8 and width == 256 + 2
    inputs, wanted, heat, overlay = (row[1:193, i * width + 1 : (i + 1) * width - 1] for i in range(4))
    np.testing.assert_array_equal(inputs, crop)
    assert wanted[40, 40].sum() > 500 > wanted[64, 40].sum()  # bright at the target
    assert heat[64, 40].sum() > 500 > heat[176, 160].sum()
    assert pixel(overlay, 40, 40) == CROSS and pixel(overlay, 160, 48) == CROSS
    assert pixel(overlay, 40, 64) == MIDDLE and pixel(overlay, 160, 80) == LEFT
    assert pixel(overlay, 48, 160) != CROSS  # unlabelled
    assert pixel(overlay, 80, 160) == RIGHT
    assert pixel(overlay, 200, 176) not in (LEFT, GRAY)  # the uncertain joint's ring, with the error's line inside
    assert (crop == GRAY).all() and target[0, 0] == 10 and predicted[0, 1] == 16


def test_small_crops_are_enlarged_with_their_points():
    crop = np.full((48, 64, 3), GRAY, np.uint8)  # three times
    points = np.array([[4, 4, 1], [12, 5, 1], [8, 9, 1], [1, 10, 1]], float)
    heatmaps = np.zeros((12, 16, 4))
    row = tiles.target_and_prediction(crop, points * (1, 1, 0), heatmaps, heatmaps, points, SKELETON)
    overlay = row[1 : 1 + 144, -193:-1]
    rows, columns = np.nonzero((overlay[:70, :80] == MIDDLE).all(axis=-1))
    assert row.shape[1] == 4 * (3 * 64 + 2)
    disc = (rows > 45) & (rows < 54) & (columns > 45) & (columns < 54)  # around (16 + 0.5) * 3 - 0.5 = 49
    np.testing.assert_allclose((columns[disc].mean(), rows[disc].mean()), (49, 49), atol=0.3)


def test_heatmaps_of_another_scale_are_drawn_where_they_belong():
    """UDP: the middle of the last heatmap pixel is the middle of the last crop pixel; a quarter would be 3 px off."""
    crop = np.full((160, 192, 3), GRAY, np.uint8)
    scale = UDPCodec().scale((160, 192))
    points = np.array([[47, 20, 1], [10, 39, 1], [47, 39, 1], [30, 5, 1]], float)
    heatmaps = np.zeros((40, 48, 4))
    heatmaps[20, 47] = 1
    row = tiles.target_and_prediction(crop, points * (1, 1, 0), heatmaps, heatmaps, points, SKELETON, scale=scale)
    for heat in (row[1:161, 195:387], row[1:161, 389:581]):
        bright = heat.astype(int).sum(-1)
        assert bright.argmax() % 192 == 191 and bright.argmax() // 192 in (81, 82)  # 20 * 159 / 39 = 81.5
    assert pixel(row[1:161, 583:775], 191, 82) == MIDDLE


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda crop: tiles.target_and_prediction(
                crop, np.zeros((4, 3)), *[np.zeros((12, 16, 5))] * 2, np.zeros((4, 3)), SKELETON
            ),
            r"\(12, 16, 5\); give",
        ),
        (
            lambda crop: tiles.target_and_prediction(
                crop, np.zeros((4, 2)), *[np.zeros((12, 16, 4))] * 2, np.zeros((4, 3)), SKELETON
            ),
            r"target points have shape \(4, 2\)",
        ),
        (
            lambda crop: tiles.target_and_prediction(
                crop, np.zeros((4, 3)), *[np.zeros((12, 16, 4))] * 2, np.zeros((5, 3)), SKELETON
            ),
            r"predicted points have shape \(5, 3\)",
        ),
    ],
)
def test_pictures_of_heatmaps_tell_wrong_shapes(make, message):
    with pytest.raises(InputError, match=message):
        make(np.zeros((48, 64, 3), np.uint8))


# --- loss_curve


def test_loss_curve_writes_a_picture(tmp_path):
    history = {"loss": [0.1, 0.01, np.nan], "val_loss": [0.02], "pck": [0.1, 0.5, 0.6], "learning_rate": [1e-3] * 3}
    path = tmp_path / "new" / "curve.png"
    curves.loss_curve(history, path)
    with Image.open(path) as two_panels:
        assert two_panels.format == "PNG" and two_panels.width > 2.5 * two_panels.height
    curves.loss_curve({"loss": [0.0, 0.0]}, path)  # no logarithm, no scores
    with Image.open(path) as one_panel:
        assert one_panel.width < 2 * one_panel.height


def test_loss_curve_tells_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="no 'loss' to draw, only pck"):
        curves.loss_curve({"pck": [0.5]}, tmp_path / "curve.png")
    assert not list(tmp_path.iterdir())


# --- real photographs


def test_a_real_photograph_is_drawn_on(shared):
    photo = cv2.imread(str(shared / "data" / "lspet" / "images" / "im00078.jpg"))[..., ::-1]
    height, width = photo.shape[:2]
    keypoints = np.column_stack([np.linspace(10, width - 10, 14), np.linspace(10, height - 10, 14), np.ones(14)])
    drawn = visualize.draw_skeleton(photo, keypoints[None], skeletons.LSP)
    assert 0.001 < (drawn != photo).any(axis=-1).mean() < 0.2


def test_draw_takes_people_poses_and_keypoints(image):
    """Labels of a table are flags: a hidden joint (1) is uncertain, where a score of 1 is sure."""
    hidden = person((30, 20, 1), (160, 30, 2), (40, 100, 0), (150, 90, 2))
    table = SimpleNamespace(keypoints=hidden, skeleton=SKELETON, image_index=[0])
    labels = visualize.draw_skeleton(image, hidden, SKELETON, visibility=True)
    np.testing.assert_array_equal(visualize.draw(image, table), labels)
    pose = SimpleNamespace(keypoints=SURE, skeleton=SKELETON)
    scores = visualize.draw_skeleton(image, SURE, SKELETON)
    np.testing.assert_array_equal(visualize.draw(image, pose), scores)
    np.testing.assert_array_equal(visualize.draw(image, SURE, SKELETON), scores)
    with pytest.raises(InputError, match="keypoints have no skeleton; give its name"):
        visualize.draw(image, SURE)
