"""What runs: one folder a stage. `STAGES` is the product on one screen."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.run.stage import Stage

STAGES = (
    "pretrain",  # config, data           → base_model   train the baseline, or adopt given weights
    "trace",     # base_model             → graph        find every channel coupling
    "search",    # base_model, graph      → plan         distribute the budget over the groups
    "prune",     # base_model, graph, plan → pruned_model cut, and prove cut == masked
    "distill",   # pruned_model, base_model → final_model recover accuracy
    "export",    # base_model, final_model → onnx        with parity on real images
    "benchmark", # onnx, base_onnx        → benchmark    interleaved A/B latency, test accuracy
    "report",    # everything             → report       one page, one summary
)  # fmt: skip


def load_stages() -> tuple[Stage, ...]:
    """An instance of every stage, in order. Each `stages/NAME/stage.py` defines `STAGE`."""
    return tuple(import_module(f"stages.{name}.stage").STAGE() for name in STAGES)
