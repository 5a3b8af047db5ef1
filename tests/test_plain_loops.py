"""From heatmaps to image pixels against loops over people and joints; and these against the published numbers."""

import numpy as np
import plain_loops
import pytest

from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.skeletons import COCO, MPII

SIZE = (16, 12)  # height, width


def some_heatmaps(joints, seed=0):
    """Multiples of 1/64, so that float32 has their means exactly; few values, so that there are ties; one map empty."""
    maps = np.random.default_rng(seed).integers(-40, 40, (2, 5, *SIZE, joints)).astype(np.float32) / 64
    maps[:, 1, ..., 2:5] = -0.5
    maps[:, 2, ..., 5] = 0
    for j, (y, x) in enumerate(np.ndindex(4, 3)):
        maps[:, 3, y, x, j] = maps[:, 4, SIZE[0] - 1 - y, SIZE[1] - 1 - x, j] = 1
    return maps


@pytest.mark.parametrize("skeleton", [COCO, MPII], ids=lambda skeleton: skeleton.name)
def test_flip_test_and_decoding_person_by_person_and_joint_by_joint(skeleton):
    heatmaps, flipped_heatmaps = some_heatmaps(skeleton.num_joints)
    codec = GaussianCodec()
    merged = np.asarray(codec.merge_flipped(heatmaps, flipped_heatmaps, skeleton.flip_indices))
    np.testing.assert_array_equal(merged, plain_loops.merge_flipped(heatmaps, flipped_heatmaps, skeleton.flip_pairs))
    for maps in (heatmaps, merged):
        for found, wanted in zip(codec.decode(maps), plain_loops.decode(maps), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_way_back_to_the_image_joint_by_joint():
    """1e-10 px: an inverted matrix of numbers up to 1e3, in float64."""
    rng = np.random.default_rng(1)
    boxes = np.column_stack([rng.uniform(-50, 600, (20, 2)), rng.uniform(5, 400, (20, 2))])
    points = rng.uniform(0, SIZE[::-1], (20, 17, 2))
    size = 4 * SIZE[0], 4 * SIZE[1]
    found = to_image(4 * points, crop_matrices(boxes, size))
    np.testing.assert_allclose(found, plain_loops.to_image(points, boxes, SIZE), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "skeleton"), [("coco", COCO), ("mpii", MPII)])
def test_loops_give_the_published_numbers(golden_dir, name, skeleton):
    """Maps are float32 there, like maxima to 6e-8; predictions 1e-3 px, as in the golden README."""
    golden = np.load(golden_dir / "decode.npz")
    facts = {key.removeprefix(f"{name}_ft_"): golden[key] for key in golden if key.startswith(f"{name}_ft_")}
    there, mirrored = (np.moveaxis(facts[key], 1, -1) for key in ("out", "out_of_mirrored"))
    merged = plain_loops.merge_flipped(there, mirrored, skeleton.flip_pairs)
    np.testing.assert_array_equal(merged.astype(np.float32), np.moveaxis(facts["shift_merged_njhw"], 1, -1))
    points, scores = plain_loops.decode(merged)
    np.testing.assert_allclose(scores, facts["shift_preds_xyv"][..., 2], rtol=1e-7)
    sides = 200 * facts["scale"].astype(np.float64) / 1.25
    boxes = np.column_stack([facts["center"] - sides / 2, sides])
    placed = plain_loops.to_image(points, boxes, merged.shape[1:3])
    np.testing.assert_allclose(placed, facts["shift_preds_xyv"][..., :2], rtol=0, atol=1e-3)


def test_loops_select_the_published_people(shared):
    golden = np.load(shared / "golden" / "coco_eval.npz")
    areas, box_scores = golden["boxes"][:, 4:].T.astype(np.float64)
    rows, scores = plain_loops.select(
        golden["preds"].astype(np.float64), golden["image_id"], areas, box_scores, COCO.sigmas
    )
    np.testing.assert_array_equal(rows, golden["kept_official"])
    np.testing.assert_allclose(scores, golden["score_official"], rtol=0, atol=1e-6)
