"""The trace stage hands its settings on to the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_nets import CASES

from pipeline.config.schema import Config, TraceConfig
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from stages.trace import ChannelGraph, stage


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, **settings: Any) -> ChannelGraph:
    """`graph.json` of a ConvNeXt block, traced with these settings."""
    monkeypatch.setattr(stage, "load_model", lambda path: CASES["ConvNeXtBlock"].build())
    config = Config(trace=TraceConfig(**settings))
    inputs: dict[str, Any] = {"base_model": (folder, {})}
    card = SimpleNamespace(image_shape=(3, 8, 8))
    stage.run(StageContext(config, folder, folder, inputs, data_card=card))
    return ChannelGraph.from_dict(document("graph").read(folder / "graph.json"))


def test_frozen_by_a_pattern(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = run(monkeypatch, tmp_path, freeze=("fc*",))
    assert graph.frozen["fc1"] == "frozen by trace.freeze"


def test_statistics_open_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not run(monkeypatch, tmp_path)["a"].prunable
    opened = run(monkeypatch, tmp_path, open_statistics=True)["a"]
    assert opened.prunable
    assert not opened.exact
