"""`path/to/file.py:factory`: beside the config, then here, and never mixed up with a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.models.user_source import asking, find_factory, source_file

_NET = "from helper_{name} import WIDTH\ndef small(): return WIDTH\n"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a config, with a file and what that imports; another below the current one."""
    for name, width in (("config", 1), ("here", 2)):
        folder = tmp_path / name / "stages"
        folder.mkdir(parents=True)
        (folder / "nets.py").write_text(_NET.format(name=name))
        (folder / f"helper_{name}.py").write_text(f"WIDTH = {width}\n")
    (tmp_path / "here" / "only.py").write_text("def small(): return 3\n")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "config"


def test_a_file_is_looked_for_beside_the_config_then_here(places: Path) -> None:
    with asking(places, lambda source, kwargs: None):
        assert find_factory("stages/nets.py:small", {})() == 1
        assert source_file("stages/nets.py:small") == places / "stages" / "nets.py"
        assert find_factory("only.py:small", {})() == 3
        assert find_factory(f"{places.parent}/here/stages/nets.py:small", {})() == 2
        with pytest.raises(UsageError, match="no such file") as caught:
            find_factory("stages/none.py:small", {})
    for home in (places, Path.cwd()):
        assert str(home / "stages" / "none.py") in caught.value.hint
    assert source_file("stages/none.py:small") is None


def test_a_file_is_not_imported_before_somebody_said_so(places: Path) -> None:
    def no(source: str, kwargs: object) -> None:
        raise UsageError("not trusted")

    (places / "stages" / "nets.py").write_text("raise SystemExit('imported')")
    with asking(places, no), pytest.raises(UsageError, match="not trusted"):
        find_factory("stages/nets.py:small", {})


def test_a_file_that_fails_is_named_and_tried_again(places: Path) -> None:
    file = places / "stages" / "nets.py"
    with asking(places, lambda source, kwargs: None):
        file.write_text("import no_such_module_of_mine\n")
        with pytest.raises(UsageError, match="needs no_such_module_of_mine") as caught:
            find_factory("stages/nets.py:small", {})
        assert "pip install" not in caught.value.hint
        file.write_text("def small(): return 5\n")
        assert find_factory("stages/nets.py:small", {})() == 5
        with pytest.raises(UsageError, match=r"stages/nets\.py defines no large"):
            find_factory("stages/nets.py:large", {})
