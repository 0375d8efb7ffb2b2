"""The channel multiple of this machine, measured once and kept.

`~/.cache/rlp/alignment/<machine>-<provider>-<threads>t.json`, for INT8 `…t-int8.json`: the key is
the fingerprint of processor, limits and versions, so that another runtime is measured anew. The
file carries its own hash; a damaged one, or one of another machine, is measured again. Without a
folder to write to, nothing is kept and nothing fails.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import RlpError
from pipeline.run.documents import Sealed
from pipeline.run.variants import FP32
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker, require_provider
from pipeline.system import cache_folder
from stages.benchmark.alignment import Alignment, measure_alignment
from stages.benchmark.fingerprint import fingerprint, resolve_threads

_ALIGNMENT = Sealed("alignment", "", (), 1 << 20, "the channel multiple of a machine")
# whatever reading a file may raise that is damaged, half-written or of another version
_UNUSABLE = (RlpError, OSError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError)


def cached_alignment(
    *,
    precision: str = FP32,
    provider: str = CPU,
    threads: int = 1,
    refresh: bool = False,
    before: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] | None = None,
    measure: Callable[..., Alignment] = measure_alignment,
) -> tuple[Alignment, bool]:
    """The alignment that pays here, measured unless it is known; and whether it was known.

    Args:
        precision: "fp32" or "int8".
        refresh: measure again, and keep that.
        before: called when something is to be measured.
        progress: called with (convolutions timed, all of them).
        measure: what measures (`measure_alignment`).
    Raises:
        EnvironmentProblem: this onnxruntime lacks the provider.
    """
    name, count = find_provider(provider).name, resolve_threads(threads)
    known = None
    if not refresh:
        known = known_alignment(precision=precision, provider=name, threads=count)
    if known is not None:
        return known, True
    with Worker() as worker:
        require_provider(worker, name)
    before()
    found = measure(precision=precision, provider=name, threads=count, progress=progress)
    _keep(found, _path(found.machine, name, count, precision))
    return found, False


def known_alignment(
    *, precision: str = FP32, provider: str = CPU, threads: int = 1
) -> Alignment | None:
    """What was measured here before; None where nothing was, or the file is not to be trusted."""
    name, count = find_provider(provider).name, resolve_threads(threads)
    machine = fingerprint()["id"]
    path = _path(machine, name, count, precision)
    if path is None:
        return None
    try:
        kept = _ALIGNMENT.read(path)
        found = Alignment.from_dict(kept["alignment"])
    except _UNUSABLE:
        return None
    of = (found.machine, found.provider, found.threads, found.precision)
    same = of == (machine, name, count, precision)
    return found if same else None  # a file may have been copied here under this machine's name


def _keep(found: Alignment, path: Path | None) -> None:
    if path is None:
        return
    with contextlib.suppress(RlpError, OSError):  # a full disk costs five seconds next time
        path.parent.mkdir(parents=True, exist_ok=True)
        _ALIGNMENT.write(path, {"alignment": found.to_dict()})


def _path(machine: str, provider: str, threads: int, precision: str) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    of = f"{machine}-{find_provider(provider).short}-{threads}t"
    suffix = "" if precision == FP32 else f"-{precision}"
    return folder / "alignment" / f"{of}{suffix}.json"
