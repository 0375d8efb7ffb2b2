"""The strategies. A new one is a file with a class that follows `base.Strategy`, and a line here.

Its settings, if it has any, are a section in `SearchConfig` (pipeline/config/search.py), where its
name is also added to `strategy`.
"""

from __future__ import annotations

from collections.abc import Callable

from stages.search.strategies import critic, rlpruner
from stages.search.strategies.base import Strategy, Task
from stages.search.strategies.evolution import Evolution
from stages.search.strategies.global_taylor import GlobalTaylor
from stages.search.strategies.random import Random
from stages.search.strategies.rl import PolicyGradient
from stages.search.strategies.rlpruner import RLPruner
from stages.search.strategies.table import Table
from stages.search.strategies.uniform import Uniform

STRATEGIES: dict[str, Callable[[Task], Strategy]] = {
    "rl": PolicyGradient,
    "table": Table,
    "rlpruner": RLPruner,
    "evolution": Evolution,
    "random": Random,
    "uniform": Uniform,
    "global-taylor": GlobalTaylor,
}

CONTROLS = ("table", "uniform", "global-taylor")
"""Deterministic strategies of one candidate: every search runs them, a comparison once each."""

FROM_TABLE = ("rl", "evolution", "table")
"""Strategies that start from the loss table, and so have to wait for it."""

CONSTANTS = {"rl": critic.CONSTANTS, "rlpruner": rlpruner.CONSTANTS}
"""What is no setting and yet shapes the result, by strategy; kept in `search.json`."""

__all__ = ["CONSTANTS", "CONTROLS", "FROM_TABLE", "STRATEGIES", "Strategy", "Task"]
