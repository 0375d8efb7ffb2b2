"""From a network to one self-contained ONNX file, through torch.export, checked in a child
process.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from pipeline.errors import EnvironmentProblem, Refused
from pipeline.runtime import Worker
from stages.export.denormals import flush_denormals
from stages.export.naming import name_initializers

DYNAMO, TORCHSCRIPT = "torch.export", "torchscript"
_LIMIT = (1 << 31) - 1  # protobuf's: one self-contained file must stay below 2 GB


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    `exporter` is "torch.export", or "torchscript" where that failed, for the reason in `fallback`.
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
    """
    path = Path(path)
    proto, used, why = _first_that_works(model, example, input_name, output_name, opset, exporter)
    flushed = flush_denormals(proto)
    _tidy(proto, metadata or {})
    data = proto.SerializeToString(deterministic=True)
    if len(data) > _LIMIT:
        raise Refused(
            f"{path.name}: {len(data)} bytes; one ONNX file holds at most 2 GB", hint="prune more"
        )
    _write_checked(path, data, verify)
    return ExportReport(
        path=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        opset=_main_opset(proto),
        exporter=used,
        fallback=why,
        nodes=len(proto.graph.node),
        parameters=sum(numpy_helper.to_array(tensor).size for tensor in proto.graph.initializer),
        denormals_flushed=flushed,
        dynamic_batch=bool(proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param),
        input_name=input_name,
        output_name=output_name,
    )


def export_proto(
    model: nn.Module,
    example: torch.Tensor,
    *,
    input_name: str = "input",
    output_name: str = "logits",
    opset: int | None = None,
) -> onnx.ModelProto:
    """The exported graph in memory, unchecked: what `slice_onnx` starts from."""
    proto, _, _ = _first_that_works(model, example, input_name, output_name, opset, DYNAMO)
    flush_denormals(proto)
    _tidy(proto, {})
    return proto


def _first_that_works(
    model: nn.Module,
    example: torch.Tensor,
    input_name: str,
    output_name: str,
    opset: int | None,
    only: str | None,
) -> tuple[onnx.ModelProto, str, str]:
    failures: list[str] = []
    model, example = _plain_strides(model).eval(), _plain(example)
    for name, function in ((DYNAMO, _with_dynamo), (TORCHSCRIPT, _with_torchscript)):
        if only not in (None, name):
            continue
        try:
            return (
                function(model, example, input_name, output_name, opset),
                name,
                "; ".join(failures),
            )
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # exporters raise anything; the reason is kept and shown
            failures.append(f"{name}: {type(error).__name__}: {_first_line(error)}")
    raise Refused(
        f"{type(model).__name__} cannot be exported to ONNX",
        hint="remove data-dependent control flow from `forward`",
        details=failures,
    )


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with row-major strides, also where a dimension of size 1 makes `contiguous()` a
    no-op.
    """
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _plain_strides(model: nn.Module) -> nn.Module:
    """A copy without channels-last tensors, which would leave fixed strides, hence widths, in
    an exported graph.
    """
    copied = copy.deepcopy(model)
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = _plain(tensor.data)
    return copied


def _with_dynamo(
    model: nn.Module, x: torch.Tensor, input_name: str, output_name: str, opset: int | None
) -> Any:
    if x.shape[0] < 2:  # torch.export specialises on sizes 0 and 1
        x = x.repeat(2, *[1] * (x.ndim - 1))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (x,),
            dynamo=True,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    name_initializers(proto, model)
    return proto


def _with_torchscript(
    model: nn.Module, x: torch.Tensor, input_name: str, output_name: str, opset: int | None
) -> Any:
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            model,
            (x,),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: {0: "batch"}, output_name: {0: "batch"}},
            opset_version=opset,
        )
    return onnx.load_from_string(buffer.getvalue())


def _tidy(proto: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Drop the exporter's stack traces (paths of this machine) and per-value notes; add our
    metadata.
    """
    for field in (proto.graph.node, proto.graph.input, proto.graph.output, proto.graph.value_info):
        for item in field:
            del item.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    for key in sorted(metadata):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, str(metadata[key])


def _write_checked(path: Path, data: bytes, verify: bool) -> None:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        beside = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if verify:
                check_file(beside, label=str(path))
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write {path}: {error.strerror or error}", hint="choose another folder"
        ) from error


def check_file(path: Path, *, label: str = "") -> dict[str, Any]:
    """onnx's checker, then a session and one inference, all in a child process.

    Returns the session's inputs, outputs and metadata. Raises ArtifactError.
    """
    with Worker() as worker:
        worker.check(path, label=label)
        opened = worker.open(path, label=label)
        worker.feed(batch=1)
        worker.slot(seconds=0.0)
    return opened


def class_metadata(
    classes: list[str], mean: list[float], std: list[float], image_shape: list[int]
) -> dict[str, str]:
    """Metadata that lets a deployment feed the file: pixels scaled to 0..1, then (x - mean) /
    std, NCHW.
    """
    return {
        "classes": json.dumps(classes, ensure_ascii=False),
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "image_shape": json.dumps(image_shape),
        "layout": "NCHW, channels R G B, pixels 0..1 then (x - mean) / std",
    }


def _main_opset(proto: onnx.ModelProto) -> int:
    return next(
        (entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters log and print; an engine does not."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
