"""Which is delivered, fp32 or a lower precision, and why: in one place, from what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from pipeline.run.variants import FP32, INT8, PRECISIONS
from stages.quantize.report import Score, Timing

AUTO = "auto"


@dataclass(frozen=True)
class Allowance:
    """What a lower precision may cost.

    Attributes:
        drop: points of accuracy.
        top1_agreement: least share of the images on which INT8 and fp32 name the same class.
        output_error: largest error of the outputs, relative to their spread.
    """

    drop: float = 0.5
    top1_agreement: float = 0.9
    output_error: float = 0.3
    precision: str = INT8
    """Or "fp16"."""

    @property
    def name(self) -> str:
        """The precision before people."""
        return PRECISIONS[self.precision]

    def problem(self, score: Score) -> str:
        """What the score misses, in words; empty where nothing."""
        on = f"on {score.images:,} images"
        if not score.drop <= self.drop:  # and not `>`: NaN keeps no limit
            what = "accuracy" if score.accuracy is not None else "agreement with fp32"
            return (
                f"{self.name} loses {score.drop:.2f} points of {what} {on}, {self.drop:g} allowed"
            )
        if not score.top1_agreement >= self.top1_agreement:
            share = f"{floor(round(1000 * score.top1_agreement, 6)) / 10:.1f} % {on}"
            return (
                f"{self.name} and fp32 name the same class for {share}, "
                f"{100 * self.top1_agreement:g} % needed"
            )
        if not score.output_error <= self.output_error:
            return (
                f"{self.name} outputs are off by {score.output_error:.2g} of their spread {on}, "
                f"{self.output_error:g} allowed"
            )
        return ""


def choose(mode: str, score: Score, timing: Timing, allowance: Allowance) -> tuple[str, str]:
    """(the allowance's precision or "fp32", the reason in one sentence).

    Under `auto` it must keep the allowance and be shown to be faster, its interval wholly above 1;
    under `int8` it must keep the allowance.
    """
    problem = allowance.problem(score)
    if problem:
        return FP32, problem
    assert timing.ci95 is not None
    low, high = timing.ci95
    measured = f"{timing.ratio:.2f}× ({low:.2f} to {high:.2f}) as fast as fp32"
    if timing.faster or mode == INT8:
        on = f"on {score.images:,} images"
        # of the change, as everywhere: -0.20 is lost
        worst, best = (0.0 - end for end in reversed(score.drop_ci95))
        change = f"{0.0 - score.drop:+.2f} points of accuracy ({worst:+.2f} to {best:+.2f}) {on}"
        cost = change if score.accuracy is not None else f"chosen {on}, which have no labels"
        return allowance.precision, f"{allowance.name} is {measured}; {cost}"
    slower = "slower here" if high < 1 else "no faster here that could be shown"
    return FP32, f"{allowance.name} is {slower}: {measured}"
