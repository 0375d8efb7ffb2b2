"""The `rlp` command. `main` is the error funnel: every way to fail becomes one line, a hint and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from typing import Any, NoReturn

from pipeline.errors import Interrupted, RlpError, UsageError


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point of the console script; always leaves through SystemExit."""
    arguments = ["--force=all" if item == "--force" else item for item in (sys.argv[1:] if argv is None else argv)]
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(code)


def _run(arguments: list[str]) -> int:
    from pipeline.cli.app import app

    try:
        result = app(args=arguments, prog_name="rlp", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except RlpError as error:
        return _fail(error, arguments)
    except KeyboardInterrupt:
        return _fail(Interrupted(hint="type the same command again to resume"), arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "Exit":  # typer's own way out; its class moved between releases
            return int(getattr(error, "exit_code", 0))
        if type(error).__name__ == "Abort":
            return _fail(Interrupted(), arguments)
        if hasattr(error, "format_message"):
            return _fail(_usage(error), arguments)
        return _bug(error, arguments)


def _usage(error: Any) -> RlpError:
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx is not None else "rlp"
    return UsageError(error.format_message(), hint=f"{command} --help lists what it takes")


def _fail(error: RlpError, arguments: list[str]) -> int:
    from pipeline import console
    from pipeline.cli.common import failure_document

    if os.environ.get("RLP_DEBUG") == "1":
        traceback.print_exception(error)
    console.failure(error)
    if "--json" in arguments:
        console.setup("json")
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
    return _fail(RlpError(f"a bug in rlp: {summary}"[:400], hint=f"the traceback is in {path}"), arguments)
