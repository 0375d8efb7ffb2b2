"""How well the latency table predicts candidates that it was not fitted to, on this machine.

    python tests/bench/latency_table.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--fresh 50]
    [--precision int8] [--out FILE]

CONFIG's run must hold `trace/` and `rotate/` (`rlp pipeline run CONFIG --until rotate`). The table
is fitted to `search.latency_samples` timed candidates, as a search with a latency budget does; then
fresh ones are timed that it has not seen: half of all sizes, half on the budget where the search
looks for its plan. The error is
|predicted / measured - 1|, both as fractions of what the uncut network takes in that precision. One
candidate is also timed again and again: what no table can predict.
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
from stages.search import Network, SearchProblem
from stages.search.latency import (
    Calibrator,
    CandidateTimer,
    Int8Timing,
    StartTimer,
    TimingSetting,
    settle_precision,
    spread_out,
)
from stages.trace import ChannelGraph

REPEATS = 8


def pose(options: argparse.Namespace) -> tuple[SearchProblem, CandidateTimer]:
    """The problem, calibrated, and what times its candidates."""
    file = find_config(options.config)
    latency = ["search.budget={latency: 0.5}", f"search.latency_samples={options.samples}"]
    latency.append(f"search.precision={options.precision}")
    config = load_config(file, [*options.set, *latency])
    run = options.run_dir or default_run_dir(file)
    model = load_model(run / "rotate").to(memory_format=torch.channels_last)
    graph = ChannelGraph.from_json((run / "trace" / "graph.json").read_text())
    splits, settings = load_splits(config.data, seed=config.seed), config.search
    timing = Int8Timing(
        model, splits.search.take(2, seed=config.seed)[0], TimingSetting.of(settings)
    )
    scheme = settle_precision(settings, config.quantize.mode, timing, note=print).scheme
    calibrator = Calibrator(
        model,
        graph,
        splits.search,
        settings,
        config.seed,
        known={},
        on_measure=lambda key, measurement: None,
        start=StartTimer(model, graph, None, lambda start: None) if scheme else None,
        scheme=scheme,
    )
    align = 8 if settings.align == "auto" else settings.align
    problem = SearchProblem.build(
        Network(model, graph), splits, settings, config.seed, align=align, calibrate=calibrator,
        unlimited=True,
    )  # fmt: skip
    assert calibrator.timer is not None
    return problem.within(0.5), calibrator.timer


def fresh(problem: SearchProblem, count: int) -> dict[str, np.ndarray]:
    """(n, G) candidates a kind, drawn from seeds that the fit does not use."""
    rng, space = np.random.default_rng(1), problem.space
    budget = problem.projector.logits(rng.standard_normal((count - count // 2, len(space))))
    return {
        "of all sizes": spread_out(space, problem.costs["macs"], count // 2, problem.seed + 1),
        "on the budget": budget,
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
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    problem, watch = pose(options)
    calibration = problem.calibration
    assert calibration is not None
    with watch:
        fitted, table = time.perf_counter() - start, calibration.table
        rows: dict[str, list[dict[str, float]]] = {}
        for kind, candidates in fresh(problem, options.fresh).items():
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
    ms = calibration.uncut_seconds * 1e3
    print(
        f"table of {options.samples} candidates, block {table.block}, in {fitted:.0f} s with set-up"
    )
    print(f"the uncut network takes {ms:.3f} ms; cross-validated median error {table.error:.1%}")
    print(f"one candidate timed {REPEATS} times varies by {repeat:.1%}")
    for kind, found in [*rows.items(), ("all", everything)]:
        median, p90 = errors(found)
        print(f"{len(found):>4} fresh {kind:<14} median {median:6.1%}   p90 {p90:6.1%}")
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
