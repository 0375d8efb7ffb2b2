"""Runs and timings of a comparison that is continued when the same command is typed again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.run.store import read_json, write_json
from stages.search.latency.measurement import Measurement
from stages.search.results.comparison import StrategyRun
from stages.search.space.candidate import CountsKey


class FinishedRuns:
    """What one comparison has found, in `compare-<what it is of>.json`.

    More seeds or strategies continue it; other settings begin another one, beside it.

    Args:
        folder: of such files.
        of: whatever the runs depend on, as plain JSON types.

    Attributes:
        table: where the entries of its loss table are kept, one line each.
        runs: by (strategy, seed).
        measured: latency measurements by counts, in the order they were made: a comparison that is
            continued needs the same latency table.
        start: what the original takes in INT8, as `StartTimer` keeps it; None where that was not
            timed.
    """

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()
        self.path, self.of = folder / f"compare-{digest[:12]}.json", of
        self.table = self.path.with_suffix(".table.jsonl")
        old = read_json(self.path) if self.path.exists() else {}
        rows = [_run(row) for row in old.get("runs", ())]
        self.runs = {(run.strategy, run.seed): run for run in rows}
        self.measured: dict[CountsKey, Measurement] = {
            tuple(row["kept"]): Measurement(*row["timing"]) for row in old.get("timed", ())
        }
        self.start: dict[str, float] | None = old.get("start")

    def add(self, run: StrategyRun) -> None:
        """Keep a run, also one that was kept before without its recovery."""
        if self.runs.get((run.strategy, run.seed)) != run:
            self.runs[run.strategy, run.seed] = run
            self._save()

    def add_measurement(self, key: CountsKey, measurement: Measurement) -> None:
        """Keep a timing."""
        self.measured[key] = measurement
        self._save()

    def keep_start(self, start: dict[str, float]) -> None:
        """Keep what the original takes."""
        self.start = start
        self._save()

    def _save(self) -> None:
        timed = [
            {"kept": list(key), "timing": list(asdict(one).values())}
            for key, one in self.measured.items()
        ]
        runs = [asdict(run) for run in self.runs.values()]
        document = {"of": self.of, "runs": runs, "timed": timed, "start": self.start}
        write_json(self.path, document)


def _run(row: dict[str, Any]) -> StrategyRun:
    course = tuple((int(at), float(when), float(score)) for at, when, score in row["course"])
    return StrategyRun(**{**row, "counts": tuple(row["counts"]), "course": course})
