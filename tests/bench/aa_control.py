"""How often the benchmark claims a difference where there is none, and misses one where there is.

    python tests/bench/aa_control.py [--comparisons 20] [--min-seconds 1.0] [--batch 1] [--threads
    1] [--int8]

MobileNetV2 at 32×32: the file against itself, then against its half-width cut (multiples of 16),
each as many times as asked. With `--int8` all are timed in the same rounds, as the variants of a
run are: the base, its INT8 file, that INT8 file again, the cut and the INT8 file of the cut; the
INT8 file against itself is then a second comparison without a difference. Prints every ratio with
its interval, and the counts.
"""

from __future__ import annotations

import argparse
import collections
import functools
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from pipeline.torchvision_import import import_torchvision
from stages.benchmark import Comparison, Protocol, Setting, time_files
from stages.export import export_proto, slice_onnx
from stages.prune import ChannelPlan
from stages.trace import trace

Rows = dict[str, Comparison]


class _Noise(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        images = np.random.default_rng(0).standard_normal((4, 16, 3, 32, 32)).astype(np.float32)
        self._left = iter([{"input": batch} for batch in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


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


@functools.cache
def int8(path: Path) -> Path:
    """U8S8 per channel, ranges of noise: the time does not depend on the numbers."""
    out = path.with_name(f"{path.stem}_int8.onnx")
    quantize_static(
        path,
        out,
        _Noise(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return out


def pairs(base: Path, half: Path, setting: Setting, protocol: Protocol) -> Rows:
    """Two files at a time: against itself, and against half width."""
    found = {}
    for title, other in (("A/A against itself", base), ("A/B against half width", half)):
        (found[title],) = time_files([base, other], [setting], protocol=protocol).between(0, 1)
    return found


def variants(base: Path, half: Path, setting: Setting, protocol: Protocol) -> Rows:
    """Five files in the same rounds."""
    quantised = int8(base)
    timed = time_files([base, quantised, quantised, half, int8(half)], [setting], protocol=protocol)
    asked = {
        "A/A INT8 against itself": (1, 2),
        "A/B base against its INT8": (0, 1),
        "A/B base against half width": (0, 3),
        "A/B base against half width, INT8": (0, 4),
        "A/B INT8 alone against half width, INT8": (1, 4),
    }
    return {title: timed.between(*pair)[0] for title, pair in asked.items()}


def line(row: Comparison) -> str:
    """One comparison."""
    (low, high), (least, most) = row.ci95, row.aa_ci95
    return (
        f"{row.ratio:.3f}  [{low:.3f}, {high:.3f}]  A/A [{least:.3f}, {most:.3f}]  {row.verdict}  "
        f"load {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--comparisons", type=int, default=20)
    parser.add_argument("--min-seconds", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--int8", action="store_true")
    arguments = parser.parse_args()
    protocol = Protocol(min_seconds=arguments.min_seconds)
    setting = Setting(batch=arguments.batch, threads=arguments.threads)
    compare: Callable[..., Rows] = variants if arguments.int8 else pairs
    seen: dict[str, list[Comparison]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        base, half = files(Path(folder))
        for index in range(arguments.comparisons):
            for title, row in compare(base, half, setting, protocol).items():
                seen[title].append(row)
                print(f"{title} {index + 1:>2}: {line(row)}", flush=True)
    for title, rows in seen.items():
        verdicts = dict(collections.Counter(row.verdict for row in rows))
        ratios = [row.ratio for row in rows]
        spread = statistics.pstdev([math.log(ratio) for ratio in ratios])
        print(f"{title}: {verdicts}; {min(ratios):.3f} … {max(ratios):.3f}, sd of log {spread:.4f}")


if __name__ == "__main__":
    main()
