"""Rounds: search, prune and distill repeated, each on what the round before left, every number
against the original.

`rounds: 3` makes this chain; the last round lies in the ordinary folders, so that whatever follows
is as for one:

    pretrain
    round-1/   trace → search → prune → distill     of the original network
    round-2/   trace → search → prune → distill     of round-1/distill
               trace → search → prune → distill     of round-2/distill
               export → benchmark → report
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.run.artifacts import KINDS
from pipeline.run.stage import Source, Stage

_FOLDER = "round-"
AnyStage = TypeVar("AnyStage", bound=Stage)


def place(stage: str, number: int, rounds: int) -> str:
    """Name, and folder in a run, of a repeated stage: `round-1/search`; `search` in the last
    round.
    """
    return stage if number == rounds else f"{_FOLDER}{number}/{stage}"


def chain(stages: Sequence[Stage], rounds: int) -> tuple[Stage, ...]:
    """The stages of a run of so many rounds, in order."""
    if rounds == 1:
        return tuple(stages)
    repeated = [stage for stage in stages if stage.repeats]
    names = {stage.name for stage in repeated}
    first = list(stages).index(repeated[0])
    found = list(stages[:first])
    for number in range(1, rounds + 1):
        found += [_of_round(stage, number, rounds, names) for stage in repeated]
    return (*found, *(_after(stage, rounds) for stage in stages[first:] if not stage.repeats))


def _of_round(stage: AnyStage, number: int, rounds: int, repeated: set[str]) -> AnyStage:
    def source(kind: str, of: int) -> Source:
        maker = KINDS[kind].maker
        return Source(place(maker, of, rounds) if maker in repeated else maker, kind)

    clone = copy.copy(stage)
    clone.round, clone.rounds = number, rounds
    clone.name = place(stage.name, number, rounds)
    clone.wired = {kind: source(kind, number) for kind in stage.reads}
    if number > 1:
        clone.wired |= {kind: source(left, number - 1) for kind, left in stage.continues.items()}
        clone.wired |= {f"original/{kind}": source(kind, 1) for kind in stage.original}
    return clone


def _after(stage: AnyStage, rounds: int) -> AnyStage:
    clone = copy.copy(stage)
    clone.rounds = rounds
    clone.wired = stage.sources()
    for number in range(1, rounds):
        earlier = {f"{_FOLDER}{number}/{kind}": kind for kind in stage.every_round}
        clone.wired |= {
            key: Source(place(KINDS[kind].maker, number, rounds), kind)
            for key, kind in earlier.items()
        }
    return clone


def folders(run: Path) -> list[Path]:
    """Folders of earlier rounds in a run, in order."""
    found = [
        path for path in run.glob(f"{_FOLDER}*") if path.name.removeprefix(_FOLDER).isdecimal()
    ]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_FOLDER)))


def leftovers(run: Path, rounds: int) -> list[Path]:
    """Folders of rounds that a run of so many rounds does not have."""
    return [path for path in folders(run) if not 1 <= int(path.name.removeprefix(_FOLDER)) < rounds]
