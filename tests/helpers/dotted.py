"""A COCO folder whose people are three coloured dots, and a network that finds them with nothing to learn.

Each of the 17 joints is at the dot of one of the colours, so that the data set's own protocol judges the network.
"""

import json

import dots
import keras
import numpy as np
from PIL import Image

from keras_mrpose.codecs import GaussianCodec
from keras_mrpose.data import coco
from keras_mrpose.models import networks
from keras_mrpose.skeletons import COCO

SIZE = (96, 64)  # of the network's crops
COLOURS = np.arange(17) % 3  # of each joint
PICTURE, PEOPLE = (140, 230), 2  # height and width; people in each image


def network(codec=None):
    """From crops of 96x64 to 17 heatmaps."""
    plain = dots.network(SIZE, codec=codec or GaussianCodec(1.0))
    joints = keras.layers.Conv2D(17, 1, use_bias=False, name="joints")
    spec = {"name": "dotted", "backbone": "none", "preprocessing": "own", "input_shape": SIZE}
    maps = joints(plain.output)
    model = networks.PoseModel(plain.input, maps, skeleton=COCO, codec=plain.codec, spec=spec, name="dotted")
    joints.set_weights([np.eye(3, dtype="float32")[:, COLOURS][None, None]])
    return model


def folder(root, split, people, seed=0, brightness=1.0, noise=0.0):
    """Write it, with a image for each two people; dots of brightness 1 are as bright as they get.

    `noise`: of the annotated joints, pixels.
    """
    rng, images, records = np.random.default_rng(seed), [], []
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir()
    middles = np.array([(60, 70), (165, 66)])
    for number in range(people // PEOPLE):
        points = middles[:, None] + [[-10, 18], [12, -16], [0, -25]] + rng.uniform(-6, 6, (PEOPLE, 3, 2))
        picture = (brightness * dots.picture(PICTURE, points)).astype(np.uint8)
        Image.fromarray(picture).save(root / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": PICTURE[1], "height": PICTURE[0]})
        for place, (middle, person) in enumerate(zip(middles, points, strict=True)):
            joints = person[COLOURS] + noise * rng.standard_normal((17, 2))
            joints = np.concatenate([joints, np.full((17, 1), 2)], axis=1)
            records.append(
                {
                    "id": PEOPLE * number + place + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "area": 3000.0,
                    "bbox": [*(middle - (30, 45)).tolist(), 60, 90],
                    "keypoints": joints.ravel().tolist(),
                }
            )
    file = root / "annotations" / f"person_keypoints_{split}.json"
    file.write_text(json.dumps({"images": images, "annotations": records}))
    return coco.load(root, split)
