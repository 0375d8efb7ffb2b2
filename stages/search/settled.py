"""What settings that say `auto` have come to, on this network and this machine."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.channels.graph import ChannelGraph
from pipeline.data.splits import Splits
from pipeline.run.stage import StageContext
from stages.search.latency.alignment import SettledAlignment, settle_alignment
from stages.search.latency.precision import Int8Timing, SettledPrecision, settle_precision
from stages.search.latency.timer import TimingSetting
from stages.search.problem import Network
from stages.search.results.scratch import ALIGNMENT, PRECISION, Scratch


@dataclass(frozen=True)
class Settled:
    """What `auto` has come to: measured on the network before any cut, on this machine."""

    precision: SettledPrecision
    alignment: SettledAlignment


def settle(ctx: StageContext, original: Network, splits: Splits, scratch: Scratch) -> Settled:
    """A search that goes on keeps what it began with."""
    precision = _precision(ctx, original, splits, scratch)
    return Settled(precision, _alignment(ctx, original.graph, precision, scratch))


def _precision(
    ctx: StageContext, original: Network, splits: Splits, scratch: Scratch
) -> SettledPrecision:
    example, _ = splits.search.take(2, seed=ctx.seed)  # torch.export specialises on 1
    timing = Int8Timing(original.model, example, TimingSetting.of(ctx.config.search))
    found = settle_precision(
        ctx.config.search,
        ctx.config.quantize.mode,
        timing,
        begun=scratch.read(PRECISION),
        note=ctx.note,
    )
    if found.document is not None:
        scratch.write(PRECISION, found.document)
    return found


def _alignment(
    ctx: StageContext, graph: ChannelGraph, precision: SettledPrecision, scratch: Scratch
) -> SettledAlignment:
    """What widths are multiples of."""

    def on_width(done: int, total: int) -> None:
        if ctx.stopping():
            raise ctx.interrupted()
        ctx.progress(done, total, what="convolutions timed for the alignment")

    found = settle_alignment(
        ctx.config.search,
        graph,
        precision=precision.name,
        begun=scratch.read(ALIGNMENT),
        note=ctx.note,
        progress=on_width,
    )
    if found.document is not None:
        scratch.write(ALIGNMENT, found.document)
    return found
