"""Trace + prune to half the width against Torch-Pruning 1.6.1: the same networks, one thread each,
one run.

    python tests/bench/trace_prune_vs_torch_pruning.py [NAME ...]

Seconds are CPU seconds of this process (other work on the machine does not count), both tools warm.
With --memory each tool runs once more in a forked child, whose peak above the parent is printed.
"channels" are output channels of convolutions and linear layers that the tool can remove; where
Torch-Pruning offers more, EXPLAINED must say why, and the same network traced with
open_statistics=True must offer at least as many (not timed). Exit code 1 when a difference is
unexplained.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import fnmatch
import gc
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from zoo import CNNS, build  # noqa: E402

from stages.prune import ChannelPlan, prune  # noqa: E402
from stages.trace import ChannelGraph, trace  # noqa: E402

EXPLAINED = {
    "convnext_*": "the residual trunk passes LayerNorm over its channels: a cut is not the "
    "silenced network",
}
_WEIGHTED = (nn.Conv2d, nn.Linear)


def ours(model: nn.Module, x: torch.Tensor) -> int:
    """Channels that may go; traces, plans by L2 and cuts."""
    graph = trace(model, x)
    prune(model, graph, ChannelPlan.uniform(graph, 0.5))
    return _channels(model, graph)


def _channels(model: nn.Module, graph: ChannelGraph) -> int:
    rows = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, _WEIGHTED)
    }
    members = [member for group in graph.prunable for member in group.members]
    return sum(
        len(member.indices) for member in members if member.dim == 0 and member.parameter in rows
    )


def torch_pruning(model: nn.Module, x: torch.Tensor) -> int:
    """Channels of the layers it made narrower; builds its graph and prunes by L2."""
    import torch_pruning as tp

    widths = {
        name: m.weight.shape[0] for name, m in model.named_modules() if isinstance(m, _WEIGHTED)
    }
    heads = [m for m in model.modules() if isinstance(m, _WEIGHTED) and m.weight.shape[0] == 1000]
    pruner = tp.pruner.MagnitudePruner(
        model,
        x,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=heads,
    )
    pruner.step()
    after = {
        name: m.weight.shape[0] for name, m in model.named_modules() if isinstance(m, _WEIGHTED)
    }
    return sum(width for name, width in widths.items() if after[name] < width)


def timed(
    tool: Callable[[nn.Module, torch.Tensor], int], model: nn.Module, x: torch.Tensor
) -> dict[str, Any]:
    """CPU seconds and channels, or the error."""
    gc.collect()
    started = time.process_time()
    try:
        result: dict[str, Any] = {"channels": tool(model, x)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    return result | {"seconds": time.process_time() - started}


def memory(
    tool: Callable[[nn.Module, torch.Tensor], int], model: nn.Module, x: torch.Tensor
) -> float:
    """MiB above the parent at the peak of a forked child that runs `tool`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        base = _peak()
        with contextlib.suppress(Exception):
            tool(model, x)
        os.write(writer, json.dumps((_peak() - base) / 1024).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return float(text)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--memory", action="store_true", help="peak memory as well; takes twice as long"
    )
    options = parser.parse_args()
    names = options.names or CNNS
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    _warm_up()
    print(f"torch {torch.__version__}, 1 thread, images 224 (Inception 299), batch 1")
    print(
        f"{'network':20} {'ours s':>7} {'TP s':>7} {'ratio':>6} {'ours MiB':>9} {'TP MiB':>8} "
        f"{'channels':>9} {'TP':>7}"
    )
    total, failed, unexplained, slowest = {"ours": 0.0, "tp": 0.0}, [], [], (0.0, "")
    for name in names:
        model, x = build(name), torch.randn(1, 3, *(2 * (299 if name == "inception_v3" else 224,)))
        mib = (
            [memory(tool, model, x) for tool in (ours, torch_pruning)]
            if options.memory
            else [0.0, 0.0]
        )
        mine, theirs = timed(ours, model, x), timed(torch_pruning, copy.deepcopy(model), x)
        if "error" in mine:
            raise SystemExit(f"{name}: {mine['error']}")
        slowest = max(slowest, (mine["seconds"], name))
        note = theirs.get("error", "")[:60]
        if note:
            failed.append(name)
        elif theirs["channels"] > mine["channels"]:
            note = _explained(name, theirs["channels"], model, x)
            unexplained += [] if note else [name]
            note = note or "UNEXPLAINED"
        total["ours"] += mine["seconds"]
        total["tp"] += theirs["seconds"]
        print(
            f"{name:20} {mine['seconds']:7.2f} {theirs['seconds']:7.2f} "
            f"{mine['seconds'] / theirs['seconds']:6.2f}"
            f" {mib[0]:9.0f} {mib[1]:8.0f} {mine['channels']:9} {theirs.get('channels', '-'):>7} "
            f" {note}",
            flush=True,
        )
        del model
        gc.collect()
    print(
        f"{len(names)} networks: ours {total['ours']:.1f} s, Torch-Pruning {total['tp']:.1f} s,"
        f" ratio {total['ours'] / total['tp']:.3f}; ours slowest {slowest[1]} {slowest[0]:.2f} s;"
        f" Torch-Pruning fails on {len(failed)}: {' '.join(failed) or 'none'}"
    )
    return 1 if unexplained else 0


def _explained(name: str, theirs: int, model: nn.Module, x: torch.Tensor) -> str:
    """Why Torch-Pruning offers more channels than we do; "" when that is no reason."""
    reason = next(
        (reason for pattern, reason in EXPLAINED.items() if fnmatch.fnmatch(name, pattern)), ""
    )
    opened = _channels(model, trace(model, x, open_statistics=True)) if reason else 0
    return f"{opened} on request: {reason}" if opened >= theirs else ""


def _warm_up() -> None:
    """Imports and first calls of both tools belong to neither."""
    for tool in (ours, torch_pruning):
        tool(build("mobilenet_v3_small"), torch.randn(1, 3, 224, 224))


if __name__ == "__main__":
    sys.exit(main())
