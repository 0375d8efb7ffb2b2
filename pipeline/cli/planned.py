"""The stages of a run, and the state of one in a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.schema import Config
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
