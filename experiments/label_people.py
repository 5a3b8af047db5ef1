"""Makes a COCO-format data set of the people in a folder's photos whom nobody labelled, by a detector and a network.

A detector finds people; those whose box overlaps a labelled one's by more than 0.2 are left out. A network labels the
others with its flip test: joints whose probability is at least 0.6 get a label, people with fewer than 6 of them none.
What a network learns from such people is only as good as its teacher: train with one (`--teacher`).

    python experiments/label_people.py people detector.tflite coco_more found/coco_more
"""

import argparse
import json
from pathlib import Path

import numpy as np

from keras_mrpose import data, skeletons
from keras_mrpose.predict.detectors import detector
from keras_mrpose.predict.predictor import Predictor, overlap

OVERLAP, SURE, LEAST, SMALLEST = 0.2, 0.6, 6, 40  # of boxes; probability; joints; pixels of the longer side


def main() -> None:
    """Write a folder with a COCO annotation file and a link to the images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="preset, run folder or .keras file")
    parser.add_argument("detector", help="a .tflite file, see `mrpose predict`")
    parser.add_argument("data", type=Path, help="COCO-format folder")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--split", default="train", help="of the folder, such as train[:-60] (default: train)")
    args = parser.parse_args()
    predictor = Predictor(args.model, flip_test=True, detector=detector(args.detector))
    people = data.load(args.data, args.split)
    coco = skeletons.COCO
    places = np.array(skeletons.joint_map(predictor.skeleton, coco))
    images, annotations = [], []
    for row in np.unique(people.image_index):
        file = Path(people.image_paths[row])
        found = predictor(file)
        labelled = people.boxes[people.image_index == row]
        keypoints = found.keypoints[:, places] * (places >= 0)[:, None]
        sure = keypoints[..., 2] >= SURE
        apart = (overlap(found.boxes[:, None], labelled) <= OVERLAP).all(axis=1)
        fits = apart & (found.boxes[:, 2:].max(axis=1) >= SMALLEST)
        height, width = found.image.shape[:2]
        for person in np.flatnonzero(fits & (sure.sum(axis=1) >= LEAST)):
            triples = np.where(sure[person][:, None], keypoints[person], 0)
            triples[:, 2] = 2 * sure[person]
            box = found.boxes[person]
            annotations.append({
                "id": len(annotations) + 1, "image_id": int(people.image_ids[row]), "category_id": 1, "iscrowd": 0,
                "bbox": box.round(1).tolist(), "area": float(0.51 * box[2] * box[3]),
                "num_keypoints": int(sure[person].sum()), "keypoints": triples.round(1).ravel().tolist(),
            })  # fmt: skip
        images.append({"id": int(people.image_ids[row]), "file_name": file.name, "width": width, "height": height})
    category = {"id": 1, "name": "person", "keypoints": list(coco.joints), "skeleton": []}
    name = f"{args.split.partition('[')[0]}2017"
    (args.out / "annotations").mkdir(parents=True)
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (args.out / "annotations" / f"person_keypoints_{name}.json").write_text(json.dumps(content))
    (args.out / name).symlink_to((args.data / name).resolve())
    print(f"{len(annotations)} people in {len(images)} images, beside {len(people)} labelled ones")


if __name__ == "__main__":
    main()
