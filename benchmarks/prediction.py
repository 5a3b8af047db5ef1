"""What `mrpose predict` takes from start to end: one photo, 20 photos of 12 megapixels, and a video."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from rich.table import Table
from timing import Spread, console, seconds

from keras_mrpose.predict.video import VideoWriter
from keras_mrpose.presets import read_crops

PHOTO, PHOTOS = (3000, 4000), 20  # rows and columns of 12 megapixels
VIDEO, FRAMES, FPS = (480, 640), 150, 30.0
ROOT = Path(__file__).resolve().parents[1]


def measure_prediction(arguments) -> dict:
    """Seconds of each command in turn, the start included, and frames a second of the video."""
    photo, number, frames = (750, 1000), 2, 10
    if not arguments.quick:
        photo, number, frames = PHOTO, PHOTOS, FRAMES
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _write_photos(place / "photos", photo, number)
        _write_video(place / "people.mp4", frames)
        find = ["--detector", str(Path(arguments.detector).resolve())] if arguments.detector else []
        who = "everybody" if find else "one person"
        commands = {
            "one photo": ["photos/photo_0.jpg"],
            f"{number} photos of {photo[1]}x{photo[0]}, drawings and JSON": ["photos"],
            f"{number} photos of {photo[1]}x{photo[0]}, JSON": ["photos", "--save", "json"],
            f"video, {frames} frames of {VIDEO[1]}x{VIDEO[0]} ({frames / FPS:.1f} s), {who}": ["people.mp4", *find],
        }
        times = {name: [] for name in commands}
        for _ in range(arguments.repetitions):  # in turn: what slows the machine slows all
            for name, options in commands.items():
                times[name] += seconds(lambda options=options: _predict(place, options), 1, warm_up=0)
    table = Table(title="mrpose predict, start included", caption="seconds: median (min..max)")
    table.add_column("command")
    table.add_column("seconds", justify="right")
    for name, values in times.items():
        table.add_row(name, str(Spread.of(values)))
    console.print(table)
    return {"seconds": times}


def _predict(place: Path, options: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "keras_mrpose", "predict", *options]
    subprocess.run(command, cwd=place, env=environment, check=True, capture_output=True)


def _write_photos(folder: Path, size: tuple[int, int], number: int) -> None:
    folder.mkdir()
    for index in range(number):
        cv2.imwrite(str(folder / f"photo_{index}.jpg"), _people(size, 2 * index))


def _write_video(path: Path, frames: int) -> None:
    """Two people who move sideways."""
    still = _people(VIDEO)[..., ::-1]
    with VideoWriter(path, FPS) as writer:
        for index in range(frames):
            moved = np.float32([[1, 0, 20 * np.sin(index / 10)], [0, 1, 0]])
            writer.write(cv2.warpAffine(still, moved, VIDEO[::-1], borderMode=cv2.BORDER_REPLICATE))


def _people(size: tuple[int, int], offset: int = 0) -> np.ndarray:
    """A photo ``size + (3,)`` BGR: two people of the package's crops side by side on grey, as large as fits."""
    crops = read_crops("people")
    height, width = size
    image = np.full((*size, 3), 127, np.uint8)
    high = int(height * 0.8)
    wide = min(high * crops.shape[2] // crops.shape[1], width // 2)
    for number in range(2):
        crop = cv2.resize(crops[(offset + number) % len(crops)], (wide, high), interpolation=cv2.INTER_CUBIC)
        left = number * (width // 2)
        image[-high:, left : left + wide] = crop.clip(0, 255).astype(np.uint8)[..., ::-1]
    return image
