"""Images of numbers: bars that say what is wrong with the joints of a data set."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# From right to wrong. Okabe and Ito's colours, which people of every colour vision tell apart, between a quiet gray for
# what is right and a dark one.
CLASS_COLOURS = {
    "good": "#d9d9d9",
    "jitter": "#56b4e9",
    "inversion": "#e69f00",
    "swap": "#cc79a7",
    "miss": "#333333",
}
LEAST_LABELLED = 0.035  # narrower pieces have no room for their number


def diagnosis(values: dict, metric_name: str = "points") -> np.ndarray:
    """A bar for each joint and one for all, divided into the classes of `evaluation.diagnosis`.

    Args:
        values: of `Diagnosis.to_dict`: a share 0..1 (or None) of each of `CLASS_COLOURS` and the count, for all and for
            joints by name; gains by class, which the legend quotes, or None.
        metric_name: what the gains are points of, for example ``"AP"``.

    Returns:
        ``(height, width, 3)`` uint8 RGB, the higher the more joints.
    """
    bars = {"all": values["all"], **values["joints"]}
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(bars)), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = [0, *range(2, len(bars) + 1)]  # a gap below all
    starts = np.zeros(len(bars))
    for name, colour in CLASS_COLOURS.items():
        widths = np.array([bar[name] or 0.0 for bar in bars.values()])
        gain = (values["gains"] or {}).get(name)
        label = name if gain is None else f"{name} ({gain:+.1f} {metric_name})"
        axes.barh(places, widths, left=starts, height=0.8, color=colour, edgecolor="white", linewidth=0.6, label=label)
        for place, start, width in zip(places, starts, widths, strict=True):
            if width >= LEAST_LABELLED:
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
