"""The report of a study: a dictionary for ``study.json``, and from that alone the table and the figure."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.evaluation.evaluate import PROTOCOLS, Result, ShareOfDraw
from keras_mrpose.evaluation.provenance import PACKAGES, of_data
from keras_mrpose.study import statistics
from keras_mrpose.study.trainings import Study, results
from keras_mrpose.training.checkpointing import atomic_write, commit
from keras_mrpose.training.config import Experiment

NAME = "study"  # of the files
POOLED = "all"  # the tests together
VERSION = 1
# Okabe and Ito's, which people of every colour vision tell apart.
COLOURS = ("#000000", "#56b4e9", "#0072b2", "#e69f00", "#d55e00", "#009e73", "#cc79a7")
MARKERS = "os^"  # of the precisions


def summarize(
    study: Study, tests: Mapping[str, People], seeds: int, draws: int = 2000, costs: dict | None = None, **facts
) -> dict:
    """Everything about a study, ready for JSON; needs the results of the runs, and no network.

    Args:
        study: whose results there are.
        tests: name -> people that were measured on.
        seeds: how many are done with all networks.
        draws: of people, for the intervals.
        costs: name of a network -> ``parameters``, ``macs`` and perhaps ``milliseconds``, see `study.costs`.
        facts: others that are to be in it, such as the command line.

    Returns:
        ``version``, ``experiment``, ``networks``, ``baseline``, ``seeds``, ``draws``, ``tests``, ``costs``,
        ``versions``, ``time`` and the facts. A test has its metric and protocol, ``values`` of each network and seed,
        ``networks`` with a `statistics.Estimate`, ``differences`` with a `statistics.Difference` for each but the
        baseline; for PCK and PCKh also each person's right joints (``hits``) and joints that count (``labels``), from
        which all of it can be counted again. Several tests of one metric have a last one, `POOLED`: their mean weighted
        by their numbers of people (of images for AP), drawn from each by itself.

    Raises:
        InputError: a result that is missing; no draws.
    """
    if draws < 1:
        raise InputError(f"draws is {draws}; give a number of draws, such as 2000.")
    rng = np.random.default_rng(0)
    t = statistics.student(seeds, draws, rng)
    content, parts = {}, []
    for name, of_networks in results(study, tests, seeds).items():
        scored = [[_score(result, tests[name]) for result in of_seeds] for of_seeds in of_networks]
        values = np.array([[one.value for one in row] for row in scored])
        counts = statistics.draw_counts(scored[0][0].units, draws, rng)
        flat = statistics.drawn_values([one.value_of_draw for row in scored for one in row], counts)
        drawn = flat.reshape(draws, *values.shape)
        first = of_networks[0][0]
        content[name] = {
            "metric": first.metric,
            "evaluation": first.protocol["evaluation"],
            "settings": first.protocol["settings"],
            "data": of_data(tests[name]),
            "units": counts.shape[1],
            **_tables(study.networks, values, drawn, t),
            **_people(study.networks, scored),
        }
        parts.append((counts.shape[1], values, drawn))
    metrics = {test["metric"] for test in content.values()}
    if len(parts) > 1 and len(metrics) == 1 and POOLED not in content:
        units = np.array([units for units, _, _ in parts])
        values, drawn = (
            sum(n * part[place] for n, part in zip(units, parts, strict=True)) / units.sum() for place in (1, 2)
        )
        pooled = {"metric": metrics.pop(), "evaluation": next(iter(content.values()))["evaluation"]}
        content[POOLED] = {**pooled, "units": int(units.sum()), **_tables(study.networks, values, drawn, t)}
    return {
        "version": VERSION,
        **facts,
        "experiment": _alike(study.experiment),
        "networks": list(study.networks),
        "baseline": study.networks[0],
        "seeds": list(range(seeds)),
        "draws": draws,
        "tests": content,
        "costs": costs or {},
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name.replace("_", "-")) for name in PACKAGES},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(content: dict, folder: Path) -> None:
    """Write ``study.json``, ``study.md`` and ``study.png``, each replaced in one piece."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    content = json.loads(text)  # what the file says, and nothing else
    for ending, made in ((".json", text.encode()), (".md", markdown(content).encode()), (".png", figure(content))):
        path = folder / f"{NAME}{ending}"
        with atomic_write(path) as part:
            part.write_bytes(made)
            commit(part, path)


