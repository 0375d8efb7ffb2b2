"""What a run is going to take, about: minutes by the speed of its network, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.cli import init_config
from pipeline.cli.expected_memory import Estimate
from pipeline.cli.init_seen import LookedAt
from pipeline.config.schema import Config
from pipeline.data.card import DataCard
from pipeline.training.evaluate import device_of

if TYPE_CHECKING:
    from pipeline.run.step import Step

_LAST = "export to report"
_FRAGMENTED = 1.3  # of the CPU's memory, what repeated steps take beside what is alive at once


@dataclass(frozen=True)
class Expected:
    """Figures of a run, about.

    Attributes:
        minutes: by stage, or stages, of those that would run.
        at_most: of these stages it is not known before whether they are needed.
        memory_bytes: that the process takes at most.
        on_gpu: bytes that its tensors take on a GPU at most, by stage; None: it computes on the
            CPU.
    """

    minutes: dict[str, float]
    memory_bytes: int
    at_most: tuple[str, ...] = ()
    on_gpu: dict[str, int] | None = None

    @property
    def device_memory_bytes(self) -> int | None:
        """That its tensors take on a GPU at most."""
        return None if self.on_gpu is None else max(self.on_gpu.values(), default=0)

    def __str__(self) -> str:
        sure = {stage: took for stage, took in self.minutes.items() if stage not in self.at_most}
        parts = ", ".join(f"{stage} {took:g}" for stage, took in sure.items() if took)
        whole = max(1, round(sum(sure.values())))
        more = [f"{self.minutes[stage]:g} more for {stage}" for stage in self.at_most]
        needed = f", {' and '.join(more)} where accuracy is missing" if more else ""
        memory = f"{self.memory_bytes / 1e9:.1f} GB of memory"
        if self.on_gpu:
            most = max(self.on_gpu, key=self.on_gpu.__getitem__)
            memory += f" and {self.on_gpu[most] / 1e9:.1f} GB of GPU memory, most of it in {most}"
        return (
            f"expected about {whole:,} min on this machine as busy as it is ({parts}){needed}, and "
            f"{memory}"
        )


def expect(looked_at: LookedAt, card: DataCard, config: Config, steps: Sequence[Step]) -> Expected:
    """What the stages that would run take, of a network that was looked at."""
    minutes = init_config.minutes(card, looked_at.graph, looked_at.speed, config)
    found = _of_steps(minutes, steps)
    auto = config.distill.epochs == "auto" and found.get("distill") == minutes["distill"] > 0
    at_most = ("distill",) if auto else ()
    estimate = Estimate.of(looked_at.model, card, config)
    taken = estimate.stages(steps)
    if device_of(looked_at.model).type == "cpu":
        most = round(_FRAGMENTED * max((stage.cpu for stage in taken.values()), default=0))
        return Expected(found, looked_at.process_bytes + estimate.held + most, at_most)
    drawn = max((stage.drawn for stage in taken.values()), default=0)
    on_gpu = {name: stage.gpu for name, stage in taken.items() if stage.gpu}
    return Expected(found, looked_at.process_bytes + estimate.held + drawn, at_most, on_gpu)


def _of_steps(minutes: dict[str, float], steps: Sequence[Step]) -> dict[str, float]:
    """Of the stages that would run; what was made before takes what it took."""
    parts: dict[str, list[Step]] = {}
    for step in steps:
        name = step.stage.name.rpartition("/")[2]
        parts.setdefault(_part_of(name, minutes), []).append(step)
    found = {}
    for part, members in parts.items():
        known = [s.manifest["duration_s"] / 60 for s in members if s.manifest is not None]
        again = [step for step in members if step.action == "run"]
        if again and len(known) == len(members):
            known = [s.manifest["duration_s"] / 60 for s in again if s.manifest is not None]
            found[part] = round(sum(known), 1)
        elif again:
            found[part] = minutes[part] * (1 if part == _LAST else len(again))
    return {part: found[part] for part in minutes if part in found}


def _part_of(stage: str, minutes: dict[str, float]) -> str:
    """What the minutes of a stage are counted with: tracing and rotating belong to the search."""
    with_search = ("trace", "rotate", "prune")
    return stage if stage in minutes else "search" if stage in with_search else _LAST
