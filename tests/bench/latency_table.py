"""How well the latency table predicts candidates that it was not fitted to, on this machine.

    python tests/bench/latency_table.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--fresh 50]
    [--out FILE]

CONFIG's run must hold `pretrain/` and `trace/` (`rlp pipeline run CONFIG --until trace`). The table
is fitted to `search.latency_samples` timed candidates, as a search with a latency budget does; then
fresh ones are timed that it has not seen: half of all sizes, half on the budget where the search
looks for its plan. The error is
|predicted / measured - 1|, both as fractions of the base's latency. One candidate is also timed
again and again: what no table can predict.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from pipeline.cli.running import default_run_dir
from pipeline.config.load import find_config, load_config
from pipeline.data import load_splits
from pipeline.models import load_model
from pipeline.run.store import write_json
from stages.search.budget import Projector
from stages.search.calibrate import calibrate
from stages.search.setup import Setup, prepare
from stages.search.stopwatch import Stopwatch, spread_out
from stages.trace import ChannelGraph

REPEATS = 8


def set_up(options: argparse.Namespace) -> Setup:
    file = find_config(options.config)
    sets = [
        *options.set,
        "search.budget={latency: 0.5}",
        f"search.latency_samples={options.samples}",
    ]
    config = load_config(file, sets)
    run = options.run_dir or default_run_dir(file)
    model = load_model(run / "pretrain").to(memory_format=torch.channels_last)
    graph = ChannelGraph.from_json((run / "trace" / "graph.json").read_text())
    return prepare(
        model, graph, load_splits(config.data, seed=config.seed), config.search, config.seed
    )


def stopwatch(setup: Setup) -> Stopwatch:
    evaluator, settings = setup.evaluator, setup.settings
    where = settings.latency_provider, settings.latency_batch, settings.latency_threads
    return Stopwatch(evaluator.model, evaluator.graph, evaluator.ranking, evaluator.x[:2], *where)


def fresh(setup: Setup, count: int) -> dict[str, np.ndarray]:
    """(n, G) candidates a kind, drawn from seeds that the fit does not use."""
    rng = np.random.default_rng(1)
    budget = [
        setup.projector.logits(rng.standard_normal(len(setup.space)))
        for _ in range(count - count // 2)
    ]
    sizes = Projector(setup.space, setup.costs["macs"], setup.costs["macs"].of(setup.space.sizes))
    return {
        "of all sizes": spread_out(setup.space, sizes, count // 2, setup.seed + 1),
        "on the budget": np.array(budget),
    }


def errors(rows: list[dict[str, float]]) -> tuple[float, float]:
    """Median and 90th percentile of the absolute relative error."""
    found = [abs(row["predicted"] / row["measured"] - 1) for row in rows]
    return float(np.median(found)), float(np.quantile(found, 0.9))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--fresh", type=int, default=50)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    setup = set_up(options)
    with stopwatch(setup) as watch:
        start = time.perf_counter()
        calibration = calibrate(setup, watch, lambda done, total: None)
        fitted, table = time.perf_counter() - start, calibration.table
        rows: dict[str, list[dict[str, float]]] = {}
        for kind, candidates in fresh(calibration.setup, options.fresh).items():
            measured = [watch.measure(counts).fraction for counts in candidates]
            predicted = [table.of(counts) for counts in candidates]
            rows[kind] = [
                {"predicted": p, "measured": m} for p, m in zip(predicted, measured, strict=True)
            ]
        again = []
        for _ in range(REPEATS):
            watch.known.clear()
            again.append(watch.measure(candidates[0]).fraction)
    everything = [row for kind in rows.values() for row in kind]
    repeat = float(np.median(np.abs(np.array(again) / np.median(again) - 1)))
    base_ms, count = calibration.base_seconds * 1e3, options.samples
    print(
        f"table of {count} candidates in {fitted:.0f} s, block {table.block}, base {base_ms:.3f} ms"
    )
    print(
        f"cross-validated median error {table.error:.1%}; one candidate timed {REPEATS} times varies by {repeat:.1%}"
    )
    for kind, found in [*rows.items(), ("all", everything)]:
        print(
            f"{len(found):>4} fresh {kind:<14} median {errors(found)[0]:6.1%}   p90 {errors(found)[1]:6.1%}"
        )
    if options.out:
        doc = {
            "rows": rows,
            "median": errors(everything)[0],
            "p90": errors(everything)[1],
            "repeat": repeat,
            "block": table.block,
        }
        write_json(options.out, doc)


if __name__ == "__main__":
    main()
