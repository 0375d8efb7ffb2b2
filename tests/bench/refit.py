"""What reconstruction makes of a uniform cut: the output before and after, and the price."""

from __future__ import annotations

import resource
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stages.prune import ChannelPlan, prune
from stages.reconstruct import reconstruct_layers
from stages.trace import ChannelGraph
from stages.trace.capture.calls import tensors_of

CUT = 0.25
FITTED = 48  # images; a quarter of them held out
SEEN = 16  # other images, on which the outputs are compared


def refit(model: nn.Module, graph: ChannelGraph, size: int) -> dict[str, float]:
    """One entry of a row.

    Returns:
        `cut`, `after`: squared error of the output on images not fitted to, over the variance of
        the original's; `layers`: how many were fitted, `worse`: of them with a larger error than
        before, `left_alone`: those that stayed as cut; `drop`: median over layers of the error
        after over the error before; `seconds`; `peak_mib` of the process.
    """
    draw = torch.Generator().manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.randn(FITTED + SEEN, 3, size, size, generator=draw).to(device)
    plan = ChannelPlan.uniform(graph, CUT)
    small = prune(model, graph, plan, check=False)  # the survey's own proofs say more
    model, small = model.to(device), small.to(device)
    done = reconstruct_layers(small, model, graph, plan, images[:FITTED])
    fitted = [layer for layer in done.layers if layer.error_after is not None]
    pairs = [(layer.error_before or 0.0, layer.error_after or 0.0) for layer in fitted]
    other = images[FITTED:]
    whole = _outputs(model, other)
    model.cpu()
    return {
        "cut": _error(_outputs(small, other), whole),
        "after": _error(_outputs(done.model, other), whole),
        "layers": len(fitted),
        "worse": sum(after > before for before, after in pairs),
        "left_alone": sum(layer.kept for layer in done.layers),
        "drop": round(median(after / before for before, after in pairs if before > 0), 4),
        "seconds": round(done.seconds, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
    }


def problem(found: dict[str, float]) -> str:
    """What reconstruction promises and did not keep; "" where it did."""
    if not found["after"] < found["cut"]:
        return f"the output's error was {found['cut']:.3g} as cut and is {found['after']:.3g}"
    return f"{found['worse']:.0f} layers got worse" if found["worse"] else ""


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        found: list[Tensor] = tensors_of(model(images))
    return torch.cat([tensor.flatten(1) for tensor in found], 1).double()


def _error(outputs: Tensor, whole: Tensor) -> float:
    return float(((outputs - whole) ** 2).mean() / whole.var(0, correction=0).mean())


def cells(found: dict[str, Any]) -> list[str]:
    """Of the table by network."""
    if not found:
        return ["–"] * 4
    return [
        f"{found['cut']:.3f}",
        f"{found['after']:.3f}",
        f"{found['seconds']:.1f}",
        f"{found['peak_mib']:.0f}",
    ]
