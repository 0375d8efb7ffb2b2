"""What a plan says of one stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.run.manifest import Dependencies
from pipeline.run.rounds import PlacedStage

Action = Literal["reuse", "run", "blocked", "skip"]


@dataclass(frozen=True)
class Step:
    """What happens to one stage, and why; `blocked_by` names the earlier stage that is in its
    way.
    """

    stage: PlacedStage
    action: Action
    reason: str
    needs: Dependencies | None = None
    manifest: Mapping[str, Any] | None = None
    hint: str = ""
    blocked_by: str = ""
