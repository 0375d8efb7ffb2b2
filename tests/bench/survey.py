"""One network, everything that is promised about it: a row of the table of breadth."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from refit import problem as unkept
from refit import refit
from snapshot import differences, snapshot
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.errors import RlpError
from pipeline.models.folding import fold_standardised_weights, folded_layers
from stages.export import export_onnx
from stages.prune import ChannelPlan, CostModel, prove, prove_order, prune
from stages.trace import ChannelGraph, trace
from stages.trace.capture.calls import tensors_of

EXACT = 1e-9  # relative, in float64
SINGLE = 1e-4  # relative, in float32 between two runtimes
HALF = "0.5"
UNEQUAL = "unequal"  # every group loses another share: sizes that only fit by chance do not

# Worst first. "refused" is an answer with a reason; "unbuilt" says nothing about this project.
STATUSES = ("failed", "changed", "wrong", "miscounted", "refused", "unbuilt", "ok")


@dataclass
class Row:
    """What came out for one network; `problems` is {status: what happened, in one line}, `folded`
    the number of layers whose weight was computed before tracing.
    """

    name: str
    source: str = ""
    family: str = ""
    size: int = 0
    folded: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    groups: int = 0
    prunable: int = 0
    units: int = 0
    frozen: list[dict[str, Any]] = field(default_factory=list)
    params: int = 0
    macs: int = 0
    cuts: dict[str, dict[str, float]] = field(default_factory=dict)
    order: float | None = None
    onnx: float | None = None
    reconstructed: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst that happened, or "ok"."""
        return next((status for status in STATUSES if status in self.problems), "ok")

    @property
    def removed(self) -> float | None:
        """Share of the parameters that a uniform cut of one half removes."""
        return self.cuts.get(HALF, {}).get("params_removed")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "status": self.status, **asdict(self)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Row:
        """Inverse of `to_dict`."""
        return Row(**{key: value for key, value in data.items() if key != "status"})


def survey(
    row: Row,
    model: nn.Module,
    images: torch.Tensor,
    cuts: list[str],
    onnx: bool = False,
    reconstruct: bool = False,
) -> Row:
    """Fill `row`: trace `model` on the first image, cut it in each way, and compare on all images.

    `cuts` are fractions as text, or "unequal". Nothing is raised for what a network does: each
    check that fails becomes a problem of the row, and the others still run.
    """
    one = images[:1]
    with _noting(row, "unbuilt"), torch.no_grad():
        model(one)  # a network that does not run at this size says nothing about tracing
    if row.problems:
        return row
    before = snapshot(model)
    model, whole = fold_standardised_weights(model, one), model
    row.folded = len(folded_layers(model))
    if changed := differences(before, snapshot(whole)):
        row.problems["changed"] = f"folding: {', '.join(changed[:3])}"
    graph = _traced(row, model, one)
    if graph is None:
        return row
    _describe(row, graph, model)
    costs = CostModel(graph)
    _count(row, "whole", (costs.macs(), costs.params()), model, one)
    for cut in cuts:
        _cut(row, model, graph, _plan(graph, cut), cut, images)
    with _noting(row, "wrong", "shuffled units: "):
        row.order = prove_order(model, graph, [images]).relative
        if not _is_rounding(row.order, model, images):
            row.problems.setdefault("wrong", f"shuffled units differ by {row.order:.1e}")
    if onnx:
        _export(row, prune(model, graph, _plan(graph, HALF)), images)
    if reconstruct and graph.prunable:
        with _noting(row, "wrong", "reconstruction: "):
            row.reconstructed = refit(model, graph, images.shape[-1])
            if kept := unkept(row.reconstructed):
                row.problems.setdefault("wrong", f"reconstruction: {kept}")
    return row


def _traced(row: Row, model: nn.Module, one: torch.Tensor) -> ChannelGraph | None:
    before, started, used = snapshot(model), time.perf_counter(), time.process_time()
    graph = None
    try:
        graph = trace(model, one)
    except RlpError as error:
        row.problems["refused"] = error.message
    except Exception as error:  # whatever else leaves trace is a defect of the engine
        row.problems["failed"] = f"trace: {type(error).__name__}: {_line(error)}"
    row.seconds["trace"] = round(time.perf_counter() - started, 3)
    row.seconds["trace_cpu"] = round(time.process_time() - used, 3)  # as on a quiet machine
    if changed := differences(before, snapshot(model)):
        row.problems["changed"] = f"{len(changed)} places, first {', '.join(changed[:3])}"
    return graph


