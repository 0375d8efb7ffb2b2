"""How well a glance at a few images ranks candidates, and what it costs, against the whole evaluation.

    python tests/bench/fidelity.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--candidates 24]

CONFIG's run must hold `pretrain/` and `trace/`. Candidates on the budget, near the warm start of the default strategy
(where a search spends its time) and anywhere; Spearman's rank correlation of each glance with the whole score.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.cli.running import default_run_dir
from pipeline.config_load import find_config, load_config
from pipeline.data import load_splits
from pipeline.models import load_model
from pipeline.training.machine import all_cores
from stages.search.evaluate import GLANCES
from stages.search.setup import prepare
from stages.trace import ChannelGraph


def ranks(values: list[float]) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--candidates", type=int, default=24)
    options = parser.parse_args()
    file = find_config(options.config)
    config, run = load_config(file, options.set), options.run_dir or default_run_dir(file)
    model = load_model(run / "pretrain").to(memory_format=torch.channels_last)
    graph = ChannelGraph.from_json((run / "trace" / "graph.json").read_text())
    with all_cores():
        settings = config.search.model_copy(update={"align": 8})
        setup = prepare(model, graph, load_splits(config.data, seed=config.seed), settings, config.seed)
        warm, rng = setup.strategy("rl", trials=1).state()["mean"], np.random.default_rng(0)
        for kind, centre, spread in (("near the warm start", warm, 0.4), ("anywhere", 0 * warm, 1.0)):
            scores: list[list[float]] = []
            seconds: list[list[float]] = []
            for _ in range(options.candidates):
                counts = setup.projector.logits(centre + spread * rng.standard_normal(len(warm)))
                found = setup.evaluator(counts, bars=(float("-inf"),) * len(GLANCES))
                times = []
                for at in range(len(setup.evaluator.glances)):
                    start = time.process_time()
                    setup.evaluator(counts, bars=(*(float("-inf"),) * at, float("inf")))
                    times.append(time.process_time() - start)
                scores.append([*found.rungs, found.score])
                seconds.append([*times, found.seconds])
            whole = [row[-1] for row in scores]
            for at, images in enumerate(setup.evaluator.glances):
                rho = np.corrcoef(ranks([row[at] for row in scores]), ranks(whole))[0, 1]
                spent = statistics.median(row[at] for row in seconds)
                print(f"{kind}: glances up to {images} images, {1e3 * spent:.0f} ms: rank correlation {rho:.2f}")


if __name__ == "__main__":
    main()
