"""How well what a search knows of a candidate ranks it by what training will make of it.

    python tests/bench/fidelity.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--candidates 24]
    [--steps 100]

CONFIG's run must hold `trace/` and `rotate/` (`rlp pipeline run CONFIG --until rotate`).
Candidates on the budget, near the solution of the loss table (where a search spends its time) and
anywhere. Each is reconstructed layer by layer on train images, trained for many steps of
distillation on others, and then scored on as many as 4,000 images of the search split. Spearman's
rank correlation with that, of: what the table predicts, the importance of what is cut, a rung of a
search, this and the table together (predicted by least squares from the other candidates), and the
score as cut, reconstructed from the original's moments, and trained for 16 steps without and after
that.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.cli.running import default_run_dir
from pipeline.config.load import find_config, load_config
from pipeline.config.schema import Config
from pipeline.data import Splits, load_splits
from pipeline.models import load_model
from pipeline.training.machine import all_cores
from stages.reconstruct import reconstruct
from stages.search import (
    Evaluator,
    InProcess,
    LossTable,
    Network,
    Search,
    SearchProblem,
    Tabulation,
)
from stages.search.evaluation import SCORES, ScoreModel
from stages.search.evaluation.short_distillation import distill, distill_batches
from stages.search.space.ranking import Removal
from stages.trace import ChannelGraph

NEAR = 0.3  # logits: neighbours among which a search has to choose
WAYS: dict[str, dict[str, Any]] = {
    "as cut": {"reconstruct": False},
    "trained": {"reconstruct": False, "distill_steps": 16},
    "reconstructed and trained": {"distill_steps": 16},
}
"""How else candidates may be scored: changes of the config's search."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    file = find_config(options.config)
    config, run = load_config(file, options.set), options.run_dir or default_run_dir(file)
    model = load_model(run / "rotate").to(memory_format=torch.channels_last)
    network = Network(model, ChannelGraph.from_json((run / "trace" / "graph.json").read_text()))
    with all_cores():
        splits = load_splits(config.data, seed=config.seed)
        problem = posed(network, splits, config)
        entries = Search(InProcess(problem.table_evaluator()))
        table = Tabulation(problem.space, config.search.table.widths, entries)()
        ways = {
            "rung": problem.evaluator,
            "reconstructed": problem.evaluator,
            **{
                name: posed(network, splits, config, **changes).evaluator
                for name, changes in WAYS.items()
            },
        }
        aim = Target(problem, splits, config, options.steps)
        warm = problem.strategy("rl", trials=1, table=table).state()["mean"]
        rng, rows = np.random.default_rng(0), list[dict[str, float]]()
        for centre, spread in ((warm, NEAR), (0 * warm, 1.0)):
            for _ in range(options.candidates):
                counts = problem.projector.logits(centre + spread * rng.standard_normal(len(warm)))
                rows.append(known(problem, ways, table, counts) | {"target": aim(counts)})
                print(f"{len(rows)} of {2 * options.candidates}", end="\r", flush=True)
    for kind, part in (
        ("near the table's solution", slice(options.candidates)),
        ("near it and anywhere", slice(None)),
    ):
        print(f"{kind}: rank correlation with the score after {options.steps} steps")
        target = [row["target"] for row in rows[part]]
        for name, values in columns(rows[part], list(ways)).items():
            print(f"  {name}: {spearmanr(values, target).statistic:.2f}")
    for name in ways:
        print(f"{name}: {1e3 * np.median([row[f'{name} s'] for row in rows]):.0f} ms a candidate")


def posed(network: Network, splits: Splits, config: Config, **changes: Any) -> SearchProblem:
    """The config's search with some of its settings changed, widths in multiples of 8."""
    settings = config.search.model_copy(update=changes)
    return SearchProblem.build(network, splits, settings, config.seed, align=8)


class Target:
    """Score of a candidate after the recovery that a pipeline gives its plan, cut short."""

    def __init__(self, problem: SearchProblem, splits: Splits, config: Config, steps: int) -> None:
        self.problem, self.rules, self.steps = problem, config.search.evaluation, steps
        seed, model = config.seed + 1, problem.network.model
        self.images, _ = splits.train.take(1024, seed=seed)
        x, _ = splits.train.take(steps * self.rules.step_images, seed=seed)
        self.batches = distill_batches(model, x.split(256), self.rules.step_images)
        scored, self.labels = splits.search.take(4000, seed=seed)
        self.scored = scored.contiguous(memory_format=torch.channels_last).split(256)
        self.score = SCORES[config.search.score]

    def __call__(self, counts: np.ndarray) -> float:
        model, graph = self.problem.network.model, self.problem.network.graph
        plan = ChannelPlan.of(graph, self.problem.ranking.keep(counts))
        student = reconstruct(cut(model, graph, plan), model, graph, plan, self.images).eval()
        if self.steps:
            distill(student, self.batches, self.steps, self.rules, ())
        with torch.inference_mode():
            parts = [(student(part), model(part)) for part in self.scored]
            given, wanted = (torch.cat(list(logits)) for logits in zip(*parts, strict=True))
            return float(self.score(given, wanted, self.labels).mean())


def known(
    problem: SearchProblem, ways: dict[str, Evaluator], table: LossTable, counts: np.ndarray
) -> dict[str, float]:
    """What a search can know of a candidate, and the seconds each takes."""
    row = {"importance": Removal(problem.importance)(counts), "table": table(counts)}
    for name, evaluator in ways.items():
        never = (float("inf"),) * len(evaluator.rungs) if name == "rung" else ()
        start = time.process_time()
        row[name] = evaluator(counts, never).score
        row[f"{name} s"] = time.process_time() - start
    return row


def columns(rows: list[dict[str, float]], ways: list[str]) -> dict[str, list[float]]:
    found = {name: [row[name] for row in rows] for name in ways}
    lost = [row["table"] for row in rows]
    both = []
    for at, row in enumerate(rows):  # from the others' scores, as a search has them
        others = [
            [*values[:at], *values[at + 1 :]]
            for values in (found["rung"], lost, found["reconstructed"])
        ]
        both.append(ScoreModel.fit(*others).predict(row["rung"], row["table"]))
    return {
        "importance": [-row["importance"] for row in rows],
        "table": [-value for value in lost],
        "rung and table": both,
        **found,
    }


if __name__ == "__main__":
    main()
