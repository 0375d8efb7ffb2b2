"""Through this file the folder is on `sys.path`: `import search_nets` works in every room below."""

from __future__ import annotations

from types import ModuleType

import pytest
from search_nets import trained

import stages.search.stage as module


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The search stage, with the trained network and its images instead of files."""
    model, _, splits = trained()
    monkeypatch.setattr(module, "load_model", lambda folder: model)
    monkeypatch.setattr(module, "load_splits", lambda config, seed: splits)
    return module
