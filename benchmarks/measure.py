"""What `run.py` measures: the input pipeline and the networks' steps; the other modules have the rest."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf
from evaluation import measure_evaluation
from exports import measure_exports, measure_phones
from memory import measure_memory
from peak import flop, measure_peak
from prediction import measure_prediction
from rich.table import Table
from timing import Spread, console, machine, seconds

from keras_mrpose import build, skeletons
from keras_mrpose.data import coco, lsp, pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.people import People
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models import networks
from keras_mrpose.models.fuse import fuse_for_inference
from keras_mrpose.optimizers import Adam


def everything(arguments) -> dict:
    """Measure what is asked for, print a table for each, and return all numbers."""
    if arguments.threads:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    report = {"machine": machine(arguments.threads)}
    console.print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), style="dim")
    if arguments.what in ("all", "pipeline"):
        report["pipeline"] = measure_pipeline(arguments)
    if arguments.what in ("all", "networks"):
        report["networks"] = [measure_networks(arguments, precision) for precision in arguments.precision]
    if arguments.what in ("all", "evaluation"):
        report["evaluation"] = measure_evaluation(arguments)
    if arguments.what == "exports":
        report["exports"] = measure_exports(arguments)
    if arguments.what == "phones":
        report["phones"] = measure_phones(arguments)
    if arguments.what == "prediction":
        report["prediction"] = measure_prediction(arguments)
    if arguments.what == "memory":
        report["memory"] = measure_memory(arguments.people)
    return report


# --- input pipeline


PIPELINES = {
    "evaluation": {},
    "training": {"augmentation": Augmentation()},
    "training past bad records": {"augmentation": Augmentation(), "on_bad_record": "skip"},
    "training with all augmentations, each always": {
        "augmentation": Augmentation(
            half_body_probability=1.0,
            shift_probability=1.0,
            colour_probability=1.0,
            erasing_probability=1.0,
        )
    },
}


def measure_pipeline(arguments) -> dict:
    """Crops per second that come out of the pipeline as an evaluation and as trainings have it."""
    height, width = arguments.input_size
    with tempfile.TemporaryDirectory() as folder:
        people = people_of(arguments.data) if arguments.data else made_photographs(Path(folder), (480, 640), 48)
        table = Table(title=f"Input pipeline to {height}x{width}")
        table.add_column("pipeline")
        table.add_column("files")
        table.add_column("images/s (min..max)", justify="right")
        batch_size = min(arguments.batch_size, len(people))
        steps = max(arguments.steps, math.ceil(64 / batch_size))
        running = {
            name: iter(pipeline.batches(people, (height, width), batch_size, **how).repeat())
            for name, how in PIPELINES.items()
        }
        times = {name: [] for name in running}
        # in turn, so that a machine that slows down slows all; the first round, uncounted, starts threads
        for _ in range(1 + arguments.repetitions):
            for name, iterator in running.items():
                times[name] += seconds(lambda: [next(iterator) for _ in range(steps)], 1, warm_up=0)  # noqa: B023
        rates = {name: Spread.of([steps * batch_size / t for t in some[1:]]) for name, some in times.items()}
        for name, rate in rates.items():
            table.add_row(name, people.source, str(rate))
    console.print(table)
    facts = {"data": people.source, "people": len(people), "input_size": [height, width], "batch_size": batch_size}
    return {**facts, "images_per_second": {name: asdict(rate) for name, rate in rates.items()}}


def people_of(data: str) -> People:
    """The people of a folder in LSP's or COCO's format."""
    if (Path(data) / "annotations").is_dir():
        splits = [split for split in ("train", "val") if list(Path(data).glob(f"annotations/*_{split}*.json"))]
        return coco.load(data, splits[0] if splits else "train")
    return lsp.load(data)


def made_photographs(folder: Path, size: tuple[int, int], count: int) -> People:
    """JPEG files of this height and width and about COCO's bytes per pixel, with a box and seventeen joints in each."""
    rng = np.random.default_rng(0)
    height, width = size
    paths = []
    for number in range(count):
        # coarse and fine structure, as photographs have
        image = sum(
            cv2.resize(
                rng.uniform(0, 255 / 5, (height // s, width // s, 3)), (width, height), interpolation=cv2.INTER_CUBIC
            )
            for s in (160, 80, 32, 16, 8)
        )
        paths.append(str(folder / f"{number}.jpg"))
        cv2.imwrite(paths[-1], (image + rng.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8))
    index = np.arange(count)
    box = np.array([width * 0.3, height * 0.1, width * 0.35, height * 0.8])
    joints = box[:2] + rng.random((count, 17, 2)) * box[2:]
    return People(
        source=f"made {width}x{height} photographs",
        skeleton=skeletons.COCO,
        image_paths=np.array(paths),
        image_ids=index,
        image_index=index,
        ids=index,
        boxes=np.tile(box, (count, 1)),
        keypoints=np.concatenate([joints, np.full((count, 17, 1), 2)], axis=-1),
        reference_length=np.full(count, math.sqrt(box[2] * box[3])),
        areas=np.full(count, box[2] * box[3]),
    )


# --- networks


def measure_networks(arguments, precision: str) -> dict:
    """Milliseconds per image of a training step and of inference, and the share of the peak that they reach."""
    side = arguments.gemm_side
    if tf.config.list_physical_devices("GPU") and not arguments.quick:
        side = max(side, 8192)
    peak = measure_peak(precision, side, arguments.repetitions)
    height, width = arguments.input_size
    table = Table(
        title=f"{arguments.backbone}, {height}x{width}, {precision}; matrix product peak {peak / 1e9:,.0f} GFLOP/s",
        caption="ms per image, median (min..max); peak: the median's share of it, training counts as 3 forward passes",
    )
    for column in ("network", "parameters", "GFLOP"):
        table.add_column(column, justify="left" if column == "network" else "right")
    batch = arguments.batch_size
    for column in (
        f"training, batch {batch}",
        "peak",
        f"inference, batch {batch}",
        "peak",
        "inference, batch 1",
        "peak",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    rows = []
    for name in arguments.networks:
        row = _measure_network(name, arguments, precision)
        cells = [name, f"{row['parameters']:,}", f"{row['flop_forward'] / 1e9:.3g}"]
        for key, passes in (("training", 3), ("inference", 1), ("inference_single", 1), ("inference_rewritten", 1)):
            share = passes * row["flop_forward"] / (row[key].median / 1e3) / peak
            cells += [str(row[key]), f"{share:.0%}"]
            row[key] = {**asdict(row[key]), "share_of_peak": share}
        *cells, time, share = cells
        table.add_row(*cells)
        table.add_row("  rewritten", *[""] * (len(cells) - 3), time, share)
        rows.append(row)
    console.print(table)
    facts = {"backbone": arguments.backbone, "input_size": [height, width], "batch_size": batch, "jit": arguments.jit}
    return {**facts, "precision": precision, "gemm_flop_per_second": peak, "networks": rows}


def _measure_network(name: str, arguments, precision: str) -> dict:
    """Times in milliseconds per image on random data that stays the same, so that no pipeline takes part."""
    keras.utils.set_random_seed(0)
    with networks.precision(precision):
        model = build(name, backbone=arguments.backbone, input_shape=(*arguments.input_size, 3))
    images, target = random_batch(arguments.batch_size, arguments.input_size, model.skeleton.num_joints)
    train = training_step(model, images, target, arguments.jit)

    def forward(network):
        return tf.function(lambda images: network(images, training=False), jit_compile=arguments.jit)

    def milliseconds(step, batch_size, steps):
        def run():
            for result in [step() for _ in range(steps)]:
                result.numpy()  # waits

        return Spread.of([1e3 * t / (steps * batch_size) for t in seconds(run, arguments.repetitions, warm_up=2)])

    predict, predict_rewritten = forward(model), forward(fuse_for_inference(model))
    steps, single = arguments.steps, images[:1]
    row = {
        "network": name,
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "flop_forward": flop(model),
        "inference": milliseconds(lambda: predict(images), arguments.batch_size, steps),
        "inference_single": milliseconds(lambda: predict(single), 1, 4 * steps),
        "inference_rewritten": milliseconds(lambda: predict_rewritten(single), 1, 4 * steps),
        "training": milliseconds(train, arguments.batch_size, steps),
    }
    keras.backend.clear_session()
    return row


def training_step(model: keras.Model, images: tf.Tensor, target: tf.Tensor, jit: bool = False):
    """Function that takes a step with Adam on this batch and returns the loss, which makes the target maps itself."""
    optimizer, loss = Adam(1e-3), HeatmapMSE(model.codec)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=jit)
    def train():
        with tf.GradientTape() as tape:
            value = loss(target, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    return train


def random_batch(batch_size: int, size: tuple[int, int], joints: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Images ``(batch, H, W, 3)`` and target ``(batch, joints, 4)``."""
    rng = np.random.default_rng(0)
    height, width = size
    points = rng.uniform(0, (width / 4, height / 4), (batch_size, joints, 2))
    target = np.concatenate([points, np.ones((batch_size, joints, 1)), np.full((batch_size, joints, 1), 30)], axis=-1)
    return tf.constant(rng.uniform(0, 255, (batch_size, *size, 3)), tf.float32), tf.constant(target, tf.float32)
