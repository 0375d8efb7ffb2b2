"""What dropping whole residual branches buys beside narrower layers: plans of the same budget of
latency from one loss table, with all branches and where some may go.

    python tests/bench/depth.py CONFIG [--set KEY=VALUE]... [--budgets 0.5,0.32]

CONFIG names network, weights, data, and `search.table` and `reconstruct` how much is looked at.
The limit of each plan is moved until it measures within the budget, as in a search. Each is cut and
reconstructed, and scored on the search split. The plans of a budget are timed twice against the
original by onnxruntime, on one thread in alternating slots.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from recovery import teacher_of  # noqa: E402

from pipeline.config.load import find_config, load_config  # noqa: E402
from pipeline.config.schema import Config  # noqa: E402
from pipeline.data import Splits, load_splits  # noqa: E402
from pipeline.training import accuracy  # noqa: E402
from pipeline.training.machine import all_cores  # noqa: E402
from stages.benchmark.latency import LatencyWorker  # noqa: E402
from stages.export import OnnxSlicer, export_proto  # noqa: E402
from stages.prune import ChannelPlan, prune  # noqa: E402
from stages.reconstruct import reconstruct  # noqa: E402
from stages.rotate import rotate  # noqa: E402
from stages.search import InProcess, LossTable, Network, Search, SearchProblem, Tabulation  # noqa: E402
from stages.search.latency import Calibrator, CandidateTimer, MeasuredBudget  # noqa: E402
from stages.search.tables import solve  # noqa: E402
from stages.trace import trace  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--budgets", default="0.5,0.32")
    given = parser.parse_args()
    sets = [*given.set, "search.branches=true", "search.budget={latency: 0.5}"]
    config = load_config(find_config(given.config), sets)
    splits = load_splits(config.data, seed=config.seed)
    with all_cores():
        model = teacher_of(config).eval()
        images, _ = splits.train.take(config.rotate.images, seed=config.seed)
        model = rotate(model, trace(model, images[:1]), images)
        budgets = [float(one) for one in given.budgets.split(",")]
        network = Network(model, trace(model, images[:2]))
        calibrator = Calibrator(
            model, network.graph, splits.search, config.search, config.seed,
            known={}, on_measure=lambda key, measurement: None,
        )  # fmt: skip
        with calibrator:
            problem = SearchProblem.build(
                network, splits, config.search, config.seed,
                align=widths(config), calibrate=calibrator, unlimited=True,
            )  # fmt: skip
            assert calibrator.timer is not None
            search = Search(InProcess(problem.table_evaluator()))
            table = Tabulation(problem.space, config.search.table.widths, search)()
            report(problem, calibrator.timer, table, splits, config, budgets)


def widths(config: Config) -> int:
    """What layers' widths are multiples of."""
    align = config.search.align
    return 8 if align == "auto" else align


def report(
    problem: SearchProblem,
    timer: CandidateTimer,
    table: LossTable,
    splits: Splits,
    config: Config,
    budgets: list[float],
) -> None:
    model, graph = problem.network.model, problem.network.graph
    images, _ = splits.train.take(config.reconstruct.images, seed=config.seed)
    slicer = OnnxSlicer(export_proto(model, images[:2]), graph)
    print(f"original: {accuracy(model, splits.search):.2%}")
    print("budget  branches gone  predicted  table, nats  accuracy  latency, twice", flush=True)
    with LatencyWorker(slicer.slice_bytes({})) as worker:
        for budget in budgets:
            whole = problem.within(budget).projector
            plans = []
            for losses, predicted in ((table.staying, whole.keeping_branches), (table, whole)):
                solution = partial(solve, losses)
                limit = MeasuredBudget(timer, predicted, budget).corrected(solution)
                plans.append(solution(limit))
            files = [slicer.slice_bytes(problem.ranking.keep(counts)) for counts in plans]
            times = [[worker.relative(one, min_time=1.0).fraction for one in files] for _ in "ab"]
            for place, counts in enumerate(plans):
                plan = ChannelPlan.of(graph, problem.ranking.keep(counts))
                small = prune(model, graph, plan)
                fitted = reconstruct(small, model, graph, plan, images, seed=config.seed)
                both = "  ".join(f"{row[place]:.3f}" for row in times)
                print(
                    f"{budget:6.2f}  {len(plan.drop):13}  {whole.cost.of(counts):9.3f} "
                    f" {table(counts):11.4f}  {accuracy(fitted, splits.search):8.2%}  {both} "
                    f" {' '.join(plan.drop)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
