"""A finished run of fake stages, and an empty folder to work in."""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test writes to, beside its config."""
    with pytest.MonkeyPatch.context() as patch:
        fake_run.install(patch.setattr)
        folder = tmp_path_factory.mktemp("whole")
        (folder / "fake.yaml").write_text("seed: 0\n")
        return fake_run.finished(folder / "run")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
