"""What all commands share: `--json`, `--quiet`, `-v`, and the one JSON document with the same
keys on failure.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.errors import RlpError

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one setting, e.g. search.trials=20. Repeatable.",
    ),
]
_JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")]
_VERBOSE = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print more about what is going on.")
]

_current_keys: tuple[str, ...] = ()


def command(
    app: typer.Typer, name: str, keys: Sequence[str] = (), **settings: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command that returns its JSON document (a dict with exactly `keys`) or None."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(function, include_extras=True)
        own = [
            p.replace(annotation=hints[p.name])
            for p in inspect.signature(function).parameters.values()
        ]
        extra = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
            )
            for option, annotation in (("json", _JSON), ("quiet", _QUIET), ("verbose", _VERBOSE))
        ]

        @functools.wraps(function)
        def wrapper(*args: Any, json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> None:
            global _current_keys
            _current_keys = tuple(keys)
            console.setup("json" if json else "quiet" if quiet else "human", verbose)
            doc = function(*args, **kwargs)
            if doc is not None:
                console.document({"ok": True, "exit_code": 0, "error": None, **doc})

        del wrapper.__wrapped__  # type: ignore[attr-defined]
        wrapper.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *extra)}
        wrapper.json_keys = tuple(keys)  # type: ignore[attr-defined]
        app.command(name, **settings)(wrapper)
        return function

    return register


def keys_of(clicked: Any) -> tuple[str, ...]:
    """Keys of the JSON document of a command as the parser knows it; none for a group of
    commands.
    """
    return getattr(getattr(clicked, "callback", None), "json_keys", ())


def attach(error: RlpError, doc: dict[str, Any]) -> RlpError:
    """Let a failing command still print its JSON keys."""
    error.document = doc  # type: ignore[attr-defined]
    return error


def failure_document(error: RlpError) -> dict[str, Any]:
    """The JSON document of a command that failed: the keys it has on success, and the error."""
    described = {"message": error.message, "hint": error.hint, "details": list(error.details)}
    found = getattr(error, "document", dict.fromkeys(_current_keys))
    return {"ok": False, "exit_code": error.exit_code, "error": described, **found}
