"""`import torchvision` after ours: as it is where that works, else with its operators declared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROKEN = """
import torch
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
from torchvision import part
value = 7
"""
SEEN = """
import stages, torchvision, torchvision.part
print(torchvision.value, torchvision.__spec__.name)
"""


def _run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(folder)!r}]\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", path + code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("text", [BROKEN, "value = 7\n"], ids=["broken wheel", "whole wheel"])
def test_imports(tmp_path: Path, text: str) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(text)
    (tmp_path / "torchvision" / "part.py").write_text("")
    done = _run(tmp_path, SEEN)
    assert done.stdout.split() == ["7", "torchvision"], done.stderr


def test_another_error_stays_its_own(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('of another kind')\n")
    done = _run(tmp_path, "import stages, torchvision")
    assert "of another kind" in done.stderr.splitlines()[-1]
