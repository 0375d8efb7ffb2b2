"""From a network to one self-contained ONNX file, checked in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from pipeline.errors import Refused
from pipeline.run.store import write_bytes
from pipeline.runtime.sizes import images_a_call
from pipeline.runtime.worker import Worker
from stages.export.denormals import flush_denormals
from stages.export.metadata import replace_notes
from stages.export.torch_exporters import (
    DYNAMO,
    Exported,
    Options,
    first_that_works,
    main_opset,
)

_LIMIT = (1 << 31) - 1  # protobuf's: one self-contained file must stay below 2 GB


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        exporter: "torch.export", or "torchscript" where that failed.
        fallback: why it failed; empty where it did not.
        parameters: numbers in the file's initialisers.
        denormals_flushed: weights that were set to zero.
        dynamic_batch: whether the first dimension is free.
    """

    path: str
    sha256: str
    bytes: int
    opset: int
    exporter: str
    fallback: str
    nodes: int
    parameters: int
    denormals_flushed: int
    dynamic_batch: bool
    input_name: str
    output_name: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def export_onnx(
    model: nn.Module,
    example: torch.Tensor,
    path: Path | str,
    *,
    input_name: str = "input",
    output_name: str = "logits",
    metadata: Mapping[str, str] | None = None,
    opset: int | None = None,
    exporter: str | None = None,
    verify: bool = True,
) -> ExportReport:
    """Write `model` in eval mode as one ONNX file with a dynamic first dim called "batch".

    The file is written beside `path` and takes its place only after onnx's checker and onnxruntime
    accepted it in a child process. Weights below the smallest normal float32 are set to zero: on
    many CPUs they make a convolution ten times slower.

    Args:
        example: one input batch, float32 (N, C, H, W); N may be 1.
        metadata: strings stored in the file, such as class names and normalisation.
        opset: ONNX operator set; None leaves it to the exporter.
        exporter: "torch.export" or "torchscript"; None tries them in this order.
        verify: run the checker and open a session in a child process.
    Raises:
        Refused: no exporter can express the network, or the file would exceed 2 GB.
        ArtifactError: the checker or onnxruntime refuses the file, or dies of it.
        EnvironmentProblem: the file cannot be written.
    """
    path = Path(path)
    options = Options(input_name, output_name, opset)
    exported = first_that_works(model, example, options, exporter)
    flushed = flush_denormals(exported.proto)
    replace_notes(exported.proto, metadata or {})
    # deterministic: the same network gives the same bytes, so a run can be compared by hash
    data = exported.proto.SerializeToString(deterministic=True)
    if len(data) > _LIMIT:
        raise Refused(
            f"{path.name}: {len(data)} bytes; one ONNX file holds at most 2 GB", hint="prune more"
        )
    check = partial(check_file, label=str(path)) if verify else None
    digest = write_bytes(path, data, check=check)
    return _report(path, digest, len(data), exported, flushed, options)


def _report(
    path: Path, digest: str, size: int, exported: Exported, flushed: int, options: Options
) -> ExportReport:
    graph = exported.proto.graph
    return ExportReport(
        path=str(path),
        sha256=digest,
        bytes=size,
        opset=main_opset(exported.proto),
        exporter=exported.exporter,
        fallback=exported.failures,
        nodes=len(graph.node),
        parameters=sum(numpy_helper.to_array(tensor).size for tensor in graph.initializer),
        denormals_flushed=flushed,
        dynamic_batch=bool(graph.input[0].type.tensor_type.shape.dim[0].dim_param),
        input_name=options.input_name,
        output_name=options.output_name,
    )


def export_proto(
    model: nn.Module,
    example: torch.Tensor,
    *,
    input_name: str = "input",
    output_name: str = "logits",
    opset: int | None = None,
) -> onnx.ModelProto:
    """The exported graph in memory, unchecked: what `slice_onnx` starts from.

    Made by torch.export alone, which keeps the names of parameters. Raises Refused where that
    cannot express the network.
    """
    options = Options(input_name, output_name, opset)
    proto = first_that_works(model, example, options, DYNAMO).proto
    flush_denormals(proto)  # what is sliced from it is timed
    replace_notes(proto, {})
    return proto


def check_file(path: Path, *, label: str = "") -> dict[str, Any]:
    """onnx's checker, then a session and one inference, all in a child process.

    Args:
        label: what to call the file in errors, where it has a passing name.
    Returns:
        the session's inputs, outputs, providers and metadata (`Worker.open`).
    Raises:
        ArtifactError: the file is refused, or kills the child.
    """
    with Worker() as worker:
        worker.check(path, label=label)
        opened = worker.open(path, label=label)
        worker.feed(batch=images_a_call(opened["inputs"][0]["shape"]) or 1)
        worker.slot(seconds=0.0)  # one call
    return opened
