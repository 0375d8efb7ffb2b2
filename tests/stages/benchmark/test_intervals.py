"""The arithmetic of a claim, on made-up rounds whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stages.benchmark.intervals import (
    Ratio,
    bootstrap,
    percentiles,
    quantiles,
    ratio_intervals,
    variation,
    verdict,
)


def rounds(
    generator: np.random.Generator,
    effect: float,
    launch_sd: float,
    round_sd: float,
    launches: int = 4,
    n: int = 20,
) -> list[list[float]]:
    """Log-ratios: the truth, plus what differs by launch and, heavy-tailed, by round."""
    return [
        list(effect + generator.normal(0, launch_sd) + round_sd * generator.standard_t(3, size=n))
        for _ in range(launches)
    ]


@pytest.mark.parametrize(
    ("launch_sd", "round_sd"), [(0.02, 0.0), (0.02, 0.1), (0.0, 0.3), (0.001, 0.01)]
)
def test_the_same_file_is_rarely_called_faster_or_slower(launch_sd: float, round_sd: float) -> None:
    generator = np.random.default_rng(0)
    claims = missed = 0
    for _ in range(120):
        found = ratio_intervals(
            rounds(generator, 0.0, launch_sd, round_sd),
            rounds(generator, 0.0, launch_sd, round_sd),
            resamples=200,
        )
        claims += verdict(*found) != "no difference shown"
        missed += not found[0].low <= 1.0 <= found[0].high
    assert claims <= 120 * 0.05
    assert missed <= 120 * 0.08


def test_a_real_difference_is_found_every_time() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        ratio, control = ratio_intervals(
            rounds(generator, math.log(2), 0.02, 0.2),
            rounds(generator, 0, 0.02, 0.2),
            resamples=200,
        )
        assert verdict(ratio, control) == "faster"
        assert 1.6 < ratio.value < 2.5
        slower, control = ratio_intervals(
            rounds(generator, -math.log(2), 0.02, 0.2),
            rounds(generator, 0, 0.02, 0.2),
            resamples=200,
        )
        assert verdict(slower, control) == "slower"


def test_more_rounds_do_not_hide_that_launches_differ() -> None:
    generator = np.random.default_rng(2)
    steady = [[value] * 500 for value in (0.00, 0.02, 0.04, 0.02)]
    ratio, _ = ratio_intervals(steady, rounds(generator, 0, 0.02, 0.0, n=500), resamples=100)
    assert ratio.low < 1.02 < ratio.high
    assert ratio.high / ratio.low > 1.01
    assert bootstrap(steady, resamples=100, seed=0) == (pytest.approx(0.02), pytest.approx(0.02))


def test_the_interval_holds_its_own_ratio_and_is_repeatable() -> None:
    generator = np.random.default_rng(3)
    data = rounds(generator, 0.3, 0.0, 0.5, n=3), rounds(generator, 0.0, 0.0, 0.5, n=3)
    ratio, control = ratio_intervals(*data)
    assert ratio.low <= ratio.value <= ratio.high
    assert (ratio, control) == ratio_intervals(*data)


@pytest.mark.parametrize(
    ("ratio", "control", "expected"),
    [
        (Ratio(1.5, 1.4, 1.6), Ratio(1.0, 0.98, 1.02), "faster"),
        (Ratio(0.7, 0.6, 0.8), Ratio(1.0, 0.98, 1.02), "slower"),
        (Ratio(1.1, 0.99, 1.2), Ratio(1.0, 0.98, 1.02), "no difference shown"),
        (Ratio(1.05, 1.03, 1.07), Ratio(1.0, 0.9, 1.02), "no difference shown"),
        (Ratio(0.95, 0.93, 0.97), Ratio(1.0, 0.98, 1.1), "no difference shown"),
    ],
)
def test_verdicts(ratio: Ratio, control: Ratio, expected: str) -> None:
    assert verdict(ratio, control) == expected


@pytest.mark.parametrize(("launches", "quantile"), [(2, 3.182), (4, 2.365), (8, 2.131)])
def test_students_t_of_the_pooled_spread(launches: int, quantile: float) -> None:
    """Against a printed table of t, 97.5 %, at 2 · launches - 1 degrees of freedom."""
    offsets = [(-1) ** index * 0.01 for index in range(launches)]
    still = [[offset] * 5 for offset in offsets]  # nothing to resample: t alone is left
    ratio, control = ratio_intervals(still, still, resamples=50)
    spread = math.sqrt(2 * launches * 0.01**2 / (2 * launches - 1) / launches)
    assert math.log(ratio.high) == pytest.approx(quantile * spread, rel=1e-3)
    assert math.log(control.low) == pytest.approx(-quantile * spread, rel=1e-3)


def test_the_bootstrap_draws_each_launch_apart() -> None:
    """As a loop would: for every launch a draw with replacement, then the mean of the medians."""
    launches = rounds(np.random.default_rng(4), 0.1, 0.02, 0.3)
    generator, means = np.random.default_rng(7), np.zeros(500)
    for launch in launches:
        picks = generator.integers(0, len(launch), size=(500, len(launch)))
        means += np.median(np.array(launch)[picks], axis=1) / len(launches)
    low, high = np.quantile(means, [0.025, 0.975])
    assert bootstrap(launches, resamples=500, seed=7) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("n", "blank"), [(63, ("p90", "p99")), (64, ("p99",)), (659, ("p99",)), (660, ())]
)
def test_percentiles_without_enough_samples_stay_blank(n: int, blank: tuple[str, ...]) -> None:
    found = percentiles([1_000_000 * (index + 1) for index in range(n)])
    assert found["p50"] == pytest.approx((n + 1) / 2)
    assert {name for name, value in found.items() if value is None} == set(blank)


def test_a_quantile_is_kept_where_six_calls_lie_beyond_it() -> None:
    found = quantiles([n * 1_000_000 for n in range(1, 122)])
    assert found["50"] == 61.0
    assert found["95"] == pytest.approx(115.0)
    assert not {"1", "99"} & set(found)
    assert quantiles([2_000_000]) == {"50": 2.0}


def test_variation() -> None:
    assert variation([5, 5, 5]) == 0.0
    assert variation([1, 3]) == pytest.approx(0.5)
