"""`search.align: auto`: the channel multiple that pays on this machine.

It is lowered for networks whose layers are narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.channels.graph import ChannelGraph
from pipeline.config.search import SearchConfig
from stages.benchmark.alignment import Alignment
from stages.benchmark.alignment_cache import cached_alignment

MeasuredAlignment = tuple[Alignment, bool]
"""What pays, and whether it was known before."""


@dataclass(frozen=True)
class SettledAlignment:
    """Channel multiple of a search.

    Attributes:
        align: widths are multiples of this.
        document: what it was derived from, as plain JSON types; None when it was given.
    """

    align: int
    document: dict[str, Any] | None = None


def settle_alignment(
    settings: SearchConfig,
    graph: ChannelGraph,
    *,
    precision: str = "fp32",
    begun: object = None,
    note: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
    measure: Callable[..., MeasuredAlignment] = cached_alignment,
) -> SettledAlignment:
    """The multiple that `search.align` gives, measured or remembered where it says `auto`.

    Args:
        graph: of the original network, so that all rounds settle on the same multiple.
        precision: "fp32" or "int8": each has its own multiple.
        begun: the document of an interrupted search, which keeps the multiple it began with on
            whichever machine it goes on; anything that is no such document is measured again.
        note, progress: told about the measurement.
        measure: what measures or remembers (`stages.benchmark.cached_alignment`).
    """
    if settings.align != "auto":
        return SettledAlignment(settings.align)
    document = (
        begun
        if _is_settled(begun)
        else _measured(settings, graph, precision, note, progress, measure)
    )
    assert isinstance(document, dict)
    return SettledAlignment(document["used"], document)


def _measured(
    settings: SearchConfig,
    graph: ChannelGraph,
    precision: str,
    note: Callable[[str], None],
    progress: Callable[[int, int], None] | None,
    measure: Callable[..., MeasuredAlignment],
) -> dict[str, Any]:
    found, _ = measure(
        precision=precision,
        provider=settings.latency_provider,
        before=lambda: note(
            "timing convolutions by width, once for this machine: about five seconds"
        ),
        progress=progress,
    )
    used = found.for_widths([group.size * group.channels_per_unit for group in graph.prunable])
    lowered = f", lowered from {found.multiple} because its layers are narrow"
    note(f"widths will be multiples of {used}{'' if used == found.multiple else lowered}")
    return {**found.to_dict(), "used": used}


def _is_settled(document: object) -> bool:
    """Whether this is what an earlier `settle_alignment` gave; False for anything else."""
    if not isinstance(document, dict):
        return False
    try:
        known = Alignment.from_dict(document)
        used = document["used"]
        return isinstance(used, int) and 1 <= used <= known.multiple
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return False
