"""A busy machine shows in the verdict's own line; a quiet one adds no word."""

from __future__ import annotations

import pytest

from stages.benchmark.doubts import doubts
from stages.benchmark.intervals import Ratio

QUIET = Ratio(1.0, 0.99, 1.01)
A, B = {"p50": 2.0, "p90": 2.1}, {"p50": 1.0, "p90": None}
TWICE = Ratio(2.0, 1.95, 2.05)


def test_a_quiet_machine_leaves_no_doubt() -> None:
    assert doubts(TWICE, QUIET, True, A, B) == ()


@pytest.mark.parametrize(
    ("ratio", "control", "warm", "b", "words"),
    [
        (TWICE, Ratio(1.0, 0.8, 1.02), True, B, "A against itself gave 0.80 to 1.02"),
        (TWICE, Ratio(1.0, 0.98, 1.2), True, B, "A against itself gave 0.98 to 1.20"),
        (TWICE, QUIET, False, B, "the warm-up did not settle"),
        (TWICE, QUIET, True, {"p50": 1.0, "p90": 3.0}, "p90 is 3.0 × p50"),
        (Ratio(1.5, 1.4, 1.6), QUIET, True, B, "the p50s alone would give 2.00×"),
    ],
)
def test_each_sign_of_other_work_is_said(
    ratio: Ratio, control: Ratio, warm: bool, b: dict[str, float | None], words: str
) -> None:
    (said,) = doubts(ratio, control, warm, A, b)
    assert words in said
