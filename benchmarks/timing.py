"""How `run.py` measures: repeated wall times, their spread, and what they depend on."""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console

console = Console()
console.width = max(console.width, 130)  # the networks' table, also where rich sees no terminal


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one number."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Median, smallest and largest."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self):
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2
        return f"{self.median:.{digits}f}  ({self.low:.{digits}f}..{self.high:.{digits}f})"


def seconds(action: Callable[[], object], repetitions: int, warm_up: int = 1) -> list[float]:
    """Wall time of each repetition, after some that do not count (tracing, caches). The action waits for its result."""
    times = []
    for _ in range(warm_up + repetitions):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return times[warm_up:]


def in_a_process(function: Callable, *arguments):
    """What a function returns in a process of its own, which gives all of its memory back."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def machine(threads: int) -> dict:
    """What the numbers depend on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads or "one per core",
        "gpu": ", ".join(gpus) or "none",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "unknown",
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
