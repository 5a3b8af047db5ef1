"""Train the person detector of the package: MRFeaNet1 with a map of centres and two of sizes, after CenterNet.

    python experiments/train_detector.py OUT --data coco coco_more mpii_photos --teacher nanodet_person.tflite

Folders are in COCO's layout; their ``train2017`` images are trained on, all people in ``annotations`` count, also
those without keypoints. People whom nobody labelled would be taught as background: a teacher, another detector, fills
them in (and where it is not sure the loss looks away). The network starts from the pose network of the package, without
its last layer. Training goes on where it stopped; ``OUT/person_detector_*.tflite`` come out, for `--detector`.

Targets and losses are those of TTFNet (Liu et al. 2020), a CenterNet (Zhou et al. 2019) that learns sizes in the
neighbourhood of a centre, not in one cell: it needs a tenth of the epochs.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_mrpose  # before Keras, so that TensorFlow takes oneDNN's kernels  # isort: skip
import cv2
import keras
import numpy as np
from keras import ops

from keras_mrpose.data.images import read_image
from keras_mrpose.export import litert
from keras_mrpose.models import backbones
from keras_mrpose.models.networks import build
from keras_mrpose.predict.detectors import LiteRTDetector
from keras_mrpose.predict.predictor import overlap
from keras_mrpose.skeletons import Skeleton

SIDE, STRIDE, UNIT = 320, 4, 64.0  # pixels: of the square input, of a cell, and of a box whose log size is 0
SURE, UNSURE = 0.45, 0.2  # scores of the teacher: a person; perhaps one
KNOWN = 0.45  # IoU from which on a box of the teacher is the labelled person's
SPREAD = 0.54 / 6  # of a box's sides: sigma of the Gaussian around its centre (TTFNet)
MAPS = Skeleton("person_box", ("centre", "log_width", "log_height"), pairs_from_names=False)


@dataclass
class Sample:
    """An image with its people: boxes ``(n, 4)`` x, y, w, h, and whether each is sure ``(n,)``."""

    image: np.ndarray
    boxes: np.ndarray
    sure: np.ndarray


def read_samples(folders: list[Path], teacher: LiteRTDetector) -> list[Sample]:
    """The training images of COCO folders, in memory (a few hundred MB for two thousand)."""
    samples = []
    for folder in folders:
        about = json.loads((folder / "annotations" / "person_keypoints_train2017.json").read_text())
        people: dict[int, list] = {image["id"]: [] for image in about["images"]}
        for record in about["annotations"]:
            people[record["image_id"]].append((*record["bbox"], not record.get("iscrowd", 0)))
        for image in about["images"]:
            pixels = read_image(folder / "train2017" / image["file_name"])
            labelled = np.reshape(people[image["id"]], (-1, 5)).astype(np.float64)
            boxes, sure = labelled[:, :4], labelled[:, 4].astype(bool)
            found, scores = teacher(pixels)
            new = [not len(boxes) or overlap(box, boxes).max() < KNOWN for box in found]
            boxes = np.concatenate([boxes, found[new]])
            samples.append(Sample(pixels, boxes, np.concatenate([sure, scores[new] >= SURE])))
    return samples


def targets(boxes: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Maps ``(cells, cells, 5)``: centre, its weight in the loss, log width, log height, their weight."""
    cells = SIDE // STRIDE
    y, x = np.mgrid[:cells, :cells] * float(STRIDE)
    found = np.zeros((cells, cells, 5), np.float32)
    found[..., 1] = 1
    for (left, top, w, h), is_sure in sorted(zip(boxes, sure, strict=True), key=lambda row: -np.prod(row[0][2:])):
        low, high = np.array([left, top]), np.array([left + w, top + h])
        inside = np.clip([low, high], 0, SIDE)
        if np.prod(inside[1] - inside[0]) < 0.3 * w * h or min(w, h) < 4:
            is_sure = False  # hardly to be seen
        if not is_sure:
            within = (x >= left) & (x < left + w) & (y >= top) & (y < top + h)
            found[..., 1][within] = 0
            continue
        (left, top), (w, h) = inside[0], inside[1] - inside[0]  # what is in the image
        centre = np.rint((inside.sum(axis=0) / 2) / STRIDE) * STRIDE
        centre = np.minimum(centre, SIDE - STRIDE)
        sigma = np.maximum(SPREAD * np.array([w, h]), STRIDE / 3)
        gaussian = np.exp(-(((x - centre[0]) / sigma[0]) ** 2 + ((y - centre[1]) / sigma[1]) ** 2) / 2)
        higher = gaussian > np.maximum(found[..., 0], 0.1)
        found[..., 0] = np.maximum(found[..., 0], gaussian)
        found[higher, 1] = 1
        found[higher, 2:4] = np.log([w / UNIT, h / UNIT])
        found[higher, 4] = gaussian[higher]
    return found


