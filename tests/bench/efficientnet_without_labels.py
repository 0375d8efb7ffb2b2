"""EfficientNet-Lite0 with its ImageNet weights, cut and reconstructed on photographs nobody
labelled: how far from the original, how often the same first answer.

    python tests/bench/efficientnet_without_labels.py WEIGHTS.pth TRAIN.parquet OTHER.parquet
        [--left 0.8,0.6,0.4] [--seeds 3] [--images 192] [--others 300]

WEIGHTS.pth is in the registry's package (tests/bench/efficientnet_lite0.py); the parquet files are
Hub-style, images in a column `image`. A seed draws the photographs that weights are fitted to; the
others, from another file, are the same for all. Nothing is trained.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from efficientnet_lite0 import published  # noqa: E402
from PIL import Image  # noqa: E402
from pyarrow import parquet  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from pipeline.training.machine import all_cores  # noqa: E402
from stages.prune import ChannelPlan, CostModel, prune  # noqa: E402
from stages.reconstruct import reconstruct_layers  # noqa: E402
from stages.trace import ChannelGraph, trace  # noqa: E402

SIZE = 224


def photos(path: Path, count: int, seed: int) -> Tensor:
    """(count, 3, 224, 224) as this network wants them, drawn without replacement."""
    column = parquet.read_table(path, columns=["image"]).column("image")
    chosen = np.random.default_rng(seed).permutation(len(column))[:count]
    return torch.stack([_decoded(column[int(row)].as_py()["bytes"]) for row in chosen])


def _decoded(data: bytes) -> Tensor:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) - 127) / 128


def compared(model: nn.Module, images: Tensor, answers: Tensor) -> tuple[float, float]:
    """Mean divergence from the original in nats, and agreement of the first answer."""
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in images.split(32)])
    own, theirs = logits.log_softmax(1), answers.log_softmax(1)
    apart = (theirs.exp() * (theirs - own)).sum(1).mean().item()
    return apart, (logits.argmax(1) == answers.argmax(1)).float().mean().item()


def uniform(graph: ChannelGraph, left: float) -> ChannelPlan:
    """The gentlest uniform cut by L2 norm, in multiples of 8, to a share of the MACs."""
    costs = CostModel(graph)
    plans = (ChannelPlan.uniform(graph, percent / 100, 8) for percent in range(1, 96))
    return next(plan for plan in plans if costs.macs(plan.counts()) <= left * costs.macs())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--left", default="0.8,0.6,0.4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--others", type=int, default=300)
    options = parser.parse_args()
    model = published(options.weights)
    graph = trace(model, torch.zeros(1, 3, SIZE, SIZE))
    others, costs = photos(options.other, options.others, 0), CostModel(graph)
    with all_cores() as threads, torch.inference_mode():
        answers = torch.cat([model(part) for part in others.split(32)])
    print(
        f"torch {torch.__version__}, {threads} threads; {options.images} photographs a seed, "
        f"{len(others)} others"
    )
    print("plan      MACs left  nats as cut  same   nats  (sd)   same  (sd)  seconds")
    for left in map(float, options.left.split(",")):
        plan = uniform(graph, left)
        small = prune(model, graph, plan)
        cut = compared(small, others, answers)
        found, seconds = [], []
        for seed in range(options.seeds):
            began = time.perf_counter()
            with all_cores():
                images = photos(options.train, options.images, seed)
                done = reconstruct_layers(small, model, graph, plan, images, seed=seed)
                seconds.append(time.perf_counter() - began)
                found.append(compared(done.model, others, answers))
        apart, same = ([row[i] for row in found] for i in (0, 1))
        print(
            f"uniform   {costs.macs(plan.counts()) / costs.macs():9.3f}  {cut[0]:11.2f}"
            f"  {cut[1]:4.0%}  {statistics.mean(apart):5.3f} ({_spread(apart):.3f})"
            f"  {statistics.mean(same):5.1%} ({100 * _spread(same):.1f})"
            f"  {statistics.mean(seconds):6.1f}",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of the process {peak:,.0f} MiB")


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
