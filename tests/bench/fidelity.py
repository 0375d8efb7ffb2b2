"""How well what a search knows of a candidate ranks it by what training will make of it.

    python tests/bench/fidelity.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--candidates 24]
    [--steps 100]

CONFIG's run must hold `pretrain/` and `trace/` (`rlp pipeline run CONFIG --until trace`).
Candidates on the budget, near the warm start of the default strategy (where a search spends its
time) and anywhere. Each is trained for many steps of distillation on train images drawn anew, and
then scored on as many as 4,000 images of the search split; Spearman's rank correlation with that,
of: the importance of what is cut, a glance, both together (forecast by least squares from the other
candidates), and the score after 0 steps and after the search's own.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.cli.running import default_run_dir
from pipeline.config.load import find_config, load_config
from pipeline.data import load_splits
from pipeline.models import load_model
from pipeline.training.machine import all_cores
from stages.search.evaluate import GLANCES, STEP_IMAGES, Evaluator
from stages.search.forecast import Forecast
from stages.search.setup import Setup, prepare
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
    model = load_model(run / "pretrain").to(memory_format=torch.channels_last)
    graph = ChannelGraph.from_json((run / "trace" / "graph.json").read_text())
    with all_cores():
        settings, splits = (
            config.search.model_copy(update={"align": 8}),
            load_splits(config.data, seed=config.seed),
        )
        setup = prepare(model, graph, splits, settings, config.seed)
        lessons = {
            "fit_images": options.steps * STEP_IMAGES,
            "images": 4000,
            "distill_steps": options.steps,
        }
        later = prepare(model, graph, splits, settings.model_copy(update=lessons), config.seed + 1)
        target = replace(later.evaluator, ranking=setup.evaluator.ranking)
        ways = {
            "glance": setup.evaluator,
            "as cut": replace(setup.evaluator, steps=0),
            "trained": setup.evaluator,
        }
        warm, rng = setup.strategy("rl", trials=1).state()["mean"], np.random.default_rng(0)
        rows: list[dict[str, float]] = []
        for centre, spread in ((warm, NEAR), (0 * warm, 1.0)):
            for _ in range(options.candidates):
                counts = setup.projector.logits(centre + spread * rng.standard_normal(len(warm)))
                rows.append(known(setup, ways, counts) | {"target": target(counts).score})
                print(f"{len(rows)} of {2 * options.candidates}", end="\r", flush=True)
    for kind, part in (
        ("near the warm start", slice(options.candidates)),
        ("near it and anywhere", slice(None)),
    ):
        print(f"{kind}: rank correlation with the score after {options.steps} steps")
        some = rows[part]
        for name, values in columns(some).items():
            rho = np.corrcoef(ranks(values), ranks([row["target"] for row in some]))[0, 1]
            print(f"  {name}: {rho:.2f}")
    for name in ("glance", "as cut", "trained"):
        print(f"{name}: {1e3 * np.median([row[f'{name} s'] for row in rows]):.0f} ms a candidate")


def known(setup: Setup, ways: dict[str, Evaluator], counts: np.ndarray) -> dict[str, float]:
    """What a search can know of a candidate, and the seconds each takes."""
    row = {"removed": setup.removed(counts)}
    for name, evaluator in ways.items():
        start = time.process_time()
        row[name] = evaluator(
            counts, (float("inf"),) * len(GLANCES) if name == "glance" else ()
        ).score
        row[f"{name} s"] = time.process_time() - start
    return row


def columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    found = {name: [row[name] for row in rows] for name in ("glance", "as cut", "trained")}
    cut = [row["removed"] for row in rows]
    both = []
    for at, row in enumerate(rows):  # from the others' trained scores, as a search has them
        others = [
            [*values[:at], *values[at + 1 :]] for values in (found["glance"], cut, found["trained"])
        ]
        both.append(Forecast.fit(*others)(row["glance"], row["removed"]))
    return {
        "removed importance": [-value for value in cut],
        "glance and removed importance": both,
        **found,
    }


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


if __name__ == "__main__":
    main()
