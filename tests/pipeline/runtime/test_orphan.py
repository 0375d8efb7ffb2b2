"""Children end with a parent that was killed and could say nothing, busy as they may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from onnx_files import endless_loop

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")

ONNX_CHILD = """
import sys
from pathlib import Path
from pipeline.runtime.worker import Worker
worker = Worker()
worker.open(Path(sys.argv[1]), threads=1)
print(worker.pid, flush=True)
worker.feed(batch=1)
worker.slot(seconds=600.0, least=1)
"""
SEARCH_WORKERS = """
import blocking
from stages.search.evaluation.executor import Pool
if __name__ == "__main__":
    with Pool(blocking.block, 1) as pool:
        list(pool.run([(0, ())]))
"""
BLOCKING = """
import os, time
def block(counts, thresholds):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(600)
"""


def _killed_parent(script: Path, *arguments: object, children: int) -> list[int]:
    """Run `script` until it has printed the ids of its children, kill it; gives them."""
    parent = subprocess.Popen(
        [sys.executable, "-P", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), os.getcwd()])},
    )
    assert parent.stdout is not None
    found = [int(parent.stdout.readline()) for _ in range(children)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    return found


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _assert_they_end(children: list[int]) -> None:
    deadline = time.monotonic() + 60  # far more than it takes: this is no measurement
    while any(map(_lives, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in children if _lives(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_the_child_of_onnxruntime_ends_in_the_middle_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(ONNX_CHILD)
    model = endless_loop(tmp_path / "endless.onnx")
    _assert_they_end(_killed_parent(tmp_path / "parent.py", model, children=1))


def test_workers_of_a_search_end_in_the_middle_of_a_candidate(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(SEARCH_WORKERS)
    (tmp_path / "blocking.py").write_text(BLOCKING)
    _assert_they_end(_killed_parent(tmp_path / "parent.py", children=1))
