"""`rlp inspect ARTEFACT`: show any artefact to a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command


def register(app: typer.Typer) -> None:
    command(app, "inspect", keys=("path", "kind", "content"))(inspect)


def inspect(
    artefact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTEFACT", help="A file of a run, a model folder, or any .onnx file."
        ),
    ],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows of a table.")] = 200,
) -> dict[str, Any]:
    """Show groups and frozen channels of a graph, widths of a plan, tensors of a model, nodes
    of an ONNX file.
    """
    from pipeline.errors import ArtifactError, Hint

    path = (
        artefact / "model.json"
        if artefact.is_dir() and (artefact / "model.json").exists()
        else artefact
    )
    if path.is_dir():
        raise ArtifactError(
            f"{path}: a folder without a model.json", hint="name one of the files in it"
        )
    if not path.exists():
        raise ArtifactError(
            f"{path}: no such file",
            hint=Hint.command("pipeline", "status", "RUN", says="lists what a run has"),
        )
    if path.suffix == ".onnx":
        kind, content = "onnx", _onnx(path, limit)
    elif path.suffix == ".safetensors":
        kind, content = "tensors", _tensors(path, limit)
    elif path.suffix == ".jsonl":
        kind, content = "trials", _lines(path, limit)
    else:
        kind, content = _json(path, limit)
    return {"path": str(path), "kind": kind, "content": content}


def _json(path: Path, limit: int) -> tuple[str, Any]:
    from pipeline.errors import ArtifactError, Hint
    from pipeline.run import store

    content = store.read_json(path, max_bytes=1 << 28)
    shown: dict[str, Callable[[Any, int], None]] = {
        "graph": _show_graph,
        "plan": _show_plan,
        "manifest": _show_manifest,
    }
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind is None and isinstance(content, dict):
        kind = (
            "graph"
            if {"groups", "layers"} <= content.keys()
            else "plan"
            if "keep" in content
            else path.stem
        )
    kind = str(kind or path.stem)
    try:
        shown.get(kind, _show_flat)(content, limit)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{path}: says it is a {kind}, and is not ({type(error).__name__}: {error})",
            hint=Hint.command("check", "RUN", says="finds what was changed"),
        ) from None
    return kind, content


def _cut(rows: list[Any], limit: int) -> list[Any]:
    if len(rows) > limit:
        console.note(f"{len(rows) - limit} more rows; --limit shows them")
    return rows[:limit]


def _show_graph(graph: Any, limit: int) -> None:
    rows = []
    for group in graph["groups"]:
        members = ", ".join(f"{name}[{dim}]" for name, dim, *_ in group["members"])
        short = members if len(members) < 60 or console.verbose else members[:57] + "…"
        rows.append(
            (
                group["id"],
                group["size"],
                "yes" if group["prunable"] else "frozen",
                group.get("reason") or short,
            )
        )
    frozen = sum(not group["prunable"] for group in graph["groups"])
    console.say(f"{len(rows)} channel groups, {len(rows) - frozen} prunable, {frozen} frozen")
    console.table(
        ("group", "units", "prunable", "members, or why not"), _cut(rows, limit), right=("units",)
    )


def _show_plan(plan: Any, limit: int) -> None:
    metadata = plan.get("metadata", {})
    for key, value in metadata.items():
        if isinstance(value, (str, int, float)):
            console.say(f"{key}: {value}")
    widths = metadata.get("widths", {})
    rows = [(group, len(kept), *_before(widths.get(group))) for group, kept in plan["keep"].items()]
    console.table(
        ("group", "units kept", "of"),
        _cut([row[:3] for row in rows], limit),
        right=("units kept", "of"),
    )


def _before(width: Any) -> tuple[Any]:
    return (width[0] if isinstance(width, list) and width else "",)


def _show_manifest(manifest: Any, limit: int) -> None:
    took = console.duration(manifest["duration_s"])
    console.say(f"stage {manifest['stage']}, {manifest['started']}, {took}, {manifest['device']}")
    rows = [("in", name, digest[:16]) for name, digest in manifest["inputs"].items()]
    rows += [
        ("in", f"{name} (outside the run)", digest[:16])
        for name, digest in manifest["external"].items()
    ]
    rows += [("out", name, entry["sha256"][:16]) for name, entry in manifest["outputs"].items()]
    console.table(("", "file", "sha256"), _cut(rows, limit))
    for name in manifest["accepted_edits"]:
        console.say(f"edited by hand and accepted: {name}")


def _flat(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(content, dict):
        return [
            row
            for key, value in content.items()
            for row in _flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(content, list) and any(isinstance(item, (dict, list)) for item in content):
        return [
            row for index, value in enumerate(content) for row in _flat(value, f"{prefix}[{index}]")
        ]
    return [(prefix, ", ".join(map(str, content)) if isinstance(content, list) else str(content))]


def _show_flat(content: Any, limit: int) -> None:
    console.table(("key", "value"), _cut(_flat(content), limit))


def _lines(path: Path, limit: int) -> Any:
    from pipeline.errors import ArtifactError, Hint
    from pipeline.run import store

    data = store.read_bytes(path, max_bytes=1 << 30)
    rows = [
        store.parse_json(line, f"{path}:{n}")
        for n, line in enumerate(data.splitlines(), 1)
        if line.strip()
    ]
    if not all(isinstance(row, dict) for row in rows):
        raise ArtifactError(
            f"{path}: not one JSON object a line",
            hint=Hint.command("check", "RUN", says="finds what was changed"),
        )
    scalar = [
        key for key in (rows[0] if rows else {}) if not isinstance(rows[0][key], (dict, list))
    ]
    shown = [
        tuple(f"{v:.5g}" if isinstance(v := row.get(key), float) else v for key in scalar)
        for row in rows
    ]
    console.table(scalar, _cut(shown, limit))
    return rows


def _tensors(path: Path, limit: int) -> Any:
    from pipeline.run import store

    tensors = store.read_tensors(path)
    rows = [
        (name, "×".join(map(str, t.shape)) or "scalar", str(t.dtype).removeprefix("torch."))
        for name, t in tensors.items()
    ]
    console.table(("tensor", "shape", "dtype"), _cut(rows, limit))
    return [
        {"name": name, "shape": list(t.shape), "dtype": str(t.dtype)} for name, t in tensors.items()
    ]


def _onnx(path: Path, limit: int) -> Any:
    """Read in a child process: whose file it is nobody knows, and a parser that crashes must
    not take rlp along.
    """
    from pipeline.run import store
    from pipeline.runtime.worker import Worker

    size = store.check_regular(path, max_bytes=(2 << 30) - 1)
    with Worker(timeout=60) as worker:
        facts = worker.describe(path)
    counted = ", ".join(f"{n} {op}" for op, n in sorted(facts["nodes"].items()))
    console.say(f"{console.size(size)}, opset {facts['opsets']}, {counted}")
    console.table(("key", "value"), list(facts["metadata"].items()))
    layers = [(name, "×".join(map(str, shape))) for name, shape in facts["layers"]]
    console.table(("layer", "weight"), _cut(layers, limit))
    return {"bytes": size, **facts, "layers": [list(layer) for layer in layers]}
