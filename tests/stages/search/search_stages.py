"""The search stage on the small trained network, and a machine whose timings are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_nets import trained

from pipeline.channels.widths import LayerWidths
from pipeline.config.schema import Config
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from stages.search.latency import CandidateTimer, Measurement


def context(root: Path, seed: int = 0, **search: Any) -> StageContext:
    """Artefacts of the trained network below `root`, and 16 trials on 80 images."""
    _, graph, _ = trained()
    for name in ("out", "work", "in"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "in" / "model.safetensors").write_bytes(b"weights")
    document("graph").write(root / "in" / "graph.json", graph.to_dict())
    values = {"trials": 16, "images": 80, "fit_images": 64, **search}
    inputs = {kind: (root / "in", {}) for kind in ("rotated_model", "graph", "data")}
    return StageContext(Config(seed=seed, search=values), root / "out", root / "work", inputs)


def made_up(counts: np.ndarray, widths: LayerWidths, whole: np.ndarray, block: int) -> np.ndarray:
    """A machine that takes 20 % whatever the widths, and computes in blocks of channels."""

    def macs(k: np.ndarray) -> np.ndarray:
        out, into = k @ widths.out.T + widths.out_fixed, k @ widths.into.T + widths.into_fixed
        up = [np.where(w > 1, np.ceil(w / block) * block, w) for w in (out, into)]
        speed = np.where(np.array(widths.kinds) == "depthwise", 0.3, 1.0)
        up[0] = up[0] * widths.dropping.left(k)  # a branch that has gone takes no time
        return (up[0] * up[1] * widths.rest * widths.pixels / speed).sum(axis=1)

    return 0.2 + 0.8 * macs(counts) / macs(whole[None])


class MadeUpTimer(CandidateTimer):
    """Timings of the made-up machine, slower than its table says for one candidate in three."""

    def _time(self, counts: np.ndarray, seconds: float) -> Measurement:
        ids = [group.id for group in self.graph.prunable]
        whole = np.array([group.size for group in self.graph.prunable])
        widths = LayerWidths.of(self.graph, ids)
        fraction = float(made_up(counts[None], widths, whole, 8)[0])
        off = 1.03 if int(counts.sum()) // 8 % 3 == 0 else 0.99
        return Measurement(fraction * off, fraction * off * 1e-3, 1e-3)


def made_run(root: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder for `module`, whose network is the trained one."""
    model, graph, splits = trained()
    for name in ("rotate", "trace"):
        (root / name).mkdir()
    (root / "rotate" / "model.safetensors").write_bytes(b"weights")
    document("graph").write(root / "trace" / "graph.json", graph.to_dict())
    monkeypatch.setattr(module, "load_model", lambda folder: model)
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    return root
