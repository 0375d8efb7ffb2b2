"""The pieces of code that CONTRIBUTING.md starts newcomers with work where it says they go."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pages import ROOT, read
from torch import nn

from pipeline.channels.costs import ProductCost
from stages.prune import rank_channels
from stages.prune.importance import CRITERIA
from stages.search.space import Candidate, Projector, Space
from stages.search.strategies import Task
from stages.trace import trace


def module_of(name: str, folder: Path) -> ModuleType:
    """The block of CONTRIBUTING.md that starts with `# NAME.py`, imported."""
    blocks = read(ROOT / "CONTRIBUTING.md").blocks
    (text,) = [b.text for b in blocks if b.text.startswith(f"# {name}.py\n")]
    file = folder / f"{name}.py"
    file.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_criterion_ranks_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "cube", module_of("cube", tmp_path).score_units)
    net = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)).eval()
    scores = rank_channels(net, trace(net, torch.zeros(1, 1, 4, 4)), "cube")
    rows, columns = (net[i].weight.detach().double().abs() ** 3 for i in (0, 1))
    expected = rows.sum((1, 2, 3)) + columns.sum((0, 2, 3))
    assert torch.allclose(scores["0"], expected, rtol=1e-6)


def test_strategy_proposes_within_the_budget(tmp_path: Path) -> None:
    def proposals() -> list[Candidate]:
        return narrow.Narrow(Task(projector, importance, seed=1, trials=5)).ask(5)

    narrow = module_of("narrow", tmp_path)
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 2, 1)).eval()
    graph = trace(net, torch.zeros(1, 1, 8, 8))
    space = Space.from_groups(graph.prunable, align=4, min_keep=0.1)
    projector = Projector.fraction(space, ProductCost.macs(graph, space.ids), 0.4)
    importance = tuple(rank_channels(net, graph)[name].numpy() for name in space.ids)
    found = proposals()
    assert len(found) == 5
    assert all(projector.fits(candidate.counts) for candidate in found)
    assert len({tuple(candidate.counts) for candidate in found}) > 1
    assert [tuple(c.counts) for c in proposals()] == [tuple(c.counts) for c in found]
