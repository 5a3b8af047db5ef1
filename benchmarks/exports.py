"""What a network weighs and takes on a CPU, as Keras has it and as LiteRT files; each network in a process of its own.

TensorFlow keeps a gigabyte after each conversion of a large network, and a process that has grown is slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from peak import flop, measure_peak
from rich.table import Table
from timing import Spread, console, in_a_process, seconds

from keras_mrpose import build, data
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.export import TOLERANCES, litert, outputs, verify
from keras_mrpose.export.bundle import calibration_crops
from keras_mrpose.models.fuse import fuse_for_inference
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.presets import read_crops
from keras_mrpose.runtime.litert import LiteRTModel, open_interpreter

PRECISIONS = ("float32", "float16", "int8")
KERAS, REWRITTEN, TRANSPOSE = "Keras", "Keras, rewritten", ", transpose"
THREADS = (1, 2)
VERIFIED = 200  # people
AT_LEAST = 0.2  # seconds of a measurement


def measure_exports(arguments) -> dict:
    """Megabytes, milliseconds of one crop and the metric of each network in each precision, one table for all."""
    names = arguments.runs or [f"{arguments.backbone}-{network}" for network in arguments.networks]
    rows = []
    for name in names:
        rows.append(in_a_process(_measure, arguments, name))
    console.print(_table(arguments.input_size, rows))
    return {"input_size": list(arguments.input_size), "networks": rows}


def measure_phones(arguments) -> dict:
    """Megabytes and milliseconds of one crop of the package's network, as LiteRT files, and of others' files."""
    model, crops = build(preset="people"), read_crops("people").astype(np.float32)
    network = outputs.heatmaps(model)
    files = {
        f"people, {name}": litert.convert(network, name, crops if name == "int8" else None).content
        for name in PRECISIONS
    }
    files |= {Path(path).stem: Path(path).read_bytes() for path in arguments.peers or ()}
    steps = {(name, threads): _step(content, threads) for name, content in files.items() for threads in THREADS}
    times = _in_turn(steps, arguments.repetitions)
    table = Table(title="One crop", caption="median (min..max)")
    for column in ("network", "input", "MB", "ms, 1 thread", "ms, 2 threads"):
        table.add_column(column, justify="left" if column == "network" else "right")
    rows = {}
    for name, content in files.items():
        height, width = open_interpreter(content, 1).get_input_details()[0]["shape"][1:3]
        one, two = (times[name, threads] for threads in THREADS)
        table.add_row(name, f"{height}x{width}", f"{len(content) / 1e6:.1f}", str(one), str(two))
        rows[name] = {"bytes": len(content), "one_thread": asdict(one), "two_threads": asdict(two)}
    console.print(table)
    return rows


def _step(content: bytes, threads: int) -> Callable[[], None]:
    """One run of a file on whatever it takes."""
    interpreter = open_interpreter(content, threads)
    image = interpreter.get_input_details()[0]
    values = np.random.default_rng(0).uniform(0, 255, image["shape"]).astype(image["dtype"])

    def step(_kept=content):  # the interpreter reads from it
        interpreter.set_tensor(image["index"], values)
        interpreter.invoke()

    return step


def _table(size: tuple[int, int], rows: list[dict]) -> Table:
    table = Table(
        title="One crop of {}x{}".format(*size),
        caption="ms: median (min..max); peak: share of a float32 matrix product's rate, of the fastest; x: as fast as "
        "Keras, medians",
    )
    for column in ("network", "precision", "MB", "ms, 1 thread", "ms, 2 threads", "peak", "x", "metric"):
        table.add_column(column, justify="left" if column in ("network", "precision") else "right", no_wrap=True)
    for row in rows:
        work = row["flop"] / row["gemm_flop_per_second"] * 1e3
        for number, (precision, facts) in enumerate(row["precisions"].items()):
            one, two = (Spread(**times) if times else None for times in (facts["one_thread"], facts["two_threads"]))
            table.add_row(
                "" if number else row["network"],
                precision,
                f"{facts['bytes'] / 1e6:.1f}",
                str(one or ""),
                str(two),
                "" if precision.startswith("int8") else f"{work / two.low:.0%}",
                f"{row['precisions'][KERAS]['two_threads']['median'] / two.median:.1f}",
                "" if facts.get("metric") is None else f"{100 * facts['metric']:.1f}",
            )
        table.add_section()
    return table


def _measure(arguments, name: str) -> dict:
    """The numbers of one network: of a run folder, or of BACKBONE-MODEL with random weights."""
    keras.utils.set_random_seed(0)
    tf.config.threading.set_intra_op_parallelism_threads(max(THREADS))
    size = tuple(arguments.input_size)
    model = _of_run(name, size) if arguments.runs else _random(name, size)
    metrics, crops = {}, np.random.default_rng(0).uniform(0, 255, (litert.MIN_CROPS, *size, 3))
    if arguments.runs and arguments.data:
        metrics, crops = _metrics(name, arguments.data), _crops(arguments.data, size)
    files = _converted(model, crops.astype(np.float32))
    peaks = [measure_peak("float32", arguments.gemm_side)]
    times = _times(model, files, crops[:1].astype(np.float32), arguments.repetitions)
    peaks.append(measure_peak("float32", arguments.gemm_side))
    weights = 4 * sum(math.prod(variable.shape) for variable in model.variables)
    sizes = {KERAS: weights, REWRITTEN: weights} | {precision: len(content) for precision, content in files.items()}
    return {
        "network": f"{model.spec['backbone']} {model.spec['name']}",
        "flop": flop(model),
        "gemm_flop_per_second": max(peaks),
        "precisions": {
            precision: {
                "bytes": size,
                "metric": metrics.get(precision),
                "one_thread": asdict(times[precision, 1]) if (precision, 1) in times else None,
                "two_threads": asdict(times[precision, 2]),
            }
            for precision, size in sizes.items()
        },
    }


def _of_run(run: str, size: tuple[int, int]) -> keras.Model:
    """A trained network, for crops of this size."""
    of = Predictor(run, flip_test=False).model
    weights = Path(run) / "best.keras" if Path(run).is_dir() else run
    return build(of.spec["name"], of.spec["backbone"], (*size, 3), skeleton=of.skeleton, weights=weights)


def _random(name: str, size: tuple[int, int]) -> keras.Model:
    backbone, _, network = name.rpartition("-")
    return build(network, backbone, (*size, 3))


def _metrics(run: str, folder: str) -> dict[str, float]:
    """The metric of a trained network and of its exports, by the verification of the export; 0..1."""
    predictor = Predictor(run, flip_test=False)
    people = data.load(folder, "val")
    reference = verify.Reference(predictor, people.limit(VERIFIED))
    network, crops = outputs.heatmaps(predictor.model), calibration_crops(predictor, data.load(folder, "train"))
    conversions = [litert.convert(network, name, crops if name == "int8" else None) for name in PRECISIONS]
    measured = [verify.measure(one, "heatmaps", reference, TOLERANCES[one.precision]) for one in conversions]
    return {KERAS: reference.value} | {one.precision: one.value for one in measured}


def _crops(folder: str, size: tuple[int, int]) -> np.ndarray:
    """Crops of real people that calibrate: made-up ones would give ranges that no trained network has."""
    return verify.cropped(data.load(folder, "train"), tuple(size), 2 * litert.MIN_CROPS, augmentation=Augmentation())


def _converted(model: keras.Model, crops: np.ndarray) -> dict[str, bytes]:
    """LiteRT files of each precision, and of two with their transposed convolutions as they were."""
    files = {}
    for ending, deconvolution, names in (
        ("", "depth_to_space", PRECISIONS),
        (TRANSPOSE, "transpose", ("float32", "int8")),
    ):
        network = outputs.heatmaps(model, deconvolution)
        for name in names:
            files[name + ending] = litert.convert(network, name, crops if name == "int8" else None).content
    return files


def _times(model, files: dict[str, bytes], crop: np.ndarray, repetitions: int) -> dict[tuple[str, int], Spread]:
    """Milliseconds of one crop, by precision and threads. They take turns: other programs disturb all alike."""
    networks = {
        (precision, threads): LiteRTModel(content, threads)
        for precision, content in files.items()
        for threads in THREADS
    }
    for name, network in ((KERAS, model), (REWRITTEN, fuse_for_inference(model))):
        networks[name, max(THREADS)] = _forward(network)
    return _in_turn({key: partial(network, crop) for key, network in networks.items()}, repetitions)


def _in_turn(steps: dict[tuple[str, int], Callable], repetitions: int) -> dict[tuple[str, int], Spread]:
    """Milliseconds of each step; all take turns."""
    counts = {key: max(1, round(AT_LEAST / min(seconds(step, 3)))) for key, step in steps.items()}
    times = {key: [] for key in steps}
    for _ in range(repetitions):
        for key, step in steps.items():
            taken = seconds(lambda: [step() for _ in range(counts[key])], 1, warm_up=0)  # noqa: B023
            times[key].append(1e3 * taken[0] / counts[key])
    return {key: Spread.of(values) for key, values in times.items()}


def _forward(network: keras.Model) -> Callable:
    """The network as a compiled function from crops to heatmaps, both of them arrays."""
    function = tf.function(lambda image: network(image, training=False))
    return lambda crops: function(tf.constant(crops)).numpy()
