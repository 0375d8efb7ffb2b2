"""Whether a config would take over a run that another one made, and with it hours of training."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import ArtifactError, Command, Hint, UsageError
from pipeline.run.artifacts import RUN
from pipeline.run.step import Step


def run_folder(config_file: Path, artifacts: Path = Path("artifacts")) -> Path:
    """Where a config's run goes unless one says: `artifacts/<config name>`, with the name of its
    folder before it where that is a run of another config of this name.
    """
    name, place = config_file.stem, config_file.resolve()
    own = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    folders = [artifacts / one for one in (name, f"{place.parent.name}-{name}", f"{name}-{own}")]
    return next((one for one in folders if not _of_another(config_file, _record(one))), folders[-1])


def takeover(
    config_name: str,
    config: Config,
    run: Path,
    lost: Step | None,
) -> UsageError | None:
    """What refuses to re-make committed stages of a run for another config or network; None where
    nothing would be lost.

    Args:
        lost: a stage that would be re-made (`pipeline.run.progress.first_lost`).
    """
    if lost is None or not (why := _another(config_name, config, _record(run))):
        return None
    command = Command("pipeline", "run", config_name, "--run-dir", str(run), "--force")
    hint = Hint("--run-dir DIR gives this one a run of its own; ", command, " re-makes that one")
    name = lost.stage.name
    would = f"{name} would be re-made ({lost.reason})"
    if lost.manifest is None:
        would = f"the checkpoint of its unfinished {name} would be lost"
    return UsageError(f"{run}: {why}; {would}", hint=hint)


def _another(config_name: str, config: Config, record: dict[str, Any]) -> str:
    """In words, what a run is of that this config is not; empty where it is the same."""
    if _of_another(Path(config_name), record):
        return f"a run of another config, {record['config_name']}"
    known = record.get("config", {}).get("model", {})
    now = config.model.model_dump(mode="json")
    for key in ("source", "kwargs"):
        if known.get(key, now[key]) != now[key]:
            return f"a run of another network, model.{key} {known[key]} → {now[key]}"
    return ""


def _of_another(config_file: Path, record: dict[str, Any]) -> bool:
    """Whether a run was made by a config that is there, and is not this one: one that was moved
    is still the same.
    """
    made_by = Path(record.get("config_name", config_file))
    return made_by.exists() and made_by.resolve() != config_file.resolve()


def _record(run: Path) -> dict[str, Any]:
    """`run.json`; empty where there is none, or it is damaged."""
    with suppress(ArtifactError):
        return RUN.read(run / RUN.file)
    return {}
