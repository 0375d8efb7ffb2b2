"""Every JSON document says what it is, in the words of its kind and of nobody else."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ArtifactError, NewerSchema
from pipeline.run.artifacts import KINDS, MANIFEST, MODEL, RUN, known_document
from pipeline.run.documents import Document, Lines, Sealed, as_written

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for top in ("pipeline", "stages") for path in (ROOT / top).rglob("*.py"))
NOTE = Document("note", "search", ("note.json",), 1000, "a note", {"text": str, "marks": list})


def test_a_document_says_first_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    NOTE.write(path, {"text": "ü", "marks": [1, 0.5]})
    found = NOTE.read(path)
    assert found == {"kind": "note", "schema_version": 1, "text": "ü", "marks": [1, 0.5]}
    assert NOTE.body(found) == {"text": "ü", "marks": [1, 0.5]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "plan"}, "not a note file"),
        ({"schema_version": 2}, "schema version 2, this rlp reads up to 1"),
        ({"schema_version": None}, "schema version None"),
        ({"text": 3}, "text is missing or of the wrong type"),
        ({"marks": None}, "marks is missing or of the wrong type"),
    ],
)
def test_what_is_no_such_document_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "note.json"
    path.write_text(json.dumps(NOTE.stamp({"text": "", "marks": []}) | change))
    with pytest.raises(ArtifactError, match=said) as caught:
        NOTE.read(path)
    assert "schema" in said or caught.value.hint == (
        "rlp stage search --run RUN --force re-makes it"
    )


@pytest.mark.parametrize("content", ["[]", '"note"', "3", "", "{", '{"text": NaN}'])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "note.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"note\.json"):
        NOTE.read(tmp_path / "note.json")


def test_too_large_a_document_is_not_read(tmp_path: Path) -> None:
    NOTE.write(tmp_path / "note.json", {"text": "x" * 1000, "marks": []})
    with pytest.raises(ArtifactError, match="more than the 1000 allowed"):
        NOTE.read(tmp_path / "note.json")


@pytest.mark.parametrize(
    "misread",
    [lambda: {}["base"], lambda: 1 + "1", lambda: [][0], lambda: 1 / 0, lambda: next(iter(()))],
)
def test_what_cannot_be_taken_apart_is_refused(misread: Callable[[], object]) -> None:
    refused = pytest.raises(ArtifactError, match="the summary is not as rlp writes it")
    with refused, as_written("the summary"):
        misread()


def test_an_incomplete_document_is_a_bug_of_its_writer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lacks marks"):
        NOTE.write(tmp_path / "note.json", {"text": ""})
    assert list(tmp_path.iterdir()) == []


def test_graphs_of_earlier_releases_carry_no_kind_and_are_read(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text('{"schema_version": 1, "text": "", "marks": []}')
    assert NOTE.read(tmp_path / "note.json")["text"] == ""


def test_another_layout_is_the_same_document(tmp_path: Path) -> None:
    NOTE.write(tmp_path / "note.json", {"text": "", "marks": []}, lambda found: json.dumps(found))
    assert (tmp_path / "note.json").read_text().count("\n") == 0
    assert NOTE.read(tmp_path / "note.json")["marks"] == []


def test_lines_are_objects(tmp_path: Path) -> None:
    lines = Lines("lines", "search", ("a.jsonl",), 1000, "a log")
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    assert lines.read(tmp_path / "a.jsonl") == [{"a": 1}, {"a": 2}]
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[2]\n')
    with pytest.raises(ArtifactError, match="one JSON object a line"):
        lines.read(tmp_path / "a.jsonl")


def test_the_first_line_says_what_the_lines_are(tmp_path: Path) -> None:
    lines = Lines("lines", "search", ("a.jsonl",), 1000, "a log", schema_version=2)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(lines.stamp({"of": "x"})) + "\n{}\n")
    assert lines.read(path)[0] == {"kind": "lines", "schema_version": 2, "of": "x"}
    path.write_text('{"kind": "others", "schema_version": 1}\n')
    with pytest.raises(ArtifactError, match="not a lines file"):
        lines.read(path)
    path.write_text('{"kind": "lines", "schema_version": 3}\n')
    with pytest.raises(NewerSchema, match="reads up to 2"):
        lines.read(path)


def test_every_json_artefact_is_a_document_and_its_file_has_one_kind() -> None:
    documents = [kind for kind in (*KINDS.values(), RUN, MANIFEST) if isinstance(kind, Document)]
    for kind in KINDS.values():
        json_files = [name for name in kind.files if name.endswith(".json")]
        others = kind.maker == "deploy"  # in formats of other tools
        assert isinstance(kind, Document) or others or set(json_files) <= {MODEL.file}, kind.name
        assert kind.meaning
    assert len({kind.file for kind in documents}) == len(documents)
    assert all(known_document(kind.stamp({})) is kind for kind in documents)
    assert known_document({"kind": "bundle"}) is None
    assert known_document([]) is None


def test_nobody_else_writes_a_kind_or_a_schema_version() -> None:
    """No dict display in the code names either; only `Document.stamp` does."""
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keys = node.keys if isinstance(node, ast.Dict) else []
            if any(isinstance(key, ast.Constant) and key.value == "schema_version" for key in keys):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == [f"pipeline/run/documents.py:{_line_of_stamp()}"]


def _line_of_stamp() -> int:
    lines = (ROOT / "pipeline/run/documents.py").read_text(encoding="utf-8").splitlines()
    return 1 + next(n for n, line in enumerate(lines) if '"schema_version": self' in line)


def test_a_sealed_document_keeps_its_layout(tmp_path: Path) -> None:
    sealed = Sealed("k", "", ("a.json",), 1 << 10, "a thing")
    sealed.write(tmp_path / "a.json", {"x": 1})
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace("  ", " "))
    with pytest.raises(ArtifactError, match="seal broken"):
        sealed.read(tmp_path / "a.json")
