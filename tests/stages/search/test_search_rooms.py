"""The arrows between the rooms, as the docstring of `stages.search` draws them."""

from __future__ import annotations

import ast
from pathlib import Path

import stages.search as package

ROOT = Path(package.__file__).parent
ROOMS = {"space", "evaluation", "latency", "tables", "strategies", "results"}
ARROWS = {
    "space": set(),
    "evaluation": {"space"},
    "latency": {"space"},
    "tables": {"space"},
    "strategies": {"space", "evaluation"},
    "budget": {"space", "latency"},
    "problem": {"space", "evaluation", "latency", "tables", "strategies", "budget"},
    "engine": {"space", "evaluation", "strategies"},
    "tabulate": {"space", "evaluation", "tables", "engine"},
    "results": {"space", "evaluation", "latency", "tables", "problem"},
    "front": {"space", "evaluation", "tables", "problem", "engine"},
    "settled": {"latency", "problem", "results"},
    "moved_limit": {"latency", "tables", "problem"},
    "session": {
        *ROOMS,
        "budget",
        "problem",
        "engine",
        "tabulate",
        "front",
        "settled",
        "moved_limit",
    },
    "compare": {*ROOMS, "budget", "problem", "engine", "tabulate"},
    "compare_run": {*ROOMS, "budget", "problem", "engine", "tabulate", "compare", "moved_limit"},
    "front_run": {*ROOMS, "budget", "problem", "engine", "tabulate", "front"},
    "stage": {*ROOMS, "budget", "problem", "engine", "tabulate", "session", "settled"},
}


def imports(path: Path) -> set[str]:
    """Rooms and files of `stages.search` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[:2] == ["stages", "search"]:
                found.add(parts[2] if len(parts) > 2 else "")
    return found


def test_every_file_has_its_place() -> None:
    there = {path.stem if path.is_file() else path.name for path in ROOT.iterdir()}
    assert there - {"__init__", "__pycache__"} == set(ARROWS)


def test_rooms_import_along_the_arrows_only() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if place != "__init__":
            others = imports(path) - {place}
            wrong += [f"{path.relative_to(ROOT)}: {name}" for name in others - ARROWS[place]]
    assert wrong == []


def test_the_arrows_lead_one_way() -> None:
    """In the order of the table, a place imports only those above it."""
    order = list(ARROWS)
    assert all(
        order.index(other) < order.index(place) for place in order for other in ARROWS[place]
    )
