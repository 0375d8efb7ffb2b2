"""Mutated inputs for every reader: no input, however damaged or forged, may end in "a bug in rlp".

    python tests/bench/mutations.py [--seed 0] [--seconds 120] [--readers config,onnx] [--run RUN]

Each reader gets good inputs, changed at random, and is called as the command line calls it, in this
process. Every exit 70, every call of more than 60 s, and any exit code that is no contract is
printed with a number that repeats it: `--only READER:NUMBER`. Forged documents of a run have right
hashes, from the changed file up to run.json. Without --run a small run is made for the readers that
need one (minutes). Ends with 1 if anything was found. Nothing is kept. `mutated/` makes the inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
TESTS = HERE.parents[1]
sys.path[:0] = [str(path) for path in (
    HERE.parents[2], TESTS, TESTS / "pipeline/data", TESTS / "stages/benchmark"
)]  # fmt: skip
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from mutated import folders, graphs, images, models, run_files  # noqa: E402
from mutated.changes import Case  # noqa: E402

from pipeline.cli import main  # noqa: E402

LIMIT_S = 60
CODES = {0, 1, 2, 3, 4, 5}


class TooSlow(BaseException):
    """A call that took longer than LIMIT_S."""


class Home:
    """Where readers may make what they need, and a finished run, made when it is asked for."""

    def __init__(self, folder: Path, run: Path | None) -> None:
        self.folder, self._given = folder, run

    @cached_property
    def run(self) -> Path:
        return self._given or make_run(self.folder / "made")


READERS: dict[str, Callable[[Home], Case]] = {
    "config": lambda home: run_files.config_reader(),
    "damaged": lambda home: run_files.damaged_reader(home.run),
    "forged": lambda home: run_files.forged_reader(home.run),
    "safetensors": lambda home: models.weights_reader(".safetensors"),
    "pth": lambda home: models.weights_reader(".pth"),
    "onnx": lambda home: models.onnx_reader(home.run),
    "graphs": lambda home: graphs.graphs_reader(home.folder / "calibration"),
    "parquet": lambda home: images.images_reader("parquet", home.folder / "parquet"),
    "idx": lambda home: images.images_reader("idx", home.folder / "idx"),
    "cifar": lambda home: images.images_reader("cifar", home.folder / "cifar"),
    "folders": lambda home: images.images_reader("folders", home.folder / "folders"),
    "class-folders": lambda home: folders.class_folders_reader(),
}

INSIDE: dict[str, Callable[..., None]] = {
    "weights": models.load,
    "first-call": graphs.first_call,
    "scan": graphs.scan,
    "images-for": graphs.images_for,
    "prepare": graphs.prepare,
    "card": folders.card,
    "calibration": folders.calibration,
}
"""What a command does with a file before it begins to train or to time, by a name of its own."""


def call(arguments: list[str]) -> tuple[int, str]:
    """Exit code and what was said; TooSlow after LIMIT_S."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            _inside(*arguments) if arguments[0] in INSIDE else main(arguments)
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def _inside(name: str, *paths: str) -> None:
    """One of `INSIDE`, under the command line's funnel."""
    from pipeline.errors import RlpError

    try:
        INSIDE[name](*paths)
    except RlpError as error:
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        print(f"a bug in rlp: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(70) from error


def _slow(number: int, frame: Any) -> None:
    raise TooSlow


def make_run(home: Path) -> Path:
    """A finished run of the whole chain on a few made-up images, from beside its config."""
    import test_chain

    home.mkdir()
    test_chain.make_images(home / "images")
    (home / "my_nets.py").write_text(test_chain.NETS)
    config = test_chain.CONFIG.replace("ROOT", str(home / "images"))
    (home / "my.yaml").write_text(config.replace("epochs: 12", "epochs: 1"))
    code, said = call(["pipeline", "run", str(home / "my.yaml"), "--run-dir", str(home / "run")])
    assert code == 0, said
    return home / "run"


def one(case: Case, name: str, number: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Exit codes of one mutated input, and what was wrong."""
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rlp-mutation-") as folder:
        for arguments in case(random.Random(f"{seed} {name} {number}"), Path(folder)):
            began = time.monotonic()
            signal.alarm(LIMIT_S)
            try:
                code, said = call(arguments)
            except TooSlow:
                code, said = -1, f"took more than {LIMIT_S} s"
            finally:
                signal.alarm(0)
            codes[str(code)] += 1
            if code not in CODES:
                took = time.monotonic() - began
                wrong.append(f"{name}:{number} exit {code} in {took:.1f} s: rlp "
                             f"{' '.join(arguments)!a}\n    {said.strip()[:400]!a}")  # fmt: skip
    return codes, wrong


def run_all(options: argparse.Namespace, home: Home) -> int:
    """Every reader for its share of the time; 1 if anything was found."""
    for module in ("torch", "matplotlib.pyplot", "pipeline.data.load", "stages.report.page"):
        importlib.import_module(module)  # unhurried: the alarm would leave half of it
    names = [options.only.partition(":")[0]] if options.only else options.readers.split(",")
    found = 0
    for name in names:
        case, codes, began = READERS[name](home), Counter[str](), time.monotonic()
        numbers = [int(options.only.partition(":")[2])] if options.only else range(10**9)
        count = 0
        for number in numbers:
            if time.monotonic() - began > options.seconds / len(names):
                break
            one_codes, wrong = one(case, name, number, options.seed)
            codes += one_codes
            count += 1
            found += len(wrong)
            for line in wrong:
                print(line, flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        shown = ", ".join(f"exit {code}: {n}" for code, n in sorted(codes.items()))
        print(f"{name}: {count} inputs in {time.monotonic() - began:.0f} s; {shown}; "
              f"peak of the process so far {peak:,.0f} MB", flush=True)  # fmt: skip
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="for all readers together")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--run", type=Path, help="a finished run to forge; made when needed")
    parser.add_argument("--only", default="", help="READER:NUMBER, to repeat one input")
    return parser.parse_args()


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _slow)
    with tempfile.TemporaryDirectory(prefix="rlp-mutations-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        chosen = _options()
        ended = run_all(chosen, Home(Path(folder), chosen.run))
    sys.exit(ended)
