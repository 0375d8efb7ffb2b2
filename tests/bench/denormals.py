"""What denormal weights cost here: found, set to zero by the export, both files timed.

    python tests/bench/denormals.py [--scale 1e-39] [--share 0.5] [--size 32] [--min-seconds 1.0]

MobileNetV2, a share of every convolution's output channels scaled into the denormal range of
float32, as strong weight decay or an absorbed batch norm of a dead channel leave them. The file as
it is against the file that `export_onnx` writes, and against itself with onnxruntime told to treat
denormals as zero. Processors differ: a factor of 10 on some, nothing on others.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from pipeline.torchvision_import import import_torchvision
from stages.benchmark import Protocol, compare, fingerprint
from stages.export import count_denormals, export_onnx


def scaled_network(scale: float, share: float) -> nn.Module:
    """MobileNetV2 whose convolutions have the first `share` of their output channels multiplied
    by `scale`.
    """
    torch.manual_seed(0)
    model = import_torchvision().models.mobilenet_v2(num_classes=10).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[: round(share * module.out_channels)] *= scale
    return model


def with_denormals(path: Path, model: nn.Module, to: Path) -> None:
    """The exported file with the weights that the export set to zero put back."""
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        own = weights.get(tensor.name)
        if own is not None and own.ndim == 4:
            flushed = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(np.where(flushed == 0, own, flushed), tensor.name)
            )
    to.write_bytes(proto.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1e-39)
    parser.add_argument(
        "--share", type=float, default=0.5, help="of each convolution's output channels"
    )
    parser.add_argument("--size", type=int, default=32, help="height and width of the input")
    parser.add_argument("--min-seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    machine = fingerprint()
    print(
        f"{machine['cpu']}, {machine['cores']} cores, onnxruntime "
        f"{machine['versions']['onnxruntime']}, 1 thread"
    )
    model = scaled_network(arguments.scale, arguments.share)
    with tempfile.TemporaryDirectory() as folder:
        clean, dirty = Path(folder) / "exported.onnx", Path(folder) / "denormal.onnx"
        report = export_onnx(model, torch.randn(2, 3, arguments.size, arguments.size), clean)
        with_denormals(clean, model, dirty)
        left, found = (count_denormals(onnx.load(path)) for path in (clean, dirty))
        print(
            f"export: {report.denormals_flushed:,} denormal weights set to zero, {left} left; as "
            f"it is: {found:,}"
        )
        row = compare(dirty, clean, protocol=Protocol(min_seconds=arguments.min_seconds))
    assert row.flushed is not None
    print(
        f"as it is              {row.a.latency_ms['p50']:.3f} ms ({row.a.denormal_weights:,} "
        "denormal weights)"
    )
    print(f"exported              {row.b.latency_ms['p50']:.3f} ms ({row.b.denormal_weights:,})")
    print(f"as it is, set to zero {row.flushed['a_p50_ms']:.3f} ms (session.set_denormal_as_zero)")
    print(
        f"as it is ÷ exported: {row.ratio:.2f}× [{row.ci95[0]:.2f}, {row.ci95[1]:.2f}] "
        f"{row.verdict}; "
        f"A/A [{row.aa_ci95[0]:.2f}, {row.aa_ci95[1]:.2f}]"
    )


if __name__ == "__main__":
    main()
