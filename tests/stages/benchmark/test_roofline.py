"""The machine's peak, through the same runtime."""

from __future__ import annotations

from stages.benchmark.roofline import measured_peak


def test_the_peak_is_that_of_real_convolutions() -> None:
    # GMAC/s, from a loaded small machine to a very large one
    assert 0.05 < measured_peak(min_time=0.002) < 10_000
