"""Comparison of two results: what is different in how they were made, and what each difference costs.

What can be chosen after a network has run (`Settings`) is tried out: each result's raw predictions are scored again
with one setting of the other result, all else as it was. Networks and boxes cannot be exchanged that way, but their
whole effect can be seen: the other's predictions, scored under the own settings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.evaluate import PROTOCOLS, Result
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.evaluation.provenance import Settings, of_data

NOT_COMPARED = ("command", "time")
MADE_BY = ("network", "boxes")  # parts of the protocol that make the raw predictions


@dataclass(frozen=True)
class Change:
    """One difference between two results and its effect.

    Args:
        name: the setting, or ``"network"``, ``"boxes"`` or ``"network and boxes"``.
        first: in the first result.
        second: in the second result.
        of_first: by how much the first result's value changes if it takes this from the second; None if what was kept
            does not say (a flip test that was not run).
        of_second: the other way round.
    """

    name: str
    first: object
    second: object
    of_first: float | None
    of_second: float | None


def differences(first: dict, second: dict) -> list[tuple[str, object, object]]:
    """Entries of two protocols that differ: dotted name, value in the first, value in the second (None: not there)."""
    one, other = flat(first), flat(second)
    names = [name for name in one | other if name not in NOT_COMPARED]
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def changes(first: Result, second: Result, truth: People) -> list[Change]:
    """Differences between two results and what each of them costs.

    Args:
        first: of the data `truth`.
        second: of the same data.
        truth: the annotated people.

    Raises:
        InputError: results of different data or protocols, or a truth that is not theirs.
    """
    kind = first.protocol["evaluation"]
    if second.protocol["evaluation"] != kind:
        raise InputError(f"One result is {first.metric}, the other {second.metric}; compare results of one protocol.")
    if first.protocol["data"]["sha256"] != second.protocol["data"]["sha256"]:
        raise InputError("The two results are of different people, so that there is nothing to compare.")
    data = of_data(truth)
    for name in {"left_out", "remarks"} - set(first.protocol["data"]):  # of an earlier version
        del data[name]
    if data != first.protocol["data"]:
        raise InputError(
            f"The results are of {first.protocol['data']}, but {truth.source} gives {data}; give the same folder and "
            "split."
        )

    def value(predictions: Predictions, settings: Settings) -> float | None:
        if settings.decoding not in predictions.keypoints:
            return None
        return PROTOCOLS[kind].score_fn(predictions, truth, settings).value

    def effect(result: Result, predictions: Predictions, settings: Settings) -> float | None:
        changed = value(predictions, settings)
        return None if changed is None else changed - result.value

    for result in (first, second):
        same = kind == "ap" or np.array_equal(result.predictions.ids, truth.ids)
        again = value(result.predictions, result.settings) if same else None
        if again is None or abs(again - result.value) > 1e-9:
            raise InputError(
                f"The raw predictions beside a result of {result.value:.6f} do not give that number again: they or the "
                "annotations are not those that it was made with."
            )
    found = []
    for name in PROTOCOLS[kind].settings:
        one, other = asdict(first.settings)[name], asdict(second.settings)[name]
        if one != other:
            of_first = effect(first, first.predictions, replace(first.settings, **{name: other}))
            of_second = effect(second, second.predictions, replace(second.settings, **{name: one}))
            found.append(Change(name, one, other, of_first, of_second))
    if made := [name for name in MADE_BY if first.protocol[name] != second.protocol[name]]:
        of_first = effect(first, second.predictions, first.settings)
        of_second = effect(second, first.predictions, second.settings)
        found.append(Change(" and ".join(made), "first's", "second's", of_first, of_second))
    return found


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    """Flatten nested dictionaries into one with dotted names."""
    found = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
