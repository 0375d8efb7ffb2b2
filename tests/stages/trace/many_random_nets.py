"""The property test of random networks on as many as you like, and a line on every failure.

    python -P tests/stages/trace/many_random_nets.py --count 2000 --first 0

The network of a number is the same on every machine; `--first N --count 1` makes it again.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2]), str(HERE)]

from random_nets import BLOCKS, Spec  # noqa: E402
from test_random_nets import check  # noqa: E402


def drawn(number: int) -> tuple[Spec, bool]:
    """Blocks of the network of this number, and whether its head reads a map."""
    source = random.Random(number)
    length = source.randint(1, 6)
    spec = [(source.choice(BLOCKS), source.randint(1, 4)) for _ in range(length)]
    return spec, source.random() < 0.5


def failure(number: int) -> str:
    """What is wrong with the network of this number; "" where nothing is."""
    spec, flat = drawn(number)
    try:
        check(spec, flat, number)
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())[:200] or line.line
        return f"{number} {spec} {flat}: {type(error).__name__} {line.name}:{line.lineno} {said}"
    return ""


def main() -> int:
    """Exit code 1 where a network failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    start, failures = time.monotonic(), 0
    for number in range(options.first, options.first + options.count):
        if said := failure(number):
            failures += 1
            print(said, flush=True)
    seconds = time.monotonic() - start
    print(f"{options.count} networks, {failures} failures, {seconds:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
