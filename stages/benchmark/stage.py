"""The benchmark stage: both ONNX files timed in turn, and scored on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data.images import Images
from pipeline.data.load import load_test
from pipeline.errors import ArtifactError, EnvironmentProblem, Hint, Key
from pipeline.models.files import read_model_file
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.runtime.worker import Worker
from stages.benchmark.accuracy import onnx_accuracy
from stages.benchmark.alignment_cache import cached_alignment
from stages.benchmark.comparison import Comparison, compare_settings
from stages.benchmark.explain import explain
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.intervals import FASTER, SLOWER
from stages.benchmark.protocol import Protocol, Setting


def external(config: Any) -> dict[str, str]:
    """sha256 of every file of `benchmark.against`. Raises ArtifactError for a missing one."""
    found = {}
    for name in config.benchmark.against:
        try:
            found[f"benchmark.against {name}"] = sha256_file(Path(name))
        except ArtifactError as error:
            hint = Hint(Key("benchmark.against"), " names it; relative to here")
            raise ArtifactError(error.message, hint=hint) from None
    return found


def run(ctx: StageContext) -> dict[str, Any]:
    """Time the original's file against the final one, and score both on the test images.

    Reads both ONNX files, their parity and both models; writes `benchmark.json`: settings
    (a `Comparison` each), cost and accuracy of both, the files of `benchmark.against` likewise,
    and, with `benchmark.profile`, why there is no gain and which channel multiple pays here.

    Returns:
        verdict, speedup and intervals of the first setting, and both accuracies.
    Raises:
        ArtifactError: a file is not the one whose parity was checked, or cannot be run.
        EnvironmentProblem: the provider is absent, or leaves heavy nodes to the CPU.
        Interrupted: a stop was asked for; timings are not resumed but taken again.
    """
    settings = ctx.config.benchmark
    files = {"base": ctx.input("base_onnx"), "final": ctx.input("onnx")}
    _same_files(files, ctx.read("parity"))
    runs = 1 + len(settings.against)
    comparisons = _compare(ctx, files["base"], files["final"], 0, runs)
    document: dict[str, Any] = {"settings": _rows(comparisons)}
    images = load_test(ctx.config.data)  # the first and only stage that reads them
    document |= _both_sides(ctx, files, document["settings"][0], images)
    document["against"] = [
        _further(ctx, files["base"], Path(name), images, index, runs)
        for index, name in enumerate(settings.against, start=1)
    ]
    if settings.profile:
        document["why"] = explain(files["base"], files["final"], comparisons[0]).to_dict()
        document["alignment"] = _alignment(ctx)
    document["machine"] = fingerprint()
    ctx.write("benchmark", document)
    _warn(ctx, document)
    return _summary(document)


def _both_sides(
    ctx: StageContext, files: dict[str, Path], row: dict[str, Any], images: Images
) -> dict[str, Any]:
    """What was paid and what was bought: accuracy, costs and latency of both files."""
    label = getattr(ctx.data_card, "label", "")
    found: dict[str, Any] = {"data": {"label": label, "test_images": len(images)}}
    for role, kind, side in (("base", "base_model", "a"), ("final", "final_model", "b")):
        if ctx.stopping():
            raise ctx.interrupted()
        with Worker() as worker:
            macs = worker.scan(files[role])["macs"]
        found[role] = {
            "accuracy": onnx_accuracy(files[role], images, provider=ctx.config.benchmark.provider),
            "macs": macs,
            "params": read_model_file(ctx.input(kind)).weights.parameters,
            **{key: row[side][key] for key in ("bytes", "sha256", "latency_ms")},
        }
    return found


def _compare(
    ctx: StageContext, original: Path, other: Path, index: int, runs: int
) -> list[Comparison]:
    """`other` against `original` at every setting; comparison number `index` of `runs`."""
    settings = ctx.config.benchmark

    def progress(done: int, total: int) -> None:
        if ctx.stopping():
            raise ctx.interrupted()
        ctx.progress(index * total + done, runs * total, file=other.name)

    return compare_settings(
        original,
        other,
        setting_list(settings),
        protocol=Protocol(
            min_seconds=settings.min_seconds, min_runs=settings.min_runs, launches=settings.launches
        ),
        input_shape=_input_shape(ctx),
        allow_fallback=settings.allow_fallback,
        progress=progress,
    )


def _further(
    ctx: StageContext, original: Path, path: Path, images: Images, index: int, runs: int
) -> dict[str, Any]:
    """A file of `benchmark.against`, by the same protocol; scored where it takes our images."""
    found = _compare(ctx, original, path, index, runs)
    with Worker() as worker:
        macs = worker.scan(path, _input_shape(ctx))["macs"]
    try:
        accuracy: float | None = onnx_accuracy(path, images, provider=ctx.config.benchmark.provider)
    except ArtifactError as error:
        accuracy = None  # another network may want another size, and is timed all the same
        ctx.note(f"{path.name} was timed but not scored: {error.message}")
    first = found[0]
    low, high = first.ci95
    interval = f"ratio {first.ratio:.2f} ({low:.2f} to {high:.2f})"
    ctx.note(f"{path.name} against the base: {first.verdict}, {interval}")
    facts = {"sha256": first.b.sha256, "bytes": first.b.bytes, "macs": macs}
    return {"file": path.name, **facts, "accuracy": accuracy, "settings": _rows(found)}


def _alignment(ctx: StageContext) -> dict[str, Any] | None:
    """Which channel multiple pays here; None, with a note, where it could not be measured."""

    def progress(done: int, total: int) -> None:
        if ctx.stopping():
            raise ctx.interrupted()
        ctx.progress(done, total, what="convolutions timed by width")

    try:
        found, _ = cached_alignment(provider=ctx.config.benchmark.provider, progress=progress)
    except (ArtifactError, EnvironmentProblem) as error:
        ctx.note(f"the alignment of this machine could not be measured: {error.message}")
        return None
    return found.to_dict()


def setting_list(settings: Any) -> list[Setting]:
    """Batches paired with threads; the last number of threads serves all further batches."""
    threads = list(settings.threads) or [1]
    threads += [threads[-1]] * (len(settings.batches) - len(threads))
    return [
        Setting(settings.provider, batch, count, settings.static_batch)
        for batch, count in zip(settings.batches, threads, strict=False)
    ]


def _same_files(files: dict[str, Path], parity: dict[str, Any]) -> None:
    """The files timed must be those whose parity was checked."""
    for role, path in files.items():
        if parity[role]["sha256"] != sha256_file(path):
            raise ArtifactError(
                f"{path}: not the file whose parity was checked",
                hint=Hint.rerun("export"),
            )


def _input_shape(ctx: StageContext) -> list[int] | None:
    shape = getattr(ctx.data_card, "image_shape", None)
    return list(shape) if shape else None


def _rows(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """Comparisons as JSON, files by name: the folder they were in says nothing to a reader."""
    rows = [comparison.to_dict() for comparison in comparisons]
    for row in rows:
        for side in ("a", "b"):
            row[side]["file"] = Path(row[side]["file"]).name
    return rows


def _warn(ctx: StageContext, document: dict[str, Any]) -> None:
    """Say where there is no speedup, and why, and which files have denormal weights."""
    first = document["settings"][0]
    if first["verdict"] != FASTER:
        slower = first["verdict"] == SLOWER
        ctx.warn("slower than the base" if slower else "no speedup could be shown")
        for cause in document.get("why", {}).get("causes", []):
            ctx.note(cause)
    for row in [first, *(row["settings"][0] for row in document["against"])]:
        for side in ("a", "b"):
            count = row[side]["denormal_weights"]
            if not row["flushed"] or not count:
                continue
            times = row[side]["latency_ms"]["p50"], row["flushed"][f"{side}_p50_ms"]
            said = "{:.3f} ms as it is, {:.3f} ms flushed".format(*times)
            ctx.warn(f"{row[side]['file']} has {count:,} denormal weights: {said}")


def _summary(document: dict[str, Any]) -> dict[str, Any]:
    first = document["settings"][0]
    return {
        "verdict": first["verdict"],
        "speedup": first["ratio"],
        "ci95": first["ci95"],
        "aa_ci95": first["aa_ci95"],
        "base_accuracy": document["base"]["accuracy"],
        "final_accuracy": document["final"]["accuracy"],
    }
