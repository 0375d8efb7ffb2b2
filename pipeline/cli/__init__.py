"""The `rlp` command. `main` is the error funnel: every way to fail becomes one line, a hint and
an exit code.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import select
import sys
import tempfile
import traceback
from typing import Any, NoReturn

from pipeline.errors import EnvironmentProblem, Hint, Interrupted, OutOfMemory, RlpError, UsageError


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point of the console script; always leaves through SystemExit."""
    # Before torch starts its threads: on a shared core, threads that spin at barriers make a step
    # ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    arguments = [
        # typer's options take a value or none, not either
        "--force=all" if item == "--force" else item
        for item in (sys.argv[1:] if argv is None else argv) or ["--help"]
    ]
    _fix_streams()
    code = _run(arguments)
    _stdout_closed()
    raise SystemExit(code)


_ENVIRONMENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
}


def _fix_streams() -> None:
    """Closed streams go nowhere; what a terminal cannot show is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _stdout_closed() -> bool:
    """Whether nobody reads stdout any more (`| head`); what cannot be written then goes nowhere."""
    try:
        sys.stdout.flush()
        watch = select.poll()
        watch.register(sys.stdout.fileno(), 0)  # an error is reported unasked, once the reader left
        return any(event & select.POLLERR for _, event in watch.poll(0))
    except io.UnsupportedOperation:  # captured in memory
        return False
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return isinstance(error, BrokenPipeError)


def _run(arguments: list[str]) -> int:
    from pipeline.cli.app import app

    stdout = sys.stdout
    try:
        _check_text(arguments)
        result = app(args=arguments, prog_name="rlp", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except RlpError as error:
        return _fail(error, arguments)
    except KeyboardInterrupt:
        return _fail(Interrupted(hint="type the same command again to resume"), arguments)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        # typer takes any broken pipe, that of a worker too, for a reader that left
        sys.stdout = stdout
        return 0 if _stdout_closed() else _bug(end.__context__, arguments)
    except Exception as error:
        if type(error).__name__ == "Exit":  # typer's own way out; its class moved between releases
            return int(getattr(error, "exit_code", 0))
        if type(error).__name__ == "Abort":
            return _fail(Interrupted(), arguments)
        if hasattr(error, "format_message"):  # click's usage errors, whatever their class is called
            return _fail(_usage(error), arguments)
        if problem := _system(error):
            return _fail(problem, arguments)
        return _bug(error, arguments)


def _check_text(arguments: list[str]) -> None:
    for item in arguments:
        try:
            item.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{item!a}: not UTF-8 text",
                hint="rename the file or folder, or run in a UTF-8 locale",
            ) from None


def _system(error: Exception) -> RlpError | None:
    """What the system refused, wherever it did; None for anything that looks like our own
    mistake.
    """
    if OutOfMemory.said_by(error):
        return OutOfMemory("this command", None)
    if not isinstance(error, OSError):
        return None
    what = f"{error.filename or 'output'}: {error.strerror}"
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(what, hint="pass a shorter path")
    if error.errno in _ENVIRONMENT:
        return EnvironmentProblem(
            what, hint="fix that and type the command again; finished stages are kept"
        )
    return None


def _usage(error: Any) -> RlpError:
    from pipeline.cli.common import attach, keys_of

    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx is not None else "rlp"
    no_command = type(error).__name__ == "NoArgsIsHelpError"
    if (path := _meant(error, ctx)) is not None:
        hint = Hint.command(*path, says="is the whole command")
        return UsageError(f"No such command '{path[-1]}'.", hint=hint)
    message = f"{command} needs a command" if no_command else error.format_message()
    words = (*command.split()[1:], "--help")
    usage = UsageError(message, hint=Hint.command(*words, says="lists what it takes"))
    return attach(usage, dict.fromkeys(keys_of(ctx.command if ctx is not None else None)))


def _meant(error: Any, ctx: Any) -> tuple[str, ...] | None:
    """The command that ends in an unknown word, or the stage of that name; None without one."""
    found = re.match(r"No such command '([\w-]+)'", error.format_message())
    if ctx is None or not found or ctx.parent is not None:
        return None
    from pipeline.run.artifacts import KINDS

    word = found[1]
    for name, group in ctx.command.commands.items():
        if word in getattr(group, "commands", {}):
            return name, word
    return ("stage", word) if word in {kind.maker for kind in KINDS.values()} else None


def _fail(error: RlpError, arguments: list[str]) -> int:
    from pipeline import console
    from pipeline.cli.common import failure_document

    error.hint = error.hint or error.usual_hint
    if os.environ.get("RLP_DEBUG") == "1":
        traceback.print_exception(error)
    with contextlib.suppress(OSError):
        console.failure(error)
    if "--json" in arguments:
        console.setup("json")
        with contextlib.suppress(OSError):
            console.document(failure_document(error))
    return error.exit_code


def _bug(error: Exception, arguments: list[str]) -> int:
    text = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="rlp-crash-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"rlp {' '.join(arguments)}\n\n{text}")
    except OSError:
        path = "nowhere: no temporary folder is writable"
    summary = f"{type(error).__name__}: {error}".strip()
    bug = RlpError(f"a bug in rlp: {summary}"[:400], hint=f"the traceback is in {path}")
    bug.__cause__ = error
    return _fail(bug, arguments)
