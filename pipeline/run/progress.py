"""How far a stage is, for who looks at the run from outside: one small file in its scratch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError
from pipeline.run import store
from pipeline.run.artifacts import TRIALS
from pipeline.run.scratch import PROGRESS, recorded_needs, scratch_folder
from pipeline.run.stage import Reporter
from pipeline.run.step import Step

_FILE, _CHECKPOINT = PROGRESS, "checkpoint.json"
_EVERY_S = 1.0  # rarely enough to cost nothing


@dataclass
class ProgressFile:
    """A Reporter that also writes the progress of a stage into its scratch folder.

    Nothing depends on the file: it is not synced, and a disk that refuses it stops no stage.
    """

    work: Path
    reporter: Reporter
    written: float = float("-inf")

    def progress(self, done: int, total: int, **fields: Any) -> None:
        self.reporter.progress(done, total, **fields)
        if done < total and time.monotonic() - self.written < _EVERY_S:
            return
        self.written = time.monotonic()
        body = {"done": done, "total": total, "what": str(fields.get("what", ""))}
        fresh = self.work / f".{_FILE}.tmp"
        with suppress(OSError):
            fresh.unlink(missing_ok=True)  # a link in its place would be written through
            with open(fresh, "x", encoding="utf-8") as file:
                json.dump(body, file)
            os.replace(fresh, self.work / _FILE)

    def note(self, text: str) -> None:
        self.reporter.note(text)

    def warn(self, text: str) -> None:
        self.reporter.warn(text)


@dataclass(frozen=True)
class Unfinished:
    """A stage that was begun and has not been committed.

    Attributes:
        pid: of the process that works on it now; None where nobody does.
        done: of `total` units of `what`: done so far, or what is kept; None where nothing is known
            or everything starts over.
    """

    pid: int | None
    done: int | None = None
    total: int | None = None
    what: str = ""

    def __str__(self) -> str:
        far = "" if self.done is None else f"{self.done:,}/{self.total:,} {self.what}".rstrip()
        if self.pid is not None:
            return f"running ({self.pid})" + (f", {far}" if far else "")
        return f"unfinished, resumes at {far}" if far else "unfinished, starts over"


def unfinished(run: Path, step: Step, pid: int | None) -> Unfinished | None:
    """How far a planned stage is; None where it was not begun, or for something else.

    Args:
        pid: of the process that holds the run.
    """
    work = scratch_folder(run, step.stage)
    if step.action == "reuse" or step.needs is None or not _holds(work, step):
        return None
    return Unfinished(pid, **((_last(work) if pid is not None else _kept(work)) or {}))


def first_lost(
    run: Path, steps: Sequence[Step], forced: Collection[str] = frozenset()
) -> Step | None:
    """The first stage that would replace a result, or throw away the checkpoint of another one.

    Args:
        forced: names of stages that are to be re-made whatever they are of.
    """
    again = [step for step in steps if step.action == "run" and step.stage.name not in forced]
    return next((s for s in again if s.manifest is not None or _loses(run, s)), None)


def _loses(run: Path, step: Step) -> bool:
    work = scratch_folder(run, step.stage)
    return step.needs is not None and _kept(work) is not None and not _holds(work, step)


def _holds(work: Path, step: Step) -> bool:
    """Whether the scratch is of this very stage, as far as a plan knows what it needs."""
    found = recorded_needs(work)
    wanted = json.loads(store.dump_json(step.needs.__dict__)) if step.needs else {}
    unknown = {key for key in ("data", "external") if not wanted.get(key)}
    return bool(found) and all(
        found.get(key) == value for key, value in wanted.items() if key not in unknown
    )


def _last(work: Path) -> dict[str, Any] | None:
    """What the stage last said; None where it said nothing yet."""
    with suppress(ArtifactError, KeyError, TypeError, ValueError):
        found = store.read_json(work / _FILE, max_bytes=1 << 16)
        numbers = {key: int(found[key]) for key in ("done", "total")}
        return {**numbers, "what": str(found["what"])}
    return None


def _kept(work: Path) -> dict[str, Any] | None:
    """The same of what would not be done again; None where everything would."""
    last = _last(work)
    if last is None or (work / TRIALS.file).is_file():  # there every trial is on disk at once
        return last
    with suppress(ArtifactError, KeyError, TypeError, ValueError):
        record = store.read_json(work / _CHECKPOINT, max_bytes=16 << 20)
        return {**last, "done": int(record["progress"]["step"])}
    return None
