"""A run is not taken over by another config or network, and two configs share no default folder."""

from __future__ import annotations

from pathlib import Path

import fake_run
import pytest

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "my.yaml").write_text("seed: 0\n")
    return tmp_path


def test_another_config_is_refused_where_it_would_re_make_a_stage(
    here: Path, rlp: fake_run.Rlp
) -> None:
    assert rlp("pipeline", "run", "a/my.yaml", "--run-dir", "run").code == 0
    before = fake_run.tree(here / "run")
    assert rlp("pipeline", "run", "b/my.yaml", "--run-dir", "run").code == 0  # nothing to re-make
    assert fake_run.tree(here / "run") == before
    (here / "a" / "my.yaml").write_text("seed: 1\n")
    other = ("pipeline", "run", "a/my.yaml", "--run-dir", "run")
    refused = rlp(*other)
    assert refused.code == 2
    assert "another config, b/my.yaml" in refused.lines("error")[0]
    assert "--run-dir run --force" in refused.lines("hint")[0]
    assert fake_run.tree(here / "run") == before
    assert "would be refused: run:" in rlp("pipeline", "plan", *other[2:]).err
    assert rlp(*other, "--force").code == 0
    assert fake_run.tree(here / "run") != before


def test_another_network_of_the_same_config_is_refused(here: Path, rlp: fake_run.Rlp) -> None:
    command = ("pipeline", "run", "a/my.yaml", "--run-dir", "run")
    assert rlp(*command).code == 0
    refused = rlp(*command, "--set", "model.source=vgg11")
    assert refused.code == 2
    assert "→ vgg11" in refused.lines("error")[0]
    assert rlp(*command, "--set", "model.kwargs={stem_stride: 2}").code == 2
    # how it is trained may change
    assert rlp(*command, "--set", "search.trials=7").code == 0


def test_a_config_that_was_moved_goes_on_with_its_run(here: Path, rlp: fake_run.Rlp) -> None:
    assert rlp("pipeline", "run", "a/my.yaml").code == 0
    moved = (here / "a" / "my.yaml").rename(here / "my.yaml")
    assert rlp("pipeline", "run", moved, "--set", "search.trials=7").code == 0
    assert [path.name for path in (here / "artifacts").iterdir()] == ["my"]


def test_configs_of_one_name_have_runs_of_their_own(here: Path, rlp: fake_run.Rlp) -> None:
    for folder in ("b", "x/b", "y/b"):
        file = here / folder / "my.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("seed: 0\n")
    folders = []
    for folder in ("a", "b", "x/b", "y/b", "b"):
        result = rlp("pipeline", "run", f"{folder}/my.yaml", "--json")
        folders.append(result.json()["run"])
        assert ("is a run of another config" in result.err) == (folder != "a")
    assert folders[:2] == ["artifacts/my", "artifacts/b-my"]
    assert folders[4] == folders[1]
    assert len(set(folders)) == 4
