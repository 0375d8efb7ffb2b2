"""Configs, and runs: damaged, or forged with right hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

from mutated.changes import Case, mutate_bytes, mutate_json, mutate_text

from pipeline.run.artifacts import KINDS, MANIFEST, MODEL, RUN
from pipeline.run.documents import Document

_CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def config_reader() -> Case:
    shipped = sorted(_CONFIGS.glob("*.yaml"))

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "c.yaml"
        path.write_bytes(mutate_text(chance.choice(shipped).read_bytes(), chance))
        return [["config", "show", str(path)]]

    return case


def damaged_reader(run: Path) -> Case:
    """Any file of a run with changed bytes."""
    files = [p for p in run.rglob("*") if p.is_file() and p.name != ".lock"]

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        copy, path = _copied(run, folder), chance.choice(files).relative_to(run)
        (copy / path).write_bytes(mutate_bytes((copy / path).read_bytes(), chance))
        show = [["inspect", str(copy / path)]] if path.suffix in (".json", ".jsonl") else []
        return [["check", str(copy)], ["pipeline", "status", str(copy)], *show]

    return case


_READ_BY = {  # stages that read a document and take no time
    "model.json": ("trace", "prune", "export"),
    "graph.json": ("rotate", "prune", "report"),
    "plan.json": ("prune", "report"),
    "data.json": ("deploy",),
    "benchmark.json": ("deploy", "report"),
    "quantize.json": ("deploy", "report"),
    "parity.json": ("report",),
}


def forged_reader(run: Path) -> Case:
    """A document of a run with other contents and right hashes."""
    documents = [(k.maker, k.file) for k in KINDS.values() if isinstance(k, Document) and k.maker]
    models = [(at.parent.name, MODEL.file) for at in run.glob(f"*/{MODEL.file}")]

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        copy = _copied(run, folder)
        if chance.random() < 0.2:
            sealed = chance.choice([(copy / RUN.file, RUN)] + [
                (copy / stage / MANIFEST.file, MANIFEST) for stage, _ in documents
            ])  # fmt: skip
            _write_sealed(*sealed, chance)
            return [["check", str(copy)], ["pipeline", "status", str(copy)], ["report", str(copy)]]
        stage, name = chance.choice([*documents, *models])
        path = copy / stage / name
        body = mutate_json(json.loads(path.read_bytes()), chance)
        path.write_bytes(json.dumps(body, indent=2).encode())
        _rehash(copy, stage, name)
        reader = chance.choice(_READ_BY.get(name, ("report",)))
        again = ["stage", reader, "--run", str(copy), "--trust-code"]
        return [["check", str(copy)], ["inspect", str(path)], again]

    return case


def _write_sealed(path: Path, kind: Any, chance: random.Random) -> None:
    body = mutate_json(json.loads(path.read_bytes()), chance)
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(body, dict):
            path.write_bytes(kind._bytes(body))


def _rehash(run: Path, stage: str, name: str) -> None:
    """Make every manifest of the run agree with the changed file."""
    data = (run / stage / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for path in run.glob(f"*/{MANIFEST.file}"):
        body = json.loads(path.read_bytes())
        if path.parent.name == stage:
            body["outputs"][name] |= {"sha256": digest, "bytes": len(data)}
        if f"{stage}/{name}" in body["inputs"]:
            body["inputs"][f"{stage}/{name}"] = digest
        path.write_bytes(MANIFEST._bytes(body))


def _copied(run: Path, folder: Path) -> Path:
    """The run again, in no file shared."""
    return Path(shutil.copytree(run, folder / "run"))
