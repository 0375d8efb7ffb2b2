"""From paired rounds to a ratio with an interval, and to a verdict.

What is measured is nested: a few launches (a fresh process for each variant), in each of them many
rounds, in each round one log-ratio of the two variants' medians. Rounds differ because the machine
is noisy; launches differ because memory lands elsewhere, and that part no number of rounds averages
out. The interval is the wider of two, so that it covers both:

* bootstrap of the rounds within each launch (percentile method);
* Student's t over the launches' own medians, whose spread is pooled with the control's: the control
  is A against itself in the same launches, so its true value is known to be 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

FASTER, SLOWER, NO_DIFFERENCE = "faster", "slower", "no difference shown"

# A quantile q needs some 6 samples beyond it before the largest of them stops deciding it.
P90_SAMPLES, P99_SAMPLES = 64, 660
_BEYOND = 6
_SHARES = (1, *range(5, 100, 5), 99)  # of calls, in per cent


@dataclass(frozen=True)
class Ratio:
    """A ratio of times and its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_intervals(
    rounds: Sequence[Sequence[float]],
    control: Sequence[Sequence[float]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Ratio, Ratio]:
    """Ratio of the comparison and of the control, each with its 95 % interval.

    Args:
        rounds: for every launch the log-ratios log(time A) - log(time B) of its rounds, two or
            more of them.
        control: the same for A against another process of A.
    """
    launches = [float(np.median(launch)) for launch in rounds]
    controls = [float(np.median(launch)) for launch in control]
    count = len(launches)
    centre = sum(launches) / count
    squares = sum((value - centre) ** 2 for value in launches) + sum(value**2 for value in controls)
    freedom = count - 1 + len(controls)  # the control's mean is known, so it costs no freedom
    half = float(special.stdtrit(freedom, 0.975)) * math.sqrt(squares / freedom / count)
    return (
        _interval(rounds, centre, half, resamples, seed),
        _interval(control, sum(controls) / len(controls), half, resamples, seed + 1),
    )


def _interval(
    rounds: Sequence[Sequence[float]], centre: float, half: float, resamples: int, seed: int
) -> Ratio:
    """exp of `centre` with the wider of the bootstrap's interval and centre ± half."""
    low, high = bootstrap(rounds, resamples=resamples, seed=seed)
    return Ratio(
        math.exp(centre),
        math.exp(min(low, centre - half, centre)),
        math.exp(max(high, centre + half, centre)),
    )


def bootstrap(
    rounds: Sequence[Sequence[float]], *, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of `mean_of_medians`; rounds are resampled within their launch."""
    from scipy import stats  # takes every command a second to import

    found = stats.bootstrap(
        [np.asarray(launch, dtype=np.float64) for launch in rounds],
        mean_of_medians,
        n_resamples=resamples,
        vectorized=True,
        method="percentile",  # medians of few values are lumpy, which BCa's correction cannot take
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def mean_of_medians(*launches: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean over launches of the median over rounds, which lie along `axis`."""
    return sum(np.median(launch, axis=axis) for launch in launches) / len(launches)


def verdict(ratio: Ratio, control: Ratio) -> str:
    """`faster` or `slower` where the interval excludes 1 and the ratio exceeds the control's."""
    spread = max(abs(math.log(control.low)), abs(math.log(control.high)))
    if ratio.low > 1 and math.log(ratio.value) > spread:
        return FASTER
    if ratio.high < 1 and math.log(ratio.value) < -spread:
        return SLOWER
    return NO_DIFFERENCE


def percentiles(nanoseconds: Sequence[int]) -> dict[str, float | None]:
    """p50, p90, p99 in milliseconds; p90 needs 64 samples and p99 660, otherwise None."""
    values = np.asarray(nanoseconds, dtype=np.float64) / 1e6

    def at(share: float, least: int) -> float | None:
        return float(np.quantile(values, share)) if len(values) >= least else None

    return {"p50": at(0.5, 1), "p90": at(0.9, P90_SAMPLES), "p99": at(0.99, P99_SAMPLES)}


def quantiles(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Milliseconds that 1, 5, 10, … 95 and 99 % of the calls stay within, by that number.

    Those with fewer than 6 calls beyond them are left out; the median needs one call.
    """
    values = np.asarray(nanoseconds, dtype=np.float64) / 1e6
    beyond = {share: min(share, 100 - share) / 100 * len(values) for share in _SHARES}
    known = [share for share in _SHARES if share == 50 or beyond[share] >= _BEYOND]
    found = np.quantile(values, [share / 100 for share in known]).tolist()
    return {str(share): value for share, value in zip(known, found, strict=True)}


def variation(nanoseconds: Sequence[int]) -> float:
    """Coefficient of variation: standard deviation over mean."""
    values = np.asarray(nanoseconds, dtype=np.float64)
    return float(values.std() / values.mean())
