"""Rounds: the stages between the original network and the final one, repeated, each time on what
the round before left. No other module knows that a run may have several.

`rounds: 3` makes this chain; the last round lies in the ordinary folders, so that whatever follows
is as for one:

    pretrain
    round-1/   trace → search → … → distill     of the original network
    round-2/   trace → search → … → distill     of round-1/distill
               trace → search → … → distill     of round-2/distill
               export → quantize → benchmark → deploy → report
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.run.artifacts import KINDS
from pipeline.run.declaration import Stage

if TYPE_CHECKING:
    from pipeline.config.schema import Config

_START, _END = "base_model", "final_model"  # a round leads from one kind to the other
_FOLDER = "round-"


@dataclass(frozen=True)
class Round:
    """Round `number` of `count`, counted from 1."""

    number: int = 1
    count: int = 1

    @property
    def first(self) -> bool:
        return self.number == 1

    @property
    def last(self) -> bool:
        return self.number == self.count

    def share(self, budget: float) -> float:
        """What the network may cost after this round, as a fraction of the original.

        A budget is shared out geometrically, so that every round removes the same fraction of what
        is there: 0.25 in two rounds is 0.5, then 0.25.
        """
        return float(budget ** (self.number / self.count))

    def place(self, stage: str) -> str:
        """Name, and folder in a run, of a repeated stage: `round-1/search`; `search` when last."""
        return stage if self.last else of_round(stage, self.number)


ONLY_ROUND = Round()


def of_round(name: str, number: int) -> str:
    """The stage or kind `name` of an earlier round: `round-1/search`."""
    return f"{_FOLDER}{number}/{name}"


def of_original(kind: str) -> str:
    """How a stage of a later round calls a kind of the first one."""
    return f"original/{kind}"


class InputSource(NamedTuple):
    """Where something that a stage reads comes from: a stage's place, and a kind it makes."""

    place: str
    kind: str


@dataclass(frozen=True)
class PlacedStage:
    """A stage at its place in the chain.

    Attributes:
        name: of the stage in this run, and its folder: `search`, `round-1/search`.
        input_sources: where each thing it reads comes from, by the key for `ctx.input`.
    """

    stage: Stage
    name: str
    round: Round
    input_sources: dict[str, InputSource]

    def depends(self, config: Config) -> dict[str, Any]:
        """The part of the config that the result depends on, and the round where it matters."""
        several = {"round": self.round.number, "rounds": self.round.count}
        matters = self.stage.uses_round and self.round.count > 1
        return {**self.stage.depends(config), **(several if matters else {})}


def chain(stages: Sequence[Stage], count: int = 1) -> tuple[PlacedStage, ...]:
    """The stages of a run of `count` rounds, in order."""
    if count == 1:
        return tuple(_place(stage, ONLY_ROUND, frozenset()) for stage in stages)
    names = [stage.name for stage in stages]
    begin, end = (names.index(KINDS[kind].maker) + 1 for kind in (_START, _END))
    last = Round(count, count)
    order = [(stage, last) for stage in stages[:begin]]
    for number in range(1, count + 1):
        order += [(stage, Round(number, count)) for stage in stages[begin:end]]
    order += [(stage, last) for stage in stages[end:]]
    return tuple(_place(stage, this, frozenset(names[begin:end])) for stage, this in order)


def _place(stage: Stage, this: Round, repeated: frozenset[str]) -> PlacedStage:
    def source(kind: str, number: int) -> InputSource:
        maker = KINDS[kind].maker
        made_in = Round(number, this.count)
        return InputSource(made_in.place(maker) if maker in repeated else maker, kind)

    found = {kind: source(kind, this.number) for kind in stage.reads}
    if stage.name in repeated and _START in found and not this.first:
        found[_START] = source(_END, this.number - 1)
    for kind in stage.original:
        found[kind if this.first else of_original(kind)] = source(kind, 1)
    for number in range(1, this.count):
        found |= {of_round(kind, number): source(kind, number) for kind in stage.every_round}
    return PlacedStage(stage, this.place(stage.name), this, found)


def folders(run: Path) -> list[Path]:
    """Folders of earlier rounds in a run, in order."""
    # a user's `round-old` is left alone
    found = [path for path in run.glob(f"{_FOLDER}*") if _number(path).isdecimal()]
    return sorted(found, key=lambda path: int(_number(path)))


def stale_rounds(run: Path, count: int) -> list[Path]:
    """Folders of rounds that a run of so many rounds does not have."""
    return [path for path in folders(run) if not 1 <= int(_number(path)) < count]


def _number(folder: Path) -> str:
    return folder.name.removeprefix(_FOLDER)


def is_of_round(name: str) -> bool:
    """Whether this would be the name of a stage of an earlier round."""
    return name.startswith(_FOLDER)
