"""Candidates a second: slicing the base's ONNX graph against pruning, exporting and loading each
candidate.

    python tests/bench/slicing_vs_export.py [--size 64] [--candidates 5] [NAME ...]

Both ways end with an open onnxruntime session; their outputs on the same batch are compared. One
run, one machine, the ratio of medians; the export is the same one that the pipeline uses, without
its checks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime as ort
import torch

from pipeline.torchvision_import import import_torchvision
from stages.export import OnnxSlicer, export_proto
from stages.prune import ChannelPlan, prune
from stages.trace import trace

NAMES = (
    "mobilenet_v2", "resnet18", "densenet121", "googlenet", "efficientnet_b0",
    "shufflenet_v2_x0_5", "regnet_y_400mf", "squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5",
)  # fmt: skip


def open_session(data: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def compare(name: str, size: int, candidates: int) -> tuple[float, float, float]:
    """(median seconds a candidate by slicing, by export; largest output difference relative to
    the largest output).
    """
    tv = import_torchvision()
    extra = {"init_weights": False} if name == "googlenet" else {}
    model = tv.models.get_model(name, num_classes=10, weights=None, **extra).eval()
    x = torch.randn(2, 3, size, size)
    graph = trace(model, x)
    slicer = OnnxSlicer(export_proto(model, x), graph)
    sliced_s, export_s, worst = [], [], 0.0
    for index in range(candidates):
        plan = ChannelPlan.uniform(graph, cut=0.3 + 0.3 * index / max(1, candidates - 1))
        start = time.perf_counter()
        fast = open_session(slicer.slice_bytes(plan.keep))
        sliced_s.append(time.perf_counter() - start)
        if index < 2:  # the slow way needs no more repeats to be known
            start = time.perf_counter()
            slow = open_session(export_proto(prune(model, graph, plan), x).SerializeToString())
            export_s.append(time.perf_counter() - start)
            one, other = (session.run(None, {"input": x.numpy()})[0] for session in (fast, slow))
            worst = max(worst, float(np.abs(one - other).max() / np.abs(other).max()))
    return statistics.median(sliced_s), statistics.median(export_s), worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--size", type=int, default=64, help="height and width of the input")
    parser.add_argument("--candidates", type=int, default=5)
    arguments = parser.parse_args()
    print(
        f"{'network':<22}{'slice+load ms':>14}{'export+load ms':>16}"
        f"{'ratio':>8}{'rel. difference':>17}"
    )
    ratios = []
    for name in arguments.names:
        size = max(arguments.size, 96) if name == "googlenet" else arguments.size
        fast, slow, worst = compare(name, size, arguments.candidates)
        ratios.append(slow / fast)
        print(
            f"{name:<22}{1e3 * fast:>14.1f}{1e3 * slow:>16.0f}{slow / fast:>7.0f}×{worst:>17.1e}",
            flush=True,
        )
    print(f"median ratio {statistics.median(ratios):.0f}×, least {min(ratios):.0f}×")


if __name__ == "__main__":
    main()
