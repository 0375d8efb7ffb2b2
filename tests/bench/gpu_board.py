"""Jobs side by side, those that are timed alone at the end, and gpu.json of what they left."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parents[1]
TICK = 1.0  # seconds between two looks at the jobs
# torch asks the driver itself whether there is a GPU, and a fork of a process that did has none
WITHOUT_CUDA_IN_PARENTS = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


@dataclass
class Job:
    """One process.

    Attributes:
        heavy: takes a good part of the GPU. rank: smaller begins earlier.
        alone: begins when all others have ended, for what is timed.
        needs: files without which it is left out.
    """

    name: str
    command: list[str]
    rank: int
    heavy: bool = True
    alone: bool = False
    threads: int = 1
    needs: tuple[Path, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


class Board:
    """The jobs, those that run, and gpu.json.

    Args:
        heavy: jobs on the GPU at a time. all: jobs at a time.
    """

    def __init__(self, out: Path, jobs: list[Job], heavy: int, most: int) -> None:
        self.out, self.waiting, self.heavy, self.most = out, list(jobs), heavy, most
        self.running: list[Job] = []
        self.ended: list[Job] = []
        self.began = time.monotonic()
        for name in ("logs", "rows", "runs"):
            (out / name).mkdir(parents=True, exist_ok=True)

    def run(self, seconds: float, alone: float = 0.0) -> None:
        """Until all are done, or for so long; the last `alone` seconds belong to jobs that run
        alone.
        """
        last = [job for job in self.waiting if job.alone]
        self.waiting = [job for job in self.waiting if not job.alone]
        self._run(seconds - (alone if last else 0.0))
        left_out, self.waiting = self.waiting, last
        self._run(seconds)
        self.waiting += left_out
        self.write()

    def _run(self, seconds: float) -> None:
        while (self.waiting or self.running) and time.monotonic() - self.began < seconds:
            self._start()
            time.sleep(TICK)
            for job in list(self.running):
                if job.process and (code := job.process.poll()) is not None:
                    self._finish(job, "failed" if code else "done")
            self.write()
        for stop in (signal.SIGTERM, signal.SIGKILL):
            self._signal(stop)
        for job in list(self.running):
            self._finish(job, "cut off")
        self.write()

    def _start(self) -> None:
        for job in list(self.waiting):
            missing = [str(path) for path in job.needs if not path.exists()]
            if missing:
                self.waiting.remove(job)
                job.facts = {"status": "left out", "missing": missing}
                self.ended.append(job)
                continue
            heavy = sum(one.heavy for one in self.running)
            if len(self.running) >= self.most or (job.heavy and heavy >= self.heavy):
                continue
            self.waiting.remove(job)
            job.began = time.monotonic()
            log = (self.out / "logs" / f"{job.name}.log").open("wb")
            threads = str(job.threads)
            job.process = subprocess.Popen(
                job.command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True,
                env={**os.environ, **WITHOUT_CUDA_IN_PARENTS, "OMP_NUM_THREADS": threads,
                     "PYTHONPATH": _python_path()},
            )  # fmt: skip
            self.running.append(job)

    def _signal(self, number: signal.Signals) -> None:
        for job in self.running:
            if job.process and job.process.poll() is None:
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(job.process.pid, number)
        until = time.monotonic() + 8
        while time.monotonic() < until and any(
            job.process and job.process.poll() is None for job in self.running
        ):
            time.sleep(0.2)

    def _finish(self, job: Job, status: str) -> None:
        self.running.remove(job)
        code = job.process.poll() if job.process else None
        job.facts = {
            "status": status, "exit_code": code, "seconds": round(time.monotonic() - job.began, 1)
        }  # fmt: skip
        self.ended.append(job)
        print(f"{time.monotonic() - self.began:6.1f} s  {job.name}: {status}", flush=True)

    def write(self) -> None:
        """What there is, whole at any time."""
        rows = {}
        for path in sorted((self.out / "rows").glob("*.json")):
            try:
                rows[path.stem] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:  # being written
                continue
        jobs = {job.name: job.facts for job in self.ended}
        jobs |= {job.name: {"status": "running"} for job in self.running}
        jobs |= {job.name: {"status": "waiting"} for job in self.waiting}
        document = {
            "kind": "gpu", "schema_version": 1, "environment": environment(), "jobs": jobs,
            "seconds": round(time.monotonic() - self.began, 1), "rows": rows,
        }  # fmt: skip
        passing = self.out / "gpu.part"
        passing.write_text(json.dumps(document, indent=1), encoding="utf-8")
        os.replace(passing, self.out / "gpu.json")


@cache
def environment() -> dict[str, Any]:
    there = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if there else None,
        "cores": len(os.sched_getaffinity(0)),
    }


def _python_path() -> str:
    before = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (str(ROOT), str(BENCH), before) if part)
