"""Through this file the folder is on `sys.path`: `import search_nets` works in every room below."""

from __future__ import annotations

import hashlib
from types import ModuleType

import onnx
import pytest
import torch
from search_nets import trained
from torch import nn

import stages.search.stage as module
from stages.export import export_proto
from stages.search.latency import precision, timer


@pytest.fixture(autouse=True, scope="session")
def exported_once() -> None:
    """A network is exported once, which takes seconds, for all timers of all tests."""
    kept: dict[tuple[object, ...], onnx.ModelProto] = {}

    def once(model: nn.Module, example: torch.Tensor) -> onnx.ModelProto:
        weights = hashlib.sha256()
        for tensor in model.state_dict().values():
            weights.update(tensor.numpy().tobytes())
        key = (str(model), example.shape, weights.digest())
        if key not in kept:
            kept[key] = export_proto(model, example)
        copied = onnx.ModelProto()
        copied.CopyFrom(kept[key])
        return copied

    timer.export_proto = precision.export_proto = once  # type: ignore[attr-defined]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The search stage, with the trained network and its images instead of files."""
    model, _, splits = trained()
    monkeypatch.setattr(module, "load_model", lambda folder: model)
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    return module
