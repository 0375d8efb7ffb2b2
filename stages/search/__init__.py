"""Distributes a budget over channel groups: propose, score cheaply, learn, choose.

    from stages.search import InProcess, Network, Search, SearchProblem
    network, settings = Network(model, graph), SearchConfig(trials=100)
    problem = SearchProblem.build(network, splits, settings, seed=0, align=8)
    entries = Search(InProcess(problem.table_evaluator()))
    table = Tabulation(problem.space, settings.table.widths, entries)()
    search = Search(InProcess(problem.evaluator), table)
    trials = search.run("rl", problem.strategy("rl", trials=100, table=table), 100)

The rooms, and what each may import (held by tests/stages/search/test_search_rooms.py):

    space        what may be chosen, its cost, projection        -
    evaluation   what a candidate is worth                       space
    latency      how long it takes in onnxruntime                space
    tables       what each width of a group loses; a solver      space
    strategies   what to try next                                space, evaluation
    budget       this round's part of the budget                 space, latency
    problem      all of that, resolved once and frozen           the five rooms, budget
    engine       ask, score, tell                                space, evaluation, strategies
    tabulate     measures the tables                             space, evaluation, tables, engine
    results      journal, plan, `search.json`, comparisons;      space, evaluation, latency,
                 knows no strategy                               tables, problem
    front        what every budget costs in accuracy;            space, evaluation, tables,
                 knows no journal                                problem, engine
    settled      what settings on `auto` come to                 latency, problem, results
    moved_limit  the limit of a latency budget, by the clock     latency, tables, problem
    session      one search in a run                             all above
    compare      strategies at equal evaluations                 all above but session, front
    compare_run  the same in a run                               all above but session, front
    front_run    the front in a run                              all above but session, compare
    stage        reads and writes the artefacts                  all but compare, front_run
"""

from __future__ import annotations

from stages.search.compare import compare_strategies
from stages.search.compare_run import Compared, ComparisonRequest, Distill, RunComparison
from stages.search.engine import Search
from stages.search.evaluation.evaluator import Evaluator
from stages.search.evaluation.executor import InProcess, Pool
from stages.search.evaluation.trial import Outcome, Trial
from stages.search.front import FrontPoint
from stages.search.front.fronts import FrontMaker
from stages.search.front_run import RunFront
from stages.search.problem import Network, SearchProblem
from stages.search.results.comparison import StrategyComparison, StrategyRun
from stages.search.results.journal import Journal
from stages.search.space.candidate import Candidate
from stages.search.space.projection import Projector
from stages.search.space.space import Space
from stages.search.strategies import STRATEGIES
from stages.search.strategies.base import Strategy, Task
from stages.search.tables.loss_table import LossTable
from stages.search.tabulate import Tabulation

__all__ = [
    "STRATEGIES",
    "Candidate",
    "Compared",
    "ComparisonRequest",
    "Distill",
    "Evaluator",
    "FrontMaker",
    "FrontPoint",
    "InProcess",
    "Journal",
    "LossTable",
    "Network",
    "Outcome",
    "Pool",
    "Projector",
    "RunComparison",
    "RunFront",
    "Search",
    "SearchProblem",
    "Space",
    "Strategy",
    "StrategyComparison",
    "StrategyRun",
    "Tabulation",
    "Task",
    "Trial",
    "compare_strategies",
]
