"""The trace stage hands its settings on to the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_nets import CASES

from pipeline import models
from pipeline.config.schema import TraceConfig
from stages.trace import ChannelGraph
from stages.trace.stage import TraceStage


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: Any) -> ChannelGraph:
    """`graph.json` of a ConvNeXt block, traced with these settings."""
    monkeypatch.setattr(models, "load_model", lambda path: CASES["ConvNeXtBlock"].build())
    context: Any = SimpleNamespace(
        input=lambda kind: folder / kind,
        data_card=SimpleNamespace(image_shape=(3, 8, 8)),
        config=SimpleNamespace(trace=TraceConfig(**settings)),
        out=folder,
    )
    TraceStage().run(context)
    return ChannelGraph.from_json((folder / "graph.json").read_text())


def test_frozen_by_a_pattern(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = run(monkeypatch, tmp_path, freeze=("fc*",))
    assert graph.frozen["fc1"] == "frozen by trace.freeze"


def test_statistics_open_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not run(monkeypatch, tmp_path)["a"].prunable
    opened = run(monkeypatch, tmp_path, open_statistics=True)["a"]
    assert opened.prunable
    assert not opened.exact
