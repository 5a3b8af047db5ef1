"""The costs of a network: parameters, multiplications, and milliseconds of one crop as a LiteRT file."""

from __future__ import annotations

import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_mrpose.export import litert, outputs
from keras_mrpose.models.fuse import fuse_for_inference
from keras_mrpose.models.macs import count_macs
from keras_mrpose.predict.predictor import load_model
from keras_mrpose.runtime.litert import LiteRTModel, check_installed

_LOG = logging.getLogger(__name__)
PRECISIONS = ("float32", "int8")
STATISTICS = ("moving_mean", "moving_variance")  # of batch norms, which nothing learns
REPETITIONS = 30  # turns of all networks
AT_LEAST = 0.05  # seconds of a turn: several calls of a fast network


def sizes(model: keras.Model) -> dict[str, int]:
    """Parameters, without the statistics of batch norms, and multiply-accumulate operations of the fused network.

    Args:
        model: made by `build`. Its frozen layers count, too: loaded from a file, Keras no longer calls their weights
            trainable, whatever is set.
    """
    learned = [variable for variable in model.weights if variable.name not in STATISTICS]
    parameters = sum(int(np.prod(variable.shape)) for variable in learned)
    return {"parameters": parameters, "macs": count_macs(fuse_for_inference(model))}


def costs(files: Mapping[str, Path]) -> dict[str, dict]:
    """`sizes` of each network: name -> ``parameters`` and ``macs``.

    Args:
        files: name -> ``.keras`` file or run folder.
    """
    return {name: sizes(load_model(file)) for name, file in files.items()}


def milliseconds(
    files: Mapping[str, Path], crops: np.ndarray, threads: int = 1, repetitions: int = REPETITIONS
) -> dict[str, dict]:
    """Milliseconds of one crop: name -> precision -> ``median``, ``low`` and ``high`` of the repetitions.

    All networks take turns, so that whatever else the machine does disturbs all alike.

    Args:
        files: name -> ``.keras`` file or run folder.
        crops: ``(n, H, W, 3)``, RGB 0..255, that calibrate int8; the first one is timed.
        threads: CPU threads of the interpreter.
        repetitions: how many turns.

    Raises:
        InputError: ai-edge-litert is not installed.
    """
    check_installed()
    steps: dict[tuple[str, str], Callable] = {}
    for name, file in files.items():
        _LOG.info("converting %s to %s", name, " and ".join(PRECISIONS))
        network = outputs.heatmaps(load_model(file))
        for precision in PRECISIONS:
            converted = litert.convert(network, precision, crops if precision == "int8" else None)
            steps[name, precision] = partial(LiteRTModel(converted.content, threads), crops[:1])
    calls = {key: max(1, round(AT_LEAST / min(_seconds(step, 1) for _ in range(3)))) for key, step in steps.items()}
    times = {key: [] for key in steps}
    for _ in range(repetitions):
        for key, step in steps.items():
            times[key].append(1e3 * _seconds(step, calls[key]) / calls[key])
    return {name: {precision: _spread(times[name, precision]) for precision in PRECISIONS} for name in files}


def machine() -> dict:
    """What milliseconds depend on: the processor, and how busy it is (processes that want to run)."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "load": load}


def _seconds(step: Callable, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    return time.perf_counter() - begin


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
