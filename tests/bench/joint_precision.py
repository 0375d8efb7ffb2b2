"""What searching in INT8 buys: plans searched with `search.precision` fp32 and int8, delivered in
INT8 either way, at equal accuracy.

    python -P tests/bench/joint_precision.py CONFIG [--set KEY=VALUE]... [--seeds 3]
        [--budgets fp32=0.34 int8=0.24,0.20] [--out DIR] [--seconds 2]

Every plan is a run of its own, without training, until `quantize`; finished ones are taken as they
are when the command is typed again. Budgets are shares of the original's latency in fp32, of which
INT8 takes less, hence two lists. All files of a seed are timed in the same rounds. Accuracy is of
INT8 on the search split. At the accuracy of each plan searched in fp32 that lies between two
searched in INT8, the time of the latter is interpolated (its logarithm, linearly in the accuracy);
the first budgets of both lists, meant to be about as fast, are compared as they are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from stages.benchmark import Protocol, Setting, fingerprint, time_files  # noqa: E402


@dataclass(frozen=True)
class Point:
    """A plan delivered in INT8: `ms` at batch 1 on one thread, `speed` against the original."""

    precision: str
    budget: float
    accuracy: float
    ms: float
    speed: float
    interval: tuple[float, float]


def run(config: str, sets: list[str], folder: Path) -> Path:
    """The run's folder, its stages until `quantize` done."""
    command = [
        sys.executable,
        "-m",
        "rlp_main",
        "pipeline",
        "run",
        config,
        "--run-dir",
        str(folder),
    ]
    for one in sets:
        command += ["--set", one]
    done = subprocess.run(
        [*command, "--until", "quantize"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr or done.stdout)
    return folder


def points(
    config: str,
    given: list[str],
    seed: int,
    budgets: dict[str, list[float]],
    out: Path,
    seconds: float,
) -> list[Point]:
    """All plans of a seed, timed in the same rounds."""
    names, files, accuracies = [], [], []
    for precision, shares in budgets.items():
        for share in shares:
            sets = [*given, f"seed={seed}", f"search.precision={precision}", "distill.epochs=0"]
            sets += [f"search.budget={{latency: {share}}}", "quantize.mode=int8"]
            folder = run(config, sets, out / f"seed{seed}-{precision}-{share}") / "quantize"
            document = json.loads((folder / "quantize.json").read_text())
            names.append((precision, share))
            files.append(folder / document["file"]["name"])
            accuracies.append(document["accuracy"]["int8"])
    base = files[0].parents[1] / "export" / "base.onnx"
    timed = time_files([base, *files], [Setting()], protocol=Protocol(min_seconds=seconds))
    found = []
    for place, (name, accuracy) in enumerate(zip(names, accuracies, strict=True), start=1):
        (one,) = timed.between(0, place)
        found.append(Point(*name, accuracy, one.b.latency_ms["p50"] or 0.0, one.ratio, one.ci95))
    return found


def gains(found: list[Point]) -> list[float]:
    """Time of plans searched in fp32 over that of plans of INT8, at equal accuracy."""
    int8 = sorted((p.accuracy, math.log(p.speed)) for p in found if p.precision == "int8")
    ratios = []
    for point in found:
        if point.precision == "fp32":
            for (low, slow), (high, fast) in itertools.pairwise(int8):
                if low <= point.accuracy <= high:
                    share = (point.accuracy - low) / (high - low) if high > low else 0.5
                    ratios.append(math.exp(slow + share * (fast - slow)) / point.speed)
                    break
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", nargs=2, default=["fp32=0.34", "int8=0.24,0.20"])
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "joint_precision")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each file")
    given = parser.parse_args()
    budgets = {
        name: [float(share) for share in shares.split(",")]
        for name, _, shares in (one.partition("=") for one in given.budgets)
    }
    print(fingerprint().get("cpu"))
    every, firsts = [], []
    for seed in range(given.seeds):
        found = points(given.config, given.set, seed, budgets, given.out, given.seconds)
        for p in found:
            low, high = p.interval
            print(
                f"seed {seed}  {p.precision}  {p.budget:.3f}  INT8 {p.accuracy:.2%}  {p.ms:.3f} ms "
                f" {p.speed:.2f}× ({low:.2f}–{high:.2f})"
            )
        every += gains(found)
        one, other = (next(p for p in found if p.precision == name) for name in ("fp32", "int8"))
        firsts.append((100 * (other.accuracy - one.accuracy), other.speed / one.speed))
        print(flush=True)
    spoken("speed gained at equal accuracy, times", every)
    spoken("first budgets: INT8 accuracy gained, points", [points for points, _ in firsts])
    spoken("first budgets: speed gained, times", [speed for _, speed in firsts])


def spoken(what: str, values: list[float]) -> None:
    """Mean ± standard deviation of them."""
    if values:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{what}: {statistics.mean(values):.3f} ± {spread:.3f} (n = {len(values)})")


if __name__ == "__main__":
    main()
