"""Results without a network: annotated people, raw predictions near them, and a result file's content."""

import json

import numpy as np

from keras_mrpose.data import coco
from keras_mrpose.evaluation.evaluate import PROTOCOLS, Result
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.evaluation.provenance import Settings, of_data
from keras_mrpose.skeletons import COCO

SIZE = (96, 64)
WAYS = {"single": 7.0, "flip": 5.0, "flip+shift": 3.5}  # pixels that the joints are off, one standard deviation
IMAGES, PEOPLE = (5, 3, 8), 4  # so many people in each, of 60x90 pixels


def folder(root, split="val2017", seed=0):
    """A COCO folder of annotations alone."""
    rng, people = np.random.default_rng(seed), []
    for place, image in enumerate(np.repeat(IMAGES, PEOPLE).tolist()):
        corner = np.array((20 + 90 * (place % PEOPLE), 30))
        joints = np.concatenate([corner + rng.uniform(0, (60, 90), (17, 2)), np.full((17, 1), 2)], axis=1).round(2)
        person = {"id": place + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "num_keypoints": 17}
        person |= {
            "bbox": [*corner.tolist(), 60, 90],
            "area": 3000.0 + 100 * place,
            "keypoints": joints.ravel().tolist(),
        }
        people.append(person)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 400, "height": 300} for number in IMAGES]
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    file = root / "annotations" / f"person_keypoints_{split}.json"
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}]
    file.write_text(json.dumps({"images": images, "annotations": people, "categories": categories}))
    return coco.load(root, split, require_images=False)


def predictions(truth, seed=0, noise=1.0, codecs=("gaussian", "dark"), ways=tuple(WAYS), twice=False):
    """Joints near those of the truth; `twice`: the first four people have a second box, found a little worse."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.arange(len(truth)), np.arange(4 if twice else 0)])
    keypoints = {}
    for codec in codecs:
        for way in ways:
            found = truth.keypoints[rows].copy()
            found[..., :2] += noise * WAYS[way] * rng.standard_normal(found[..., :2].shape)
            found[..., 2] = rng.uniform(0.1, 1, found.shape[:2])
            keypoints[f"{codec}/{way}"] = found.astype(np.float32)
    return Predictions(
        input_size=SIZE,
        images=truth.image_ids,
        ids=np.arange(len(rows)) if twice else truth.ids,
        image_ids=truth.image_ids[truth.image_index[rows]],
        boxes=truth.boxes[rows],
        box_scores=np.linspace(1, 0.5, len(rows)) if twice else truth.scores,
        keypoints=keypoints,
    )


def result(found, truth, kind="ap", network=None, boxes=None, **settings):
    """A result as `evaluate` makes it, of a network that is made up."""
    chosen = Settings(**settings)
    scored = PROTOCOLS[kind].score_fn(found, truth, chosen)
    protocol = {
        "evaluation": kind,
        "settings": {name: getattr(chosen, name) for name in PROTOCOLS[kind].settings},
        "data": of_data(truth),
        "boxes": boxes or {"kind": "annotated"},
        "network": {"model": "simplebaseline", "backbone": "resnet50_v1b", "input_size": [256, 192], **(network or {})},
        "command": f"evaluate {network}",
        "time": f"{len(found.ids)} o'clock",
    }
    return Result(PROTOCOLS[kind].metric, scored.value, scored.numbers, None, protocol, found)
