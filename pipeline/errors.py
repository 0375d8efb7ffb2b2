"""One tree of errors: each knows its exit code and builds its own sentence and hint.

Exit codes are a contract with scripts and CI (see README, "Exit codes").
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.hints import Command, Hint, Key, Set

__all__ = [
    "ArtifactError",
    "Command",
    "EnvironmentProblem",
    "Hint",
    "Interrupted",
    "Key",
    "Locked",
    "NewerSchema",
    "OutOfMemory",
    "Refused",
    "RlpError",
    "Set",
    "UsageError",
]


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
        super().__init__(message, hint="upgrade rlp-cnn")


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