def read(path: str | Path) -> dict:
    """Read a ``study.json``; an `InputError` says what is wrong with it."""
    try:
        content = json.loads(Path(path).read_text())
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a study of this version ({short_message(error)}); run it again.") from error


def _alike(experiment: Experiment) -> dict:
    """The fields of an experiment that all trainings share."""
    fields = asdict(experiment)
    recipe = {name: value for name, value in fields["recipe"].items() if name != "seed"}
    return {name: value for name, value in fields.items() if name not in ("name", "model")} | {"recipe": recipe}


def _score(result: Result, truth: People):
    return PROTOCOLS[result.protocol["evaluation"]].score_fn(result.predictions, truth, result.settings)


def _tables(networks: tuple[str, ...], values: np.ndarray, drawn: np.ndarray, t: np.ndarray | None) -> dict:
    """Values, estimates and differences of one test, by network."""
    estimates = [statistics.estimate(values[n], drawn[:, n], t) for n in range(len(networks))]
    found = statistics.differences(values, drawn, t)
    return {
        "values": dict(zip(networks, values.tolist(), strict=True)),
        "estimates": {name: asdict(one) for name, one in zip(networks, estimates, strict=True)},
        "differences": {
            name: {**asdict(one), "significant": one.significant} for name, one in zip(networks[1:], found, strict=True)
        },
    }


def _people(networks: tuple[str, ...], scored: list[list]) -> dict:
    """Right joints of each person, as lines of numbers, where the metric is a share of joints."""
    if not isinstance(scored[0][0].value_of_draw, ShareOfDraw):
        return {}
    return {
        "labels": _line(scored[0][0].value_of_draw.labels),
        "hits": {
            name: [_line(one.value_of_draw.hits) for one in row] for name, row in zip(networks, scored, strict=True)
        },
    }


def _line(numbers: np.ndarray) -> str:
    return " ".join(map(str, numbers.tolist()))


# --- the table --------------------------------------------------------------------------------------------------------


def markdown(content: dict) -> str:
    """The tables and what they say, as Markdown, from the content of ``study.json``."""
    experiment, seeds, recipe = content["experiment"], len(content["seeds"]), content["experiment"]["recipe"]
    crops = experiment["crops_per_epoch"]
    size = "x".join(map(str, experiment["input_size"]))
    lines = [
        f"{len(content['networks'])} networks on {experiment['backbone']} at {size}, {seeds} "
        f"{_plural('training', seeds)} of each, all of {recipe['epochs']} {_plural('epoch', recipe['epochs'])}"
        f"{f' of {crops} crops' if crops else ''} in batches of {recipe['batch_size']}, with the same crops in the "
        "same order for the same seed. Measured are the weights after the last epoch, in percent.",
        "",
    ]
    if content.get("command"):
        lines += ["```bash", content["command"], "```", ""]
    lines += [f"![{NAME}: networks compared]({NAME}.png)", ""]
    for name, test in content["tests"].items():
        lines += [*_estimates(content, name, test), ""]
        lines += [*_differences(content, test), ""]
    if content["costs"]:
        lines += [*_costs(content), ""]
    lines += [_note(content), ""]
    return "\n".join(lines)


