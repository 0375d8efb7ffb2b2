"""Random SIGKILLs over a real small run with search workers: resumed, it is the run that was not.

    python tests/bench/kills.py [--kills 20] [--seed 0] [--dir DIR]

Runs the chain on a few made-up images up to distill, `search.workers: 2`, once undisturbed; then
again and again, killed after a random share of that time: the whole process group, or the parent
alone, whose children must be gone 5 s later. A killed run is typed again until it ends, in the same
folder, and its plan and weights must be those of the first; then its stages from search on are made
anew. Prints one line a kill and the figures; ends with 1 if anything differed or was left over.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1])]

import test_chain  # noqa: E402

GONE_S = 5.0
RESULTS = ("search/plan.json", "prune/model.safetensors", "distill/model.safetensors")


def prepare(home: Path) -> list[str]:
    """Images, network and config in `home`; the command that runs them, but for its folder."""
    test_chain.make_images(home / "images")
    (home / "my_nets.py").write_text(test_chain.NETS)
    config = test_chain.CONFIG.replace("ROOT", str(home / "images"))
    (home / "my.yaml").write_text(config.replace("distill: {epochs: 4", "distill: {epochs: 2"))
    code = f"import sys; sys.path.insert(0, {str(HERE.parents[2])!r}); import pipeline.cli as c; "
    command = ["pipeline", "run", str(home / "my.yaml"), "--until", "distill", "--quiet"]
    sets = ["--set", "search.workers=2", "--set", "search.trials=12"]
    return [sys.executable, "-P", "-c", code + "c.main()", *command, *sets]


def start(command: list[str], run: Path) -> subprocess.Popen[bytes]:
    # a session of its own, so that what it leaves behind is found by it
    return subprocess.Popen([*command, "--run-dir", str(run)], start_new_session=True)


def members(session: int) -> list[int]:
    """Processes of a session that still live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def results(run: Path) -> dict[str, str]:
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in RESULTS}


def kill(process: subprocess.Popen[bytes], whole: bool) -> list[int]:
    """SIGKILL for the group or the parent; what of the session lives `GONE_S` later."""
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + GONE_S
    while (left := members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def campaign(command: list[str], home: Path, kills: int, chance: random.Random) -> Counter[str]:
    """Figures of so many kills."""
    whole, run, figures = home / "whole", home / "run", Counter[str]()
    began = time.monotonic()
    assert start(command, whole).wait() == 0
    took, expected = time.monotonic() - began, results(whole)
    print(f"undisturbed: {took:.1f} s", flush=True)
    while figures["kills"] < kills:
        process, group = start(command, run), chance.random() < 0.5
        try:
            code = process.wait(timeout=chance.uniform(0, took))
        except subprocess.TimeoutExpired:
            left = kill(process, group)
            figures["kills"] += 1
            figures["kills of the parent alone"] += not group
            figures["processes left"] += len(left)
            print(f"{figures['kills']}: {'group' if group else 'parent'}; left {left}", flush=True)
            continue
        figures["ends with another code"] += code != 0
        figures["ends"] += 1
        figures["ends that differ"] += results(run) != expected
        for stage in RESULTS[chance.randrange(3) :] if chance.random() < 0.8 else ("pretrain/",):
            shutil.rmtree(run / stage.partition("/")[0], ignore_errors=True)
    assert start(command, run).wait() == 0
    figures["ends"] += 1
    figures["ends that differ"] += results(run) != expected
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", type=Path, help="where to work; a temporary folder when absent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlp-kills-", dir=options.dir) as folder:
        home = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        figures = campaign(prepare(home), home, options.kills, random.Random(options.seed))
    print(", ".join(f"{name}: {count}" for name, count in figures.items()))
    wrong = ("processes left", "ends with another code", "ends that differ")
    return 1 if any(figures[name] for name in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
