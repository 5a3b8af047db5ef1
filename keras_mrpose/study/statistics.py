"""Estimates from a few trainings of each network, measured on the same people.

Two things make a number vary: which people it was measured on, and which random numbers the network was trained with.
The first is estimated by the percentile bootstrap (Efron 1979) over people (over images for AP). All networks and all
trainings get the same draws, and differences are taken within a draw: what makes a person hard for all networks
cancels out.

The second has as many values as there were seeds. Resampling so few is no remedy: three seeds drawn with replacement
vary between the least and the greatest of them, and that range holds the mean of all trainings in only
1 - 2 / 2^3 = 75 % of cases. So each draw of people is moved by the standard error of the seeds' mean times a number
drawn from Student's t distribution with (seeds - 1) degrees of freedom, which without the draws of people would be the
textbook's interval of a mean. For differences the values are paired by seed, since networks with the same seed have
seen the same crops in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05  # of significance; intervals hold the rest
STUDENT = 50  # numbers of Student's t for each draw of people: its tails are long for few seeds


@dataclass(frozen=True)
class Estimate:
    """The mean of a few trainings, and how sure it is; shares 0..1, or differences of them.

    Args:
        mean: over the seeds.
        sd: standard deviation over the seeds (divided by their number less one); None of one seed.
        people: 95 % interval, of other people but these trainings.
        people_and_seeds: 95 % interval, of other people and other trainings; None of one seed.
    """

    mean: float
    sd: float | None
    people: tuple[float, float]
    people_and_seeds: tuple[float, float] | None


@dataclass(frozen=True)
class Difference(Estimate):
    """A network's values less those of the baseline, paired by person and seed.

    Args:
        p: twice the share of draws, of other people and other trainings, on the other side of 0; None of one seed.
        p_holm: the same corrected for the number of comparisons (Holm 1979).
    """

    p: float | None
    p_holm: float | None

    @property
    def significant(self) -> bool:
        """Whether it is other than 0 for other people and other trainings, with Holm's correction at 5 %."""
        return self.p_holm is not None and self.p_holm < LEVEL


def draw_counts(units: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of so many people (or images) is in each draw of as many with replacement: ``(draws, units)``."""
    return rng.multinomial(units, np.full(units, 1 / units), draws)


def drawn_values(value_of_draw: Sequence[Callable[[np.ndarray], float]], counts: np.ndarray) -> np.ndarray:
    """The value of each result in each draw: ``(draws, results)``.

    Args:
        value_of_draw: of each result, see `evaluate.ProtocolResult`.
        counts: ``(draws, units)``, the same for all.
    """
    return np.array([[value_of(row) for value_of in value_of_draw] for row in counts])


def student(seeds: int, draws: int, rng: np.random.Generator) -> np.ndarray | None:
    """Numbers of Student's t distribution for `estimate`, ``(draws, STUDENT)``; None for one seed."""
    return rng.standard_t(seeds - 1, (draws, STUDENT)) if seeds > 1 else None


def estimate(values: np.ndarray, drawn: np.ndarray, t: np.ndarray | None) -> Estimate:
    """Mean of a few trainings with its intervals.

    Args:
        values: ``(seeds,)`` on the people themselves.
        drawn: ``(draws, seeds)`` on each draw of people.
        t: of `student`.
    """
    interval = (100 * LEVEL / 2, 100 - 100 * LEVEL / 2)
    moved = _moved(values, drawn, t)
    return Estimate(
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        people=_pair(np.percentile(drawn.mean(axis=1), interval)),
        people_and_seeds=None if moved is None else _pair(np.percentile(moved, interval)),
    )


def differences(values: np.ndarray, drawn: np.ndarray, t: np.ndarray | None) -> list[Difference]:
    """Of each network but the first, its difference to the first.

    Args:
        values: ``(networks, seeds)`` on the people themselves.
        drawn: ``(draws, networks, seeds)`` on each draw of people.
        t: of `student`.
    """
    pairs = [(values[n] - values[0], drawn[:, n] - drawn[:, 0]) for n in range(1, len(values))]
    ps = [p_value(_moved(*pair, t)) for pair in pairs]
    return [
        Difference(**vars(estimate(*pair, t)), p=p, p_holm=corrected)
        for pair, p, corrected in zip(pairs, ps, holm(ps), strict=True)
    ]


def p_value(moved: np.ndarray | None) -> float | None:
    """Twice the share of draws on the other side of 0, itself included; never 0, since there may be rarer ones."""
    if moved is None:
        return None
    beyond = int(min(np.count_nonzero(moved <= 0), np.count_nonzero(moved >= 0)))
    return min(1.0, 2 * (beyond + 1) / (moved.size + 1))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P values corrected for their number (Holm 1979): the least times n, the next times n - 1, none below one before.

    Args:
        ps: all of them None, if there are none.
    """
    if None in ps:
        return list(ps)
    corrected, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = least
    return corrected


def _moved(values: np.ndarray, drawn: np.ndarray, t: np.ndarray | None) -> np.ndarray | None:
    """Means of draws of people, ``(draws, STUDENT)``, each moved as other seeds would move it; None for one seed."""
    if t is None:
        return None
    return drawn.mean(axis=1)[:, None] + np.std(values, ddof=1) / np.sqrt(len(values)) * t


def _pair(ends: np.ndarray) -> tuple[float, float]:
    low, high = ends.tolist()
    return low, high
