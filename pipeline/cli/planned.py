"""The stages of a run, the state of one in a word, and what those that would run take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.data.card import DataCard
    from pipeline.run.rounds import PlacedStage
    from pipeline.run.step import Step


def stages_of(config: Config) -> tuple[PlacedStage, ...]:
    """The stages of a run with this config, in order; several rounds repeat some of them."""
    from pipeline.run.rounds import chain
    from stages import STAGES

    return chain(STAGES, config.rounds)


def state(step: Step) -> str:
    """Of a planned stage, in a word: fresh, stale, missing, damaged, or blocked by one before
    it.
    """
    if step.action == "reuse":
        return "fresh"
    if step.action == "blocked":
        return "blocked" if step.blocked_by else "damaged"
    return "missing" if step.manifest is None else "stale"


def expected(config: Config, card: DataCard, folder: Path, steps: Sequence[Step]) -> dict[str, Any]:
    """Minutes by stage and bytes of memory, printed and for the document.

    Args:
        folder: of the config, where the user's own module may lie.
    Raises:
        RlpError: of any kind; what a run would say to this network.
    """
    from pipeline.cli.forecast import forecast  # torch, which a run that is fresh does without

    found = forecast(config, card, folder, steps)
    for remark in found.remarks:
        console.warn(remark)
    console.note(str(found))
    return {"minutes": found.minutes, "memory_bytes": found.memory_bytes}
