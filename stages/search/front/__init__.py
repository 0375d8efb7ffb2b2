"""What every budget costs in accuracy: plans from the loss table, some of them really measured."""

from stages.search.front.choice import FITS, RECOVERED, Choice, allowed_drop, least_within
from stages.search.front.points import FRONT, FrontPoint, predicted, shares, undominated

CONSTANTS: dict[str, object] = {"recovered_share": RECOVERED, "plans_measured_at_most": FITS}
"""What is no setting and yet shapes the result; kept in `search.json`."""

__all__ = [
    "CONSTANTS",
    "FRONT",
    "Choice",
    "FrontPoint",
    "allowed_drop",
    "least_within",
    "predicted",
    "shares",
    "undominated",
]
