"""Decide for each stage: reuse it, run it, or say what blocks it; always with the reason.
Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import ArtifactError, Hint, UsageError
from pipeline.run.artifacts import KINDS
from pipeline.run.going_back import Tried
from pipeline.run.manifest import (
    Dependencies,
    HashCache,
    counted,
    damaged_outputs,
    read_manifest,
)
from pipeline.run.rounds import PlacedStage, is_of_round
from pipeline.run.step import Action, Step


@dataclass(frozen=True)
class Selection:
    """Which stages a command is about: `first` to `last`, of which `force` are run even when
    fresh.
    """

    first: str | None = None
    last: str | None = None
    force: frozenset[str] = frozenset()

    @staticmethod
    def of(
        stages: Sequence[PlacedStage], first: str | None, last: str | None, force: str | None
    ) -> Selection:
        """Check the names.

        Raises:
            UsageError: no such stage, or `last` before `first`.
        """
        names = [stage.name for stage in stages]
        for name in (first, last, None if force == "all" else force):
            if name is not None and name not in names:
                more = (
                    ""
                    if any("/" in known for known in names)
                    else "; earlier rounds need rounds: 2 or more"
                )
                hint = "the stages are " + ", ".join(names) + (more if is_of_round(name) else "")
                raise UsageError(f"no stage is called {name}", hint=hint)
        if first and last and names.index(last) < names.index(first):
            raise UsageError(
                f"--until {last} comes before --from {first}",
                hint="the order is " + ", ".join(names),
            )
        low = names.index(first) if first else 0
        high = names.index(last) if last else len(names) - 1
        if force not in (None, "all") and not low <= names.index(force) <= high:
            raise UsageError(
                f"--force={force} is outside {names[low]} … {names[high]}",
                hint="widen --from or --until, or drop it",
            )
        forced = names[low : high + 1] if force == "all" else [force] if force else []
        return Selection(first, last, frozenset(forced))

    def covers(self, names: Sequence[str], name: str) -> bool:
        index = names.index(name)
        return (self.first is None or index >= names.index(self.first)) and (
            self.last is None or index <= names.index(self.last)
        )


EVERYTHING = Selection()


@dataclass
class Planner:
    """Plans a run folder against a config.

    `data_sha256` is the content hash of the images; None means "take what the manifests recorded",
    for commands that must work where the images are not.
    """

    stages: Sequence[PlacedStage]
    config: Config
    run: Path
    data_sha256: str | None = None
    outside: bool = True
    _external: dict[str, dict[str, str]] = field(default_factory=dict)
    hashes: HashCache = field(default_factory=HashCache)

    def __post_init__(self) -> None:
        self.config = Tried.read(self.stages, self.config, self.run).settled(self.config)

    def plan(self, selection: Selection = EVERYTHING) -> list[Step]:
        """One step a stage, in order."""
        names = [stage.name for stage in self.stages]
        made: dict[str, Mapping[str, Any]] = {}
        steps: list[Step] = []
        for stage in self.stages:
            step = self._step(
                stage,
                made,
                {s.stage.name: s for s in steps},
                selection,
                selection.covers(names, stage.name),
            )
            # of any other, the bytes are not known yet
            if step.action == "reuse" and step.manifest is not None:
                made[stage.name] = step.manifest
            steps.append(step)
        return steps

    def _step(
        self,
        stage: PlacedStage,
        made: Mapping[str, Mapping[str, Any]],
        earlier: Mapping[str, Step],
        selection: Selection,
        chosen: bool,
    ) -> Step:
        manifest, damage = self._found(stage)
        forced = stage.name in selection.force
        if "changed" in damage and chosen and not forced:
            again = Hint.rerun(stage.name, self.run)
            return Step(stage, "blocked", damage["changed"], None, manifest, again)
        makers = {source.place for source in stage.input_sources.values()}
        waiting = [s.name for s in self.stages if s.name in makers and s.name not in made]
        verb: Action = "run" if chosen else "skip"
        if waiting:
            upstream = earlier[waiting[0]]
            if upstream.action in ("blocked", "skip"):
                root = earlier[upstream.blocked_by or upstream.stage.name]
                return self._blocked_by(upstream, root, stage, manifest, chosen)
            return Step(stage, verb, f"{waiting[0]} runs before it", None, manifest)
        needs = self.needs(stage, made, manifest)
        if damage:
            hint = Hint.rerun(stage.name, self.run) if "changed" in damage else ""
            return Step(stage, verb, next(iter(damage.values())), needs, None, hint)
        if manifest is None:
            return Step(stage, verb, "never run", needs)
        if forced:
            return Step(stage, "run", "forced", needs, manifest)
        changes = needs.differences(manifest, stage.depends(Config()))
        if changes:
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            return Step(stage, verb, ", ".join(changes[:3]) + more, needs, manifest)
        return Step(stage, "reuse", "fresh", needs, manifest)

    def _found(self, stage: PlacedStage) -> tuple[Mapping[str, Any] | None, dict[str, str]]:
        """The stage's manifest, where there is a sound one, and what is wrong with its files."""
        try:
            manifest = read_manifest(self.run, stage.name)
            if manifest is None:
                return None, {}
            return manifest, damaged_outputs(self.run, stage.name, manifest, self.hashes)
        except ArtifactError as error:
            return None, {"changed": error.message}

    def _blocked_by(
        self,
        upstream: Step,
        root: Step,
        stage: PlacedStage,
        manifest: Mapping[str, Any] | None,
        chosen: bool,
    ) -> Step:
        """The step of a stage that reads from `upstream`, which does not run because of `root`."""
        reason, name = f"needs {root.stage.name}: {root.reason}", upstream.stage.name
        comes_first = Hint.command("stage", name, "--run", str(self.run), says="comes first")
        verb: Action = "blocked" if chosen else "skip"
        hint = upstream.hint or comes_first
        return Step(stage, verb, reason, None, manifest, hint, root.stage.name)

    def needs(
        self,
        stage: PlacedStage,
        made: Mapping[str, Mapping[str, Any]],
        manifest: Mapping[str, Any] | None,
    ) -> Dependencies:
        """What `stage` depends on, given the manifests of the stages before it."""
        inputs = {}
        for place, kind in stage.input_sources.values():
            for name in KINDS[kind].files:
                if name in made[place]["outputs"]:  # one that is optional may not be there
                    inputs[f"{place}/{name}"] = counted(made[place]["outputs"][name])
        recorded = manifest or {"data": "", "external": {}}
        data = (
            (recorded["data"] if self.data_sha256 is None else self.data_sha256)
            if stage.stage.uses_data
            else ""
        )
        if not self.outside:  # where a run is only looked at, the weights may be elsewhere by now
            external = dict(recorded["external"])
        else:
            if stage.name not in self._external:  # hashed once a command: it may be a large file
                self._external[stage.name] = stage.stage.external(self.config)
            external = self._external[stage.name]
        return Dependencies(
            stage.name,
            stage.stage.version,
            self.config.seed,
            stage.depends(self.config),
            inputs,
            external,
            data,
        )
