"""What a search leaves behind: journal, scratch, plan, `search.json`, comparisons."""

from __future__ import annotations

from stages.search.results.comparison import (
    Difference,
    RankCorrelation,
    StrategyComparison,
    StrategyRun,
    interval,
    rank_correlation,
)
from stages.search.results.finished_runs import FinishedRuns
from stages.search.results.journal import Journal
from stages.search.results.recorder import Recorder
from stages.search.results.scratch import ALIGNMENT, START_LATENCY, Scratch
from stages.search.results.summary import FINALISTS, Document, Summary, curve, latency_part

__all__ = [
    "ALIGNMENT",
    "FINALISTS",
    "START_LATENCY",
    "Difference",
    "Document",
    "FinishedRuns",
    "Journal",
    "RankCorrelation",
    "Recorder",
    "Scratch",
    "StrategyComparison",
    "StrategyRun",
    "Summary",
    "curve",
    "interval",
    "latency_part",
    "rank_correlation",
]