def _estimates(content: dict, name: str, test: dict) -> list[str]:
    units = "images" if test["evaluation"] == "ap" else "people"
    flip = ""
    if "settings" in test:
        flip = ", flip test" if test["settings"]["flip_test"] else ", no flip test"
    title = "All tests together" if name == POOLED and "data" not in test else name
    lines = [
        f"**{title}**: {test['metric']} of {test['units']} {units}{flip}.",
        "",
        f"| | {test['metric']} | of each seed | sd of seeds | 95 %, other people | 95 %, other people and trainings |",
        "|---|---:|---|---:|---|---|",
    ]
    for network, one in test["estimates"].items():
        values = ", ".join(f"{100 * value:.1f}" for value in test["values"][network])
        lines.append(
            f"| `{network}` | {100 * one['mean']:.1f} | {values} | {_number(one['sd'])} | {_interval(one['people'])} "
            f"| {_interval(one['people_and_seeds'])} |"
        )
    return lines


def _differences(content: dict, test: dict) -> list[str]:
    lines = [
        f"| less `{content['baseline']}`, paired | points | sd of seeds | 95 %, other people "
        "| 95 %, other people and trainings | p (Holm) | |",
        "|---|---:|---:|---|---|---:|---|",
    ]
    for network, one in test["differences"].items():
        p = "-" if one["p_holm"] is None else f"{one['p_holm']:.3f}" if one["p_holm"] >= 0.001 else "< 0.001"
        lines.append(
            f"| `{network}` | {100 * one['mean']:+.1f} | {_number(one['sd'])} | {_interval(one['people'], '+')} "
            f"| {_interval(one['people_and_seeds'], '+')} | {p} | {verdict(one)} |"
        )
    return lines


def verdict(difference: dict) -> str:
    """What a difference says: significant is only what holds for other people and other trainings, after Holm."""
    if difference["p_holm"] is None:
        return "one seed: cannot be said"
    if difference["significant"]:
        return "significant"
    return "not significant" + (" among so many comparisons" if difference["p"] < statistics.LEVEL else "")


def _costs(content: dict) -> list[str]:
    """What each network costs, and which are worth it: no other one is as fast and better."""
    timed = all("milliseconds" in content["costs"][name] for name in content["networks"])
    precisions = list(content["costs"][content["baseline"]]["milliseconds"]) if timed else []
    heading = ["", "parameters, millions", "MACs, millions", *(f"ms, LiteRT {precision}" for precision in precisions)]
    lines = [f"| {' | '.join(heading)} |", "|---" + "|---:" * (len(heading) - 1) + "|"]
    for network in content["networks"]:
        cost = content["costs"][network]
        cells = [f"`{network}`", f"{cost['parameters'] / 1e6:.2f}", f"{cost['macs'] / 1e6:,.0f}"]
        cells += ["{median:.2f} ({low:.2f} to {high:.2f})".format(**cost["milliseconds"][name]) for name in precisions]
        lines.append(f"| {' | '.join(cells)} |")
    if not timed:
        return lines
    if timing := content.get("timing"):
        lines += [
            "",
            f"Milliseconds are of one crop on {timing['threads']} {_plural('thread', timing['threads'])} of "
            f"{timing['cpu']} (load {timing['load']}): median, least and most of {timing['repetitions']} turns, in "
            "which all networks take part. MACs are those of the network as it is exported, batch norms folded.",
        ]
    lines.append("")
    test = list(content["tests"].values())[-1]
    base = content["costs"][content["baseline"]]["milliseconds"]
    for network, one in test["differences"].items():
        own = content["costs"][network]["milliseconds"]
        slower = ", ".join(f"{round(own[p]['median'] - base[p]['median'], 2) + 0.0:+.2f} ms {p}" for p in precisions)
        ahead = [
            f"`{other}`"
            for other in content["networks"]
            if other != network
            and content["costs"][other]["milliseconds"][precisions[0]]["median"] <= own[precisions[0]]["median"]
            and test["estimates"][other]["mean"] >= test["estimates"][network]["mean"]
        ]
        worth = f"; as fast or faster, and as good or better: {', '.join(ahead)}" if ahead else ""
        lines.append(
            f"- `{network}`: {100 * one['mean']:+.1f} points ({verdict(one)}) for {slower} more than "
            f"`{content['baseline']}`{worth}."
        )
    return lines


