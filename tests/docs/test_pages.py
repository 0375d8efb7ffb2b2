"""Pages name what exists (links, files, settings), and what is generated is current."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pages import PAGES, ROOT, Piece, all_blocks, name_of, read

from pipeline.config.load import all_paths, known_keys, load_config
from stages import STAGES
from tools import make_docs

TOPS = ("pipeline", "stages", "configs", "docs", "tests", "tools", "examples", "pretrained_model")
FILES = ("json", "jsonl", "onnx", "safetensors", "html", "yaml", "py", "md")
YAML = all_blocks("yaml")
NAMES = [name_of(path) for path in PAGES]


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "artifacts/README.md"} <= set(NAMES)
    assert len([name for name in NAMES if name.startswith("docs/results/")]) > 4


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("page", make_docs.PAGES)
def test_generated_page_is_current(page: str) -> None:
    assert make_docs.is_current(page), "make docs writes it anew"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def broken_links(path: Path) -> list[str]:
    broken = []
    for link in read(path).links():
        target, _, anchor = link.text.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in read(file).anchors()):
            broken.append(f"{link.where}: {link.text}")
    return broken


def test_a_broken_link_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One head\n\n[a](#one-head) [b](#two) [c](gone.md) [d](page.md#one-head)\n")
    assert broken_links(page) == ["page.md:3: #two", "page.md:3: gone.md"]


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        reached.add(page)
        targets = {(page.parent / link.text.partition("#")[0]) for link in read(page).links()}
        found = {target.resolve() for target in targets if target.suffix == ".md"}
        left += found - reached - set(left)
    assert set(PAGES) - reached == set()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.-])((?:{'|'.join(TOPS)})/[\w./*-]*[\w/*])", text)
    placeholders = re.compile(r"(^|/)[A-Z]+(\.|/|$)")
    real = [name for name in named if not placeholders.search(name)]
    assert [name for name in real if not list(ROOT.glob(name))] == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_settings_that_are_named_exist(path: Path) -> None:
    assert [piece.where for piece in read(path).inline_code() if unknown_key(piece.text)] == []


def unknown_key(text: str) -> bool:
    """Whether the code looks like `section.key` (with or without a value) and is none."""
    key = re.split(r"[=:]", text, maxsplit=1)[0].strip()
    parts = key.split(".")
    looks = re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key) and parts[0] in known_keys(())
    if not looks or parts[-1] in FILES:
        return False
    # what stands below a free-form key such as `model.kwargs` is up to the user
    return not any(known == key or f"{known}.".startswith(f"{key}.") for known in all_paths())


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("search.trials", False),
        ("search.trials=20", False),
        ("search.budget", False),
        ("search.json", False),
        ("stages.search", False),
        ("search.trails", True),
        ("search.budget.energy: 0.5", True),
    ],
)
def test_an_unknown_key_is_caught(text: str, unknown: bool) -> None:
    assert unknown_key(text) is unknown


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.where)
def test_yaml_is_a_config(block: Piece, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(block.text, encoding="utf-8")
    load_config(file)


def test_yaml_is_found() -> None:
    assert YAML


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.parent for top in ("pipeline", "stages") for path in ROOT.glob(f"{top}/*/*.py")}
    assert sorted(name_of(room) for room in rooms if name_of(room) not in text) == []


def test_every_room_of_the_map_has_a_sentence() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [s.name for s in STAGES if f"| `stages/{s.name}` |" not in text] == []


def test_names_of_the_glossary_exist() -> None:
    table = read(ROOT / "docs" / "glossary.md").prose.split("## Names in the code")[1]
    names = re.findall(r"`(\w+)`", table)
    code = "\n".join(p.read_text("utf-8") for top in TOPS[:2] for p in ROOT.glob(f"{top}/**/*.py"))
    assert len(names) > 5
    assert [name for name in names if f"class {name}" not in code] == []


def test_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
