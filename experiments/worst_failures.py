"""Draws the people on whom a network is worst, of COCO images whose licence allows to show them; writes their credits.

Worst is the lowest OKS with the labels, of people with at least 8 labelled joints and an area of more than 64x64
pixels. Above each the label, below what the network finds.

    python experiments/worst_failures.py people coco docs/failures.jpg
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from preset_crops import LICENCES

from keras_mrpose import data
from keras_mrpose.data.coco import annotation_file
from keras_mrpose.data.images import read_image
from keras_mrpose.geometry import crop_matrices, transform_each
from keras_mrpose.metrics.functional import oks
from keras_mrpose.predict.predictor import Predictor, crop
from keras_mrpose.skeletons import joint_map
from keras_mrpose.visualization.skeletons import draw_skeleton

LEAST, AREA = 8, 64**2


def main() -> None:
    """One sheet, and a line for each photograph on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", type=Path, help="COCO folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=8)
    args = parser.parse_args()
    images = {image["id"]: image for image in json.loads(annotation_file(args.data, args.split).read_text())["images"]}
    people = data.load(args.data, args.split).of_images(
        [number for number, image in images.items() if image.get("license") in LICENCES]
    )
    labelled = people.keypoints[..., 2] > 0
    people = people.take((labelled.sum(axis=1) >= LEAST) & (people.areas > AREA))
    predictor = Predictor(args.model, flip_test=False)
    index = np.array(joint_map(predictor.skeleton, people.skeleton))
    found = np.stack(
        [
            predictor.in_boxes(read_image(path), [box]).keypoints[0, index]
            for path, box in zip(people.paths(), people.boxes, strict=True)
        ]
    )
    similarity = np.asarray(
        oks(
            found[..., :2],
            people.keypoints[..., :2],
            people.keypoints[..., 2],
            np.sqrt(people.areas),
            people.skeleton.sigmas,
        )
    )
    columns = []
    for person in np.argsort(similarity)[: args.count]:
        image, box = read_image(people.paths()[person]), people.boxes[person]
        matrix = crop_matrices(box[None], predictor.input_size)
        tile = np.rint(crop(image, matrix[0], predictor.input_size)).astype(np.uint8)
        tile = cv2.resize(tile, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)
        halves = []
        for keypoints, visibility in ((people.keypoints[person], True), (found[person], False)):
            drawn = keypoints.copy()
            drawn[:, :2] = transform_each(matrix, keypoints[None, :, :2])[0] * 1.5
            halves.append(draw_skeleton(tile, drawn[None], people.skeleton, threshold=0.3, visibility=visibility))
        columns.append(np.vstack(halves))
        about = images[people.image_ids[people.image_index[person]]]
        url, licence = about["flickr_url"], LICENCES[about["license"]]
        print(f"- [{url}]({url}), {licence}, OKS {similarity[person]:.2f}")
    Image.fromarray(np.hstack(columns)).save(args.out, quality=85)


if __name__ == "__main__":
    main()
