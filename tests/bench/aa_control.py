"""How often the benchmark claims a difference where there is none, and misses one where there is.

    python tests/bench/aa_control.py [--comparisons 20] [--min-seconds 1.0] [--batch 1] [--threads
    1]

MobileNetV2 at 32×32: the file against itself, then against its half-width cut (multiples of 16),
each as many times as asked. Prints every ratio with its interval, and the counts.
"""

from __future__ import annotations

import argparse
import collections
import math
import os
import statistics
import tempfile
from pathlib import Path

import torch

from pipeline.models.torchvision_shim import import_torchvision
from stages.benchmark import Protocol, compare
from stages.export import export_proto, slice_onnx
from stages.prune import ChannelPlan
from stages.trace import trace


def files(folder: Path) -> tuple[Path, Path]:
    """The base and its half-width cut."""
    torch.manual_seed(0)
    model = import_torchvision().models.mobilenet_v2(num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    base, graph = export_proto(model, x), trace(model, x)
    half = slice_onnx(base, graph, ChannelPlan.uniform(graph, cut=0.5, multiple_of=16))
    paths = folder / "base.onnx", folder / "half.onnx"
    for path, proto in zip(paths, (base, half), strict=True):
        path.write_bytes(proto.SerializeToString())
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comparisons", type=int, default=20)
    parser.add_argument("--min-seconds", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    protocol = Protocol(min_seconds=arguments.min_seconds)
    with tempfile.TemporaryDirectory() as folder:
        base, half = files(Path(folder))
        for title, other in (("against itself", base), ("against half width", half)):
            verdicts: collections.Counter[str] = collections.Counter()
            ratios = []
            for index in range(arguments.comparisons):
                row = compare(
                    base, other, batch=arguments.batch, threads=arguments.threads, protocol=protocol
                )
                verdicts[row.verdict] += 1
                ratios.append(row.ratio)
                print(
                    f"{title} {index + 1:>2}: {row.ratio:.3f}  [{row.ci95[0]:.3f}, "
                    f"{row.ci95[1]:.3f}]  "
                    f"A/A [{row.aa_ci95[0]:.3f}, {row.aa_ci95[1]:.3f}]  {row.verdict}  load "
                    f"{os.getloadavg()[0]:.1f}",
                    flush=True,
                )
            spread = statistics.pstdev([math.log(ratio) for ratio in ratios])
            print(
                f"{title}: {dict(verdicts)}; ratio {min(ratios):.3f} … {max(ratios):.3f}, sd of "
                f"log {spread:.4f}\n"
            )


if __name__ == "__main__":
    main()
