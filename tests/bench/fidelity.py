"""How well what a search knows of a candidate ranks it by what training will make of it.

    python tests/bench/fidelity.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--candidates 24]
    [--steps 100]

CONFIG's run must hold `trace/` and `rotate/` (`rlp pipeline run CONFIG --until rotate`).
Candidates on the budget, near the warm start of the default strategy (where a search spends its
time) and anywhere. Each is trained for many steps of distillation on train images drawn anew, and
then scored on as many as 4,000 images of the search split; Spearman's rank correlation with that,
of: the importance of what is cut, a rung, both together (predicted by least squares from the other
candidates), and the score after 0 steps and after the search's own.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from pipeline.cli.running import default_run_dir
from pipeline.config.load import find_config, load_config
from pipeline.config.schema import Config
from pipeline.data import Splits, load_splits
from pipeline.models import load_model
from pipeline.training.machine import all_cores
from stages.search import Evaluator, Network, SearchProblem
from stages.search.evaluation import ScoreModel
from stages.search.space.ranking import Removal
from stages.trace import ChannelGraph

NEAR = 0.5  # logits, about the spread of the policy


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
        ways = {
            "rung": problem.evaluator,
            "as cut": posed(network, splits, config, distill_steps=0).evaluator,
            "trained": problem.evaluator,
        }
        target = target_evaluator(problem, network, splits, config, options.steps)
        warm, rng = problem.strategy("rl", trials=1).state()["mean"], np.random.default_rng(0)
        rows: list[dict[str, float]] = []
        for centre, spread in ((warm, NEAR), (0 * warm, 1.0)):
            for _ in range(options.candidates):
                counts = problem.projector.logits(centre + spread * rng.standard_normal(len(warm)))
                rows.append(known(problem, ways, counts) | {"target": target(counts).score})
                print(f"{len(rows)} of {2 * options.candidates}", end="\r", flush=True)
    for kind, part in (
        ("near the warm start", slice(options.candidates)),
        ("near it and anywhere", slice(None)),
    ):
        print(f"{kind}: rank correlation with the score after {options.steps} steps")
        aim = [row["target"] for row in rows[part]]
        for name, values in columns(rows[part]).items():
            print(f"  {name}: {spearmanr(values, aim).statistic:.2f}")
    for name in ("rung", "as cut", "trained"):
        print(f"{name}: {1e3 * np.median([row[f'{name} s'] for row in rows]):.0f} ms a candidate")


def posed(network: Network, splits: Splits, config: Config, **changes: int) -> SearchProblem:
    """The config's search with some of its settings changed, widths in multiples of 8."""
    settings = config.search.model_copy(update=changes)
    return SearchProblem.build(network, splits, settings, config.seed, align=8)


def target_evaluator(
    problem: SearchProblem, network: Network, splits: Splits, config: Config, steps: int
) -> Evaluator:
    """Scores the same candidates after many steps on train images drawn anew."""
    rules, seed = config.search.evaluation, config.seed + 1
    x, _ = splits.train.take(steps * rules.step_images, seed=seed)
    scored, labels = splits.search.take(4000, seed=seed)
    return Evaluator(
        network.model,
        network.graph,
        problem.ranking,
        teacher=network.model,
        fit=x.split(256),
        x=scored.contiguous(memory_format=torch.channels_last),
        y=labels,
        score=config.search.score,
        steps=steps,
        rules=rules,
    )


def known(
    problem: SearchProblem, ways: dict[str, Evaluator], counts: np.ndarray
) -> dict[str, float]:
    """What a search can know of a candidate, and the seconds each takes."""
    row = {"removed": Removal(problem.importance)(counts)}
    for name, evaluator in ways.items():
        never = (float("inf"),) * len(evaluator.rungs) if name == "rung" else ()
        start = time.process_time()
        row[name] = evaluator(counts, never).score
        row[f"{name} s"] = time.process_time() - start
    return row


def columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    found = {name: [row[name] for row in rows] for name in ("rung", "as cut", "trained")}
    cut = [row["removed"] for row in rows]
    both = []
    for at, row in enumerate(rows):  # from the others' trained scores, as a search has them
        others = [
            [*values[:at], *values[at + 1 :]] for values in (found["rung"], cut, found["trained"])
        ]
        both.append(ScoreModel.fit(*others).predict(row["rung"], row["removed"]))
    return {
        "removed importance": [-value for value in cut],
        "rung and removed importance": both,
        **found,
    }


if __name__ == "__main__":
    main()
