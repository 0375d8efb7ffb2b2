"""Signs that the machine was busy while it was timed, so that a verdict says so itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stages.benchmark.intervals import Ratio

_WIDE = 1.10  # of a control: on a quiet machine it lies within a few percent of 1
_LONG_TAIL = 1.5  # p90 ÷ p50; a quiet machine stays below 1.2


def doubts(
    ratio: Ratio,
    control: Ratio,
    warm_stable: bool,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
) -> tuple[str, ...]:
    """Reasons to measure again, none on a quiet machine.

    Args:
        a, b: p50 and p90 of both files, in milliseconds; None where there are too few samples.
    """
    found = []
    if max(control.high, 1 / control.low) > _WIDE:
        found.append(f"A against itself gave {control.low:.2f} to {control.high:.2f}")
    if not warm_stable:
        found.append("the warm-up did not settle")
    tail = max((side["p90"] or 0.0) / side["p50"] for side in (a, b))
    if tail > _LONG_TAIL:
        found.append(f"p90 is {tail:.1f} × p50")
    middles = a["p50"] / b["p50"]
    if not ratio.low <= middles <= ratio.high and abs(math.log(middles / ratio.value)) > 0.05:
        found.append(
            f"the p50s alone would give {middles:.2f}×, for the machine's speed changed: the ratio "
            "compares calls next to each other"
        )
    return tuple(found)
