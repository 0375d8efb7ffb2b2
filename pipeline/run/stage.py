"""What a stage is: a name, what it depends on, and `run(ctx)` from artefacts to artefacts.

class Trace(Stage):
    name = "trace"
    sections = ("trace",)            # config sections its result depends on
    reads = ("base_model", "data")   # kinds from pipeline/run/artifacts.py
    def run(self, ctx): ...          # read ctx.input(kind), write into ctx.out, return a summary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pipeline.config.schema import Config
from pipeline.errors import ArtifactError, Hint, Interrupted
from pipeline.run import store
from pipeline.run.artifacts import KINDS
from pipeline.run.rounds import ONLY_ROUND, PlacedStage, Round, of_original, of_round


class Reporter(Protocol):
    """Where a stage's progress goes; the terminal implements it."""

    def progress(self, done: int, total: int, **fields: Any) -> None:
        """`done` of `total` units, with further fields to show (loss, accuracy, images_per_s,
        eta_s).
        """

    def note(self, text: str) -> None:
        """One plain sentence."""

    def warn(self, text: str) -> None:
        """One sentence that the user should act on."""


class SilentReporter:
    """A Reporter for tests and notebooks."""

    def progress(self, done: int, total: int, **fields: Any) -> None: ...

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


@dataclass
class StageContext:
    """All that a stage may touch.

    Attributes:
        config: the whole resolved config.
        seed: the run's seed.
        out: folder whose files are committed together when `run` returns.
        work: scratch folder that survives a kill (checkpoints, journals); emptied after the commit.
        inputs: folder and expected sha256 of every file of every kind this stage reads.
        places: names of the stages that those folders belong to.
        run: the run's folder.
        data_card: what the images are (pipeline.data.DataCard), for stages that use data.
        round: which of how many rounds this is; after the rounds, the last one.
    """

    config: Config
    out: Path
    work: Path
    inputs: Mapping[str, tuple[Path, Mapping[str, str]]] = field(default_factory=dict)
    reporter: Reporter = field(default_factory=SilentReporter)
    stop_signal: Callable[[], int] = lambda: 0
    data_card: Any = None
    run_name: str = "run"
    config_name: str = "CONFIG"
    places: Mapping[str, str] = field(default_factory=dict)
    round: Round = ONLY_ROUND
    run: Path = Path("RUN")

    @property
    def seed(self) -> int:
        return self.config.seed

    def input(self, kind: str) -> Path:
        """The verified artefact: its file, or its folder where the kind has several files.

        Args:
            kind: one of the stage's `reads`.
        Raises:
            ArtifactError: its bytes are not those committed.
        """
        folder, hashes = self.inputs[kind]
        described = KINDS[kind.rpartition("/")[2]]
        for name, expected in hashes.items():
            store.check_regular(folder / name, described.max_bytes)
            if store.sha256_file(folder / name) != expected:
                maker = self.places.get(kind, described.maker)
                raise ArtifactError(
                    f"{folder / name}: changed while the run was going on",
                    hint=Hint.rerun(maker, self.run),
                )
        files = described.files
        return folder / files[0] if len(files) == 1 else folder

    def original(self, kind: str) -> Path:
        """The same of the first round, which started from the original network.

        Args:
            kind: one that the stage lists as `original`.
        """
        key = of_original(kind)
        return self.input(key if key in self.inputs else kind)

    def every_round(self, kind: str) -> list[Path]:
        """The same of all rounds, in order.

        Args:
            kind: one that the stage lists as `every_round`.
        """
        earlier = [self.input(of_round(kind, number)) for number in range(1, self.round.count)]
        return [*earlier, self.input(kind)]

    def progress(self, done: int, total: int, **fields: Any) -> None:
        self.reporter.progress(done, total, **fields)

    def note(self, text: str) -> None:
        self.reporter.note(text)

    def warn(self, text: str) -> None:
        self.reporter.warn(text)

    def stopping(self) -> bool:
        """True once Ctrl-C or SIGTERM came: save, then `raise ctx.interrupted()`."""
        return self.stop_signal() != 0

    def interrupted(self) -> Interrupted:
        return Interrupted(signal_number=self.stop_signal() or 2)


class Stage:
    """Base of the stages; subclasses set the class attributes and `run`.

    Attributes:
        name: its folder in `stages/` and in a run.
        title: what it does, in a few words for the terminal.
        version: raised when the same inputs give another result; what was made before is stale.
        sections: of the config, that its result depends on.
        reads: kinds it reads. In a later round `base_model` is what the round before left.
        original: kinds it reads of the first round, with `ctx.original`.
        every_round: kinds it reads of all rounds, with `ctx.every_round`; for stages after them.
        uses_data: its result depends on the images.
        memory_key: of the config, the setting to lower when memory runs out.
        uses_round: its result depends on which of how many rounds it is in.
    """

    name: str
    title: ClassVar[str]
    version: ClassVar[int] = 1
    sections: ClassVar[tuple[str, ...]] = ()
    reads: tuple[str, ...] = ()
    original: tuple[str, ...] = ()
    every_round: tuple[str, ...] = ()
    uses_data: ClassVar[bool] = False
    uses_round: bool = False
    memory_key: ClassVar[str] = ""

    def depends(self, config: Config) -> dict[str, Any]:
        """The part of the config that the result depends on, as plain JSON types.

        Of `data` only what shapes the splits: which images they are is known by content hash.
        """
        whole = config.model_dump(mode="json")
        for where_and_how in ("root", "source", "label", "workers", "download"):
            whole["data"].pop(where_and_how)
        wanted = (*self.sections, *(("data",) if self.uses_data else ()))
        return {section: whole[section] for section in dict.fromkeys(wanted)}

    def external(self, config: Config) -> dict[str, str]:
        """sha256 of files outside the run that the result depends on, by a name for people."""
        return {}

    def run(self, ctx: StageContext) -> dict[str, Any]:
        """Do the work: write every file of `kinds_of(self.name)` into `ctx.out`.

        Returns:
            a few JSON-able numbers for the terminal and the manifest.
        """
        raise NotImplementedError


Placed = PlacedStage[Stage]
"""A stage at its place in a run: what planner and runner work on."""
