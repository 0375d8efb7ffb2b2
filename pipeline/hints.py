"""Hints as data: what people are told to type is made of parts that name a config key or a
command, so that a test can look up every one of them.

    Hint.set("search.trials", 20, "is enough for a first look")
    Hint.rerun("search", run)
    Hint.command("config", "schema", says="lists every key")
    Hint("raise ", Key("distill.epochs"), " or ", Key("search.budget"))

All of them are strings, and print as themselves.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any


class Key(str):
    """A key of the config by its dotted path: `search.trials`."""


class _Words(str):
    """Words of a command line, quoted for a shell where they need it."""

    words: tuple[str, ...]

    def __getnewargs__(self) -> Any:  # an error crosses from a worker process with its hint
        return self.words


class Set(_Words):
    """One setting as it is typed: `--set search.trials=20`."""

    def __new__(cls, key: str, value: Any) -> Set:
        words = ("--set", f"{key}={_typed(value)}")
        part = super().__new__(cls, shlex.join(words))
        part.words = words
        return part

    def __getnewargs__(self) -> Any:
        key, _, value = self.words[1].partition("=")
        return key, value


class Command(_Words):
    """A command as it is typed: `rlp pipeline status artifacts/quickstart`.

    Words in capitals (`RUN`, `CONFIG`) stand for what only the reader knows.
    """

    def __new__(cls, *words: str) -> Command:
        part = super().__new__(cls, shlex.join(["rlp", *words]))
        part.words = words
        return part

    def with_settings(self, *settings: Set) -> Command:
        """The same command with further settings."""
        return Command(*self.words, *(word for setting in settings for word in setting.words))


class Hint(str):
    """One line that says what to type next, or what to change.

    Args:
        parts: text, `Key`, `Set`, `Command` and further hints, put together as they are.
    """

    parts: tuple[str, ...]

    def __new__(cls, *parts: str) -> Hint:
        hint = super().__new__(cls, "".join(parts))
        flat: list[str] = []
        for part in parts:
            flat += part.parts if isinstance(part, Hint) else [part]
        hint.parts = tuple(flat)
        return hint

    def __getnewargs__(self) -> Any:
        return self.parts

    @classmethod
    def set(cls, key: str, value: Any, says: str = "") -> Hint:
        """`--set key=value says`."""
        return cls(Set(key, value), f" {says}" if says else "")

    @classmethod
    def command(cls, *words: str, says: str = "") -> Hint:
        """`rlp words says`."""
        return cls(Command(*words), f" {says}" if says else "")

    @classmethod
    def rerun(cls, stage: str, run: Path | str = "RUN") -> Hint:
        """How a stage of a run is made again."""
        return cls.command("stage", stage, "--run", str(run), "--force", says="re-makes it")

    def with_part(self, old: Set | Command, new: str) -> Hint:
        """The same hint with `new` where the part `old` stands."""
        return Hint(*(new if type(p) is type(old) and p == old else p for p in self.parts))


def _typed(value: Any) -> str:
    """A value as `--set` reads it: null, true, 0.5, [1, 32], text."""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value)
