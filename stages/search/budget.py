"""This round's part of the budget, in the cost that candidates are projected by.

A budget b of N rounds is shared out geometrically (`pipeline.run.rounds.Round.share`): after round
k the network may cost b ** (k / N) of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.channels.counts import Cost
from pipeline.errors import Hint, Key, UsageError
from pipeline.run.rounds import Round
from stages.search.latency.table import Calibration
from stages.search.space.projection import Projector, require_reachable
from stages.search.space.space import Space

_MOST = 0.99  # of what is there: a round that the one before left nothing to do cuts this little


@dataclass(frozen=True)
class RoundBudget:
    """What candidates of a round may cost.

    Attributes:
        metric: "macs", "params" or "latency".
        asked: as a fraction of the original.
        share: as a fraction of the network that the round starts from.
        projector: onto it.
    """

    metric: str
    asked: float
    share: float
    projector: Projector


def resolve_budget(
    key: str,
    value: float | None,
    round: Round,
    space: Space,
    costs: Mapping[str, Cost],
    original: Mapping[str, int],
    calibration: Calibration | None,
) -> RoundBudget:
    """From the setting `search.budget.KEY=VALUE`.

    Args:
        value: None: no limit but the cost of the whole network.
        costs: by metric, of the network that the round starts from.
        original: by metric, what the network before any cut costs.
        calibration: where the budget is latency.
    Raises:
        UsageError: the budget cannot be met, or asks for nothing. The first round says so for all
            of them.
    """
    if calibration is None:
        cost, of_original = costs[key], float(original[key])
        at_start = cost.of(space.sizes)
    else:
        cost, of_original, at_start = calibration.table, 1.0, calibration.start.fraction
    if value is None:
        return RoundBudget(cost.metric, 1.0, 1.0, Projector.fraction(space, cost, 1.0))
    quantized = calibration is not None and calibration.precision != "fp32"
    if calibration is not None:
        value = _latency_fraction(key, value, calibration, first=round.first)
    asked = round.share(value)
    # earlier rounds meet their budgets by a block or two, so what is left is not what was asked
    exact = round.count == 1 and not quantized
    share = asked if exact else min(_MOST, asked * of_original / at_start)
    try:
        if round.first:  # better now than after the first of several rounds
            require_reachable(space, cost, value, of_original / at_start if quantized else 1.0)
        projector = Projector.fraction(space, cost, share)
    except UsageError as error:
        raise error if round.first else _of_round(round, error) from None
    return RoundBudget(cost.metric, asked, share, projector)


def _latency_fraction(key: str, value: float, calibration: Calibration, *, first: bool) -> float:
    """A latency budget as a fraction of the original's latency in fp32."""
    ms = calibration.start.original_seconds * 1e3
    fraction = value if key == "latency" else value / ms
    at_start = calibration.start.fraction if first else 1.0
    if fraction < at_start:
        return fraction
    takes = f"{ms:.3g} ms"
    if at_start < 1:
        takes = f"{ms * at_start:.3g} ms in INT8, {at_start:.2f} of what it takes in fp32"
    raise UsageError(
        f"search.budget.{key}={value:g} asks for nothing: the original takes {takes}",
        hint=Hint.set("search.budget.latency", round(at_start / 2, 2), says="halves it"),
    )


def _of_round(round: Round, error: UsageError) -> UsageError:
    hint = Hint(
        "fewer ",
        Key("rounds"),
        ", a larger ",
        Key("search.budget"),
        ", or a lower ",
        Key("search.align"),
        " or ",
        Key("search.min_keep"),
    )
    return UsageError(f"round {round.number} of {round.count}: {error.message}", hint=hint)
