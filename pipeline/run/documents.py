"""Kinds of files, and JSON documents, which say themselves what they are.

    {"kind": "parity", "schema_version": 1, "images": 256, ...}

The first two keys are written and checked here and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, Hint, NewerSchema
from pipeline.run import store

_MISREAD = (
    *(KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError),
    StopIteration,  # of `next`, where none of several things is what it should be
)

FieldType = type | tuple[type, ...]
Layout = Callable[[Mapping[str, Any]], str]


@contextmanager
def as_written(what: str) -> Iterator[None]:
    """Take documents apart as their stages write them; where that fails, they were not.

    Hashes do not tell: whoever makes up a document makes up its hash.

    Raises:
        ArtifactError: `what` is not as rlp writes it.
    """
    try:
        yield
    except _MISREAD as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise ArtifactError(
            f"{what} is not as rlp writes it ({reason})",
            hint=Hint.command(
                *("pipeline", "run", "CONFIG", "--run-dir", "RUN", "--force"), says="makes it anew"
            ),
        ) from error


@dataclass(frozen=True)
class Kind:
    """One kind of artefact.

    Attributes:
        maker: the stage in whose folder it lies; empty for what no stage makes.
        files: a kind of several files is handed on as their folder, of one file as the file.
        max_bytes: what a file is refused above, before it is read.
        meaning: what it is, in a few words for people.
        optional: its maker may leave it out; who reads it must do without.
    """

    name: str
    maker: str
    files: tuple[str, ...]
    max_bytes: int
    meaning: str
    optional: bool = field(default=False, kw_only=True)

    @property
    def file(self) -> str:
        """The name of its only file."""
        (name,) = self.files
        return name


@dataclass(frozen=True)
class Stamped(Kind):
    """A kind whose JSON says what it is."""

    schema_version: int = field(default=1, kw_only=True)

    def stamp(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object with this body: it says what it is before all else."""
        return {"kind": self.name, "schema_version": self.schema_version, **body}


@dataclass(frozen=True)
class Document(Stamped):
    """A kind that is one JSON file.

    Attributes:
        fields: that every document of this kind has, and their types.
        matters: keys that alone decide what is made from it; empty: every byte does.
    """

    fields: Mapping[str, FieldType] = field(default_factory=dict)
    matters: tuple[str, ...] = field(default=(), kw_only=True)

    def content(self, path: Path) -> str:
        """sha256 of what matters in the document at `path`.

        Raises:
            ArtifactError: as `read`.
        """
        found = self.read(path)
        return hashlib.sha256(
            store.dump_json({key: found.get(key) for key in self.matters})
        ).hexdigest()

    def body(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Inverse of `stamp`."""
        return {key: value for key, value in found.items() if key not in self.stamp({})}

    def check(self, found: Any, where: str) -> dict[str, Any]:
        """Take `found`, read from `where`, as a document of this kind.

        Raises:
            ArtifactError: of another kind or a newer schema, or a field is missing.
        """
        hint = Hint.rerun(self.maker) if self.maker else ""
        # Graphs, plans and searches of 0.1.0 carry no kind.
        if not isinstance(found, dict) or found.get("kind", self.name) != self.name:
            raise ArtifactError(f"{where}: not a {self.name} file", hint=hint)
        version = found.get("schema_version")
        if not isinstance(version, int) or version > self.schema_version:
            raise NewerSchema(where, version, self.schema_version)
        if wrong := self._wrong_fields(found):
            what = f"{wrong[0]} is missing or of the wrong type"
            raise ArtifactError(f"{where}: {what}", hint=hint)
        return found

    def _wrong_fields(self, found: Mapping[str, Any]) -> list[str]:
        return [
            name for name, types in self.fields.items() if not isinstance(found.get(name), types)
        ]

    def write(self, path: Path, body: Mapping[str, Any], layout: Layout | None = None) -> None:
        """Write the document with this body.

        Args:
            layout: from the document to its text; absent: as `store.dump_json` has it.
        Raises:
            EnvironmentProblem: the disk said no.
        """
        if wrong := self._wrong_fields(body):  # nothing a user did: a bug
            raise ValueError(f"{path.name} lacks {', '.join(wrong)}")
        found = self.stamp(body)
        store.write_bytes(path, layout(found).encode() if layout else self._bytes(found))

    def _bytes(self, found: Mapping[str, Any]) -> bytes:
        return store.dump_json(found)

    def read(self, path: Path) -> dict[str, Any]:
        """The whole document at `path`.

        Raises:
            ArtifactError: missing, too large, not JSON, or no document of this kind.
        """
        return self._parse(store.read_bytes(path, max_bytes=self.max_bytes), str(path))

    def _parse(self, data: bytes, where: str) -> dict[str, Any]:
        return self.check(store.parse_json(data, where), where)


@dataclass(frozen=True)
class Lines(Stamped):
    """A kind that is one JSON object a line, appended to while the work goes on; the first, its
    header, says what the file is.
    """

    def read(self, path: Path) -> list[dict[str, Any]]:
        """All of its lines, the header first.

        Raises:
            ArtifactError: missing, too large, a line is no JSON object, of another kind, or newer.
        """
        lines = store.read_bytes(path, max_bytes=self.max_bytes).splitlines()
        rows = [store.parse_json(line, f"{path}:{n}") for n, line in enumerate(lines, 1)]
        if not all(isinstance(row, dict) for row in rows):
            raise ArtifactError(f"{path}: not one JSON object a line", hint=Hint.rerun(self.maker))
        self._check_header(rows[0] if rows else {}, path)
        return rows

    def _check_header(self, header: Mapping[str, Any], path: Path) -> None:
        if header.get("kind", self.name) != self.name:  # those of 0.1.0 carry no kind
            raise ArtifactError(f"{path}: not a {self.name} file", hint=Hint.rerun(self.maker))
        version = header.get("schema_version", 0)
        if not isinstance(version, int) or version > self.schema_version:
            raise NewerSchema(str(path), version, self.schema_version)


@dataclass(frozen=True)
class Sealed(Document):
    """A document that carries its own hash, so that any changed byte shows."""

    def _bytes(self, found: Mapping[str, Any]) -> bytes:
        body = {key: value for key, value in found.items() if key != "seal"}
        return store.dump_json({**body, "seal": hashlib.sha256(store.dump_json(body)).hexdigest()})

    def read(self, path: Path) -> dict[str, Any]:
        store.check_regular(path, self.max_bytes, single=True)
        return super().read(path)

    def _parse(self, data: bytes, where: str) -> dict[str, Any]:
        found = super()._parse(data, where)
        if self._bytes(found) != data:  # the whole text: another layout is an edit as well
            raise ArtifactError(f"{where}: changed since it was written (seal broken)")
        return found
