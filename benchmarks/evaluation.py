"""What `run.py evaluation` measures: each stage from heatmaps to the ten COCO numbers, beside plain loops."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import plain_loops
import tensorflow as tf
from rich.table import Table
from timing import Spread, console, seconds

from keras_mrpose.codecs import CODECS, Codec, codec
from keras_mrpose.evaluation import coco, suppression
from keras_mrpose.geometry import crop_matrices, to_image
from keras_mrpose.skeletons import COCO

IMAGE = (480, 640)  # height, width
CHUNK = 256  # people whose heatmaps are in memory at a time; also the sample that the plain loops get
BOXES_PER_IMAGE = 21  # as of the published detector, 104,125 in 5,000 images


@dataclass(frozen=True)
class Made:
    """Made-up people: image ids ``(n,)``, boxes ``(n, 4)``, joints ``(n, 17, 3)`` x, y, score; in image pixels."""

    image_ids: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    box_scores: np.ndarray

    def __getitem__(self, rows) -> Made:
        return Made(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self):
        return len(self.image_ids)


@dataclass(frozen=True)
class Stage:
    """Seconds of each repetition, and of the plain loops, scaled up from their sample."""

    name: str
    people: int
    times: np.ndarray
    plain: np.ndarray | None = None


def measure_evaluation(arguments) -> dict:
    """Milliseconds of each stage for all people, and of the plain loops for a sample, scaled up."""
    size, repeat = tuple(arguments.input_size), arguments.repetitions
    rng = np.random.default_rng(0)
    truth = made_people(arguments.people, rng)
    stages, found = measure_heatmaps(truth, size, repeat, arguments.jit, rng)
    stages += measure_selection("", found, size, repeat)
    last, numbers = measure_numbers(truth, found, size, repeat)
    stages += last
    published = [stage.times for stage in stages if not stage.name.endswith(("dark", "udp", "rescoring"))]
    stages.append(Stage("gaussian, all of these", len(found), np.sum(published, axis=0)))
    stages += measure_selection(", detected boxes", detected(found, arguments.boxes, rng), size, repeat)
    table = Table(
        title=f"COCO evaluation of {len(found):,} people, heatmaps {size[0] // 4}x{size[1] // 4}",
        caption=f"ms, median (min..max); plain loops: of at most {CHUNK} people, scaled up; AP {numbers['AP']:.3f}",
    )
    for column in ("stage", "people", "ms", "plain loops, ms", "ratio"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    rows = []
    for stage in stages:
        fast, slow = (None if t is None else Spread.of((1e3 * t).tolist()) for t in (stage.times, stage.plain))
        row = {"stage": stage.name, "people": stage.people, "milliseconds": asdict(fast)}
        rows.append(row | ({"plain_milliseconds": asdict(slow), "ratio": slow.median / fast.median} if slow else {}))
        ratio = (str(slow), f"{slow.median / fast.median:.1f}") if slow else ()
        table.add_row(stage.name, f"{stage.people:,}", str(fast), *ratio)
    console.print(table)
    return {"input_size": list(size), "stages": rows, "numbers": numbers}


# --- stages


def measure_heatmaps(truth: Made, size, repeat: int, jit: bool, rng) -> tuple[list[Stage], Made]:
    """Flip test, decoding and the way back to the image, a chunk of people after the other; and whom they find."""
    times, plain = defaultdict(lambda: np.zeros(repeat)), {}
    matrices, points, scores, warm = crop_matrices(truth.boxes, size), [], [], 0
    readers = {name: _steps(codec(name), jit) for name in CODECS}
    for begin in range(0, len(truth), CHUNK):
        rows = slice(begin, begin + CHUNK)
        maps = made_heatmaps(truth[rows], matrices[rows], size, rng)
        for name in reversed(readers):  # the published one last: its joints go on
            merge, decode = readers[name]
            if len(maps[0]) != warm:  # the uncounted warm-up, once for each shape
                decode(merge(*maps))
            for r in range(repeat):
                start = time.perf_counter()
                merged = np.asarray(merge(*maps))
                middle = time.perf_counter()
                at, confident = map(np.asarray, decode(merged))
                times[f"flip test, {name}"][r] += middle - start
                times[f"decoding, {name}"][r] += time.perf_counter() - middle
        warm = len(maps[0])
        if not begin:
            scale = len(truth) / len(at)
            flip = partial(plain_loops.merge_flipped, *maps, COCO.flip_pairs)
            plain["flip test, gaussian"] = scale * np.array(seconds(flip, repeat))
            plain["decoding, gaussian"] = scale * np.array(seconds(partial(plain_loops.decode, merged), repeat))
            back = partial(plain_loops.to_image, at, truth.boxes[rows], merged.shape[1:3])
            plain["back to the image"] = scale * np.array(seconds(back, repeat))
        points.append(at.astype(np.float64) / codec(name).scale(size))
        scores.append(confident)
    points, scores = np.concatenate(points), np.concatenate(scores)
    times["back to the image"] += seconds(lambda: to_image(points, crop_matrices(truth.boxes, size)), repeat)
    found = np.concatenate([to_image(points, matrices), scores[..., None]], axis=-1)
    order = [f"{step}, {name}" for step in ("flip test", "decoding") for name in CODECS] + ["back to the image"]
    stages = [Stage(name, len(truth), times[name], plain.get(name)) for name in order]
    return stages, Made(truth.image_ids, truth.boxes, found, truth.box_scores)


def _steps(reader: Codec, jit: bool):
    """Merging a flip test and decoding, as they are or compiled."""

    def merge(heatmaps, flipped_heatmaps):
        return reader.merge_flipped(heatmaps, flipped_heatmaps, COCO.flip_indices)

    return [tf.function(step, jit_compile=True) if jit else step for step in (merge, reader.decode)]


def measure_selection(of: str, found: Made, size, repeat: int) -> list[Stage]:
    """Rescoring alone, and with the OKS-NMS."""
    areas = suppression.window_areas(found.boxes, size)
    given = found.joints, found.image_ids, areas, found.box_scores
    rows = slice(CHUNK)
    scale = len(found) / len(found[rows])
    sample = [part[rows].tolist() for part in given]
    rescore = seconds(lambda: plain_loops.rescored(sample[0], sample[3]), repeat)
    select = seconds(lambda: plain_loops.select(*sample, COCO.sigmas), repeat)
    return [
        Stage(f"{name}{of}", len(found), np.array(seconds(fast, repeat)), scale * np.array(slow))
        for name, fast, slow in (
            ("rescoring", lambda: suppression.rescore(found.joints, found.box_scores), rescore),
            ("rescoring and OKS-NMS", lambda: suppression.rescore_and_nms(*given), select),
        )
    ]


def measure_numbers(truth: Made, found: Made, size, repeat: int) -> tuple[list[Stage], dict[str, float]]:
    """Writing the results, and comparing them with the annotations."""
    areas = suppression.window_areas(found.boxes, size)
    rows, scores = suppression.rescore_and_nms(found.joints, found.image_ids, areas, found.box_scores)
    with tempfile.TemporaryDirectory() as folder:
        annotations, file = Path(folder) / "person_keypoints_made.json", Path(folder) / "results.json"
        annotations.write_text(json.dumps(annotated(truth)))
        results = coco.results_json(found.joints[rows], found.image_ids[rows], scores)

        def write():
            coco.save_results(coco.results_json(found.joints[rows], found.image_ids[rows], scores), file)

        stages = [
            Stage(name, len(found), np.array(seconds(action, repeat)))
            for name, action in (
                ("results file", write),
                ("ten numbers (pycocotools)", lambda: coco.average_precision(annotations, results)),
            )
        ]
        return stages, coco.average_precision(annotations, results)


# --- people


def made_people(count: int, rng) -> Made:
    """People of 40 to 400 pixels in images of 640x480 with one to six of them; their joints lie in their boxes."""
    image_ids = np.repeat(np.arange(count), rng.integers(1, 7, count))[:count]
    h = np.exp(rng.uniform(np.log(40), np.log(400), count))
    w = h * rng.uniform(0.3, 0.9, count)
    boxes = np.column_stack([rng.uniform(0, IMAGE[1] - w), rng.uniform(0, IMAGE[0] - h), w, h])
    joints = boxes[:, None, :2] + rng.uniform(0.05, 0.95, (count, COCO.num_joints, 2)) * boxes[:, None, 2:]
    shown = rng.random((count, COCO.num_joints, 1)) < 0.85
    return Made(image_ids, boxes, np.concatenate([joints, shown], axis=-1), rng.uniform(0.3, 1, count))


def made_heatmaps(truth: Made, matrices, size, rng) -> tuple[np.ndarray, np.ndarray]:
    """Noisy Gaussians of height 0.2 to 1 beside the joints, for the crops and for their mirror images."""
    height, width = size[0] // 4, size[1] // 4
    points = np.einsum("nij,nkj->nki", matrices[..., :2], truth.joints[..., :2]) + matrices[:, None, :, 2]
    points = points / 4 + rng.normal(0, 0.7, points.shape)
    peaks = rng.uniform(0.2, 1, points.shape[:2])

    def drawn(points, peaks):
        columns, rows = (
            np.exp(-np.square(np.arange(n)[:, None] - points[:, None, :, axis]) / 8).astype(np.float32)
            for axis, n in enumerate((width, height))
        )
        maps = rng.standard_normal((len(points), height, width, COCO.num_joints), np.float32) * np.float32(0.01)
        maps += (rows * peaks[:, None].astype(np.float32))[:, :, None] * columns[:, None]
        return maps

    order = list(COCO.flip_indices)
    return drawn(points, peaks), drawn((points * (-1, 1) + (width - 1 / 4, 0))[:, order], peaks[:, order])


def annotated(truth: Made) -> dict:
    """The people as a COCO annotation file."""
    people = [
        {
            "id": row + 1,
            "image_id": int(truth.image_ids[row]),
            "category_id": 1,
            "iscrowd": 0,
            "bbox": truth.boxes[row].tolist(),
            "area": float(0.6 * truth.boxes[row, 2:].prod()),
            "keypoints": (truth.joints[row] * (1, 1, 2)).ravel().tolist(),
            "num_keypoints": int(truth.joints[row, :, 2].sum()),
        }
        for row in range(len(truth))
    ]
    images = [
        {"id": int(image), "file_name": f"{image}.jpg", "height": IMAGE[0], "width": IMAGE[1]}
        for image in np.unique(truth.image_ids)
    ]
    return {"images": images, "annotations": people}


def detected(found: Made, count: int, rng) -> Made:
    """As many detected boxes, `BOXES_PER_IMAGE` in each image: about every third finds again one who is there."""
    boxes = found[rng.integers(0, len(found), count)]
    image_ids, again = np.arange(count) // BOXES_PER_IMAGE, np.arange(count)
    again[1:] -= (rng.random(count - 1) < 1 / 3) & (image_ids[1:] == image_ids[:-1])
    joints = boxes.joints[again]
    joints[..., :2] += rng.normal(0, 0.02, joints[..., :2].shape) * boxes.boxes[again, None, 3:]
    return Made(image_ids, boxes.boxes[again], joints, rng.uniform(0.05, 1, count))
