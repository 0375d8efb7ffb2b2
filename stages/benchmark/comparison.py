"""ONNX files and one question: which is faster here, by how much, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.run.store import sha256_file
from pipeline.runtime.feed import Given
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker, require_provider
from stages.benchmark.doubts import doubts
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """A against B at one setting.

    Attributes:
        ratio: time of A ÷ time of B, so above 1 B is faster; `ci95` is its interval.
        aa_ratio, aa_ci95: those of the control, A against another process of A, same rounds.
        verdict: "faster", "slower" or "no difference shown", of B.
        copies_ms: copies to and from the device, apart from the calls.
        flushed: the same with denormals treated as zero, where a file has any.
        doubts: signs that the machine was busy; none where it was quiet.
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
    doubts: tuple[str, ...] = ()
    fallback_nodes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: a row of `benchmark.json`."""
        row = asdict(self)
        for key in ("ci95", "aa_ci95", "cores", "doubts", "fallback_nodes"):
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
    input_shape: Given = None,
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
    input_shape: Given = None,
    allow_fallback: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Comparison]:
    """`compare` at several settings, which share the processes."""
    return time_files(
        [base_onnx, other_onnx],
        settings,
        protocol=protocol,
        input_shape=input_shape,
        allow_fallback=allow_fallback,
        progress=progress,
    ).between(0, 1)


@dataclass(frozen=True)
class TimedFiles:
    """Files timed in the same rounds, of which any two can be compared.

    Attributes:
        facts: of every file: its name, sha256, bytes, denormal weights and MACs of an image.
        samples, flushed: a setting each; `flushed` with denormals treated as zero, or None.
        fallback: by file, heavy nodes that a provider left to the CPU.
    """

    settings: tuple[Setting, ...]
    facts: tuple[dict[str, Any], ...]
    samples: tuple[Samples, ...]
    flushed: tuple[Samples, ...] | None
    fallback: tuple[dict[str, tuple[str, ...]], ...]

    def between(self, a: int, b: int) -> list[Comparison]:
        """File `b` against file `a`, both by number, at every setting.

        The control is always that of the first file.
        """
        return [self._comparison(a, b, index) for index in range(len(self.settings))]

    def alone(self, number: int) -> list[Variant]:
        """One file by itself, at every setting."""
        return [
            _variant(self.facts[number], samples.calls[number], setting.batch)
            for setting, samples in zip(self.settings, self.samples, strict=True)
        ]

    def _comparison(self, a: int, b: int, index: int) -> Comparison:
        setting, samples = self.settings[index], self.samples[index]
        ratio, control = ratio_intervals(samples.ratios(a, b), samples.control())
        provider = find_provider(setting.provider).name
        copies = samples.copies_ms
        sides = [_variant(self.facts[side], samples.calls[side], setting.batch) for side in (a, b)]
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
            a=sides[0],
            b=sides[1],
            rounds=sum(len(launch) for launch in samples.rounds),
            launches=len(samples.rounds),
            cores=tuple(samples.cores),
            warm_stable=samples.warm_stable,
            seconds=samples.seconds,
            copies_ms={"a": copies[a], "b": copies[b]} if copies else None,
            flushed=self._flushed(a, b, index),
            doubts=doubts(ratio, control, samples.warm_stable, *(s.latency_ms for s in sides)),
            fallback_nodes=tuple(
                node for side in (a, b) for node in self.fallback[side].get(provider, ())
            ),
        )

    def _flushed(self, a: int, b: int, index: int) -> dict[str, Any] | None:
        """The same comparison with denormals treated as zero, when either file has some."""
        if not self.flushed or not any(self.facts[side]["denormal_weights"] for side in (a, b)):
            return None
        samples = self.flushed[index]
        ratio, control = ratio_intervals(samples.ratios(a, b), samples.control())
        return {
            "verdict": verdict(ratio, control),
            "ratio": ratio.value,
            "ci95": [ratio.low, ratio.high],
            "a_p50_ms": percentiles(samples.calls[a])["p50"],
            "b_p50_ms": percentiles(samples.calls[b])["p50"],
        }


def time_files(
    files: Sequence[Path | str],
    settings: Sequence[Setting],
    *,
    protocol: Protocol | None = None,
    input_shape: Given = None,
    allow_fallback: bool = False,
    progress: ProgressCallback | None = None,
) -> TimedFiles:
    """Time files in the same rounds, with one control: the first against itself.

    Takes a process a file and one more; arguments and errors as of `compare`.
    """
    protocol = protocol or Protocol()
    paths = [Path(file) for file in files]
    with Worker() as worker:
        for setting in settings:
            require_provider(worker, find_provider(setting.provider).name)
        facts = tuple(_facts(worker, path, input_shape) for path in paths)
    batches = {find_provider(setting.provider).name: setting.batch for setting in settings}
    batches.pop(CPU, None)  # what others fall back to
    fallback = tuple(
        {
            name: tuple(check_placement(p, name, allow_fallback, input_shape, batch))
            for name, batch in batches.items()
        }
        for p in paths
    )
    found = measure(paths, settings, protocol, input_shape=input_shape, progress=progress)
    flushed = None
    if any(fact["denormal_weights"] for fact in facts):
        flushed = measure(paths, settings, protocol, input_shape=input_shape, flush_denormals=True)
    return TimedFiles(
        tuple(settings), facts, tuple(found), tuple(flushed) if flushed else None, fallback
    )


def _facts(worker: Worker, path: Path, input_shape: Given) -> dict[str, Any]:
    """What is known of the file itself, and the cost of one image."""
    digest = sha256_file(path)  # before it is timed: what changes meanwhile is another file
    scan = worker.scan(path, input_shape)
    return {
        "file": str(path),
        "sha256": digest,
        "bytes": path.stat().st_size + scan["external_bytes"],
        "denormal_weights": scan["denormals"],
        "macs": scan["macs"],
    }


def _variant(facts: dict[str, Any], calls: list[int], batch: int) -> Variant:
    times = percentiles(calls)
    middle = times["p50"]
    assert middle is not None
    return Variant(
        **{key: value for key, value in facts.items() if key != "macs"},
        latency_ms=times,
        runs=len(calls),
        cv=variation(calls),
        images_per_s=1000.0 * batch / middle,
    )


def _pair(ratio: Ratio) -> tuple[float, float]:
    return ratio.low, ratio.high