def _describe(row: Row, graph: ChannelGraph, model: nn.Module) -> None:
    row.groups, row.prunable = len(graph.groups), len(graph.prunable)
    row.units = sum(group.size for group in graph.prunable)
    row.params = sum(p.numel() for p in model.parameters())
    found: dict[str, dict[str, Any]] = {}
    for group in graph.groups:
        if not group.prunable:
            entry = found.setdefault(
                group.reason, {"reason": group.reason, "groups": 0, "units": 0, "channels": 0}
            )
            entry["groups"] += 1
            entry["units"] += group.size
            entry["channels"] += group.size * group.channels_per_unit
    row.frozen = sorted(found.values(), key=lambda entry: -entry["channels"])


def _plan(graph: ChannelGraph, cut: str) -> ChannelPlan:
    """Uniform by L2 norm; "unequal" takes 20 to 70 % of each group, its share drawn from its
    name.
    """
    if cut != UNEQUAL:
        return ChannelPlan.uniform(graph, float(cut))
    keep = {}
    for group in graph.prunable:
        drawn = int.from_bytes(hashlib.sha256(group.id.encode()).digest()[:4])
        stay = max(1, round(group.size * (0.3 + 0.5 * drawn / 2**32)))
        order = np.random.default_rng(drawn).permutation(group.size)
        keep[group.id] = tuple(sorted(order[:stay].tolist()))
    return ChannelPlan(keep)


def _cut(
    row: Row, model: nn.Module, graph: ChannelGraph, plan: ChannelPlan, cut: str, images: Any
) -> None:
    with _noting(row, "wrong", f"cut {cut}: "):
        used = time.process_time()
        small = prune(model, graph, plan)
        row.seconds.setdefault("prune_cpu", round(time.process_time() - used, 3))
        costs = CostModel(graph)
        counted = costs.macs(plan.counts()), costs.params(plan.counts())
        macs, params = _count(row, f"cut {cut}", counted, small, images[:1])
        del small  # the proof makes its own in float64
        entry = row.cuts[cut] = {
            "params": params,
            "macs": macs,
            "params_removed": round(1 - params / row.params, 4),
            "macs_removed": round(1 - macs / row.macs, 4) if row.macs else 0.0,
        }
        entry["relative"] = prove(model, graph, plan, [images]).relative
        if not _is_rounding(entry["relative"], model, images):
            row.problems["wrong"] = f"cut {cut} differs by {entry['relative']:.1e}"


def _is_rounding(difference: float, model: nn.Module, images: torch.Tensor) -> bool:
    """Whether a relative difference of outputs in float64 is no more than rounding.

    An untrained network of many products (StarNet) makes 1e-9 of the last bit of its input, and so
    of another order of a sum. Such a network may differ by that much.
    """
    if difference <= EXACT:
        return True
    wide, x, noise = copy.deepcopy(model).double().eval(), images.double(), 0.0
    with torch.no_grad():
        first = tensors_of(wide(x))
        for _ in range(4):
            signs = torch.randint(0, 2, x.shape).double() * 2 - 1
            other = tensors_of(wide(x * (1 + 1e-15 * signs)))
            pairs = zip(first, other, strict=True)
            noise = max(noise, *(float((a - b).abs().max() / a.abs().max()) for a, b in pairs))
    return difference <= noise


def _count(
    row: Row, what: str, counted: tuple[int, int], network: nn.Module, one: torch.Tensor
) -> tuple[int, int]:
    """Multiply-accumulates and parameters of `network`, noted where CostModel says otherwise."""
    macs, params = torch_macs(network, one), sum(p.numel() for p in network.parameters())
    if what == "whole":
        row.macs = macs
    if counted != (macs, params):
        row.problems.setdefault(
            "miscounted",
            f"{what}: {counted[0]} MACs and {counted[1]} parameters, torch has {macs} and {params}",
        )
    return macs, params


def torch_macs(model: nn.Module, x: torch.Tensor) -> int:
    """By torch's own counter, which sees neither into fused attention, nor the fused encoder
    layers of eval mode, nor the LSTM of the CPU kernels.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    plain = torch.backends.mkldnn.flags(enabled=False)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad(), math, plain:
            model(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2


def _export(row: Row, small: nn.Module, images: torch.Tensor) -> None:
    """The cut network in onnxruntime against itself in torch, both in float32, with a batch that
    the exporter has not seen.
    """
    with _noting(row, "wrong", "onnx: "), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        report = export_onnx(small, images[:1], path, verify=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {report.input_name: images.numpy()})
        with torch.inference_mode():
            expected = small(images).numpy()
        row.onnx = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not row.onnx <= SINGLE:
            row.problems.setdefault("wrong", f"onnxruntime differs by {row.onnx:.1e}")


@contextlib.contextmanager
def _noting(row: Row, status: str, what: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a network may raise anything; the row says what
        row.problems.setdefault(status, f"{what}{type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
