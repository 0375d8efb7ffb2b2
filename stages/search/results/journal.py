"""`trials.jsonl`: one line a trial, on disk before the next one starts, so that a kill costs one
trial at most.

The first line says what the search is of; a journal of another search is not continued. A torn last
line, the mark of a kill in the middle of a write, is dropped and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.run.artifacts import TRIALS
from pipeline.run.store import append_bytes, parse_json, read_bytes, write_bytes
from stages.search.evaluation.trial import Outcome, Trial
from stages.search.latency.measurement import Measurement
from stages.search.space.candidate import Candidate, CountsKey

_LATENCY = "latency"


@dataclass
class Journal:
    """Open journal; `trials` holds what an interrupted search left.

    Attributes:
        path: the file.
        trials: by (phase, index).
        measured: latency measurements by counts, in the order they were made.
        torn: incomplete lines dropped, 0 or 1.
        foreign: whether a journal of another search was set aside.
    """

    path: Path
    trials: dict[tuple[str, int], Trial] = field(default_factory=dict)
    measured: dict[CountsKey, Measurement] = field(default_factory=dict)
    torn: int = 0
    foreign: bool = False

    @classmethod
    def open(cls, path: Path, header: Mapping[str, Any]) -> Journal:
        """Continue the journal at `path` if its first line is `header`, else begin it.

        Raises:
            ArtifactError: not a regular file, or too large.
            EnvironmentProblem: the disk said no.
        """
        journal, first = cls(path), _line(header)
        if path.exists() or path.is_symlink():  # a broken link is not overwritten but refused
            journal._recover(read_bytes(path, max_bytes=TRIALS.max_bytes), first)
        else:
            write_bytes(path, first)
        return journal

    def append(self, trial: Trial, costs: Mapping[str, float]) -> None:
        """Add one trial, durably."""
        candidate = trial.candidate
        body = {
            "phase": trial.phase,
            "trial": trial.index,
            "origin": candidate.proposed_as,
            "eligible": candidate.eligible,
            "kept": candidate.counts.tolist(),
            # for people: a search that goes on draws its own again
            "action": [round(float(value), 6) for value in candidate.action],
            **costs,
            "cached": trial.cached,
            **asdict(trial.outcome),
        }
        append_bytes(self.path, _line(body))

    def append_measurement(self, key: CountsKey, measurement: Measurement) -> None:
        """Add one latency measurement, durably."""
        body = {
            "phase": _LATENCY,
            "kept": list(key),
            "fraction": measurement.fraction,
            "seconds": measurement.seconds,
            "base_seconds": measurement.uncut_seconds,
            "remeasured": measurement.remeasured,
        }
        append_bytes(self.path, _line(body))

    def _recover(self, data: bytes, first: bytes) -> None:
        if not data.startswith(first):
            self.foreign = b"\n" in data
            write_bytes(self.path, first)
            return
        good = len(first)
        for line in data[good:].splitlines(keepends=True):
            try:
                self._take(line)
            except (ArtifactError, ArithmeticError, ValueError, KeyError, TypeError):
                self.torn += 1  # what follows a torn line was written by nobody
                break
            good += len(line)
        if good < len(data):
            write_bytes(self.path, data[:good])

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\n"):
            raise ValueError("torn")
        body = parse_json(line, self.path.name)
        if body["phase"] == _LATENCY:
            self.measured[tuple(body["kept"])] = _measurement(body)
        else:
            trial = _trial(body)
            self.trials[trial.phase, trial.index] = trial


def _line(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _measurement(body: Mapping[str, Any]) -> Measurement:
    fraction, seconds, uncut = (body[name] for name in ("fraction", "seconds", "base_seconds"))
    return Measurement(float(fraction), float(seconds), float(uncut), bool(body["remeasured"]))


def _trial(body: Mapping[str, Any]) -> Trial:
    candidate = Candidate(
        np.array(body["kept"], dtype=np.int64),
        np.array(body["action"], dtype=np.float64),
        body["origin"],
        body["eligible"],
    )
    values = {one.name: body[one.name] for one in fields(Outcome)}
    outcome = Outcome(**{**values, "rungs": tuple(body["rungs"])})
    return Trial(body["phase"], int(body["trial"]), candidate, outcome, bool(body["cached"]))
