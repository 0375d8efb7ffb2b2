"""Two ONNX files, one question: which is faster here, by how much, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.run.store import sha256_file
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker, require_provider
from stages.benchmark.intervals import Ratio, percentiles, ratio_intervals, variation, verdict
from stages.benchmark.placement import check_placement
from stages.benchmark.protocol import ProgressCallback, Protocol, Samples, Setting, measure


@dataclass(frozen=True)
class Variant:
    """One file at one setting.

    Attributes:
        latency_ms: p50, p90 and p99 of a call; None where there are too few samples for one.
        runs: calls timed.
        cv: standard deviation over mean of the calls.
        denormal_weights: weights that are not zero and below the smallest normal number.
    """

    file: str
    sha256: str
    bytes: int
    latency_ms: dict[str, float | None]
    runs: int
    cv: float
    images_per_s: float
    denormal_weights: int


@dataclass(frozen=True)
class Comparison:
    """A against B at one setting.

    Attributes:
        ratio: time of A ÷ time of B, so above 1 B is faster; `ci95` is its interval.
        aa_ratio, aa_ci95: those of the control, A against another process of A, same rounds.
        verdict: "faster", "slower" or "no difference shown", of B.
        copies_ms: copies to and from the device, apart from the calls.
        flushed: the same with denormals treated as zero, where a file has any.
        fallback_nodes: heavy nodes that the provider left to the CPU.
    """

    provider: str
    batch: int
    threads: int
    static_batch: bool
    verdict: str
    ratio: float
    ci95: tuple[float, float]
    aa_ratio: float
    aa_ci95: tuple[float, float]
    a: Variant
    b: Variant
    rounds: int
    launches: int
    cores: tuple[int, ...]
    warm_stable: bool
    seconds: float
    copies_ms: dict[str, float] | None = None
    flushed: dict[str, Any] | None = None
    fallback_nodes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: a row of `benchmark.json`."""
        row = asdict(self)
        for key in ("ci95", "aa_ci95", "cores", "fallback_nodes"):
            row[key] = list(row[key])
        return row


def compare(
    base_onnx: Path | str,
    other_onnx: Path | str,
    *,
    provider: str = CPU,
    batch: int = 1,
    threads: int = 1,
    static_batch: bool = False,
    protocol: Protocol | None = None,
    input_shape: Sequence[int] | None = None,
    allow_fallback: bool = False,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Time two files in turn, each in its own process, and the first against itself as a control.

    Args:
        provider: execution provider, short or long name; must run every convolution.
        batch, threads: images a call; intra-op threads, 0 for all cores.
        static_batch: fix the batch dimension in the graph before optimisation.
        input_shape: sizes after the batch, for files that leave them open.
        allow_fallback: go on where the provider leaves heavy nodes to the CPU.
        progress: called with (launches done, launches in all); what it raises ends the measurement.
    Raises:
        ArtifactError: a file cannot be opened, or kills the runtime.
        EnvironmentProblem: the provider is absent, or leaves heavy nodes to the CPU.
    """
    setting = Setting(provider, batch, threads, static_batch)
    (found,) = compare_settings(
        base_onnx,
        other_onnx,
        [setting],
        protocol=protocol,
        input_shape=input_shape,
        allow_fallback=allow_fallback,
        progress=progress,
    )
    return found


def compare_settings(
    base_onnx: Path | str,
    other_onnx: Path | str,
    settings: Sequence[Setting],
    *,
    protocol: Protocol | None = None,
    input_shape: Sequence[int] | None = None,
    allow_fallback: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Comparison]:
    """`compare` at several settings, which share the processes."""
    protocol = protocol or Protocol()
    a, b = Path(base_onnx), Path(other_onnx)
    facts = [_facts(a, settings), _facts(b, settings)]
    fallback = {
        name: tuple(
            node
            for file in (a, b)
            for node in check_placement(file, name, allow_fallback, input_shape)
        )
        # the CPU is what others fall back to
        for name in {find_provider(setting.provider).name for setting in settings} - {CPU}
    }
    found = measure(a, b, settings, protocol, input_shape=input_shape, progress=progress)
    flushed = _flushed(a, b, settings, protocol, facts, input_shape)
    return [
        _comparison(setting, samples, facts, fallback, flushed[index])
        for index, (setting, samples) in enumerate(zip(settings, found, strict=True))
    ]


def _facts(path: Path, settings: Sequence[Setting]) -> dict[str, Any]:
    """What `Variant` says of the file itself; refuses a provider that is not there."""
    digest = sha256_file(path)  # before it is timed: what changes meanwhile is another file
    with Worker() as worker:
        for setting in settings:
            require_provider(worker, find_provider(setting.provider).name)
        scan = worker.scan(path)
    return {
        "file": str(path),
        "sha256": digest,
        "bytes": path.stat().st_size,
        "denormal_weights": scan["denormals"],
    }


def _flushed(
    a: Path,
    b: Path,
    settings: Sequence[Setting],
    protocol: Protocol,
    facts: Sequence[dict[str, Any]],
    input_shape: Sequence[int] | None,
) -> list[dict[str, Any] | None]:
    """The same comparison with denormals treated as zero, when either file has some."""
    if not any(fact["denormal_weights"] for fact in facts):
        return [None] * len(settings)
    found = measure(a, b, settings, protocol, input_shape=input_shape, flush_denormals=True)
    return [_flushed_row(samples) for samples in found]


def _flushed_row(samples: Samples) -> dict[str, Any]:
    ratio, control = ratio_intervals(samples.ratios, samples.control)
    return {
        "verdict": verdict(ratio, control),
        "ratio": ratio.value,
        "ci95": [ratio.low, ratio.high],
        "a_p50_ms": percentiles(samples.calls[0])["p50"],
        "b_p50_ms": percentiles(samples.calls[1])["p50"],
    }


def _comparison(
    setting: Setting,
    samples: Samples,
    facts: Sequence[dict[str, Any]],
    fallback: dict[str, tuple[str, ...]],
    flushed: dict[str, Any] | None,
) -> Comparison:
    ratio, control = ratio_intervals(samples.ratios, samples.control)
    provider = find_provider(setting.provider).name
    return Comparison(
        provider=provider,
        batch=setting.batch,
        threads=samples.threads,
        static_batch=setting.static_batch,
        verdict=verdict(ratio, control),
        ratio=ratio.value,
        ci95=_pair(ratio),
        aa_ratio=control.value,
        aa_ci95=_pair(control),
        a=_variant(facts[0], samples.calls[0], setting.batch),
        b=_variant(facts[1], samples.calls[1], setting.batch),
        rounds=sum(len(launch) for launch in samples.ratios),
        launches=len(samples.ratios),
        cores=tuple(samples.cores),
        warm_stable=samples.warm_stable,
        seconds=samples.seconds,
        copies_ms=samples.copies_ms,
        flushed=flushed,
        fallback_nodes=fallback.get(provider, ()),
    )


def _variant(facts: dict[str, Any], calls: list[int], batch: int) -> Variant:
    times = percentiles(calls)
    middle = times["p50"]
    assert middle is not None
    return Variant(
        **facts,
        latency_ms=times,
        runs=len(calls),
        cv=variation(calls),
        images_per_s=1000.0 * batch / middle,
    )


def _pair(ratio: Ratio) -> tuple[float, float]:
    return ratio.low, ratio.high
