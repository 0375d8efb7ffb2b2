"""The quantize stage: both ONNX files in INT8 and fp16, and which of them to deliver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pipeline.config.schema import BenchmarkConfig
from pipeline.data.images import Images, balanced_indices
from pipeline.data.load import load_splits
from pipeline.data.splits import Splits
from pipeline.run.fp16 import makes_fp16
from pipeline.run.stage import StageContext
from pipeline.run.variants import FP16, FP32
from stages.benchmark.protocol import Protocol, Setting
from stages.quantize.choice import Allowance
from stages.quantize.engine import quantize_onnx
from stages.quantize.half import ALLOWANCE, HalfReport, half_onnx
from stages.quantize.report import QuantizeReport
from stages.quantize.training import Training
from stages.quantize.workbench import Progress

_FILES = {"final": ("onnx", "model"), "base": ("base_onnx", "base")}
_DRAW = 21  # a seed of its own: other stages have drawn from the same splits
_PHASES, _HALF_PHASES = 12, 3  # about what one file tells of, for the progress


def run(ctx: StageContext) -> dict[str, Any]:
    """Quantise the final network's file and the original's, by the same procedure.

    Reads both ONNX files and train and search images, never the test images; writes
    `quantize.json` and, unless `quantize.mode` is off or onnxruntime refuses, `model_int8.onnx`
    and `base_int8.onnx`; with `quantize.fp16`, `model_fp16.onnx` and `base_fp16.onnx`. What is
    delivered is decided here, for `benchmark` sees the test images.

    Returns:
        of the final file: which is chosen, ratio, points lost, and the scheme.
    Raises:
        Refused: `quantize.mode` is int8 and INT8 misses what it may cost.
        ArtifactError: a file cannot be run.
        Interrupted: a stop was asked for; training goes on from there when started again, and all
            else is done anew.
    """
    mode, half = ctx.config.quantize.mode, makes_fp16(ctx.config)
    if mode == "off" and not half:
        ctx.write("quantization", {**_off().to_dict(), "mode": mode, "base": _off().to_dict()})
        return {"chosen": FP32, "reason": _off().reason}
    splits = load_splits(ctx.config.data, seed=ctx.seed)
    teller = _Teller(ctx, len(_FILES) * (_PHASES * (mode != "off") + _HALF_PHASES * half))
    documents = {}
    for role in _FILES:
        report = _off() if mode == "off" else _quantize(ctx, role, splits, teller)
        halved = _halve(ctx, role, splits, teller) if half else None
        documents[role] = {**report.to_dict(), "fp16": halved.to_dict() if halved else None}
        if role == "final":
            chosen, reason = delivered(mode, report, halved)
            summary = _summary(chosen, reason, report, halved)
    documents["final"] |= {"chosen": chosen, "reason": reason}
    ctx.write("quantization", {**documents["final"], "mode": mode, "base": documents["base"]})
    if chosen == FP32:
        ctx.note(f"fp32 is delivered: {reason}")
    return summary


def delivered(mode: str, int8: QuantizeReport, half: HalfReport | None) -> tuple[str, str]:
    """(precision, why): the fastest against fp32 of those that may be delivered, by measurement;
    INT8 where `mode` insists on it.
    """
    if mode == "int8" or half is None:
        return int8.chosen, int8.reason
    timing = int8.best.timing if int8.best else None
    ratio = timing.ratio if timing else 0.0
    if half.chosen == FP32 and mode == "off":
        return FP32, half.reason
    if FP32 == half.chosen == int8.chosen:
        return FP32, f"{int8.reason}; {half.reason}"
    half_ratio = half.timing.ratio if half.timing else 0.0
    if int8.chosen == FP32 or (half.chosen != FP32 and half_ratio > ratio):
        return half.chosen, half.reason
    return int8.chosen, int8.reason


class _Teller:
    """Progress of what begins; asks before it whether to stop."""

    def __init__(self, ctx: StageContext, total: int) -> None:
        self._ctx, self._done, self._total = ctx, 0, total

    def __call__(self, what: str) -> None:
        if self._ctx.stopping():
            raise self._ctx.interrupted()
        self._ctx.progress(min(self._done, self._total - 1), self._total, what=what)
        self._done += 1


def _halve(ctx: StageContext, role: str, splits: Splits, tell: Progress) -> HalfReport:
    """One file in fp16."""
    settings = ctx.config.quantize
    kind, name = _FILES[role]
    return half_onnx(
        ctx.input(kind),
        ctx.out / f"{name}_fp16.onnx",
        drawn(splits.train, settings.images, ctx.seed),
        drawn(splits.search, settings.search_images, ctx.seed),
        allowance=replace(ALLOWANCE, drop=settings.max_accuracy_drop),
        keep=settings.fp16_keep,
        search_images=settings.search_images,
        **_timing(ctx.config.benchmark),
        progress=tell,
    )


def _quantize(ctx: StageContext, role: str, splits: Splits, tell: Progress) -> QuantizeReport:
    """One file; under mode int8 the original's may miss what the final one's must keep."""
    settings = ctx.config.quantize
    kind, name = _FILES[role]
    training = Training(ctx, role, kind, splits) if settings.qat_epochs else None
    return quantize_onnx(
        ctx.input(kind),
        ctx.out / f"{name}_int8.onnx",
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


def _off() -> QuantizeReport:
    return QuantizeReport(FP32, "quantize.mode is off")


def _summary(
    chosen: str, reason: str, report: QuantizeReport, half: HalfReport | None
) -> dict[str, Any]:
    best = report.best
    found: dict[str, Any] = {"chosen": chosen, "reason": reason}
    if chosen == FP16 and half is not None and half.timing is not None and half.score is not None:
        return found | {
            "ratio": half.timing.ratio, "ci95": half.timing.ci95, "drop": half.score.drop
        }  # fmt: skip
    if best is not None and best.timing is not None and best.score is not None:
        found |= {"ratio": best.timing.ratio, "ci95": best.timing.ci95}
        found |= {"drop": best.score.drop, "scheme": str(best.scheme)}
    return found
