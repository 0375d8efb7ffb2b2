"""The pieces of code that CONTRIBUTING.md starts newcomers with work where it says they go."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pages import ROOT, read
from torch import nn

from stages.prune import rank_channels
from stages.prune.importance import CRITERIA
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
