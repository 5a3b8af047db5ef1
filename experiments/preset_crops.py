"""Writes crops of people that come with a network of the package, to calibrate and verify its int8 exports with.

Of the people in COCO images whose licence allows to pass them on (`LICENCES`), each as it is and some augmented, as
JPEG files in one .npz; and their credits as a Markdown list.

    python experiments/preset_crops.py coco keras_mrpose/weights/people/crops.npz credits.md --input-size 256 192
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from keras_mrpose import data
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.coco import annotation_file
from keras_mrpose.data.pipeline import batches

LICENCES = {4: "CC BY 2.0", 5: "CC BY-SA 2.0", 7: "no known copyright restrictions", 8: "United States Government Work"}
LEAST, COUNT = 5, 48  # labelled joints of a person; crops


def main() -> None:
    """Crops, and the list of credits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="COCO folder; its train split is taken")
    parser.add_argument("out", type=Path)
    parser.add_argument("credits", type=Path)
    parser.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), required=True, help="the network's")
    args = parser.parse_args()
    size = tuple(args.input_size)
    images = {image["id"]: image for image in json.loads(annotation_file(args.data, "train").read_text())["images"]}
    free = [number for number, image in images.items() if image.get("license") in LICENCES]
    people = data.load(args.data, "train").of_images(free)
    people = people.take((people.keypoints[..., 2] > 0).sum(axis=1) >= LEAST)
    still = np.concatenate([crops.numpy() for crops, _ in batches(people, size, 16)])
    moving = batches(people, size, len(people), augmentation=Augmentation())
    varied = np.concatenate([crops.numpy() for crops, _ in moving.take(-(-COUNT // len(people)))])
    crops = np.concatenate([still, varied])[:COUNT]
    files = {}
    for number, crop in enumerate(crops):
        buffer = io.BytesIO()
        Image.fromarray(np.rint(crop).astype(np.uint8)).save(buffer, "JPEG", quality=88)
        files[f"{number:03d}"] = np.frombuffer(buffer.getvalue(), np.uint8)
    np.savez(args.out, **files)
    used = [images[number] for number in people.image_ids[np.unique(people.image_index)]]
    lines = [f"- [{image['flickr_url']}]({image['flickr_url']}), {LICENCES[image['license']]}" for image in used]
    args.credits.write_text("\n".join(lines) + "\n")
    print(f"{len(crops)} crops of {len(people)} people in {len(used)} images")


if __name__ == "__main__":
    main()
