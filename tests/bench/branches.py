"""What each residual branch is worth, and what leaving it out buys at batch 1.

    python tests/bench/branches.py CONFIG [--set KEY=VALUE]... [--seed 0] [--most 4] [--images N]
        [--order NAME,NAME]

CONFIG names network, weights and data. Each branch is left out alone, and the layers behind it are
refitted by least squares; then those that lose least are left out one after another. Accuracy and
divergence (nats, against the original) are on the search split, latencies by onnxruntime on one
thread in alternating slots. "table" is what the search's loss table has for a branch, and what it
predicts for several, in nats as well. With --images, scores are on N of the search images only;
with --order, those branches are left out one after another, and none is looked at alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from recovery import teacher_of  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from pipeline.channels.graph import ChannelGraph  # noqa: E402
from pipeline.channels.rebuild import rebuild  # noqa: E402
from pipeline.config.load import find_config, load_config  # noqa: E402
from pipeline.data import Splits, load_splits  # noqa: E402
from pipeline.training.machine import all_cores  # noqa: E402
from stages.benchmark.latency import LatencyWorker  # noqa: E402
from stages.export import OnnxSlicer, export_proto  # noqa: E402
from stages.prune import ChannelPlan, CostModel, prune  # noqa: E402
from stages.reconstruct import reconstruct  # noqa: E402
from stages.reconstruct.branch_refits import BranchRefits  # noqa: E402
from stages.reconstruct.independent import Moments  # noqa: E402
from stages.trace import trace  # noqa: E402


@dataclass(frozen=True)
class Score:
    """On the search split."""

    accuracy: float
    divergence: float


@dataclass(frozen=True)
class Bench:
    """One network and its images."""

    model: nn.Module
    graph: ChannelGraph
    splits: Splits
    images: torch.Tensor
    moments: Moments
    scored: int

    def without(self, drop: tuple[str, ...]) -> tuple[Score, Score, Score]:
        """As cut, as a search sees it, and after least squares."""
        plan = ChannelPlan({}, {}, drop)
        small = prune(self.model, self.graph, plan)
        seen = rebuild(small, self.moments.tensors_after(plan.kept_of(self.graph)), ())
        fitted = reconstruct(small, self.model, self.graph, plan, self.images)
        return self.score(small), self.score(seen), self.score(fitted)

    def score(self, network: nn.Module) -> Score:
        right = divergence = 0.0
        x, y = self.splits.search.take(self.scored, seed=0)
        with torch.inference_mode():
            for part, labels in zip(x.split(250), y.split(250), strict=True):
                answers, wanted = (net(part).log_softmax(1) for net in (network, self.model))
                right += float((answers.argmax(1) == labels).sum())
                divergence += float(F.kl_div(answers, wanted, reduction="sum", log_target=True))
        return Score(right / self.scored, divergence / self.scored)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--images", type=int)
    parser.add_argument("--order", default="")
    given = parser.parse_args()
    config = load_config(find_config(given.config), given.set)
    splits = load_splits(config.data, seed=given.seed)
    model = teacher_of(config).eval()
    images, _ = splits.train.take(config.reconstruct.images, seed=given.seed)
    with all_cores():
        graph = trace(model, images[:1])
        refits = BranchRefits.of(model, graph, images)
        moments = Moments(model, graph, images, branches=refits)
        scored = min(given.images or len(splits.search), len(splits.search))
        order = tuple(name for name in given.order.split(",") if name)
        report(Bench(model, graph, splits, images, moments, scored), given.most, order)


def report(bench: Bench, most: int, order: tuple[str, ...]) -> None:
    slicer = OnnxSlicer(export_proto(bench.model, bench.images[:1]), bench.graph)
    cost, whole = CostModel(bench.graph), bench.score(bench.model)
    print(f"original: {whole.accuracy:.2%}")
    print("without                         MACs  as cut  fitted    nats   table     µs  of latency")
    alone: dict[str, float] = {}
    table: dict[str, float] = {}
    with LatencyWorker(slicer.slice_bytes({})) as worker:

        def line(drop: tuple[str, ...]) -> float:
            cut, seen, fitted = bench.without(drop)
            if len(drop) == 1:
                table[drop[0]] = max(seen.divergence, 0.0)
            predicted = sum(table.get(name, math.nan) ** 0.5 for name in drop) ** 2
            # twice, of which the less flattering
            times = [worker.relative(slicer.slice_bytes({}, drop), min_time=1.0) for _ in range(2)]
            found = max(times, key=lambda one: one.fraction)
            saved = (1 - found.fraction) * found.reference_seconds * 1e6
            name = drop[0] if len(drop) == 1 else f"… and {drop[-1]}"
            print(
                f"{name:29} {cost.macs({}, drop) / cost.macs():6.1%}  {cut.accuracy:6.2%} "
                f" {fitted.accuracy:6.2%}  {fitted.divergence:6.4f}  {predicted:6.4f} "
                f" {saved:5.1f}  {found.fraction:6.3f}",
                flush=True,
            )
            return fitted.divergence

        if order:
            line(order[:1])
        else:
            for branch in bench.graph.removable:
                alone[branch] = line((branch,))
            order = tuple(sorted(alone, key=lambda name: alone[name]))
        for count in range(2, min(most, len(order)) + 1):
            line(order[:count])


if __name__ == "__main__":
    main()
