"""A user's project may have folders called as rlp's packages are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
_NET = """
import torch.nn as nn
def small(num_classes=2, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `pipeline` and `stages` of the user's own, a network, and a few pictures."""
    home = tmp_path_factory.mktemp("project")
    for name in ("pipeline", "stages"):
        (home / name).mkdir()
        (home / name / "__init__.py").write_text("raise RuntimeError('the project of the user')\n")
    (home / "nets.py").write_text(_NET)
    (home / "stages" / "nets.py").write_text(_NET)
    for at in range(24):
        folder = home / "images" / "ab"[at % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10 * at, 0, 0)).save(folder / f"{at}.png")
    (home / "my.yaml").write_text(
        "model: {source: 'nets:small'}\ndata: {root: images}\n"
        "pretrain: {epochs: 1, batch_size: 4}\n"
    )
    return home


def _rlp(project: Path, how: list[str], path: list[Path], *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-P", *how, *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_find_their_own_packages(project: Path) -> None:
    script = ["-c", "from rlp_main import main; main()"]  # as pip writes it
    assert "quickstart" in _rlp(project, script, [project, ROOT], "config", "ls")
    assert "quickstart" in _rlp(project, ["-m", "rlp_main"], [project, ROOT], "config", "ls")


def test_a_network_of_such_a_project_is_found(project: Path) -> None:
    code = (
        "import sys; from rlp_main import main\n"
        "from unittest.mock import patch\n"
        "def run(*words):\n"
        "    sys.argv = ['rlp', *words]\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert end.code == 0\n"
        "run('pipeline', 'run', 'my.yaml', '--until', 'pretrain')\n"
        "file = ('--set', 'model.source=stages/nets.py:small', '--run-dir', 'by_file')\n"
        "run('pipeline', 'run', 'my.yaml', '--until', 'trace', *file)\n"
    )
    _rlp(project, ["-c", code], [project, ROOT])
    assert (project / "artifacts" / "my" / "pretrain" / "manifest.json").is_file()
    assert (project / "by_file" / "trace" / "graph.json").is_file()
