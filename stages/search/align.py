"""`search.align: auto`: the channel multiple that pays on this machine, lowered for networks
with narrow layers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.schema import SearchConfig
from pipeline.errors import ArtifactError
from pipeline.run.store import read_json, write_json
from stages.benchmark import Alignment, cached_alignment
from stages.trace import ChannelGraph

Known = tuple[Alignment, bool]


def settle_alignment(
    settings: SearchConfig,
    graph: ChannelGraph,
    *,
    work: Path | None = None,
    note: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
    target: Callable[..., Known] = cached_alignment,
) -> tuple[SearchConfig, dict[str, Any] | None]:
    """The settings with a number for `align`, and for the artefact what it was derived from (None:
    it was given).

    Args:
        work: scratch folder of the stage; a search that goes on there keeps the alignment it began
            with, on whichever machine it goes on.
        target: what measures or remembers (`stages.benchmark.alignment_cache_alignment`).
    """
    if settings.align != "auto":
        return settings, None
    begun = work / "alignment.json" if work else None
    document = _begun_with(begun) or _measured(settings, graph, note, progress, target)
    if begun is not None:
        write_json(begun, document)
    return settings.model_copy(update={"align": document["used"]}), document


def _measured(
    settings: SearchConfig,
    graph: ChannelGraph,
    note: Callable[[str], None],
    progress: Callable[[int, int], None] | None,
    target: Callable[..., Known],
) -> dict[str, Any]:
    found, _ = target(
        provider=settings.latency_provider,
        before=lambda: note(
            "timing convolutions by width, once for this machine: about five seconds"
        ),
        progress=progress,
    )
    used = found.for_widths([group.size * group.channels_per_unit for group in graph.prunable])
    why = (
        ""
        if used == found.multiple
        else f", lowered from {found.multiple} because its layers are narrow"
    )
    note(f"widths will be multiples of {used}{why}")
    return {**found.to_dict(), "used": used}


def _begun_with(path: Path | None) -> dict[str, Any] | None:
    """What an interrupted search wrote; None for anything that cannot be trusted."""
    if path is None or not path.exists():
        return None
    try:
        found = read_json(path, max_bytes=1 << 20)
        known = Alignment.from_dict(found)
        valid = isinstance(found["used"], int) and 1 <= found["used"] <= known.multiple
    except (ArtifactError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    return found if valid else None
