"""The statistics of a study against loops over made-up tables, and against numbers that are known."""

import numpy as np
import pytest

from keras_mrpose.evaluation.evaluate import ShareOfDraw
from keras_mrpose.study import statistics

PEOPLE, DRAWS = 7, 40


@pytest.fixture(scope="module")
def table():
    """Right joints ``(networks, seeds, people)`` of the joints that count, and draws of people as lists of rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(5, 15, PEOPLE)
    hits = rng.integers(0, labels + 1, (3, 4, PEOPLE))
    rows = rng.integers(0, PEOPLE, (DRAWS, PEOPLE))
    return labels, hits, rows


def measured(labels, hits, rows):
    """Values ``(networks, seeds)`` and ``(draws, networks, seeds)`` by the library."""
    shares = [ShareOfDraw(one, labels) for network in hits for one in network]
    counts = np.array([np.bincount(row, minlength=PEOPLE) for row in rows])
    drawn = statistics.drawn_values(shares, counts).reshape(len(rows), *hits.shape[:2])
    return np.array([share(np.ones(PEOPLE, int)) for share in shares]).reshape(hits.shape[:2]), drawn


def percentile(values, percent):
    """Linear between the sorted values."""
    values, place = sorted(values), (len(values) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (place - below) * (values[above] - values[below])


def loops(labels, hits, rows, network, less=None):
    """Mean, standard deviation over seeds, and the mean of each draw, person by person."""

    def share(n, seed, people):
        return sum(int(hits[n][seed][p]) for p in people) / sum(int(labels[p]) for p in people)

    def mean_and_sd(people):
        ofs = [
            share(network, seed, people) - (0 if less is None else share(less, seed, people))
            for seed in range(len(hits[0]))
        ]
        mean = sum(ofs) / len(ofs)
        return mean, (sum((one - mean) ** 2 for one in ofs) / (len(ofs) - 1)) ** 0.5

    return *mean_and_sd(range(PEOPLE)), [mean_and_sd(row)[0] for row in rows]


def test_estimates_are_those_of_loops(table):
    labels, hits, rows = table
    values, drawn = measured(*table)
    t = statistics.student(4, DRAWS, np.random.default_rng(1))
    for network in range(3):
        found = statistics.estimate(values[network], drawn[:, network], t)
        mean, sd, means = loops(labels, hits, rows, network)
        assert (found.mean, found.sd) == pytest.approx((mean, sd))
        assert found.people == pytest.approx((percentile(means, 2.5), percentile(means, 97.5)))
        moved = [one + sd / 2 * step for one, steps in zip(means, t, strict=True) for step in steps]  # 4 seeds
        assert found.people_and_seeds == pytest.approx((percentile(moved, 2.5), percentile(moved, 97.5)))


def test_differences_are_those_of_loops(table):
    labels, hits, rows = table
    t = statistics.student(4, DRAWS, np.random.default_rng(1))
    found = statistics.differences(*measured(*table), t)
    assert len(found) == 2
    ps = []
    for place, one in enumerate(found, 1):
        mean, sd, means = loops(labels, hits, rows, place, less=0)
        assert (one.mean, one.sd) == pytest.approx((mean, sd))
        assert one.people == pytest.approx((percentile(means, 2.5), percentile(means, 97.5)))
        moved = [value + sd / 2 * step for value, steps in zip(means, t, strict=True) for step in steps]
        beyond = min(sum(value <= 0 for value in moved), sum(value >= 0 for value in moved))
        ps.append(min(1, 2 * (beyond + 1) / (len(moved) + 1)))
        assert one.p == pytest.approx(ps[-1])
    less, more = sorted(ps)
    assert sorted(one.p_holm for one in found) == pytest.approx([min(1, 2 * less), min(1, max(2 * less, more))])


def test_a_difference_that_is_known():
    """One more joint of ten is right, for every person and seed: 10 points in every draw, and nothing varies."""
    hits = np.random.default_rng(2).integers(0, 9, (1, 3, PEOPLE))
    rows = np.random.default_rng(3).integers(0, PEOPLE, (DRAWS, PEOPLE))
    values, drawn = measured(np.full(PEOPLE, 10), np.concatenate([hits, hits + 1]), rows)
    (found,) = statistics.differences(values, drawn, statistics.student(3, DRAWS, np.random.default_rng(0)))
    assert found.mean == pytest.approx(0.1) and found.sd == pytest.approx(0, abs=1e-12)
    assert found.people == pytest.approx((0.1, 0.1)) and found.people_and_seeds == pytest.approx((0.1, 0.1))
    assert found.p == found.p_holm == pytest.approx(2 / (DRAWS * statistics.STUDENT + 1))
    assert found.significant


def test_seeds_alone_are_the_textbooks_interval():
    """Everybody alike, so that draws do not vary: the mean plus and minus 4.303 standard errors (t, 2 degrees)."""
    values = np.array([0.50, 0.52, 0.57])  # mean 0.53, standard deviation 0.0360555
    t = statistics.student(3, 4000, np.random.default_rng(0))
    found = statistics.estimate(values, np.tile(values, (4000, 1)), t)
    half = 4.303 * 0.0360555 / 3**0.5
    assert found.people == pytest.approx((0.53, 0.53))
    assert found.people_and_seeds == pytest.approx((0.53 - half, 0.53 + half), abs=0.02 * half)


def test_other_people_do_not_make_trainings_sure():
    """Both networks right for the same people with a difference that changes its sign with the seed."""
    values = np.array([[0.5, 0.5, 0.5], [0.53, 0.51, 0.52]])
    t = statistics.student(3, 2000, np.random.default_rng(0))
    (sure,) = statistics.differences(values, np.tile(values, (2000, 1, 1)), t)  # t = 0.02 / (0.01 / 3^0.5) = 3.46
    assert sure.people[0] > 0 > sure.people_and_seeds[0]
    assert sure.p == pytest.approx(0.0742, abs=0.004) and not sure.significant  # of the table, two-sided, 2 degrees


def test_one_seed_says_nothing_about_others():
    values, drawn = np.array([[0.5], [0.9]]), np.tile([[0.5], [0.9]], (9, 1, 1))
    assert statistics.student(1, 9, np.random.default_rng(0)) is None
    (found,) = statistics.differences(values, drawn, None)
    assert (found.sd, found.people_and_seeds, found.p, found.p_holm) == (None,) * 4
    assert found.people == pytest.approx((0.4, 0.4)) and not found.significant


def test_holm():
    """By hand: 0.005 x 4, 0.010 x 3, 0.030 x 2, and 0.040 x 1 is not less than the one before."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1, 1]
    assert statistics.holm([None, None]) == [None, None]


