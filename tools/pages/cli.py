"""docs/cli.md, from the Typer app itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from pipeline.cli.app import app
from tools.pages.text import NOTE, cell

EVERYWHERE = ("json", "quiet", "verbose")

CLI_HEAD = f"""# Command line

{NOTE}

Generated from `pipeline/cli/`. Every command also takes:

| option | meaning |
|---|---|
| `--json` | print one JSON document on stdout, with the same keys on failure |
| `--quiet`, `-q` | print errors and warnings only |
| `--verbose`, `-v` | print more about what is going on |
| `--help`, `-h` | print what the command takes |

`rlp --version` prints the version. After `rlp` alone, `--install-completion` lets tab complete
commands, runs and configs.

Data goes to stdout, progress and hints to stderr. Every JSON document also has `ok`, `exit_code`
and `error` (null, or `message`, `hint` and `details`). The
[exit codes](troubleshooting.md#exit-codes) are a contract.
"""


def commands(command: Any, words: tuple[str, ...] = ("rlp",)) -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command that does something, groups opened."""
    inside = getattr(command, "commands", None)
    if inside is None:
        yield " ".join(words), command
        return
    for name, child in inside.items():
        yield from commands(child, (*words, name))


def page() -> str:
    """The whole page."""
    found = sorted(commands(typer.main.get_command(app)))
    links = " · ".join(f"[`{name}`](#{name.replace(' ', '-')})" for name, _ in found)
    return "\n".join([CLI_HEAD, links, "", *(_command(name, item) for name, item in found)])


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [
        p for p in command.params if p.param_type_name == "option" and p.name not in EVERYWHERE
    ]
    usage = " ".join([name, *map(_placeholder, arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## {name}", "", f"    usage: {usage}", "", " ".join(command.help.split()), ""]
    rows = [(_placeholder(p), p.help) for p in arguments] + [_option(p) for p in options]
    if rows:
        lines += ["| | meaning |", "|---|---|"]
        lines += [f"| `{left}` | {cell(right)} |" for left, right in rows] + [""]
    keys = getattr(command.callback, "json_keys", ())
    lines.append(f"JSON: {', '.join(f'`{key}`' for key in keys)}\n")
    return "\n".join(lines)


def _placeholder(param: Any) -> str:
    return param.metavar or param.name.upper()


def _option(param: Any) -> tuple[str, str]:
    names = "/".join([*param.opts, *param.secondary_opts])
    named = param.name.rpartition("_")[2].upper() if param.metavar is None else param.metavar
    word = "" if param.is_flag else named
    # An option with a default of its own says so; flags and lists do not need to.
    shown = param.default not in (None, "") and not param.is_flag
    help_text = f"{param.help} Default `{param.default}`." if shown else param.help
    return f"{names} {word}".rstrip(), help_text
