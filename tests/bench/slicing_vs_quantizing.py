"""Slices of the quantised network against the sliced network quantised anew: same classes, time.

    python tests/bench/slicing_vs_quantizing.py CONFIG [--run-dir DIR] [--set KEY=VALUE]...
    [--images 1000]

CONFIG's run must hold `trace/` and `rotate/` (`rlp pipeline run CONFIG --until rotate`). Both ways
start from the same float graph and 256 train images; what they name is compared on search images,
with fp32 and with each other. The last candidate also lacks branches. No weight is fitted after the
cut, so accuracies are low; slices keep the ranges that the uncut network's activations had.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch

from pipeline.cli.running import default_run_dir
from pipeline.config.load import find_config, load_config
from pipeline.data import load_splits
from pipeline.data.images import Images
from pipeline.models import load_model
from pipeline.runtime.quantizer import Quantizer
from pipeline.runtime.worker import Worker
from stages.benchmark.latency import LatencyWorker
from stages.export import OnnxSlicer, export_proto
from stages.quantize.schemes import OPERATORS, SCHEMES
from stages.search import Network, SearchProblem
from stages.search.space.projection import Projector
from stages.trace import ChannelGraph

SHARES = (0.95, 0.85, 0.7, 0.5, 0.85)
GONE = 2  # branches that the last one lacks
SCHEME = SCHEMES[0]
CALIBRATED = 256


def quantized(quantizer: Quantizer, proto: onnx.ModelProto, images: np.ndarray) -> bytes:
    """Calibrated on these images (N, C, H, W), ranges of the batches' mean extremes."""
    how = {
        "activation": SCHEME.activation,
        "weight": SCHEME.weight,
        "per_channel": SCHEME.per_channel,
        "reduce_range": quantizer.saturates(SCHEME.activation, SCHEME.weight),
        "operators": OPERATORS[SCHEME.operators],
    }
    quantizer.load(onnx.shape_inference.infer_shapes(proto).SerializeToString())
    quantizer.watch(quantizer.quantize(**how).tensors, images.shape[1:])
    for start in range(0, len(images), 32):
        quantizer.observe(images[start : start + 32])
    return quantizer.quantize(**how, ranges=quantizer.ranges("minmax")[0]).model


def named(model: bytes, images: np.ndarray) -> np.ndarray:
    """The class (N,) that a graph names for each image."""
    with Worker() as worker:
        worker.open(model, threads=0)
        parts = [worker.infer(images[at : at + 100]) for at in range(0, len(images), 100)]
    return np.concatenate(parts).reshape(len(images), -1).argmax(axis=1)


def candidates(problem: SearchProblem) -> list[Mapping[str, tuple[int, ...]]]:
    """Kept units by group: equal keep ratios at each share of the MACs."""
    space, macs = problem.space, problem.costs["macs"]
    rows = []
    for share in SHARES:
        projector = Projector(space, macs, share * macs.of(space.sizes)).keeping_branches
        rows.append(projector.logits(np.zeros(len(space))))
    for places in space.branches[-GONE:]:
        rows[-1] = space.moved(rows[-1], places[0], 0)
    return [problem.ranking.keep(counts) for counts in rows]


def images_of(split: Images, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = split.take(count, seed=seed)
    return np.ascontiguousarray(x.contiguous().numpy()), y.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--images", type=int, default=1000)
    options = parser.parse_args()
    file = find_config(options.config)
    config = load_config(file, [*options.set, "search.budget={macs: 0.5}", "search.branches=true"])
    run = options.run_dir or default_run_dir(file)
    model = load_model(run / "rotate").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graph = ChannelGraph.from_json((run / "trace" / "graph.json").read_text())
    splits = load_splits(config.data, seed=config.seed)
    problem = SearchProblem.build(
        Network(model, graph), splits, config.search, config.seed, align=8
    )
    train, _ = images_of(splits.train, CALIBRATED, config.seed)
    x, y = images_of(splits.search, options.images, config.seed)
    proto = export_proto(model, torch.from_numpy(x[:2]))
    floats = OnnxSlicer(proto, graph)
    with Quantizer() as quantizer:
        start = time.perf_counter()
        slicer = OnnxSlicer(
            proto, graph, onnx.ModelProto.FromString(quantized(quantizer, proto, train))
        )
        print(f"once: quantising the uncut network, {time.perf_counter() - start:.1f} s")
        print(f"{len(y)} images; agree: share of them for which both name the same class")
        print(
            f"{'MACs':>5}{'fp32':>8}{'sliced':>8}{'anew':>8}{'agree: sliced, fp32':>21}"
            f"{'anew, fp32':>12}{'sliced, anew':>14}{'latency':>9}{'slice s':>9}{'anew s':>8}"
        )
        ratios = []
        for share, keep in zip(SHARES, candidates(problem), strict=True):
            start = time.perf_counter()
            sliced = slicer.slice_bytes(keep)
            middle = time.perf_counter()
            float_graph = floats.slice(keep)
            anew = quantized(quantizer, float_graph, train)
            seconds = middle - start, time.perf_counter() - middle
            ratios.append(seconds[1] / seconds[0])
            models = float_graph.SerializeToString(), sliced, anew
            classes = [named(one, x) for one in models]
            right = [float((one == y).mean()) for one in classes]
            pairs = ((1, 0), (2, 0), (1, 2))
            agree = [float((classes[a] == classes[b]).mean()) for a, b in pairs]
            with LatencyWorker(anew) as worker:
                latency = worker.relative(sliced, min_time=0.5).fraction
            print(
                f"{share:>5.2f}{right[0]:>8.1%}{right[1]:>8.1%}{right[2]:>8.1%}{agree[0]:>21.1%}"
                f"{agree[1]:>12.1%}{agree[2]:>14.1%}{latency:>9.3f}{seconds[0]:>9.3f}"
                f"{seconds[1]:>8.2f}",
                flush=True,
            )
    print(f"quantising anew takes {statistics.median(ratios):.0f}× as long (median)")


if __name__ == "__main__":
    main()