def test_draws_have_as_many_people():
    counts = statistics.draw_counts(6, 500, np.random.default_rng(0))
    assert counts.shape == (500, 6) and (counts.sum(axis=1) == 6).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(6), abs=0.2)  # standard error 0.04


@pytest.mark.slow
def test_how_often_an_interval_holds_the_truth():
    """Simulated studies of three seeds, which vary more than people do: 95 % of cases, where drawing seeds has less."""
    rng, holds, studies = np.random.default_rng(0), np.zeros(3), 600
    for _ in range(studies):
        people, seeds = rng.normal(0, 0.1, (100, 1)), rng.normal(0, 0.03, 3)
        table = people + seeds + rng.normal(0, 0.05, (100, 3))  # the truth is 0
        drawn = statistics.draw_counts(100, 400, rng) @ table / 100
        found = statistics.estimate(table.mean(axis=0), drawn, statistics.student(3, 400, rng))
        of_seeds = np.take_along_axis(drawn, rng.integers(0, 3, (400, 3)), axis=1).mean(axis=1)
        intervals = found.people, found.people_and_seeds, np.percentile(of_seeds, (2.5, 97.5))
        holds += [low <= 0 <= high for low, high in intervals]
    people, people_and_seeds, seeds_drawn = holds / studies  # 0.67, 0.96, 0.86; standard error 0.01
    assert people < 0.75 and seeds_drawn < 0.9 and 0.93 < people_and_seeds < 0.99
