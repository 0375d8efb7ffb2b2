"""Which room of stages/ uses the engines of which other, read from the imports."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Edges = set[tuple[str, str]]


def diagram() -> str:
    """A mermaid picture: an arrow from every stage to each one whose engine it imports, and to
    pipeline.
    """
    found = edges()
    alone = [room for room in _rooms() if not any(room in edge for edge in found)]
    lines = ["", "```mermaid", "flowchart LR", '    subgraph stages["stages/"]']
    lines += [f"        {importer} --> {imported}" for importer, imported in sorted(found)]
    lines += [f"        {stage}" for stage in alone]
    lines += ["    end", '    stages --> pipeline["pipeline/"]', "```", "", ""]
    return "\n".join(lines)


def edges() -> Edges:
    """(importer, imported) for every two rooms."""
    found: Edges = set()
    rooms = _rooms()
    for path in (ROOT / "stages").rglob("*.py"):
        importer = path.relative_to(ROOT / "stages").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = (getattr(node, "module", None) or "").split(".")
            if words[0] == "stages" and len(words) > 1 and words[1] in rooms:
                found.add((importer, words[1]))
    return {edge for edge in found if edge[0] in rooms and edge[0] != edge[1]}


def _rooms() -> list[str]:
    """Folders of `stages/`."""
    return sorted(path.parent.name for path in (ROOT / "stages").glob("*/__init__.py"))
