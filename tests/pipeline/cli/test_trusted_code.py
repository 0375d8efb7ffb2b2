"""The code of a network is imported where a command line named it or somebody said so once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_run
import pytest
from torch import nn

from pipeline.cli.running import user_modules
from pipeline.config.load import build_config
from pipeline.errors import ArtifactError
from pipeline.models.registry import build_model
from pipeline.run.artifacts import RUN
from pipeline.run.stage import StageContext

CODE = """
import pathlib
from torch import nn
pathlib.Path(__file__).with_name("imported").touch()
def net(width=2): return nn.Conv2d(3, width, 1)
"""


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of a stranger's; nothing is trusted yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "received"
    folder.mkdir()
    (folder / "stranger.py").write_text(CODE)
    yield folder
    sys.modules.pop("stranger", None)


def _build(
    received: Path, *, named: bool, of_run: str = "stranger:net", **kwargs: Any
) -> nn.Module:
    """The network that a run's model.json names, under a config that names `stranger:net`."""
    config = build_config({"model": {"source": "stranger:net"}})
    model = config.model.model_copy(update={"source": of_run, "kwargs": kwargs})
    with user_modules(config, str(received / "c.yaml"), named=named):
        return build_model(model, in_channels=3, num_classes=2)


def test_code_that_only_a_run_names_is_not_imported(received: Path) -> None:
    with pytest.raises(ArtifactError, match="refused as unsafe") as caught:
        _build(received, named=False)
    assert "--trust-code" in caught.value.hint
    assert str(received / "stranger.py") in caught.value.message
    assert not (received / "imported").exists()
    assert str(received) not in sys.path


def test_code_once_named_is_remembered_as_it_is(received: Path) -> None:
    _build(received, named=True)
    assert isinstance(_build(received, named=False), nn.Conv2d)
    (received / "stranger.py").write_text(CODE + "# another\n")
    with pytest.raises(ArtifactError, match="refused as unsafe"):
        _build(received, named=False)


@pytest.mark.parametrize(
    "forged", [{"of_run": "typer:launch", "url": "x"}, {"width": 3}], ids=["source", "kwargs"]
)
def test_a_forged_model_file_is_not_what_was_named(received: Path, forged: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="refused as unsafe"):
        _build(received, named=True, **forged)
    assert not (received / "imported").exists()


def test_stage_of_a_received_run_asks_for_the_flag(
    fakes: None, received: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run.finished(received / "run", ["model.source=stranger:net"])
    record = RUN.read(run / RUN.file)
    RUN.write(run / RUN.file, {**record, "config_name": str(received / "c.yaml")})

    def build(self: object, ctx: StageContext) -> None:
        build_model(ctx.config.model, in_channels=3, num_classes=2)
        raise ArtifactError("imported")

    monkeypatch.setattr(type(fake_run.STAGES[1]), "run", build)
    again = ("stage", "trace", "--run", run, "--force")
    assert rlp("report", run).code == 0  # to look at it takes nobody's code
    refused = rlp(*again)
    assert refused.code == 3
    assert "refused as unsafe" in refused.lines("error")[0]
    assert not (received / "imported").exists()
    for command in ((*again, "--trust-code"), again):
        assert rlp(*command).lines("error") == ["error: imported"]