class Batches(keras.utils.PyDataset):
    """Augmented batches: scaled, moved, mirrored, colours changed."""

    def __init__(self, samples: list[Sample], size: int, seed: int):
        super().__init__(workers=1)  # a batch takes a fifteenth of a step; threads of Keras wait by spinning
        self.samples, self.size, self.epoch, self.seed = samples, size, 0, seed
        self.on_epoch_begin()

    def __len__(self) -> int:
        return len(self.samples) // self.size

    def on_epoch_begin(self) -> None:
        """Another order."""
        self.order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.samples))

    def on_epoch_end(self) -> None:
        """The next epoch's order."""
        self.epoch += 1
        self.on_epoch_begin()

    def __getitem__(self, index: int):
        rng = np.random.default_rng([self.seed, self.epoch, index])
        chosen = self.order[index * self.size : (index + 1) * self.size]
        images, maps = zip(*(augmented(self.samples[number], rng) for number in chosen), strict=True)
        return np.stack(images), np.stack(maps)


def augmented(sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image ``(SIDE, SIDE, 3)`` float32 and its targets."""
    height, width = sample.image.shape[:2]
    scale = SIDE / max(height, width) * np.exp(rng.uniform(np.log(0.6), np.log(1.8)))
    spare = SIDE - scale * np.array([width, height])
    shift = np.where(rng.random() < 0.5, rng.uniform(0, 1, 2), rng.normal(0.5, 0.3, 2).clip(0, 1)) * spare
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    boxes = sample.boxes.copy()
    if rng.random() < 0.5:
        matrix[0] = -scale, 0, SIDE - 1 - shift[0]
        boxes[:, 0] = -(boxes[:, 0] + boxes[:, 2] - 1)
        boxes[:, 0] = boxes[:, 0] * scale + SIDE - 1 - shift[0]
    else:
        boxes[:, 0] = boxes[:, 0] * scale + shift[0]
    boxes[:, 1] = boxes[:, 1] * scale + shift[1]
    boxes[:, 2:] *= scale
    source = sample.image
    if scale < 0.5:  # linear sampling alone would leave out pixels
        source = cv2.resize(source, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.diag([2.0, 2.0, 1.0])
    image = cv2.warpAffine(source, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR).astype(np.float32)
    if rng.random() < 0.7:
        image = image * rng.uniform(0.6, 1.4) * rng.uniform(0.85, 1.15, 3).astype(np.float32)
        grey = image.mean(axis=-1, keepdims=True)
        image = np.clip(grey + (image - grey) * rng.uniform(0.5, 1.5), 0, 255)
    return image.astype(np.float32), targets(boxes, sample.sure)


def loss(wanted, maps):
    """Focal loss of the centres and, ten times as heavy, L1 of the log sizes around them; per person."""
    maps = ops.cast(maps, "float32")
    truth, weight, size_weight = wanted[..., 0], wanted[..., 1], wanted[..., 4]
    logit = maps[..., 0]
    p = ops.sigmoid(logit)
    is_centre = ops.cast(truth > 0.999, "float32")
    hit = is_centre * (1 - p) ** 2 * ops.softplus(-logit)
    miss = (1 - is_centre) * weight * (1 - truth) ** 4 * p**2 * ops.softplus(logit)
    people = ops.maximum(ops.sum(is_centre), 1.0)
    sizes = ops.sum(size_weight[..., None] * ops.abs(maps[..., 1:] - wanted[..., 2:4]))
    return ops.sum(hit + miss) / people + 5 * sizes / ops.maximum(ops.sum(size_weight), 1.0)


def pose_network() -> keras.Model:
    """The network for maps, started from the package's pose network."""
    model = build("mrfeanet1", "mobilenetv2", (SIDE, SIDE, 3), skeleton=MAPS, preprocessing="symmetric")
    trained = build("mrfeanet1", "mobilenetv2", weights="people")
    for layer in model.layers:
        if layer.weights and layer.name != "final_layer":
            layer.set_weights(trained.get_layer(layer.name).get_weights())
    final = model.get_layer("final_layer")
    kernel, _ = final.get_weights()
    final.set_weights([kernel, np.array([-4.0, 0.0, 0.5], np.float32)])  # people are rare, and higher than wide
    return model


def with_boxes(model: keras.Model) -> keras.Model:
    """The network as it ships: from an image to boxes ``(1, n, 4)`` as shares of its side, and scores ``(1, n)``."""
    image = keras.Input(batch_shape=(1, SIDE, SIDE, 3), name="image")
    maps = keras_mrpose.export.outputs.heatmaps(model)(image)
    boxes, scores = Boxes(name="boxes", dtype="float32")(maps)
    return keras.Model(image, [boxes, scores], name="person_detector")


class Boxes(keras.layers.Layer):
    """Maps to boxes and scores, one for each cell; of cells that are no peak the score is 0."""

    def call(self, maps):
        """Boxes ymin, xmin, ymax, xmax as shares of the side, and scores."""
        cells = SIDE // STRIDE
        score = ops.sigmoid(maps[..., :1])
        peak = ops.max_pool(score, 3, 1, padding="same")
        score = score * ops.cast(score >= peak, "float32")
        y, x = np.mgrid[:cells, :cells].astype(np.float32) * STRIDE
        w, h = (UNIT / 2 * ops.exp(ops.clip(maps[..., number], -4.0, 3.0)) for number in (1, 2))
        corners = ops.stack([y - h, x - w, y + h, x + w], axis=-1) / SIDE
        return ops.reshape(corners, (1, cells * cells, 4)), ops.reshape(score, (1, cells * cells))


def main() -> None:
    """Train, and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--frozen-stages", type=int, default=2, help="of the backbone, which knows people already")
    parser.add_argument("--precision", default="float32", help="mixed_bfloat16 where the CPU has its instructions")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_global_policy(args.precision)
    samples = read_samples(args.data, LiteRTDetector(args.teacher, UNSURE))
    sure = np.concatenate([sample.sure for sample in samples])
    print(f"{len(samples)} images, {sure.sum()} people, {(~sure).sum()} perhaps")
    batches = Batches(samples, args.batch_size, seed=0)
    model = pose_network()
    backbones.freeze(model, "mobilenetv2", args.frozen_stages)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, args.epochs * len(batches), alpha=0.01, warmup_target=args.learning_rate, warmup_steps=100
    )
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02, clipnorm=5.0), loss)
    callbacks = [
        keras.callbacks.BackupAndRestore(args.out / "backup"),
        keras.callbacks.CSVLogger(args.out / "history.csv", append=True),
    ]
    model.fit(batches, epochs=args.epochs, callbacks=callbacks, verbose=2)
    model.save(args.out / "last.keras")
    keras.mixed_precision.set_global_policy("float32")
    network = with_boxes(model)
    for precision in ("float16", "dynamic"):
        content = litert.convert(network, precision).content
        (args.out / f"person_detector_{precision}.tflite").write_bytes(content)
        print(f"{precision}: {len(content) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
