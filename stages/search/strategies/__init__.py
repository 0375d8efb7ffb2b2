"""The strategies. A new one is a file with a class that follows `base.Strategy`, and a line
here.
"""

from __future__ import annotations

from collections.abc import Callable

from stages.search.strategies.base import WARM_START, Problem, Proposal, Strategy
from stages.search.strategies.evolution import Evolution
from stages.search.strategies.global_taylor import GlobalTaylor
from stages.search.strategies.random import Random
from stages.search.strategies.rl import PolicyGradient
from stages.search.strategies.rlpruner import RLPruner
from stages.search.strategies.uniform import Uniform

STRATEGIES: dict[str, Callable[[Problem], Strategy]] = {
    "rl": PolicyGradient,
    "rlpruner": RLPruner,
    "evolution": Evolution,
    "random": Random,
    "uniform": Uniform,
    "global-taylor": GlobalTaylor,
}

SEEDLESS = ("uniform", "global-taylor")
"""Those that no seed changes: one search says all they have to say."""

__all__ = ["SEEDLESS", "STRATEGIES", "WARM_START", "Problem", "Proposal", "Strategy"]
