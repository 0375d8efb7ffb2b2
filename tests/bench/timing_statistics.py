"""Which statistic of a short timing repeats best: one candidate and its original, time and again.

    python -P tests/bench/timing_statistics.py ORIGINAL.onnx CANDIDATE.onnx [--times 60]

Both are timed in ABBA slots as the search times candidates, for several numbers of rounds and
lengths; a line a statistic with the spread of its ratio. "Median over rounds, fastest
calls" is the search's (`stages.benchmark.LatencyWorker.relative`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from stages.benchmark import LatencyWorker
from stages.benchmark import latency as timing

WAYS = ((4, 0.1), (16, 0.1), (4, 0.3), (16, 0.3))  # rounds, seconds of each side


def ratios(rounds: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Candidate ÷ original by each statistic."""
    candidate, original = (np.concatenate(side) for side in zip(*rounds, strict=True))
    found = {
        f"{share:.0%} quantiles of all calls": np.quantile(candidate, share)
        / np.quantile(original, share)
        for share in (0.02, 0.25, 0.5)
    }
    for share, name in ((0, "fastest calls"), (0.25, "lower quartiles"), (0.5, "medians")):
        each = [np.quantile(ours, share) / np.quantile(theirs, share) for ours, theirs in rounds]
        found[f"median over rounds, {name}"] = np.median(each)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("original", type=Path)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("--times", type=int, default=60)
    options = parser.parse_args()
    graph = options.candidate.read_bytes()
    with LatencyWorker(options.original) as worker:
        for rounds, seconds in WAYS:
            timing._ROUNDS = (rounds, rounds)
            found = []
            for _ in range(options.times):
                sides = {
                    "reference": worker._opened("reference", options.original, None, None),
                    "candidate": worker._opened("candidate", graph, None, None),
                }
                found.append(ratios(timing._alternating(sides, seconds)))
            print(f"{rounds} rounds, {seconds} s of each side, {options.times} times")
            for name in found[0]:
                values = np.array([one[name] for one in found])
                print(
                    f"  {name:<36} {values.mean():.3f} ± {values.std() / values.mean():.1%}"
                    f"   {values.min():.3f} to {values.max():.3f}"
                )


if __name__ == "__main__":
    main()
