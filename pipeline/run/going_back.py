"""Back to an earlier stage where the recovered network loses more accuracy than
`search.budget.accuracy_drop`, or much less: the search is run again, and what follows it.

    search ─▶ prune ─▶ reconstruct ─▶ distill        0.9 points lost, 0.5 asked for
       ▲                                 │
       └── search.budget.before_recovery ┘           1 → 0.56

What was tried is kept in run.json for as long as the settings up to distillation are the same. So
a run that was killed goes on where it was, and a finished one is fresh.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.schema import Config
from pipeline.errors import ArtifactError
from pipeline.run import store
from pipeline.run.artifacts import KINDS, RUN
from pipeline.run.documents import as_written
from pipeline.run.manifest import read_manifest
from pipeline.run.rounds import PlacedStage

STEPS = 2  # runs of the search after the first; one more where the best was not the last
SPARE = 0.5  # of the drop: where less is lost, a smaller network is tried
FACTORS = (0.25, 2.0)  # what one step may multiply what is allowed by


class Try(NamedTuple):
    """Points of accuracy allowed before recovery, and points lost after it."""

    allowed: float
    lost: float


def next_allowance(asked: float, tries: Sequence[Try]) -> float | None:
    """What to allow before recovery next; None: the last try stays.

    Args:
        asked: points that may be lost after recovery.
        tries: at least one, in order.
    """
    last, kept = tries[-1], [one for one in tries if one.lost <= asked + 1e-9]
    # what recovery brings back is taken for the same part of what is missing
    least, most = FACTORS
    factor = min(max(asked / max(last.lost, 1e-9), least), most)
    looser = len(kept) == len(tries) and last.lost < SPARE * asked
    if len(tries) <= STEPS and (looser or not kept):
        return float(f"{last.allowed * factor:.3g}")
    best = max(kept) if kept else min(tries, key=lambda one: one.lost)
    return best.allowed if best.allowed != last.allowed else None


@dataclass(frozen=True)
class Tried:
    """What a run has tried so far.

    Attributes:
        of: hash of the settings that it was tried with.
        allowed: points before recovery that the search is to allow now; None: as by default.
    """

    of: str
    tries: tuple[Try, ...] = ()
    allowed: float | None = None

    @classmethod
    def read(cls, stages: Sequence[PlacedStage], config: Config, run: Path) -> Tried:
        """From run.json; nothing where that is of other settings, or cannot be read."""
        nothing, path = cls(_settings(stages, config)), run / RUN.file
        if not _settles(config) or not path.is_file():
            return nothing
        try:
            found = RUN.read(path)["tried"]
            tries = tuple(Try(float(allowed), float(lost)) for allowed, lost in found["tries"])
            read = cls(str(found["of"]), tries, float(found["allowed"]))
        except (ArtifactError, KeyError, TypeError, ValueError):  # it is written anew
            return nothing
        return read if read.of == nothing.of else nothing

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"of": self.of, "tries": [list(one) for one in self.tries], "allowed": self.allowed}

    def settled(self, config: Config) -> Config:
        """The config with what is to be allowed before recovery."""
        if self.allowed is None:
            return config
        budget = config.search.budget.model_copy(update={"before_recovery": self.allowed})
        search = config.search.model_copy(update={"budget": budget})
        return config.model_copy(update={"search": search})

    def after(self, stages: Sequence[PlacedStage], config: Config, run: Path) -> Tried | None:
        """What to try next, now that recovery is through; None: what is there stays.

        Args:
            config: as it was given.
        """
        asked = config.search.budget.accuracy_drop
        if asked is None or not _settles(config):
            return None
        numbers: dict[str, float] = {}
        for name in _places(stages):
            numbers |= (read_manifest(run, name) or {"summary": {}})["summary"]
        if not {"allowed_drop", "teacher", "search_accuracy"} <= numbers.keys():
            return None
        with as_written(f"{run}: a manifest"):
            lost = round(100 * (numbers["teacher"] - numbers["search_accuracy"]), 6)
            one = Try(float(numbers["allowed_drop"]), lost)
        tries = self.tries if self.tries[-1:] == (one,) else (*self.tries, one)
        allowed = next_allowance(asked, tries)
        return None if allowed is None else replace(self, tries=tries, allowed=allowed)

    def __str__(self) -> str:
        return (
            f"{self.tries[-1].lost:.2f} points lost on the search split after recovery: "
            f"back to search, with search.budget.before_recovery={self.allowed:g} "
            f"after {self.tries[-1].allowed:g}"
        )


def ends(stage: PlacedStage) -> bool:
    """Whether recovery is through after this stage, so that what was lost is known."""
    return stage.stage.name == KINDS["final_model"].maker and stage.round.last


def _places(stages: Sequence[PlacedStage]) -> tuple[str, ...]:
    """The search, and the end of recovery, whose numbers come last."""
    return KINDS["plan"].maker, next(stage.name for stage in stages if ends(stage))


def _settles(config: Config) -> bool:
    """Whether what is allowed before recovery is for the run to find."""
    budget = config.search.budget
    return budget.accuracy_drop is not None and budget.before_recovery is None


def _settings(stages: Sequence[PlacedStage], config: Config) -> str:
    """Hash of what the result of recovery depends on."""
    names = [stage.name for stage in stages]
    last = next((at for at, stage in enumerate(stages) if ends(stage)), len(names))
    parts = {stage.name: stage.depends(config) for stage in stages[: last + 1]}
    return hashlib.sha256(store.dump_json([config.seed, parts])).hexdigest()
