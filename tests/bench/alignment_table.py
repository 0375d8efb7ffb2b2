"""Why alignment decides: MobileNetV2 cut to odd widths, to multiples of 8 and of 16, timed in
onnxruntime.

    python tests/bench/alignment_table.py [--size 32] [--batches 1 16] [--min-seconds 1.0]

Uniform magnitude cuts of the untrained network; the ratio is time of the uncut ÷ time of the cut,
with its 95 % interval and verdict. Under each row, the causes that the profile found.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from pipeline.torchvision_import import import_torchvision
from stages.benchmark import Protocol, Setting, compare_settings, explain, fingerprint
from stages.export import export_proto, slice_onnx
from stages.prune import ChannelPlan, CostModel
from stages.trace import trace

ROWS = ((0.30, 1), (0.30, 8), (0.53, 1), (0.53, 8), (0.50, 16))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=32, help="height and width of the input")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--min-seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    machine = fingerprint()
    print(
        f"{machine['cpu']}, {machine['cores']} cores, onnxruntime "
        f"{machine['versions']['onnxruntime']}, 1 thread"
    )
    torch.manual_seed(0)
    model = import_torchvision().models.mobilenet_v2(num_classes=10).eval()
    x = torch.randn(2, 3, arguments.size, arguments.size)
    proto, graph = export_proto(model, x), trace(model, x)
    costs = CostModel(graph)
    settings = [Setting(batch=batch) for batch in arguments.batches]
    with tempfile.TemporaryDirectory() as folder:
        base, other = Path(folder) / "base.onnx", Path(folder) / "cut.onnx"
        base.write_bytes(proto.SerializeToString())
        for cut, multiple in ROWS:
            plan = ChannelPlan.uniform(graph, cut=cut, multiple_of=multiple)
            other.write_bytes(slice_onnx(proto, graph, plan).SerializeToString())
            found = compare_settings(
                base, other, settings, protocol=Protocol(min_seconds=arguments.min_seconds)
            )
            widths = "widths as they fall" if multiple == 1 else f"multiples of {multiple}"
            print(
                f"\n{cut:.0%}, {widths}: MACs cut {costs.macs() / costs.macs(plan.counts()):.2f}×"
            )
            for row in found:
                interval = f"[{row.ci95[0]:.2f}, {row.ci95[1]:.2f}]"
                control = f"A/A [{row.aa_ci95[0]:.2f}, {row.aa_ci95[1]:.2f}]"
                print(
                    f"  batch {row.batch:>2}: {row.ratio:.2f}× {interval} {row.verdict}; {control}"
                )
            for cause in explain(base, other, found[0]).causes:
                print(f"  - {cause}", flush=True)


if __name__ == "__main__":
    main()
