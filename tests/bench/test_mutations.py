"""The script that mutates inputs: what it makes, that a number repeats it, and how it judges."""

from __future__ import annotations

import contextlib
import random
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

sys.path[:0] = [str(Path(__file__).parent)]

import mutations  # noqa: E402
from mutated import folders, graphs  # noqa: E402

from pipeline.errors import ArtifactError  # noqa: E402


@pytest.mark.parametrize("change", graphs.CHANGES, ids=lambda change: change.__name__)
def test_every_change_of_a_graph_leaves_a_file_that_parses(change: graphs.Change) -> None:
    different = 0
    for base in graphs.BASES:
        for number in range(20):
            before, proto = base(), base()
            change(proto, random.Random(number))
            data = proto.SerializeToString()
            onnx.load_from_string(data)
            different += data != before.SerializeToString()
    assert different > 100


@pytest.mark.parametrize("change", folders.CHANGES, ids=lambda change: change.__name__)
def test_every_change_of_a_folder_changes_it(change: folders.Change, tmp_path: Path) -> None:
    different = 0
    for number in range(20):
        chance, root = random.Random(number), tmp_path / str(number) / "data"
        root.mkdir(parents=True)
        (root.parent / "outside").mkdir()
        folders.sound(root, chance)
        before = _tree(root.parent)
        with contextlib.suppress(OSError):  # a name is taken
            change(root, chance)
        different += _tree(root.parent) != before
    assert different > 10


def test_a_number_makes_the_same_input_again(tmp_path: Path) -> None:
    for number in range(10):
        first, again = (graphs.mutated(random.Random(number)) for _ in range(2))
        assert first == again
        trees = []
        for name in ("a", "b"):
            folder = tmp_path / f"{number}{name}"
            folder.mkdir()
            folders.mutated(folder, random.Random(number))
            trees.append(_tree(folder))
        assert trees[0] == trees[1]


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Mode and size of all that may be seen below."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(PermissionError):
            info = path.lstat()
            size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
            found[str(path.relative_to(folder))] = info.st_mode, size
    return found


def _refuse(path: str) -> None:
    raise ArtifactError("damaged")


def _fall_over(path: str) -> None:
    raise KeyError(path)


@pytest.mark.parametrize(("reads", "code"), [(_refuse, 3), (_fall_over, 70), (len, 0)])
def test_a_refusal_is_fine_and_any_other_exception_a_bug(
    monkeypatch: pytest.MonkeyPatch, reads: Callable[[str], object], code: int
) -> None:
    monkeypatch.setitem(mutations.INSIDE, "weights", reads)
    codes, wrong = mutations.one(lambda chance, folder: [["weights", "w"]], "pth", 7, 0)
    assert codes == {str(code): 1}
    assert [line.partition(" ")[0] for line in wrong] == (["pth:7"] if code == 70 else [])
