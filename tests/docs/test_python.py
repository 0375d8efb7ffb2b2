"""Every Python block on a page and every example runs, as it stands, in an empty folder.

One of the examples runs in a fresh interpreter, as a reader types it; the others in this one, where
torch need not be loaded anew.
"""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, name_of, read

from pipeline.cli import main

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


_RLP = [sys.executable, "-c", "from pipeline.cli import main; main()"]
_run = subprocess.run


def _typed(command: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`, but `rlp` runs in this process."""
    if list(command[:3]) != _RLP:
        return _run(command, **settings)
    with pytest.raises(SystemExit) as end:
        main(list(command[3:]))
    assert not end.value.code
    return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """Runs a script in this process, in an empty folder; what it imports from its own folder is
    forgotten.
    """
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(subprocess, "run", _typed)

    def run(script: Path) -> None:
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")

    yield run
    folders = (tmp_path, ROOT / "examples")
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent in folders:
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_PYTHON, ids=name_of)
def test_blocks_of_a_page_run_in_order(
    path: Path,
    tmp_path: Path,
    here: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
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
    here(tmp_path / "page_script.py")
    printed = re.sub(r" +\n", "\n", capsys.readouterr().out)
    assert [b.where for b in blocks if b.language == "text" and b.text not in printed] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(
    path: Path,
    tmp_path: Path,
    here: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each ends with the verdict of a timed comparison, and writes only where it is run."""
    before = sorted(path.parent.iterdir())
    if path.name == "own_network.py":  # it imports, and has rlp import, most of all
        done = run(path, tmp_path)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    else:
        here(path)
        printed = capsys.readouterr().out
    assert "95 % CI" in printed
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
