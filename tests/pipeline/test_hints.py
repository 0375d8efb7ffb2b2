"""What a hint tells people to type exists: every key in the schema, every command in the real
command line. Read from the source, so that a hint nobody has seen yet counts too.
"""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from pydantic import BaseModel

from pipeline.cli.app import app
from pipeline.config.load import build_config
from pipeline.config.schema import Config, TrainingSection
from pipeline.errors import Command, Hint, Key, Set, UsageError
from stages import NAMES, STAGES

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for top in ("pipeline", "stages") for path in (ROOT / top).rglob("*.py"))
TRAINING = [
    name
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, TrainingSection)
]


class Named(NamedTuple):
    """A key or command that a line of the source names."""

    where: str
    words: tuple[str, ...]


def all_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from all_keys(field.annotation, f"{prefix}{name}.")


KEYS = frozenset(all_keys())


def words_of(node: ast.expr) -> list[str]:
    """The text of an argument; one for each training section where it says `{section}`, and a
    number for what only the running program knows.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Name) and node.id == "key":  # of a stage; looked up below
        return ["seed"]
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "keys":  # of a training
        return [f"{section}.{node.attr}" for section in TRAINING]
    if isinstance(node, ast.JoinedStr):
        parts = [
            ast.unparse(v.value) if isinstance(v, ast.FormattedValue) else v.value
            for v in node.values
        ]  # type: ignore[attr-defined]
        if parts[0] == "search.budget.":  # any of them
            return sorted(key for key in KEYS if key.startswith(parts[0]))
        if parts[0] == "section":
            return [section + "".join(parts[1:]) for section in TRAINING]
    return ["1"]


@cache
def calls(path: Path) -> list[tuple[str, ast.Call]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(ast.unparse(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def _typed_by_the_user(call: ast.Call) -> bool:
    return bool(call.args) and isinstance(call.args[0], ast.Starred)


def named_keys() -> list[Named]:
    return [
        Named(f"{path.relative_to(ROOT)}:{call.lineno}", tuple(words_of(call.args[0])))
        for path in SOURCES
        for name, call in calls(path)
        if name in ("Key", "Set", "Hint.set")
    ]


def named_commands() -> list[Named]:
    found = []
    for path in SOURCES:
        for name, call in calls(path):
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            if _typed_by_the_user(call):
                continue
            words = tuple(words_of(arg)[0] for arg in call.args)
            if name in ("Command", "Hint.command"):
                found.append(Named(where, words))
            elif name == "Hint.rerun":
                stage = "search" if words[0] == "1" else words[0]
                found.append(Named(where, ("stage", stage, "--run", "RUN", "--force")))
    return found


def parsed(words: tuple[str, ...]) -> Any:
    """The command line of a hint as `rlp` parses it."""
    command: Any = typer.main.get_command(app)
    rest = ["--force=all" if word == "--force" else word for word in words]
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    if rest == ["--help"]:
        return None
    assert not hasattr(command, "commands"), f"{words} is no command"
    return command.make_context("rlp", rest)


@pytest.mark.parametrize("named", named_keys(), ids=lambda named: f"{named.where} {named.words[0]}")
def test_every_key_that_a_hint_names_is_in_the_schema(named: Named) -> None:
    assert set(named.words) <= KEYS


@pytest.mark.parametrize("named", named_commands(), ids=lambda n: f"{n.where} {' '.join(n.words)}")
def test_every_command_that_a_hint_names_parses(named: Named) -> None:
    parsed(named.words)
    if named.words[0] == "stage" and named.words[1] != "1":
        assert named.words[1] in NAMES


def test_every_stage_names_a_setting_that_lowers_its_memory() -> None:
    keys = {stage.name: stage.memory_key for stage in STAGES}
    assert keys["search"] == "search.images"
    assert set(keys.values()) - {""} <= KEYS


def test_keys_and_commands_that_do_not_exist_are_told_apart() -> None:
    assert "benchmark.batch" not in KEYS
    assert {"benchmark.batches", "search.budget.macs", "pretrain.augment.crop"} <= KEYS
    for words in (
        ("pipeline", "stop"),
        ("config", "show", "A", "B"),
        ("check", "RUN", "--nothing"),
    ):
        with pytest.raises(Exception, match=r"is no command|unexpected|No such option"):
            parsed(words)


def test_a_hint_prints_as_its_parts() -> None:
    hint = Hint("raise ", Key("distill.epochs"), ", or ", Hint.set("data.root", "my images"))
    assert hint == "raise distill.epochs, or --set 'data.root=my images'"
    assert [type(part) for part in hint.parts[:4]] == [str, Key, str, Set]
    assert Hint.rerun("search", "runs/my run") == (
        "rlp stage search --run 'runs/my run' --force re-makes it"
    )
    assert Hint.command("config", "schema", says="lists it") == "rlp config schema lists it"


@pytest.mark.parametrize(
    ("key", "value"),
    [("benchmark.batches", [1, 4]), ("model.weights", None), ("search.budget.macs", 0.25),
     ("search.halving", False), ("seed", 3), ("report.title", "a page")],
)  # fmt: skip
def test_settings_are_typed_as_set_reads_them(key: str, value: Any) -> None:
    found: Any = build_config({}, [Set(key, value).words[1]])
    for name in key.split("."):
        found = getattr(found, name)
    assert (list(found) if isinstance(found, tuple) else found) == value


def test_a_part_can_take_the_place_of_another() -> None:
    offline = Set("data.source", "embedded")
    hint = Hint("or ", offline).with_part(offline, Command("pipeline", "run", "CONFIG"))
    assert hint == "or rlp pipeline run CONFIG"
    assert Hint("or --set data.source=embedded").with_part(offline, "x") == "or " + offline


def test_an_error_from_a_worker_process_keeps_the_parts_of_its_hint() -> None:
    error = UsageError("no", hint=Hint.set("search.align", 8, "halves it"))
    hint = pickle.loads(pickle.dumps(error)).hint
    assert hint == error.hint
    assert [type(part) for part in hint.parts] == [Set, str]


# A sentence of a hint outside its typed parts: nothing in it may look like a key or a command.
SECTIONS = sorted({key.partition(".")[0] for key in KEYS if "." in key})
PLAIN = re.compile(
    rf"\brlp [a-z]|--set\b|\b({'|'.join(SECTIONS)})"
    r"\.(?!json|jsonl|onnx|html|safetensors|py\b)[a-z_]+\b(?!\()"
)


def hint_expressions(tree: ast.Module) -> Iterator[ast.expr]:
    """Everything that becomes a hint: `hint=…` of a call, or what is called so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (word.value for word in node.keywords if word.arg == "hint")
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [ast.unparse(target).rpartition(".")[2].lower() for target in targets]
            if any(name.strip("_").endswith("hint") for name in names):
                yield node.value


