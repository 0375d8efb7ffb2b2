"""The exporters that torch has, tried in turn: torch.export, then TorchScript."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx
import torch
from torch import nn

from pipeline.channels.rebuild import rebuild
from pipeline.errors import Refused
from stages.export.naming import name_initializers
from stages.export.zeros import remove_zeros

DYNAMO, TORCHSCRIPT = "torch.export", "torchscript"
_NOISY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


class Options(NamedTuple):
    """Names of the file's input and output, and its operator set (None: the exporter's choice)."""

    input_name: str = "input"
    output_name: str = "logits"
    opset: int | None = None


class Exported(NamedTuple):
    """A graph in memory, the exporter that made it, and why another one before it could not."""

    proto: onnx.ModelProto
    exporter: str
    failures: str


def first_that_works(
    model: nn.Module, example: torch.Tensor, options: Options, only: str | None = None
) -> Exported:
    """The graph of the first exporter that can express the network; the network stays as it was.

    Args:
        only: the one to try, "torch.export" or "torchscript"; None: both in this order.
    Raises:
        Refused: none can; the details say why.
    """
    failures: list[str] = []
    model, example = _plain_strides(model).eval(), _plain(example)
    _out_of_place(model, example)
    for name in _EXPORTERS if only is None else (only,):
        export = _EXPORTERS[name]
        try:
            with _quiet(), torch.no_grad():
                proto = export(model, example, options)
                _check_opset(proto, options.opset)
                remove_zeros(proto)  # of branches that have gone
                return Exported(proto, name, "; ".join(failures))
        except (KeyboardInterrupt, MemoryError):  # not the exporter's doing
            raise
        except Exception as error:  # exporters raise anything; the reason is kept and shown
            failures.append(f"{name}: {type(error).__name__}: {_first_line(error)}")
    raise Refused(
        f"{type(model).__name__} cannot be exported to ONNX",
        hint="remove data-dependent control flow from `forward`",
        details=failures,
    )


def _with_dynamo(model: nn.Module, x: torch.Tensor, options: Options) -> onnx.ModelProto:
    if x.shape[0] < 2:  # torch.export specialises on sizes 0 and 1
        x = x.repeat(2, *[1] * (x.ndim - 1))
    program = torch.onnx.export(
        model,
        (x,),
        dynamo=True,
        input_names=[options.input_name],
        output_names=[options.output_name],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        opset_version=options.opset,
        external_data=False,  # one self-contained file
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    name_initializers(proto, model)
    return proto


def _with_torchscript(model: nn.Module, x: torch.Tensor, options: Options) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (x,),
        buffer,  # type: ignore[arg-type]
        dynamo=False,
        input_names=[options.input_name],
        output_names=[options.output_name],
        dynamic_axes={options.input_name: {0: "batch"}, options.output_name: {0: "batch"}},
        opset_version=options.opset,
    )
    return onnx.load_from_string(buffer.getvalue())


_EXPORTERS: dict[str, Callable[[nn.Module, torch.Tensor, Options], onnx.ModelProto]] = {
    DYNAMO: _with_dynamo,
    TORCHSCRIPT: _with_torchscript,
}


def main_opset(proto: onnx.ModelProto) -> int:
    """Version of ONNX's own operator set that the graph is written in."""
    own = (entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    return next(own, 0)


def _check_opset(proto: onnx.ModelProto, asked: int | None) -> None:
    # torch.export writes another where onnx's version converter cannot follow
    if asked is not None and main_opset(proto) != asked:
        raise ValueError(f"wrote opset {main_opset(proto)}, {asked} was asked for")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with row-major strides; `contiguous()` leaves those of a dimension of size 1."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _plain_strides(model: nn.Module) -> nn.Module:
    """A copy without channels-last tensors: their strides, hence widths, would be in the graph."""
    copied = rebuild(model, {}, ())
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = _plain(tensor.data)
    return copied


def _out_of_place(model: nn.Module, example: torch.Tensor) -> None:
    """Let activations of a copy write new tensors, if that changes nothing.

    torch.export takes half as long then: every write in place is traced as its decomposition.
    """
    writing = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    with torch.no_grad():
        before = model(example.clone()) if writing else None
        for module in writing:
            module.inplace = False  # type: ignore[assignment]
        if writing and not _same(before, model(example.clone())):
            for module in writing:  # somebody reads what was written over
                module.inplace = True  # type: ignore[assignment]


def _same(before: object, after: object) -> bool:
    """Whether two outputs are bitwise equal tensors; what is no tensor is not compared."""
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        return torch.equal(before, after)
    return False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters log and print; an engine does not."""
    levels = {name: logging.getLogger(name).level for name in _NOISY}
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
