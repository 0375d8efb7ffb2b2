"""What a search may choose, what that costs, and how a target becomes a candidate in budget."""

from __future__ import annotations

from stages.search.space.candidate import WARM_START, Candidate, CountsKey, key_of
from stages.search.space.projection import Projector, require_reachable
from stages.search.space.ranking import Importance, Ranking, Removal
from stages.search.space.space import Space

__all__ = [
    "WARM_START",
    "Candidate",
    "CountsKey",
    "Importance",
    "Projector",
    "Ranking",
    "Removal",
    "Space",
    "key_of",
    "require_reachable",
]
