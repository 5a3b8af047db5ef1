"""How much memory `run.py memory` finds: of loading a COCO-sized annotation file, and of a training, epoch after epoch.

Each is measured in a process of its own, after the library and TensorFlow are in memory. Linux only.
"""

from __future__ import annotations

import io
import json
import tempfile
import threading
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
from rich.table import Table
from timing import console, in_a_process

from keras_mrpose import data, training
from keras_mrpose.data import coco
from keras_mrpose.data.people import People
from keras_mrpose.synthetic import dataset
from keras_mrpose.training.config import Experiment, Recipe

# COCO's train2017 has 149,813 people with keypoints and 262,465 annotations in 64,115 images.
ANNOTATIONS_PER_PERSON, PEOPLE_PER_IMAGE = 1.75, 2.34
PICTURES = 200  # drawn; to train on
EXPERIMENT = Experiment(
    name="memory",
    backbone="tiny_v1b",
    input_size=(64, 64),
    sigma=1.5,
    recipe=Recipe(epochs=40, batch_size=16, ema=0.99, optimizer="adamw", weight_decay=0.05),
)


def measure_memory(people: int) -> dict:
    """Print and return what loading so many people takes, and the resident memory after each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_annotations(Path(folder), people)
        file_mb = round(file.stat().st_size / 1e6)
        loading = {name: in_a_process(load, how, folder) for name, how in LOADING.items()}
    table = Table(title=f"{people:,} people of a file of {file_mb} MB, on the MB that the library takes")
    for column in ("by", "s", "s of processor", "MB of the library", "MB more at most", "MB more after it"):
        table.add_column(column, justify="left" if column == "by" else "right")
    for name, found in loading.items():
        table.add_row(name, *(f"{number:.1f}" if "second" in field else str(number) for field, number in found.items()))
    console.print(table)
    with tempfile.TemporaryDirectory() as folder:
        resident = in_a_process(epochs, folder)
    console.print(f"resident after each epoch of a training, MB: {', '.join(map(str, resident))}")
    return {"file_mb": file_mb, "loading": loading, "resident_mb_after_epochs": resident, "order_bytes": 8 * people}


def people_of(folder: str) -> People:
    """As a training loads them."""
    return coco.load(folder, "train", require_images=False)


def objects_of(folder: str) -> dict:
    """What the library's loader is measured against: the whole file as Python's objects, not yet looked at."""
    return json.loads(coco.annotation_file(folder, "train").read_bytes())


LOADING = {"data.coco.load": people_of, "json.loads alone": objects_of}


def load(how, folder: str) -> dict:
    """Seconds and megabytes of loading the folder's annotations."""
    library, begin, cpu = status_mb("VmRSS"), time.perf_counter(), time.process_time()
    kept = how(folder)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "library_mb": library,
        "peak_mb": status_mb("VmHWM") - library,
        "kept_mb": status_mb("VmRSS") - library,
    }
    del kept  # not before
    return found


def epochs(folder: str) -> list[int]:
    """Resident megabytes after each epoch of a whole training, with all that it keeps and writes."""
    for split, first, count in (("train2017", 0, PICTURES), ("val2017", PICTURES, PICTURES // 4)):
        dataset.write(folder, count, split=split, first_index=first, size=(120, 160))
    run, resident = Path(folder, "run"), {}

    def note() -> None:
        while True:
            with suppress(OSError, ValueError):  # not there yet, or being written
                resident.setdefault(len(json.loads((run / "history.json").read_text())["loss"]), status_mb("VmRSS"))
            time.sleep(0.02)

    threading.Thread(target=note, daemon=True).start()
    with redirect_stdout(io.StringIO()):  # the progress bars
        training.train.train(EXPERIMENT, data.load(folder, "train"), data.load(folder, "val"), run)
    time.sleep(0.1)
    return list(resident.values())


def status_mb(field: str) -> int:
    """Of this process: VmRSS is resident, VmHWM the most that ever was (`getrusage` counts the parent's, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(f"{field}:"))


def write_annotations(folder: Path, people: int) -> Path:
    """A made-up ``person_keypoints_train2017.json`` as long as COCO's, outlines and people without joints included."""
    rng = np.random.default_rng(0)
    file = folder / "annotations" / "person_keypoints_train2017.json"
    file.parent.mkdir()
    count = max(1, round(people / PEOPLE_PER_IMAGE))
    url = "http://images.cocodataset.org/train2017"
    with file.open("w") as out:
        out.write('{"info": {"description": "made up"}, "licenses": [], "images": [')
        for image in range(1, count + 1):
            name = f"{image:012d}.jpg"
            record = {"license": 3, "file_name": name, "coco_url": f"{url}/{name}", "height": 480, "width": 640}
            record |= {
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": "http://farm9.staticflickr.com/8186/8_z.jpg",
            }
            out.write(json.dumps(record | {"id": image}) + (", " if image < count else '], "annotations": ['))
        last = round(people * ANNOTATIONS_PER_PERSON)
        for number in range(1, last + 1):
            record = _annotation(rng, number, int(rng.integers(1, count + 1)), number <= people)
            out.write(json.dumps(record) + (", " if number < last else "], "))
        out.write('"categories": [{"supercategory": "person", "id": 1, "name": "person"}]}')
    return file


def _annotation(rng: np.random.Generator, number: int, image: int, has_joints: bool) -> dict:
    joints = rng.integers(1, 480, (17, 3)) * has_joints
    joints[:, 2] = rng.integers(1, 3, 17) * has_joints
    return {
        "segmentation": [rng.uniform(0, 480, 2 * int(rng.integers(15, 60))).round(2).tolist()],
        "num_keypoints": 17 * has_joints,
        "area": round(rng.uniform(1000, 30000), 4),
        "iscrowd": 0,
        "keypoints": joints.ravel().tolist(),
        "image_id": image,
        "bbox": rng.uniform(10, 200, 4).round(2).tolist(),
        "category_id": 1,
        "id": number,
    }
