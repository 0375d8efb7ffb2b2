"""A product of fake stages: the real names, kinds and files, but each writes a few bytes that
depend on its inputs.

In tests: the fixture `fakes`, then `finished(folder)` or `execute(folder, ...)`. As a program,
`python -P tests/fake_run.py pipeline run CONFIG …` is the command line `rlp` over these stages.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.load import build_config
from pipeline.config.schema import Config
from pipeline.run import runner, store
from pipeline.run.artifacts import KINDS, kinds_of
from pipeline.run.declaration import Stage
from pipeline.run.documents import Document
from pipeline.run.planner import EVERYTHING, Planner, Selection
from pipeline.run.rounds import chain
from pipeline.run.stage import StageContext
from pipeline.run.step import Step

STEPS = 6  # of the fake search, journalled in ctx.work
READS: dict[str, tuple[str, ...]] = {
    "pretrain": (),
    "trace": ("base_model",),
    "search": ("base_model", "graph"),
    "prune": ("base_model", "graph", "plan"),
    "distill": ("pruned_model",),
    "export": ("base_model", "final_model"),
    "benchmark": ("base_onnx", "onnx"),
    "report": ("train", "plan", "cut", "distillation", "parity", "benchmark"),
}


class Fake(Stage):
    """Writes every file of its kinds; the bytes are a function of its name, the seed and its
    inputs.

    They do not depend on its own section but for `search.trials`: any other change re-runs the
    stage to the same bytes, so that what follows may be reused. `steps_log`, when set, gets one
    byte a step of the search; at `gate` the search waits for a test in another process.
    """

    steps_log = ""
    gate = os.environ.get("FAKE_GATE", "")

    def run(self, ctx: StageContext) -> dict[str, Any]:
        digest = hashlib.sha256(f"{self.name} {ctx.seed}".encode())
        for kind in ctx.inputs:
            ctx.input(kind)
            digest.update(json.dumps(sorted(ctx.inputs[kind][1].items())).encode())
        if self.name.endswith("search"):
            digest.update(str(self._journal(ctx)).encode())
        for kind in kinds_of(self.name):
            for name in kind.files:
                store.write_bytes(ctx.out / name, _content(kind.name, name, digest.hexdigest()))
        return {"files": len(kinds_of(self.name))}

    def _journal(self, ctx: StageContext) -> int:
        journal = ctx.work / "journal.json"
        done = store.read_json(journal)["done"] if journal.exists() else 0
        for step in range(done, STEPS):
            if ctx.stopping():
                raise ctx.interrupted()
            store.write_json(journal, {"done": step + 1})
            if self.gate and step == 1:
                # both are FIFOs: waits for the test, twice
                open(f"{self.gate}.begun", "wb").close()
                open(f"{self.gate}.go", "rb").close()
            if self.steps_log:
                with open(self.steps_log, "ab") as log:
                    log.write(b".")
            ctx.progress(step + 1, STEPS, best=0.5)
        return ctx.config.search.trials


_EMPTY: dict[Any, Any] = {dict: {}, (list, tuple): [], str: "", int: 0, (int, float): 0}


def _content(kind: str, name: str, digest: str) -> bytes:
    if name == "summary.json":
        side = {
            "accuracy": 0.9,
            "macs": 1000,
            "params": 100,
            "bytes": 400,
            "latency_ms": {"p50": 1.0, "p90": 1.5},
        }
        measured = {"ratio": 2.0, "ci95": [1.9, 2.1], "verdict": "faster"}
        speed = {**measured, "provider": "CPUExecutionProvider", "precision": "fp32"}
        final = {
            **side,
            "accuracy": 0.88,
            "macs": 500,
            "latency_ms": {"p50": 0.5, "p90": 0.7},
            "precision": "fp32",
        }
        row = {"top1_agreement": 1.0, **measured}
        int8 = {"accuracy": 0.89, "bytes": 100, "ratio": 1.5, "precision": "int8"}
        variants = [
            {"name": "base", "chosen": False, **row, **side, "precision": "fp32"},
            {"name": "base_int8", "chosen": False, **row, **side, **int8},
            {"name": "final", "chosen": True, **row, **final},
        ]
        return store.dump_json(
            {
                "kind": "summary",
                "schema_version": 1,
                "run": "fake",
                "data": {"name": "fake", "label": "fake images", "test_images": 10},
                "base": side,
                "final": final,
                "variants": variants,
                "remarks": ["INT8 is [/a] remark"],
                "speedup": {**speed, "batch": 1, "threads": 1},
                "parity": {"top1_agreement": 1.0, "max_abs": 1e-6},
                "report": "report/report.html",
                "onnx": "export/model.onnx",
                "deploy": "deploy",
                "digest": digest,
            }
        )
    described = KINDS[kind]
    if isinstance(described, Document):
        empty = {name: _EMPTY[types] for name, types in described.fields.items()}
        empty |= {name: {digest: "0"} for name in described.matters[:1]}
        return store.dump_json(described.stamp({**empty, "digest": digest}))
    return f"{kind} {name} {digest}\n".encode()


def _stage(name: str) -> Stage:
    own = (name,) if name in Config.model_fields else ()  # some stages have no settings
    sections = ("model", "data", *own) if name == "pretrain" else own
    declared = type(name.title(), (Fake,), {})  # a class each, for tests that replace its `run`
    return declared(  # type: ignore[no-any-return]
        name,
        f"faking {name}",
        sections,
        READS[name],
        original=("base_model",) if name == "distill" else (),
        memory_key=f"{name}.batch_size" if name == "distill" else "",
        uses_data=name == "pretrain",
    )


STAGES: tuple[Stage, ...] = tuple(_stage(name) for name in READS)


@dataclass
class Card:
    """What `describe_data` gives: enough of a DataCard for the runner."""

    content: str = "0" * 64

    def to_dict(self) -> dict[str, Any]:
        shape = {
            "classes": ["a", "b"],
            "image_shape": [3, 8, 8],
            "counts": {"train": [5, 5]},
            "skipped": {},
        }
        return {"sha256": self.content, **shape}


@dataclass
class Watcher:
    """Remembers what the runner said."""

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def begin(self, step: Step, index: int, total: int) -> None:
        self.steps.append((step.stage.name, step.action, step.reason))

    def end(self, step: Step, summary: Mapping[str, Any], seconds: float) -> None: ...

    def progress(self, done: int, total: int, **fields: Any) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def ran(self) -> list[str]:
        """Names of the stages that were run, not reused."""
        return [name for name, action, _ in self.steps if action == "run"]

    def why(self, stage: str) -> str:
        return next(reason for name, _, reason in self.steps if name == stage)


def install(setattr_: Callable[[Any, str, Any], None] = setattr, durable: bool = False) -> None:
    """Put the fakes where the command line and the runner look for stages and images.

    `durable`: really fsync. It decides nothing unless the machine itself crashes, and costs most of
    the time here.
    """
    if not durable:
        setattr_(os, "fsync", lambda handle: None)
    setattr_(importlib.import_module("stages"), "STAGES", STAGES)
    setattr_(runner, "describe_data", lambda config: Card())
    setattr_(runner, "_seed", lambda seed: None)
    # the config of a fake run names a network that it does not have
    commands = importlib.import_module("pipeline.cli.pipeline_commands")
    setattr_(commands, "expected", lambda config, card, folder, steps: {})


def execute(
    run: Path, sets: Sequence[str] = (), stages: Sequence[Stage] = STAGES, **choice: Any
) -> Watcher:
    """Run the fakes over `run`; `choice` is `first`, `last`, `force` or `accept_edited`."""
    watcher = Watcher()
    accept = choice.pop("accept_edited", False)
    config = build_config({}, sets)
    stages = chain(stages, config.rounds)
    selection = Selection.of(stages, choice.get("first"), choice.get("last"), choice.get("force"))
    request = runner.Request(
        stages, config, run, "fake.yaml", selection, "rlp pipeline run fake.yaml", accept
    )
    runner.execute(request, watcher)
    return watcher


def finished(run: Path, sets: Sequence[str] = ()) -> Path:
    """A run with all its stages committed."""
    execute(run, sets)
    return run


def plan(run: Path, sets: Sequence[str] = (), selection: Selection = EVERYTHING) -> dict[str, Step]:
    """What the planner would do, by stage."""
    config = build_config({}, sets)
    planner = Planner(chain(STAGES, config.rounds), config, run, runner.data_key(Card()))
    return {step.stage.name: step for step in planner.plan(selection)}


def committed(run: Path, but: str = "") -> dict[str, bytes]:
    """Every committed byte that a result consists of, of all rounds: outputs, not the manifests
    with their dates; not `but`.
    """
    found = (path for path in run.glob("**/*") if path.is_file() and path.parent != run)
    names = {str(path.relative_to(run)): path for path in found if path.name != "manifest.json"}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if name != but and not any(part.startswith(".") for part in Path(name).parts)
    }


def tree(run: Path) -> dict[str, bytes]:
    """Every byte of every stage folder, manifests included."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for stage in STAGES
        for path in sorted((run / stage.name).glob("*"))
        if path.is_file()
    }


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        def refuse(name: str) -> Any:
            raise ValueError(f"{name} in JSON")

        return json.loads(self.out, parse_constant=refuse)

    def lines(self, word: str) -> list[str]:
        """Lines of stderr that start with `error:` or `hint:`."""
        return [line for line in self.err.splitlines() if line.startswith(f"{word}:")]


@dataclass
class Rlp:
    """The command line, called in this process."""

    capture: Callable[[], Any]

    def __call__(self, *arguments: object) -> Result:
        from pipeline.cli import main

        self.capture()
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        captured = self.capture()
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)


assert set(READS) <= {kind.maker for kind in KINDS.values()}

if __name__ == "__main__":
    from pipeline.cli import main

    install(durable=True)
    main(sys.argv[1:])
