"""A stage's scratch in a run: checkpoints, kept for as long as they fit what it is made from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.run import store
from pipeline.run.artifacts import RUN
from pipeline.run.inside import WORK, open_run
from pipeline.run.lock import OWN
from pipeline.run.manifest import Dependencies
from pipeline.run.rounds import PlacedStage

_NEEDS, PROGRESS = "needs.json", "progress.json"


def _scratch(stage: PlacedStage) -> tuple[list[str], str]:
    """Where a stage's scratch lies, beside its folder: `.work/search`, `round-1/.work/search`."""
    *outer, leaf = stage.name.split("/")
    return [*outer, WORK], leaf


def scratch_folder(run: Path, stage: PlacedStage) -> Path:
    """Where a stage's scratch lies, whether it is there or not."""
    outer, leaf = _scratch(stage)
    return run.joinpath(*outer, leaf)


def recorded_needs(folder: Path) -> dict[str, Any]:
    """What a scratch folder is of; empty where there is none."""
    with suppress(ArtifactError):
        found = store.read_json(folder / _NEEDS)
        return found if isinstance(found, dict) else {}
    return {}


def prepare_scratch(run: Path, stage: PlacedStage, needs: Dependencies) -> Path:
    """The stage's folder for checkpoints; emptied unless they were made for exactly these needs.

    Raises:
        ArtifactError: there is a link in its place.
        EnvironmentProblem: the disk said no.
    """
    key = store.dump_json(needs.__dict__)
    outer, leaf = _scratch(stage)
    path = scratch_folder(run, stage)
    marker = path / _NEEDS
    with store.disk_errors(path), open_run(run, *outer, make=True) as work:
        if not (work.has_folder(leaf) and _holds(marker, key)):
            work.remove(leaf)
            work.make(leaf)
            store.write_bytes(marker, key)
    return path


def _holds(path: Path, data: bytes) -> bool:
    """Whether there is a regular file of exactly these bytes."""
    try:
        return store.read_bytes(path, max_bytes=len(data)) == data
    except ArtifactError:
        return False


def drop_scratch(run: Path, stage: PlacedStage) -> None:
    """Remove it, if it is there."""
    outer, leaf = _scratch(stage)
    with suppress(FileNotFoundError), open_run(run, *outer) as work:
        work.remove(leaf)


def nothing_kept(run: Path) -> bool:
    """Whether no stage of the run was committed or has a checkpoint: all that there is says what
    was begun, and how far it came.
    """
    ours = {WORK, RUN.file, *OWN}
    kept = [path for path in run.iterdir() if path.name not in ours]
    kept += [p for p in (run / WORK).glob("*/*") if p.name not in (_NEEDS, PROGRESS)]
    return not kept
