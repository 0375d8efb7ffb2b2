"""The benchmark stage: both ONNX files timed interleaved, and scored on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.data import load_test
from pipeline.errors import ArtifactError
from pipeline.models import read_model_file
from pipeline.runtime import Worker
from pipeline.stage import Stage, StageContext
from pipeline.store import read_json, sha256_file, write_json
from stages.benchmark.accuracy import onnx_accuracy
from stages.benchmark.comparison import Comparison, compare_settings
from stages.benchmark.explain import explain
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.protocol import Protocol, Setting


class BenchmarkStage(Stage):
    """Timings belong to the machine they were taken on; its fingerprint is stored beside them."""

    name = "benchmark"
    title = "time base against final, score both on the test split"
    sections = ("benchmark",)
    reads = ("onnx", "base_onnx", "parity", "base_model", "final_model", "data")
    uses_data = True

    def run(self, ctx: StageContext) -> dict[str, Any]:
        settings = ctx.config.benchmark
        files = {"base": ctx.input("base_onnx"), "final": ctx.input("onnx")}
        _same_files(files, read_json(ctx.input("parity")))
        comparisons = compare_settings(
            files["base"],
            files["final"],
            setting_list(settings),
            protocol=Protocol(min_seconds=settings.min_seconds, min_runs=settings.min_runs, launches=settings.launches),
            input_shape=_input_shape(ctx),
            allow_fallback=settings.allow_fallback,
            progress=lambda done, total: _progress(ctx, done, total),
        )
        rows = [_row(comparison) for comparison in comparisons]
        document: dict[str, Any] = {"kind": "benchmark", "schema_version": 1, "settings": rows}
        document |= self._accuracy(ctx, files, rows)
        if settings.profile:
            document["why"] = explain(files["base"], files["final"], comparisons[0]).to_dict()
        document["machine"] = fingerprint()
        write_json(ctx.out / "benchmark.json", document)
        return _summary(ctx, document)

    def _accuracy(self, ctx: StageContext, files: dict[str, Path], rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What was paid and what was bought, for both files; test images are read here and nowhere before."""
        images = load_test(ctx.config.data)
        found: dict[str, Any] = {"data": {"label": getattr(ctx.data_card, "label", ""), "test_images": len(images)}}
        for role, kind, side in (("base", "base_model", "a"), ("final", "final_model", "b")):
            if ctx.stopping():
                raise ctx.interrupted()
            with Worker() as worker:
                costs = worker.scan(files[role])
            found[role] = {
                "accuracy": onnx_accuracy(files[role], images, provider=ctx.config.benchmark.provider),
                "macs": costs["macs"],
                "params": read_model_file(ctx.input(kind)).weights.parameters,
                "bytes": rows[0][side]["bytes"],
                "sha256": rows[0][side]["sha256"],
                "latency_ms": rows[0][side]["latency_ms"],
            }
        return found


def setting_list(settings: Any) -> list[Setting]:
    """Batch sizes paired with threads; the last number of threads serves all further batch sizes."""
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
            raise ArtifactError(f"{path}: not the file whose parity was checked", hint="rlp stage export re-makes it")


def _input_shape(ctx: StageContext) -> list[int] | None:
    shape = getattr(ctx.data_card, "image_shape", None)
    return list(shape) if shape else None


def _progress(ctx: StageContext, done: int, total: int) -> None:
    ctx.progress(done, total)
    if ctx.stopping():
        raise ctx.interrupted()


def _row(comparison: Comparison) -> dict[str, Any]:
    row = comparison.to_dict()
    for side in ("a", "b"):
        row[side]["file"] = Path(row[side]["file"]).name
    return row


def _summary(ctx: StageContext, document: dict[str, Any]) -> dict[str, Any]:
    first = document["settings"][0]
    why = document.get("why", {}).get("causes", [])
    if first["verdict"] != "faster":
        ctx.warn(f"{first['verdict']} than the base" if first["verdict"] == "slower" else "no speedup could be shown")
        for cause in why:
            ctx.note(cause)
    return {
        "verdict": first["verdict"],
        "speedup": first["ratio"],
        "ci95": first["ci95"],
        "aa_ci95": first["aa_ci95"],
        "base_accuracy": document["base"]["accuracy"],
        "final_accuracy": document["final"]["accuracy"],
    }


STAGE = BenchmarkStage
