"""Charts: the curves of a training, error classes of joints in bars, and how probabilities compare with shares."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from keras_mrpose.errors import InputError

# From right to wrong. Okabe and Ito's colours, which people of every colour vision tell apart, between a quiet gray for
# what is right and a dark one.
CLASS_COLOURS = {
    "good": "#d9d9d9",
    "jitter": "#56b4e9",
    "inversion": "#e69f00",
    "swap": "#cc79a7",
    "miss": "#333333",
}
MIN_LABELLED = 0.035  # narrower pieces have no room for their number


def loss_curve(history: dict[str, list[float]], path: str | Path) -> None:
    """Draw a training's losses (logarithmic) and its scores between 0 and 1 over the epochs.

    Args:
        history: as Keras keeps it, a list for each name with one value per epoch; ``val_`` names the validation's. A
            shorter list (``validation_freq``) is spread over the epochs. Learning rate and speed are not drawn.
        path: the image's file, by its ending PNG, SVG or PDF; folders above it are made.

    Raises:
        InputError: there is no loss in the history.
    """
    if not history.get("loss"):
        raise InputError(f"The history has no 'loss' to draw, only {', '.join(history) or 'nothing'}.")
    epochs = len(history["loss"])
    losses = [name for name in ("loss", "val_loss") if history.get(name)]
    scores = [
        name
        for name, values in history.items()
        if name not in (*losses, "learning_rate", "lr") and values and all(not v < 0 and not v > 1 for v in values)
    ]
    figure = Figure(figsize=(5.5 * (1 + bool(scores)), 3.8), dpi=120, layout="constrained")
    panels = figure.subplots(1, 1 + bool(scores), squeeze=False)[0]
    for axes, names, label in zip(panels, (losses, scores), ("loss", "score"), strict=False):
        for name in names:
            values = np.asarray(history[name], float)
            at = np.arange(1, len(values) + 1) * max(1, epochs // len(values))
            validation = name.startswith("val_")
            colour = f"C{names.index(name.removeprefix('val_')) if name.removeprefix('val_') in names else 9}"
            marker = "." if epochs < 40 else None
            axes.plot(at, values, "-" if validation else "--", color=colour, marker=marker, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    if any(value > 0 for name in losses for value in history[name]):
        panels[0].set_yscale("log")
    if scores:
        panels[1].set_ylim(0, 1)
    _save(figure, path)


def reliability_diagram(reports: dict[str, dict], path: str | Path) -> None:
    """Draw the share of right keypoints over the predicted probability, a panel for each data set.

    Below the diagonal the network claims too much. Bars at the bottom show how many keypoints have each probability.

    Args:
        reports: name of a data set -> what `evaluation.confidence.check_calibration` returns.
        path: the image's file, by its ending PNG, SVG or PDF; folders above it are made.
    """
    figure = Figure(figsize=(4.2 * len(reports), 4.2), dpi=120, layout="constrained")
    for axes, (name, report) in zip(figure.subplots(1, len(reports), squeeze=False)[0], reports.items(), strict=True):
        predicted, right, counts = (
            np.array([one[key] for one in report["bins"]]) for key in ("confidence", "right", "count")
        )
        axes.bar(predicted, 0.3 * counts / counts.max(), 0.04, color="#d9d9d9", label="keypoints")
        axes.plot([0, 1], [0, 1], ":", color="#333333")
        axes.plot(predicted, right, ".-", color="#0072b2", label="right")
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="predicted probability", ylabel="share of right ones")
        axes.set_title(f"{name}: calibration error {report['error']:.3f}", fontsize=10)
        axes.legend(loc="upper left", frameon=False)
    _save(figure, path)


def diagnosis_chart(report: dict, metric_name: str = "points") -> np.ndarray:
    """Chart with a bar for each joint and one for all, divided into the classes of `evaluation.diagnosis`.

    Args:
        report: of `Diagnosis.to_dict`: a share 0..1 (or None) of each of `CLASS_COLOURS` and the count, for all and for
            joints by name; gains by class, which the legend quotes, or None.
        metric_name: what the gains are points of, for example ``"AP"``.

    Returns:
        ``(height, width, 3)`` uint8 RGB, the higher the more joints.
    """
    bars = {"all": report["all"], **report["joints"]}
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(bars)), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = [0, *range(2, len(bars) + 1)]  # a gap below all
    starts = np.zeros(len(bars))
    for name, colour in CLASS_COLOURS.items():
        widths = np.array([bar[name] or 0.0 for bar in bars.values()])
        gain = (report["gains"] or {}).get(name)
        label = name if gain is None else f"{name} ({gain:+.1f} {metric_name})"
        axes.barh(places, widths, left=starts, height=0.8, color=colour, edgecolor="white", linewidth=0.6, label=label)
        for place, start, width in zip(places, starts, widths, strict=True):
            if width >= MIN_LABELLED:
                ink = "white" if name == "miss" else "black"
                axes.text(
                    start + width / 2, place, f"{100 * width:.0f}", color=ink, size=8, ha="center", va="center_baseline"
                )
        starts += widths
    for place, bar in zip(places, bars.values(), strict=True):
        axes.text(1.01, place, f"{bar['count']:,}", size=8, va="center")
    axes.text(1.01, -1, "joints", size=8, va="center")
    axes.set_yticks(places, [name.replace("_", " ") for name in bars])
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{percent} %" for percent in range(0, 101, 20)])
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(CLASS_COLOURS), frameon=False, fontsize=8)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_diagnosis(folder: str | Path, report: dict, metric_name: str, step: int = 0) -> None:
    """Write the share of each error class, the gains, and the image of `diagnosis_chart` for TensorBoard.

    The scalars are ``diagnosis/CLASS`` (0..1) and ``diagnosis/gain/CLASS`` (points); what is None is not written.

    Args:
        folder: of the logs; it is made if it is missing.
        report: of `Diagnosis.to_dict`.
        metric_name: what the gains are points of, for example ``"AP"``.
        step: where they stand on TensorBoard's axis, for example the epoch.
    """
    shares = {name: report["all"][name] for name in CLASS_COLOURS}
    gains = {f"gain/{name}": gain for name, gain in (report["gains"] or {}).items()}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=step):
        for name, value in (shares | gains).items():
            if value is not None:
                unit = f"points of {metric_name}" if name in gains else "share of the labelled joints"
                tf.summary.scalar(f"diagnosis/{name}", value, description=unit)
        tf.summary.image("diagnosis/joints", diagnosis_chart(report, metric_name)[None])
    writer.close()


def _save(figure: Figure, path: str | Path) -> None:
    """Write a figure in one piece: an error leaves no half file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.lstrip(".") or "png")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(buffer.getvalue())