def _note(content: dict) -> str:
    """How the intervals were made."""
    count, freedom = len(content["networks"]) - 1, len(content["seeds"]) - 1
    people = f"*Other people*: percentile bootstrap, {content['draws']} draws, the same for all networks and seeds."
    if not freedom:
        return f"{people} One seed says nothing about other trainings."
    return (
        f"{people} *And trainings*: each draw also moved by the seeds' standard error times Student's t with {freedom} "
        f"{_plural('degree', freedom)} of freedom. *Significant*: p below {statistics.LEVEL} by these, corrected for "
        f"{count} {_plural('comparison', count)} (Holm)."
    )


def _number(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _interval(ends: list[float] | None, sign: str = "") -> str:
    return "-" if ends is None else f"{100 * ends[0]:{sign}.1f} to {100 * ends[1]:{sign}.1f}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


# --- the figure -------------------------------------------------------------------------------------------------------


def figure(content: dict) -> bytes:
    """A PNG from the content of ``study.json``: of the last test, values, differences and, if timed, milliseconds.

    A thick line is the 95 % interval for other people, a thin one that for other people and trainings, a dot a seed.
    """
    name, test = list(content["tests"].items())[-1]
    networks, timed = content["networks"], all("milliseconds" in cost for cost in content["costs"].values())
    timed = timed and bool(content["costs"])
    drawn = Figure(figsize=(4.6 * (2 + timed), 0.9 + 0.45 * len(networks) + 0.8), dpi=120, layout="constrained")
    panels = drawn.subplots(1, 2 + timed, squeeze=False)[0]
    colours = {network: COLOURS[place % len(COLOURS)] for place, network in enumerate(networks)}
    values = {network: np.array(test["values"][network]) for network in networks}
    _forest(panels[0], test["estimates"], values, colours)
    panels[0].set_xlabel(f"{test['metric']}, percent ({name}, {test['units']})")
    base = values[content["baseline"]]
    _forest(panels[1], test["differences"], {network: values[network] - base for network in networks}, colours)
    panels[1].axvline(0, color="0.5", linewidth=1, zorder=0)
    panels[1].set_xlabel(f"points more than {content['baseline']}, paired")
    if timed:
        for network in networks:
            cost, one = content["costs"][network]["milliseconds"], test["estimates"][network]
            for precision, marker in zip(cost, MARKERS, strict=False):
                at, low_high = cost[precision]["median"], 100 * np.array(one["people"])
                panels[2].plot([at, at], low_high, color=colours[network], linewidth=2)
                panels[2].plot(at, 100 * one["mean"], marker, color=colours[network])
        panels[2].set_xlabel("ms of one crop, LiteRT")
        panels[2].set_ylabel(f"{test['metric']}, percent")
        handles = [Line2D([], [], color=colours[network], linewidth=3, label=network) for network in networks]
        handles += [
            Line2D([], [], color="0.4", marker=marker, linestyle="none", label=precision)
            for precision, marker in zip(content["costs"][networks[0]]["milliseconds"], MARKERS, strict=False)
        ]
        drawn.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=8, frameon=False)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    return buffer.getvalue()


def _forest(axes, estimates: dict, values: dict, colours: dict) -> None:
    """A line of each network: its intervals, its mean, and a dot for each seed."""
    for place, (network, one) in enumerate(estimates.items()):
        for ends, width in ((one["people_and_seeds"], 1.2), (one["people"], 4.0)):
            if ends is not None:
                axes.plot(100 * np.array(ends), [place, place], color=colours[network], linewidth=width, alpha=0.7)
        axes.plot(100 * one["mean"], place, "|", color=colours[network], markersize=14, markeredgewidth=2)
        seeds = 100 * np.asarray(values[network])
        axes.plot(seeds, np.full(len(seeds), place + 0.25), ".", color=colours[network], markersize=5)
    axes.set_yticks(range(len(estimates)), list(estimates))
    axes.set_ylim(len(estimates) - 0.4, -0.6)
