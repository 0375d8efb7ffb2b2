"""`rlp inspect ARTEFACT`: show any artefact to a person."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import command
from pipeline.errors import ArtifactError, Hint

_CHANGED = Hint.command("check", "RUN", says="finds what was changed")


def register(app: typer.Typer) -> None:
    command(app, "inspect", keys=("path", "kind", "content"))(inspect)


def inspect(
    artefact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTEFACT",
            help="A run, a file or a folder of it, its report, or any .onnx file.",
        ),
    ],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows of a table.")] = 200,
) -> dict[str, Any]:
    """Show groups and frozen channels of a graph, widths of a plan, tensors of a model, nodes
    of an ONNX file.
    """
    from pipeline.run.artifacts import RUN

    if (artefact / RUN.file).is_file():
        from pipeline.cli.status import run_status

        return {"path": str(artefact), "kind": "folder", "content": run_status(artefact)}
    path = _file(artefact)
    readers = {".onnx": _onnx, ".safetensors": _tensors, ".jsonl": _lines}
    kind, content = readers.get(path.suffix, _document)(path, limit)
    return {"path": str(path), "kind": kind, "content": content}


def _file(artefact: Path) -> Path:
    """The file to show: of a folder the one that says what it holds, of a page its numbers."""
    from pipeline.run.artifacts import KINDS, MODEL
    from pipeline.run.manifest import MANIFEST

    path = artefact
    if artefact.suffix == ".html":
        path = artefact.with_name(KINDS["summary"].file)
    if artefact.is_dir():
        names = (MODEL.file, MANIFEST.file)
        path = next((artefact / name for name in names if (artefact / name).exists()), artefact)
        if path == artefact:
            raise ArtifactError(
                f"{artefact}: a folder without {' and '.join(names)}",
                hint="name a run or one of its files",
            )
    if not path.exists():
        hint = Hint.command("pipeline", "status", "RUN", says="lists what a run has")
        raise ArtifactError(f"{path}: no such file", hint=hint)
    return path


def _document(path: Path, limit: int) -> tuple[str, Any]:
    """A JSON document, shown as its kind is shown."""
    from pipeline.cli import inspect_views
    from pipeline.run import store
    from pipeline.run.artifacts import LARGEST_DOCUMENT, known_document
    from pipeline.run.documents import as_written

    content = store.read_json(path, max_bytes=LARGEST_DOCUMENT)
    kind = known_document(content)
    if kind is None:
        raise ArtifactError(f"{path}: does not say which of rlp's documents it is", hint=_CHANGED)
    kind.check(content, str(path))
    console.note(f"{kind.name}: {kind.meaning}")
    with as_written(f"{path} says it is a {kind.name}, and"):
        inspect_views.show(kind.name, content, limit)
    return kind.name, content


def _lines(path: Path, limit: int) -> tuple[str, Any]:
    from pipeline.cli import inspect_views
    from pipeline.run.artifacts import TRIALS
    from pipeline.run.documents import as_written

    rows = TRIALS.read(path)
    with as_written(str(path)):
        inspect_views.show_lines(rows, limit)
    return TRIALS.name, rows


def _tensors(path: Path, limit: int) -> tuple[str, Any]:
    from pipeline.cli import inspect_views
    from pipeline.run import store

    found = [
        {"name": name, "shape": list(tensor.shape), "dtype": str(tensor.dtype)}
        for name, tensor in sorted(store.read_tensors(path).items(), key=_in_model_order(path))
    ]
    inspect_views.show_tensors(found, limit)
    return "tensors", found


def _in_model_order(path: Path) -> Callable[[tuple[str, Any]], Any]:
    """A key that sorts tensors as the run's graph lists their layers, which the file itself does
    not keep; without a graph, by name with numbers as numbers.
    """
    places: dict[str, int] = {}
    for name in _parameters(path.resolve().parent.parent / "trace" / "graph.json"):
        places.setdefault(name.rpartition(".")[0], len(places))

    def key(item: tuple[str, Any]) -> Any:
        words = [
            (not word.isdecimal(), len(word) if word.isdecimal() else 0, word)
            for word in item[0].split(".")
        ]
        return places.get(item[0].rpartition(".")[0], len(places)), words

    return key


def _parameters(path: Path) -> list[str]:
    """Names that a graph lists, none where it is no graph: it only decides on an order here."""
    from pipeline.run import store
    from pipeline.run.artifacts import LARGEST_DOCUMENT

    try:
        found = store.read_json(path, max_bytes=LARGEST_DOCUMENT)
    except ArtifactError:
        return []
    listed = found.get("parameters") if isinstance(found, dict) else None
    return list(listed) if isinstance(listed, dict) else []


def _onnx(path: Path, limit: int) -> tuple[str, Any]:
    """Read in a child process: whose file it is nobody knows, and a parser that crashes must
    not take rlp along.
    """
    from pipeline.cli import inspect_views
    from pipeline.run import store
    from pipeline.runtime.worker import Worker

    size = store.check_regular(path, max_bytes=(2 << 30) - 1)  # protobuf's own limit
    with Worker(timeout=60) as worker:
        facts = worker.describe(path)
    found = {"bytes": size, **facts, "layers": [list(layer) for layer in facts["layers"]]}
    inspect_views.show_onnx(found, limit)
    return "onnx", found