def plain_text(node: ast.AST, known: dict[str, ast.expr]) -> Iterator[str]:
    """Text of a hint that is no typed part of it; names are followed to what they stand for."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in TYPED:
        said = [*node.args[2:]] if ast.unparse(node.func) == "Hint.set" else []
        for rest in (*said, *node.keywords):
            yield from plain_text(rest, known)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    if isinstance(node, ast.Name) and node.id in known:
        yield from plain_text(known[node.id], {k: v for k, v in known.items() if k != node.id})
    for child in ast.iter_child_nodes(node):
        yield from plain_text(child, known)


TYPED = ("Key", "Set", "Command", "Hint.set", "Hint.command", "Hint.rerun")


def test_no_hint_names_a_key_or_a_command_in_plain_text() -> None:
    wrong = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = {
            ast.unparse(node.targets[0]): node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
        }
        for expression in hint_expressions(tree):
            found = [text for text in plain_text(expression, known) if PLAIN.search(text)]
            wrong += [f"{path.relative_to(ROOT)}:{expression.lineno}: {text}" for text in found]
    assert wrong == []


def test_plain_text_that_names_something_is_recognised() -> None:
    for text in ("lower search.align", "rlp check RUN", "try --set seed=2"):
        assert PLAIN.search(text)
    for harmless in ("look at model.json", "model.state_dict()", "pass another --run-dir"):
        assert not PLAIN.search(harmless)


INSTALLABLE = {
    "torch>=2.10", "onnxruntime", "timm",
    "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-rocm",
}  # fmt: skip
"""What hints may say to install: distributions of the public index, looked up one by one."""


def _installed_by(text: str) -> list[str]:
    """What the commands `pip install …` in a text install."""
    found = re.findall(r"pip install ((?:'[^']*'|[\w\[\]<>=.{}-]+)(?: (?!-|&)[\w\[\]-]+)*)", text)
    return [name.strip("'") for line in found for name in line.split()]


def test_hints_install_nothing_that_does_not_exist() -> None:
    from pipeline.runtime.providers import PROVIDERS

    named = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named += [(path.name, name) for name in _installed_by(node.value)]
            if isinstance(node, ast.JoinedStr):
                named += [(path.name, name) for name in _installed_by(ast.unparse(node))]
    assert ("registry.py", "timm") in named
    packages = {one.package for one in PROVIDERS if " " not in one.package}
    assert packages <= INSTALLABLE
    unknown = [item for item in named if item[1] not in INSTALLABLE and item[1] != "{package}"]
    assert unknown == []
    assert {path for path, name in named if name == "{package}"} == {"providers.py"}


@pytest.mark.parametrize(
    ("config", "run", "more"),
    [
        ("configs/my.yaml", "artifacts/my", ""),
        ("my.yaml", "artifacts/my/", ""),
        ("my.yaml", "elsewhere/my", " --run-dir elsewhere/my"),
        ("my.yaml", "/tmp/artifacts/my", " --run-dir /tmp/artifacts/my"),
    ],
)
def test_a_run_is_gone_on_with_where_it_lies(config: str, run: str, more: str) -> None:
    assert Command.run_again(config, run) == f"rlp pipeline run {config}{more}"
