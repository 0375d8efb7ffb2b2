"""The quantize stage: both ONNX files in INT8, and which of them to deliver."""

from __future__ import annotations

from typing import Any

import torch

from pipeline.config.schema import BenchmarkConfig
from pipeline.data.images import Images, balanced_indices
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.run.stage import StageContext
from pipeline.run.variants import FP32
from stages.benchmark.protocol import Protocol, Setting
from stages.quantize.choice import Allowance
from stages.quantize.engine import quantize_onnx
from stages.quantize.report import QuantizeReport
from stages.quantize.training import Training

_FILES = {"final": ("onnx", "model_int8.onnx"), "base": ("base_onnx", "base_int8.onnx")}
_DRAW = 21  # a seed of its own: other stages have drawn from the same splits
_PHASES = 12  # about what one file tells of, for the progress


def run(ctx: StageContext) -> dict[str, Any]:
    """Quantise the final network's file and the original's, by the same procedure.

    Reads both ONNX files and train and search images, never the test images; writes
    `quantize.json` and, unless `quantize.mode` is off or onnxruntime refuses, `model_int8.onnx`
    and `base_int8.onnx`. What is delivered is decided here, for `benchmark` sees the test images.

    Returns:
        of the final file: which is chosen, ratio, points lost, and the scheme.
    Raises:
        Refused: `quantize.mode` is int8 and INT8 misses what it may cost.
        ArtifactError: a file cannot be run.
        Interrupted: a stop was asked for; training goes on from there when started again, and all
            else is done anew.
    """
    settings = ctx.config.quantize
    if settings.mode == "off":
        ctx.write("quantization", {**_off(), "mode": "off", "base": _off()})
        return {"chosen": FP32, "reason": _off()["reason"]}
    splits = load_splits(ctx.config.data, seed=ctx.seed)
    reports = {role: _quantize(ctx, role, splits) for role in _FILES}
    final, base = reports["final"], reports["base"]
    ctx.write("quantization", {**final.to_dict(), "mode": settings.mode, "base": base.to_dict()})
    if final.chosen == FP32:
        ctx.note(f"fp32 is delivered: {final.reason}")
    return _summary(final)


def _quantize(ctx: StageContext, role: str, splits: Splits) -> QuantizeReport:
    """One file; under mode int8 the original's may miss what the final one's must keep."""
    settings = ctx.config.quantize
    kind, name = _FILES[role]
    done = list(_FILES).index(role) * _PHASES

    def tell(what: str) -> None:
        nonlocal done
        if ctx.stopping():
            raise ctx.interrupted()
        ctx.progress(min(done, len(_FILES) * _PHASES - 1), len(_FILES) * _PHASES, what=what)
        done += 1

    training = Training(ctx, role, kind, splits) if settings.qat_epochs else None
    return quantize_onnx(
        ctx.input(kind),
        ctx.out / name,
        drawn(splits.train, settings.images, ctx.seed),
        drawn(splits.search, settings.search_images, ctx.seed),
        mode=settings.mode if role == "final" else "auto",
        allowance=Allowance(
            settings.max_accuracy_drop, settings.min_top1_agreement, settings.max_output_error
        ),
        images=settings.images,
        search_images=settings.search_images,
        **_timing(ctx.config.benchmark),
        train=training,
        start=training.start() if training else None,
        progress=tell,
    )


def drawn(images: Images, count: int, seed: int) -> Images:
    """`count` images, as even over the classes as they allow, in an order that is a fair sample
    wherever it is cut.
    """
    chosen = balanced_indices(images.labels, count, seed + _DRAW)
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed + _DRAW))
    return images.subset(chosen[order])


def _timing(benchmark: BenchmarkConfig) -> dict[str, Any]:
    """The headline of the benchmark, as long as it would be timed there."""
    threads = benchmark.threads[0] if benchmark.threads else 1
    return {
        "setting": Setting(
            benchmark.provider, benchmark.batches[0], threads, benchmark.static_batch
        ),
        "protocol": Protocol(
            min_seconds=benchmark.min_seconds,
            min_runs=benchmark.min_runs,
            launches=benchmark.launches,
        ),
    }


def _off() -> dict[str, Any]:
    return QuantizeReport(FP32, "quantize.mode is off").to_dict()


def _summary(report: QuantizeReport) -> dict[str, Any]:
    best = report.best
    found: dict[str, Any] = {"chosen": report.chosen, "reason": report.reason}
    if best is not None and best.timing is not None and best.score is not None:
        found |= {"ratio": best.timing.ratio, "ci95": best.timing.ci95}
        found |= {"drop": best.score.drop, "scheme": str(best.scheme)}
    return found
