"""One tree of errors: each knows its exit code and builds its own sentence and hint.

Exit codes are a contract with scripts and CI (docs/troubleshooting.md). Hints are data: what people
are told to type is made of parts that name a config key or a command, so that a test can look up
every one of them. All of the parts are strings, and print as themselves:

    Hint.set("search.trials", 20, "is enough for a first look")
    Hint.rerun("search", run)
    Hint.command("config", "schema", says="lists every key")
    Hint("raise ", Key("distill.epochs"), " or ", Key("search.budget"))
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
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

    @classmethod
    def run_again(cls, config_name: str, run: Path | str) -> Command:
        """How a run is gone on with; its folder is named where that is not the usual one."""
        usual = Path(run) == Path("artifacts") / Path(config_name).stem
        return cls("pipeline", "run", config_name, *([] if usual else ["--run-dir", str(run)]))

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


class RlpError(Exception):
    """Base of everything a user can be told in one line.

    Args:
        message: what went wrong and where, one sentence, no newline.
        hint: the next command to type, or the setting to change; a `Hint` where it names any.
        details: further lines (several config errors, mismatches); each printed on its own line.
    """

    exit_code = 70
    usual_hint: str = "type the command again; finished stages are kept"
    """What is said where nothing better is known."""

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)


class Refused(RlpError):
    """It ran, and the answer is no: gate missed, parity out of tolerance, training diverged."""

    exit_code = 1
    usual_hint = Hint.command("pipeline", "status", "RUN", says="shows what is there")


class UsageError(RlpError):
    """The command line or the config is wrong."""

    exit_code = 2
    usual_hint = Hint(
        Command("--help"), " lists the commands, ", Command("config", "schema"), " every key"
    )


class ArtifactError(RlpError):
    """An artefact or model file is missing, damaged, of the wrong kind, stale, or refused as
    unsafe.
    """

    exit_code = 3
    usual_hint = Hint(
        Command("check", "RUN"),
        " names the stage that re-makes a file of a run; get a file of your own anew",
    )


class NewerSchema(ArtifactError):
    """A document of a schema that this release does not know."""

    def __init__(self, where: str, found: object, known: int) -> None:
        message = f"{where}: schema version {found}, this rlp reads up to {known}"
        super().__init__(message, hint="upgrade rlp")


class EnvironmentProblem(RlpError):
    """Missing extra, device, provider, disk, permission, memory, or data that cannot be
    obtained.
    """

    exit_code = 4
    usual_hint = Hint.command("doctor", says="shows what this machine can do")


class OutOfMemory(EnvironmentProblem):
    """Memory ran out while `what` was going on; `smaller` is a setting that needs less."""

    def __init__(self, what: str, smaller: Set | None) -> None:
        less = (
            Hint("lower it with ", smaller, " and ") if smaller else Hint("free some memory and ")
        )
        super().__init__(f"{what}: out of memory", hint=Hint(less, "type the command again"))

    @staticmethod
    def said_by(error: BaseException) -> bool:
        """Whether Python ran out of it, or torch, which says so in words: CUDA's, its
        libraries' or its CPU allocator's.
        """
        if not isinstance(error, RuntimeError):
            return isinstance(error, MemoryError)
        text = str(error).lower()
        said = ("out of memory", "can't allocate memory", "_status_alloc_failed")
        # a library that finds no room for its handle may call that an error of its own
        handle = ("cublascreate(", "cusolverdncreate(", "cusparsecreate(", "cudnncreate(")
        return any(words in text for words in (*said, *handle))


class Locked(RlpError):
    """The run is locked by a live process."""

    exit_code = 5


class Interrupted(RlpError):
    """Stopped by Ctrl-C (130) or SIGTERM (143) after the state was saved."""

    exit_code = 130

    def __init__(
        self, message: str = "interrupted", *, signal_number: int = 2, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal_number
