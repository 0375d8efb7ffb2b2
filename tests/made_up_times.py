"""Times that take no time, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.benchmark import Setting
from stages.benchmark.protocol import Samples


def made_up_times(
    files: Sequence[Path | bytes], settings: Sequence[Setting], *args: Any, **kwargs: Any
) -> list[Samples]:
    """What `protocol.measure` gives, without a process for each file and the control."""
    rows = [[0.01 * round_ for _ in (*files, "control")] for round_ in range(3)]
    calls = [[1_000_000 + 1000 * call for call in range(100)] for _ in rows[0]]
    return [Samples(calls, [rows, rows], cores=[0]) for _ in settings]
