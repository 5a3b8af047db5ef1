"""The decoder that ships with a model: NumPy alone, and the same numbers as the library's own code."""

import ast

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from keras_mrpose.codecs import CODECS
from keras_mrpose.data import augmentation
from keras_mrpose.geometry import PADDING, crop_matrices, to_image
from keras_mrpose.runtime import decoder

SIZE = (96, 64)


def some_maps(rng, codec):
    """Clean and noisy Gaussians, noise alone, nothing, and peaks at every border; ``(1, 24, 16, 40)``."""
    points = rng.uniform((-1, -1), (17, 25), (1, 40, 2)).astype(np.float32)
    points[0, :8] = [[0, 0], [1, 1], [15, 23], [14, 22], [1, 12], [2, 12], [13, 12], [8, 2]]
    maps = np.array(codec.encode(points, np.ones((1, 40), np.float32), (24, 16))[0])
    maps[..., 20:] += rng.normal(0, 0.1, maps[..., 20:].shape)
    maps[..., 36] = 0
    maps[..., 37] = -1
    maps[..., 38:] = rng.normal(size=maps[..., 38:].shape)
    return maps.astype(np.float32)


@pytest.mark.parametrize("border", [True, False])
@pytest.mark.parametrize("name", CODECS)
def test_joints_are_those_of_the_library(name, border):
    """float32 positions of the library: 1e-4 heatmap pixels, here up to 8 image pixels each."""
    rng = np.random.default_rng(0)
    codec = CODECS[name](1.5, published_border=border) if name == "gaussian" else CODECS[name](1.5)
    maps = some_maps(rng, codec)
    box = np.array([[13.0, -7.5, 80.0, 170.0]])
    matrices = crop_matrices(box, SIZE)
    matrix = decoder.crop_matrix(box[0], SIZE, PADDING)
    np.testing.assert_allclose(matrix, matrices[0], rtol=0, atol=1e-12)
    points, scores = (np.array(part) for part in codec.decode(maps))
    wanted = to_image(points.astype(np.float64) / codec.scale(SIZE), matrices)[0]
    about = {"name": name, "scale": codec.scale(SIZE).tolist(), **codec.get_config()}
    found = decoder.joints(maps[0], matrix, about)
    np.testing.assert_allclose(found[:, :2], wanted, rtol=0, atol=2e-3)
    np.testing.assert_array_equal(found[:, 2].astype(np.float32), scores[0])


@pytest.mark.parametrize("box", [(20, 10, 50, 70), (-30, -20, 60, 90), (80, 60, 90, 20), (31.3, 12.7, 1.5, 3.5)])
def test_crop_is_that_of_the_pipeline(box):
    """Grey levels; the pipeline works in float32: 255 x a position's rounding of 1e-5, and steps of at most 255."""
    image = np.random.default_rng(1).integers(0, 256, (100, 120, 3), np.uint8)
    matrix = decoder.crop_matrix(box, SIZE, PADDING)
    wanted = augmentation.warp(tf.constant(image), tf.constant(matrix, tf.float32), SIZE)
    found = decoder.crop(image, matrix, SIZE)
    assert found.shape == (*SIZE, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05)


def test_it_imports_numpy_and_no_more():
    """It is copied out of the package."""
    tree = ast.parse((ROOT / "keras_mrpose" / "runtime" / "decoder.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names == {"__future__", "json", "pathlib", "numpy"}
