"""What runs, in order: the product on one screen. Each stage has a folder here, whose `stage.py`
does the work; it is loaded when the stage runs, so that looking at a run needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.run.declaration import Parts
from pipeline.run.declaration import Stage as Declaration
from pipeline.run.fp16 import makes_fp16

if TYPE_CHECKING:
    from pipeline.config.schema import Config


class Stage(Declaration):
    """A stage whose work is `run(ctx)` of `stages.NAME.stage`; see there."""

    def external(self, config: Config) -> dict[str, str]:
        return dict(self._work().external(config)) if self.uses_files else {}

    def run(self, ctx: Any) -> dict[str, Any]:
        return dict(self._work().run(ctx))

    def _work(self) -> Any:
        return import_module(f"stages.{self.name}.stage")


def _given_weights(config: Config, parts: Parts) -> Parts:
    """Given weights, how one would train does not matter."""
    return {k: v for k, v in parts.items() if k != "pretrain" or config.model.weights is None}


def _own_weights(config: Config, parts: Parts) -> Parts:
    """Weights trained elsewhere count by content; then how one would train does not matter."""
    section = {k: v for k, v in parts["distill"].items() if k != "weights"}
    return {**parts, "distill": section if config.distill.weights is None else "elsewhere"}


def _provider_too(config: Config, parts: Parts) -> Parts:
    """Parity is checked on the benchmark's provider as well."""
    return {**parts, "provider": config.benchmark.provider}


def _setting_too(config: Config, parts: Parts) -> Parts:
    """Both precisions are timed at the first setting of the benchmark; when they are off, nothing
    matters. Training INT8 is as recovery is. What fp16 is set to counts by whether it is made.
    """
    half = makes_fp16(config)
    if config.quantize.mode == "off" and not half:
        return {"quantize": {"mode": "off"}}
    own = {key: value for key, value in parts["quantize"].items() if not key.startswith("fp16")}
    kept = {"fp16": "on", "fp16_keep": list(config.quantize.fp16_keep)} if half else {}
    parts = {**parts, "quantize": {**own, **kept}}
    if config.quantize.qat_epochs:
        parts = {**parts, "distill": config.distill.model_dump(mode="json")}
    timed = {key: getattr(config.benchmark, key) for key in ("provider", "static_batch")}
    first = {"batch": config.benchmark.batches[:1], "threads": config.benchmark.threads[:1]}
    return {**parts, "timed": timed | {key: list(value) for key, value in first.items()}}


def _without_further_files(config: Config, parts: Parts) -> Parts:
    """Further files count by content, wherever they lie."""
    parts["benchmark"].pop("against")
    return parts


def _recovery_too(config: Config, parts: Parts) -> Parts:
    """Within a drop of accuracy, what recovery is expected to bring counts."""
    if config.search.budget.accuracy_drop is None:
        return parts
    trained = config.distill.mode != "bn_only" and config.distill.epochs != 0
    of_recovery = {"reconstruct": config.reconstruct.model_dump(mode="json"), "trained": trained}
    return {**parts, **of_recovery}


def _search_reads(config: Config, parts: Parts) -> Parts:
    """Besides recovery: whether there will be an INT8 file at all."""
    if config.search.precision == "auto":
        parts = {**parts, "int8": config.quantize.mode != "off"}
    return _recovery_too(config, parts)


STAGES = (
    Stage(
        "pretrain",
        "train the original network, or adopt given weights",
        sections=("model", "pretrain"),
        uses_data=True,
        uses_files=True,
        memory_key="pretrain.batch_size",
        narrow=_given_weights,
    ),
    Stage(
        "trace",
        "find every channel coupling",
        sections=("trace",),
        reads=("base_model", "data"),
    ),
    Stage(
        "rotate",
        "turn channels of linear trunks to principal components",
        sections=("rotate",),
        reads=("base_model", "graph"),
        uses_data=True,
        memory_key="rotate.images",
    ),
    Stage(
        "search",
        "distribute the budget over the channel groups",
        sections=("search",),
        reads=("rotated_model", "graph", "data"),
        original=("base_model", "graph"),
        uses_data=True,
        uses_round=True,
        memory_key="search.images",
        provider_key="search.latency_provider",
        version=2,
        narrow=_search_reads,
    ),
    Stage(
        "prune",
        "cut channels, and prove cut == masked",
        sections=("prune",),
        reads=("rotated_model", "graph", "plan"),
        original=("graph",),
        uses_data=True,
        memory_key="prune.images",
    ),
    Stage(
        "reconstruct",
        "fit the weights of the cut network anew, by least squares",
        sections=("reconstruct",),
        reads=("rotated_model", "graph", "plan", "pruned_model"),
        uses_data=True,
        memory_key="reconstruct.memory_mb",
    ),
    Stage(
        "distill",
        "recover accuracy from the original network",
        sections=("distill",),
        reads=("reconstructed_model",),
        original=("base_model",),  # the teacher
        uses_data=True,
        uses_files=True,
        memory_key="distill.batch_size",
        narrow=_own_weights,
    ),
    Stage(
        "export",
        "write ONNX and prove parity with PyTorch",
        sections=("export",),
        reads=("base_model", "final_model", "data"),
        uses_data=True,
        memory_key="export.images",
        provider_key="benchmark.provider",
        narrow=_provider_too,
    ),
    Stage(
        "quantize",
        "choose INT8, fp16 or neither by measurement",
        sections=("quantize",),
        reads=("onnx", "base_onnx", "data", "base_model"),  # the last: where INT8 is trained
        uses_data=True,
        memory_key="quantize.images",
        provider_key="benchmark.provider",
        narrow=_setting_too,
    ),
    Stage(
        "benchmark",
        "time every variant against the original, score all on the test split",
        sections=("benchmark",),
        reads=(
            "onnx",
            "base_onnx",
            "parity",
            "onnx_int8",
            "base_onnx_int8",
            "onnx_fp16",
            "base_onnx_fp16",
            "quantization",
            "base_model",
            "final_model",
            "data",
        ),
        uses_data=True,
        uses_files=True,
        memory_key="benchmark.batches",
        provider_key="benchmark.provider",
        version=2,
        narrow=_without_further_files,
    ),
    Stage(
        "deploy",
        "put everything that others need to run it into a folder",
        sections=("deploy",),
        reads=("data", "onnx", "onnx_int8", "onnx_fp16", "quantization", "benchmark"),
    ),
    Stage(
        "report",
        "write the page and the summary",
        sections=("report", "model"),
        reads=(
            "data",
            "train",
            "graph",
            "rotation",
            "plan",
            "search",
            "front",
            "trials",
            "cut",
            "reconstruction",
            "distillation",
            "parity",
            "onnx",
            "quantization",
            "benchmark",
        ),
        every_round=("search", "cut", "distillation"),
        version=7,
    ),
)


NAMES = tuple(stage.name for stage in STAGES)


def declared(name: str) -> Stage:
    """The declaration of a stage."""
    return STAGES[NAMES.index(name)]
