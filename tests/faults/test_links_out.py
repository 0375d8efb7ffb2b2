"""A run that came from a stranger: whatever its links lead to is neither removed nor written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fake_run
import pytest

pytestmark = pytest.mark.usefixtures("fakes")

LINKS = (
    *(".work", ".work/report", ".work/search", ".lock", ".owner.json", "run.json"),
    *("report", "search", "round-1", "round-1/search", "round-1/.work", "round-2"),
    *(".staging-report", ".old-report", ".staging-search", "report/report.html"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two rounds."""
    with pytest.MonkeyPatch.context() as patch:
        fake_run.install(patch.setattr)
        return fake_run.finished(tmp_path_factory.mktemp("whole") / "run", ["rounds=2"])


def _outside(folder: Path) -> Path:
    """A folder with what a run has, and a file of each name that is ever swept."""
    for name in ("report", "search", "needs.json.d"):
        (folder / name).mkdir(parents=True)
        (folder / name / ".x.tmp").write_text("theirs")
        (folder / name / "manifest.json").write_text("theirs")
    for name in (".x.tmp", "needs.json", "manifest.json", "report.html"):
        (folder / name).write_text("theirs")
    return folder


def _tree(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("name", LINKS)
def test_nothing_behind_a_link_is_touched(
    whole: Path, rlp: fake_run.Rlp, tmp_path: Path, name: str
) -> None:
    run, outside = Path(shutil.copytree(whole, tmp_path / "run")), _outside(tmp_path / "outside")
    link = run / name
    target = outside / "manifest.json" if (whole / name).is_file() or "lock" in name else outside
    _replace(link, target)
    config, before = tmp_path / "my.yaml", _tree(outside)
    config.write_text("rounds: 2\n")
    for command in (
        ("report", run),
        ("stage", "report", "--run", run, "--force"),
        ("stage", "round-1/search", "--run", run, "--force"),
        ("pipeline", "run", config, "--run-dir", run, "--force"),
        ("check", run),
    ):
        result = rlp(*command)
        assert result.code in (0, 3), result.err
        assert _tree(outside) == before, f"{command} reached through {name}"


def _replace(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def test_a_link_in_the_place_of_scratch_is_named(
    whole: Path, rlp: fake_run.Rlp, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    _replace(run / ".work", _outside(tmp_path / "outside"))
    result = rlp("stage", "report", "--run", run, "--force")
    assert result.code == 3
    assert str(run / ".work") in result.lines("error")[0]
    assert "rm" in result.lines("hint")[0]


def test_a_lock_with_a_second_name_is_refused(
    whole: Path, rlp: fake_run.Rlp, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (run / ".lock").unlink()
    os.link(victim, run / ".lock")
    assert rlp("stage", "report", "--run", run, "--force").code == 3
    assert victim.read_text() == "theirs"


def test_check_names_what_lies_beside_the_stages(
    whole: Path, rlp: fake_run.Rlp, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    assert rlp("check", run, "--json").json()["unlisted"] == []
    (run / "sitecustomize.py").write_text("raise SystemExit")
    (run / "round-1" / "\x1b[2Jnotes").mkdir()
    result = rlp("check", run, "--json")
    assert result.json()["unlisted"] == ["round-1/\x1b[2Jnotes", "sitecustomize.py"]
    assert r"\x1b[2Jnotes: belongs to no stage" in result.err
    assert "\x1b" not in result.out + result.err
