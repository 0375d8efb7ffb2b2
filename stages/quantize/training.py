"""How the stage trains an INT8 network: towards the original, and on from where a kill left it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pipeline.data.splits import Splits
from pipeline.errors import ArtifactError
from pipeline.models.files import load_model
from pipeline.run import store
from pipeline.run.checkpoints import Keys, fit_resumable
from pipeline.run.documents import Sealed, as_written
from pipeline.run.stage import StageContext
from pipeline.run.store import make_folder, sha256_file
from pipeline.runtime.quantizer import QuantizedGraph
from pipeline.training.machine import all_cores, device_for
from pipeline.training.recipe import Recipe
from stages.distill.engine import training_objective
from stages.quantize.candidate import Candidate
from stages.quantize.fake_quantized import FakeQuantized
from stages.quantize.report import Tried
from stages.quantize.retraining import Start

_START = Sealed("quantization_start", "", ("start.json",), 64 << 20, "what training begins with")
_FLOAT, _PLAIN, _BEST, _MOST = "float.onnx", "start.onnx", "best.onnx", 2 << 30
_KEYS = Keys("quantize.qat_lr", "distill.batch_size")


class Training:
    """Of the INT8 form of one file; its start and its checkpoints lie in a folder of their own.

    Args:
        role: of the file, which names the folder.
        kind: of the file.
    """

    def __init__(self, ctx: StageContext, role: str, kind: str, splits: Splits) -> None:
        self.ctx = replace(ctx, work=ctx.work / role)
        self.splits = splits
        self._of = {
            "stage": "quantize",
            "depends": dict(ctx.depends),
            "file": sha256_file(ctx.input(kind)),
            "teacher": sha256_file(ctx.input("base_model") / "model.safetensors"),
            "data": ctx.data_card.sha256,
            "seed": ctx.seed,
        }

    def start(self) -> Start | None:
        """What training began with before a kill; None where it did not begin."""
        path = self.ctx.work / _START.file
        if not path.exists():
            return None
        try:
            record = _START.read(path)
            with as_written(str(path)):
                # else of other settings, images or weights
                return self._start(record) if record["of"] == self._of else None
        except ArtifactError as error:
            self.ctx.warn(f"what training began with cannot be used: {error.message}")
            return None

    def _start(self, record: dict[str, Any]) -> Start:
        return Start(
            self._read(_FLOAT, record["float"]),
            self._candidate(_PLAIN, record["plain"]),
            self._candidate(_BEST, record["best"]),
            tuple(Tried.from_record(row) for row in record["tried"]),
            record["calibration"],
        )

    def _candidate(self, name: str, record: dict[str, Any]) -> Candidate:
        model = self._read(name, record["sha256"])
        graph = QuantizedGraph(model, tuple(record["tensors"]), tuple(record["float_nodes"]))
        return Candidate(Tried.from_record(record["tried"]), graph)

    def _read(self, name: str, digest: str) -> bytes:
        return store.read_bytes(self.ctx.work / name, max_bytes=_MOST, sha256=digest)

    def __call__(self, network: FakeQuantized, start: Start) -> None:
        """Train it in place; see `fit_resumable`."""
        settings, distill = self.ctx.config.quantize, self.ctx.config.distill
        make_folder(self.ctx.work)
        self._keep(start)
        recipe = Recipe.from_config(distill, epochs=settings.qat_epochs, lr=settings.qat_lr)
        # in bf16 the steps of 8 bits cannot be told apart
        recipe = replace(recipe, precision="fp32")
        device = device_for(self.ctx.config.device)
        teacher = load_model(self.ctx.input("base_model")).to(device)
        with all_cores():
            images = self.splits.to(device).train
            objective, train = training_objective(distill, teacher, images, recipe.epochs)
            seen = Splits(train=train, search=self.splits.search)
            belongs_to = {**self._of, "start": sha256_file(self.ctx.work / _PLAIN)}
            fit_resumable(self.ctx, network, seen, recipe, belongs_to, objective, _KEYS)

    def _keep(self, start: Start) -> None:
        record = {
            "of": self._of,
            "float": store.write_bytes(self.ctx.work / _FLOAT, start.float_graph),
            "plain": self._kept(_PLAIN, start.plain),
            "best": self._kept(_BEST, start.best),
            "tried": [asdict(one) for one in start.tried],
            "calibration": start.calibration,
        }
        _START.write(self.ctx.work / _START.file, record)

    def _kept(self, name: str, candidate: Candidate) -> dict[str, Any]:
        graph = candidate.graph
        return {
            "sha256": store.write_bytes(self.ctx.work / name, graph.model),
            "tensors": list(graph.tensors),
            "float_nodes": list(graph.float_nodes),
            "tried": asdict(candidate.tried),
        }
