"""`rlp runs`: every run in a row, damaged and unfinished ones too, and no torch for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture
def some(whole: Path, here: Path) -> Path:
    """`artifacts` with a finished run, an unfinished one, and two that are damaged."""
    folder = here / "artifacts"
    for name in ("done", "half", "torn", "hollow"):
        shutil.copytree(whole, folder / name)
    shutil.rmtree(folder / "half" / "benchmark")
    (folder / "torn" / "run.json").write_text("{")
    summary = folder / "hollow" / "report" / "summary.json"
    summary.write_text(summary.read_text().replace('"variants": [', '"variants": [7, '))
    (folder / "no run").mkdir()
    return folder


def test_runs_lists_each_with_its_answer_or_its_damage(some: Path, rlp: fake_run.Rlp) -> None:
    result = rlp("runs", "--json")
    rows = {Path(row["run"]).name: row for row in result.json()["runs"]}
    assert rows.keys() == {"done", "half", "torn", "hollow"}
    assert rows["done"]["state"] == "done"
    assert (rows["done"]["accuracy"], rows["done"]["ratio"]) == (0.88, 2.0)
    assert rows["half"]["state"] == f"{len(fake_run.READS) - 1} of {len(fake_run.READS)} stages"
    assert rows["half"]["ratio"] is None
    for name in ("torn", "hollow"):
        assert rows[name]["state"] == "damaged"
        assert rows[name]["error"]
    shown = rlp("runs", some)
    assert "88.00%" in shown.out
    assert shown.err.count("warning: ") == 2


def test_runs_of_a_folder_without_any(here: Path, rlp: fake_run.Rlp) -> None:
    assert rlp("runs", here, "--json").json()["runs"] == []
    assert rlp("runs").code == 3  # no artifacts


def test_looking_at_runs_takes_no_torch(some: Path) -> None:
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        f"try:\n    main(['runs', {str(some)!r}, '--quiet'])\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "0 False"
