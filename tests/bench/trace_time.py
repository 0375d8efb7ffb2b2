"""Seconds to trace every network, this tree against another one, network by network.

    git worktree add /tmp/before COMMIT
    python tests/bench/trace_time.py --against /tmp/before [--rounds 3] [options of breadth.py]

Each tree has a warm process of its own on one thread; they trace the same network in turn, so that
whatever else the machine does meets both. A time is the least CPU time of the rounds. Printed: the
ratio in median and at worst, the slowest networks, and what only one of the trees can trace.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent


def serve(tree: str) -> None:
    """Read networks from stdin, one JSON object a line; answer each with seconds or an error."""
    sys.path[:0] = [str(HERE), tree]
    import timm_zoo
    import torch
    import zoo

    from stages.trace import trace

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked, answer = json.loads(line), {}
        try:
            model = (timm_zoo if asked["source"] == "timm" else zoo).build(asked["name"])
            x = torch.randn(1, 3, asked["size"], asked["size"])
            used = time.process_time()
            trace(model, x)
            answer["seconds"] = time.process_time() - used
            del model
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {str(error)[:100]}"
        gc.collect()
        print(json.dumps(answer), flush=True)


class _Tree:
    """A process that traces with the code of one tree."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, str(Path(__file__)), "--serve", str(root)]
        silent = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=silent, cwd=root
        )

    def seconds(self, network: dict[str, Any]) -> float | str:
        """CPU time of one trace, or why there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(network) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the process died"}')
        return answer.get("seconds", answer.get("error"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--rounds", type=int, default=3)
    options, rest = parser.parse_known_args()
    if options.serve:
        serve(options.serve)
        return 0
    if options.against is None:
        parser.error("--against names the other checkout")
    sys.path.insert(0, str(HERE))
    from breadth import options_of, tasks

    here, there = _Tree(HERE.parents[1]), _Tree(options.against.resolve())
    warm = {"name": "squeezenet1_1", "source": "torchvision", "size": 64}
    here.seconds(warm), there.seconds(warm)
    found: dict[str, tuple[float, float]] = {}
    for row in tasks(options_of(rest)):
        network = {"name": row.name, "source": row.source, "size": row.size}
        pairs = [(here.seconds(network), there.seconds(network)) for _ in range(options.rounds)]
        ours, theirs = zip(*pairs, strict=True)
        if isinstance(ours[0], str) or isinstance(theirs[0], str):
            print(f"{row.name:28} here {ours[0]}, there {theirs[0]}", flush=True)
            continue
        found[row.name] = min(ours), min(theirs)
        print(f"{row.name:28} {min(ours):7.3f} s {min(theirs):7.3f} s", flush=True)
    _summary(found)
    return 0


def _summary(found: dict[str, tuple[float, float]]) -> None:
    if not found:
        return
    ratios = {name: ours / theirs for name, (ours, theirs) in found.items()}
    worst = max(ratios, key=ratios.__getitem__)
    print(
        f"{len(found)} networks: time here over time there {median(ratios.values()):.2f} in "
        "median, "
        f"{ratios[worst]:.2f} at worst ({worst})"
    )
    for place, side in enumerate(("here", "there")):
        times = sorted(((pair[place], name) for name, pair in found.items()), reverse=True)
        slowest = ", ".join(f"{name} {seconds:.2f}" for seconds, name in times[:5])
        middle = median(seconds for seconds, _ in times)
        print(f"{side}: median {middle:.3f} s, slowest {slowest}")


if __name__ == "__main__":
    sys.exit(main())
