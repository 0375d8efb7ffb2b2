"""What a stage sees while it works: the contract of `run(ctx)` in every `stages/NAME/stage.py`.

    def run(ctx: StageContext) -> dict[str, Any]:
        ...  # read ctx.input(kind), write into ctx.out, return a few numbers to show

What a stage reads and what its result depends on is declared in `stages/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.schema import Config
from pipeline.errors import ArtifactError, Hint, Interrupted
from pipeline.run import store
from pipeline.run.artifacts import KINDS, document
from pipeline.run.documents import Layout
from pipeline.run.rounds import ONLY_ROUND, Round, of_original, of_round


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
        depends: the part of the config that the result depends on.
        places: names of the stages that those folders belong to.
        run: the run's folder.
        manifests: of the stages before this one that are there, by their names.
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
    depends: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
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
        for name, expected in hashes.items():  # again: hours may lie between the plan and this read
            store.check_regular(folder / name, described.max_bytes)
            if store.sha256_file(folder / name) != expected:
                maker = self.places.get(kind, described.maker)
                raise ArtifactError(
                    f"{folder / name}: changed while the run was going on",
                    hint=Hint.rerun(maker, self.run),
                )
        files = described.files
        return folder / files[0] if len(files) == 1 else folder

    def optional(self, kind: str) -> Path | None:
        """The same of a kind that its maker may have left out; None where it did."""
        return self.input(kind) if self.inputs[kind][1] else None

    def read(self, kind: str) -> dict[str, Any]:
        """The verified JSON document of this kind."""
        return document(kind).read(self.input(kind))

    def read_original(self, kind: str) -> dict[str, Any]:
        """The same of the first round."""
        return document(kind).read(self.original(kind))

    def write(self, kind: str, body: Mapping[str, Any], layout: Layout | None = None) -> None:
        """Write the JSON document of this kind.

        Args:
            layout: how the document becomes text, where lines should be longer than usual.
        """
        described = document(kind)
        described.write(self.out / described.file, body, layout)

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
