"""Every torchvision classifier: trace, uniform cuts of 25 % and 50 %, cut == silenced, order of
units without effect.

    python tests/bench/breadth.py [NAME ...] [--transformers] [--size 64]

One line a network: groups, units that may go, channels that must stay, MACs before and after both
cuts, the largest relative difference between the cut and the silenced network in float64, the same
for shuffled units, seconds. Exit code 1 when a difference exceeds 1e-9 or counts differ from
torch's own flop counter.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from zoo import CNNS, TRANSFORMERS, build, usual_size  # noqa: E402

from stages.prune import ChannelPlan, CostModel, prove, prove_order, prune  # noqa: E402
from stages.trace import ChannelGraph, trace  # noqa: E402

LIMIT = 1e-9


def survey(name: str, size: int) -> tuple[str, bool, dict[str, int]]:
    """One line of the table, whether it holds, and the reasons with the channels they keep."""
    model = build(name)
    size = getattr(model, "image_size", size)  # a ViT takes the one it was built for
    x = torch.randn(1, 3, size, size)
    started = time.perf_counter()
    graph = trace(model, x)
    traced = time.perf_counter() - started
    costs, macs, worst, cutting = CostModel(graph), [], 0.0, 0.0
    ok = costs.macs() == _macs(model, x)
    for part in (0.25, 0.5):
        plan = ChannelPlan.uniform(graph, part)
        started = time.perf_counter()
        small = prune(model, graph, plan)
        cutting += time.perf_counter() - started
        macs.append(costs.macs(plan.counts()))
        ok &= macs[-1] == _macs(small, x)
        ok &= costs.params(plan.counts()) == sum(p.numel() for p in small.parameters())
        del small
        worst = max(worst, prove(model, graph, plan, [x]).relative)
    order = prove_order(model, graph, [x]).relative
    ok &= worst <= LIMIT and order <= LIMIT
    kept = _reasons(graph)
    line = (
        f"{name:20} {len(graph.prunable):4} {sum(g.size for g in graph.prunable):7} {sum(kept.values()):6}"
        f" {costs.macs() / 1e6:9.1f} {macs[0] / 1e6:9.1f} {macs[1] / 1e6:9.1f}"
        f" {worst:8.1e} {order:8.1e} {traced:6.2f} {cutting / 2:6.2f}  {'ok' if ok else 'WRONG'}"
    )
    return line, ok, kept


def _macs(model: torch.nn.Module, x: torch.Tensor) -> int:
    """By torch's own counter, which knows neither fused attention nor the fused encoder layers
    of eval mode.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad(), math:
            model(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2


def _reasons(graph: ChannelGraph) -> dict[str, int]:
    kept: dict[str, int] = {}
    for group in graph.groups:
        if not group.prunable:
            kept[group.reason] = kept.get(group.reason, 0) + group.size * group.channels_per_unit
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--transformers", action="store_true", help="also the ViT, Swin and MaxViT families"
    )
    parser.add_argument(
        "--size", type=int, default=0, help="edge of the images instead of the usual one (quicker)"
    )
    options = parser.parse_args()
    names = options.names or [*CNNS, *(TRANSFORMERS if options.transformers else ())]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {len(names)} networks; MACs in millions"
    )
    print(f"{'network':20} {'grps':>4} {'units':>7} {'stay':>6} {'MACs':>9} {'-25 %':>9} {'-50 %':>9}"
          f" {'cut':>8} {'order':>8} {'trace':>6} {'prune':>6}")  # fmt: skip
    failed, started = [], time.perf_counter()
    for name in names:
        line, ok, kept = survey(name, options.size or usual_size(name))
        print(line, flush=True)
        for reason, channels in kept.items():
            if reason != "model output":
                print(f"{'':25}{channels} stay: {reason}")
        failed += [] if ok else [name]
        gc.collect()
    print(
        f"{len(names) - len(failed)} of {len(names)} hold, {time.perf_counter() - started:.0f} s {' '.join(failed)}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
