"""Every Python block on a page and every example runs, as it stands, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, name_of, read

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
WITH_PYTHON = [p for p in PAGES if any(b.language == "python" for b in read(p).blocks)]


def run(script: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script in a fresh interpreter, in `folder`, with its own cache."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_PYTHON, ids=name_of)
def test_blocks_of_a_page_run_in_order(path: Path, tmp_path: Path) -> None:
    """A block that starts with `# name.py` is that file; the others are one script, and a block of
    text is what it prints.
    """
    blocks, script = read(path).blocks, []
    for block in (b for b in blocks if b.language == "python"):
        first = block.text.splitlines()[0].removeprefix("# ")
        if first.endswith(".py"):
            (tmp_path / first).write_text(block.text, encoding="utf-8")
            script.append(f"import {first.removesuffix('.py')}\n")
        else:
            script.append(block.text)
    (tmp_path / "page_script.py").write_text("\n".join(script), encoding="utf-8")
    done = run(tmp_path / "page_script.py", tmp_path)
    assert done.returncode == 0, done.stderr
    printed = re.sub(r" +\n", "\n", done.stdout)
    assert [b.where for b in blocks if b.language == "text" and b.text not in printed] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    """Each ends with the verdict of a timed comparison, and writes only where it is run."""
    before = sorted(path.parent.iterdir())
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "95 % CI" in done.stdout
    assert list(tmp_path.rglob("*.onnx"))
    assert sorted(p for p in path.parent.iterdir() if p.name != "__pycache__") == [
        p for p in before if p.name != "__pycache__"
    ]


def test_examples_and_blocks_are_found() -> None:
    names = {path.name for path in EXAMPLES}
    assert names == {"library.py", "own_network.py", "own_training_loop.py"}
    assert {"README.md", "docs/api.md"} <= {name_of(path) for path in WITH_PYTHON}


def test_every_example_is_named_on_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert [path.name for path in EXAMPLES if f"examples/{path.name}" not in text] == []
