"""EfficientNet-Lite0 with its ImageNet weights, cut and reconstructed on photographs nobody
labelled: how far from the original, how often the same first answer.

    python tests/bench/efficientnet_without_labels.py WEIGHTS.pth TRAIN.parquet OTHER.parquet
        [--plans uniform,table] [--left 0.8,0.6,0.4] [--seeds 3] [--images 192] [--others 300]
        [--json FILE] [--device auto]

WEIGHTS.pth is in the registry's package (tests/bench/efficientnet_lite0.py); the parquet files are
Hub-style, images in a column `image`. A seed draws the photographs that weights are fitted to, and
for `table` those that the table of losses is measured on; the others, from another file, are the
same for all. Nothing is trained; where a criterion wants classes, they are the original's answers.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from efficientnet_lite0 import published  # noqa: E402
from PIL import Image  # noqa: E402
from pyarrow import parquet  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from without_training import within  # noqa: E402

from pipeline.config.search import Budget, SearchConfig  # noqa: E402
from pipeline.data import Images, Splits  # noqa: E402
from pipeline.training.machine import all_cores, device_for, exact_float32  # noqa: E402
from stages.prune import ChannelPlan, CostModel, prune  # noqa: E402
from stages.reconstruct import reconstruct_layers  # noqa: E402
from stages.search import InProcess, Network, Search, SearchProblem, Tabulation  # noqa: E402
from stages.search.tables import solve  # noqa: E402
from stages.trace import ChannelGraph, trace  # noqa: E402

SIZE, BATCH, ALIGN = 224, 32, 8
MEAN, STD = 127 / 255, 128 / 255


def photos(path: Path, count: int, seed: int, device: torch.device) -> Tensor:
    """(count, 224, 224, 3) uint8, drawn without replacement."""
    column = parquet.read_table(path, columns=["image"]).column("image")
    chosen = np.random.default_rng(seed).permutation(len(column))[:count]
    return torch.stack([_decoded(column[int(row)].as_py()["bytes"]) for row in chosen]).to(device)


def _decoded(data: bytes) -> Tensor:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return torch.from_numpy(np.array(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))


def images_of(model: nn.Module, pixels: Tensor) -> Images:
    """Photographs as this network wants them, with its answers for classes."""
    names = [str(number) for number in range(1000)]
    unknown = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    found = Images(pixels, unknown, names, [MEAN] * 3, [STD] * 3)
    found.labels = answers_of(model, found).argmax(1)
    return found


def answers_of(model: nn.Module, images: Images) -> Tensor:
    """Logits (N, 1000)."""
    with torch.inference_mode():
        found = torch.cat([model(x) for x, _ in images.batches(BATCH)])
    return found.clone()


def compared(model: nn.Module, images: Images, answers: Tensor) -> tuple[float, float]:
    """Mean divergence from the original in nats, and agreement of the first answer."""
    logits = answers_of(model, images)
    own, theirs = logits.log_softmax(1), answers.log_softmax(1)
    apart = (theirs.exp() * (theirs - own)).sum(1).mean().item()
    return apart, (logits.argmax(1) == answers.argmax(1)).float().mean().item()


def uniform(graph: ChannelGraph, left: float) -> ChannelPlan:
    """The gentlest uniform cut by L2 norm, in multiples of 8, to a share of the MACs."""
    costs = CostModel(graph)
    plans = (ChannelPlan.uniform(graph, percent / 100, ALIGN) for percent in range(1, 96))
    return next(plan for plan in plans if costs.macs(plan.counts()) <= left * costs.macs())


def tabled(network: Network, images: Images, left: list[float], seed: int) -> list[ChannelPlan]:
    """The solution of a table of losses for each share of the MACs."""
    settings = SearchConfig(
        budget=Budget(macs=left[0]), images=len(images), fit_images=len(images), criterion="obs",
        table={"images": len(images), "widths": 6},
    )  # fmt: skip
    splits = Splits(images, images)
    problem = SearchProblem.build(network, splits, settings, seed, align=ALIGN)
    table = Tabulation(problem.space, 6, Search(InProcess(problem.table_evaluator())))()
    counts = [solve(table, within(problem, share).projector) for share in left]
    return [ChannelPlan(problem.ranking.keep(own)) for own in counts]


@dataclass(frozen=True)
class Bench:
    """The network, photographs to fit to, and others."""

    network: Network
    train: Path
    others: Images
    answers: Tensor
    count: int

    def rows(self, kind: str, left: list[float], seed: int) -> Iterator[dict[str, Any]]:
        """One a budget."""
        model, graph = self.network.model, self.network.graph
        images = images_of(model, photos(self.train, self.count, seed, self.answers.device))
        began = time.perf_counter()
        if kind == "table":
            plans = tabled(self.network, images, left, seed)
        else:
            plans = [uniform(graph, share) for share in left]
        searched, costs = time.perf_counter() - began, CostModel(graph)
        x = torch.cat([x for x, _ in images.batches(BATCH)])
        for share, plan in zip(left, plans, strict=True):
            began, small = time.perf_counter(), prune(model, graph, plan, check=False)
            done = reconstruct_layers(small, model, graph, plan, x, seed=seed)
            seconds = time.perf_counter() - began
            nats, same = compared(done.model, self.others, self.answers)
            cut, _ = compared(small, self.others, self.answers)
            yield {
                "plan": kind, "left": share, "macs": costs.macs(plan.counts()) / costs.macs(),
                "seed": seed, "nats_as_cut": cut, "nats": nats, "same": same,
                "seconds_of_plan": round(searched, 2), "seconds": round(seconds, 2),
            }  # fmt: skip


def show(rows: list[dict[str, Any]]) -> None:
    """One line for each plan and budget, over the seeds."""
    print("plan      MACs left  nats as cut   nats  (sd)   same  (sd)  seconds (plan, weights)")
    for kind, left in dict.fromkeys((row["plan"], row["left"]) for row in rows):
        own = [row for row in rows if (row["plan"], row["left"]) == (kind, left)]
        mean = {key: statistics.mean(row[key] for row in own) for key in own[0] if key != "plan"}
        nats, same = ([row[key] for row in own] for key in ("nats", "same"))
        print(
            f"{kind:10}{mean['macs']:9.3f}  {mean['nats_as_cut']:11.2f}"
            f"  {mean['nats']:5.3f} ({_spread(nats):.3f})"
            f"  {mean['same']:5.1%} ({100 * _spread(same):.1f})"
            f"  {mean['seconds_of_plan']:6.1f} {mean['seconds']:6.1f}"
        )


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--plans", default="uniform,table")
    parser.add_argument("--left", default="0.8,0.6,0.4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--others", type=int, default=300)
    parser.add_argument("--json", type=Path, help="rows, written as they come")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = device_for(options.device)
    model = published(options.weights)
    graph = trace(model, torch.zeros(1, 3, SIZE, SIZE))
    model.to(device)
    left, rows = [float(share) for share in options.left.split(",")], []
    with all_cores() as threads, exact_float32():
        others = images_of(model, photos(options.other, options.others, 0, device))
        answers = answers_of(model, others)
        bench = Bench(Network(model, graph), options.train, others, answers, options.images)
        print(
            f"torch {torch.__version__}, {device}, {threads} threads; {options.images} photographs "
            f"a seed, {len(others)} others"
        )
        for seed in range(options.seeds):
            for kind in options.plans.split(","):
                for row in bench.rows(kind, left, seed):
                    rows.append(row)
                    if options.json:
                        options.json.write_text(json.dumps({"rows": rows}, indent=1))
    show(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    there = torch.cuda.max_memory_allocated(device) >> 20 if device.type == "cuda" else 0
    print(f"peak memory of the process {peak:,.0f} MiB, on the GPU {there:,} MiB")


if __name__ == "__main__":
    main()
