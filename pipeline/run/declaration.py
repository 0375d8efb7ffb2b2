"""What a stage declares: what it reads and what its result depends on. Enough to say what is
fresh, so a command that only looks at a run loads none of the stages' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.schema import Config

Parts = dict[str, Any]
"""Sections of the config by name, as plain JSON types."""


def _as_they_are(config: Config, parts: Parts) -> Parts:
    return parts


@dataclass(frozen=True)
class Stage:
    """One step of a run, from artefacts to artefacts. Subclasses say how it does its work.

    Attributes:
        name: its folder in `stages/` and in a run.
        title: what it does, in a few words for the terminal.
        sections: of the config, that its result depends on.
        reads: kinds it reads. In a later round `base_model` is what the round before left.
        original: kinds it reads of the first round, with `ctx.original`.
        every_round: kinds it reads of all rounds, with `ctx.every_round`; for stages after them.
        uses_data: its result depends on the images.
        uses_round: its result depends on which of how many rounds it is in.
        uses_files: its result depends on files outside the run, which `external` lists.
        memory_key: of the config, the setting to lower when memory runs out.
        provider_key: of the config, the execution provider that it needs.
        version: raised when the same inputs give another result; what was made before is stale.
        narrow: takes out of the sections what does not matter, or puts in what does.
    """

    name: str
    title: str
    sections: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    original: tuple[str, ...] = ()
    every_round: tuple[str, ...] = ()
    uses_data: bool = False
    uses_round: bool = False
    uses_files: bool = False
    memory_key: str = ""
    provider_key: str = ""
    version: int = 1
    narrow: Callable[[Config, Parts], Parts] = _as_they_are

    def depends(self, config: Config) -> Parts:
        """The part of the config that the result depends on.

        Of `data` only what shapes the splits: which images they are is known by content hash.
        """
        whole = config.model_dump(mode="json")
        for where_and_how in ("root", "source", "label", "workers", "download"):
            whole["data"].pop(where_and_how)
        wanted = (*self.sections, *(("data",) if self.uses_data else ()))
        return self.narrow(config, {name: whole[name] for name in dict.fromkeys(wanted)})

    def external(self, config: Config) -> dict[str, str]:
        """sha256 of files outside the run that the result depends on, by a name for people."""
        return {}

    def run(self, ctx: Any) -> dict[str, Any]:
        """Do the work: write every file of `kinds_of(name)` into `ctx.out`.

        Args:
            ctx: a `pipeline.run.stage.StageContext`.
        Returns:
            a few JSON-able numbers for the terminal and the manifest.
        """
        raise NotImplementedError
