"""Find the user's own `package.module:factory`.

Folders are appended at the end of `sys.path`, so that a module called like one of ours, of the standard
library's or of an installed package never shadows it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError


def find_factory(source: str, search_path: Sequence[Path] = ()) -> Callable[..., Any]:
    """The callable that `source` names.

    Args:
        source: `package.module:factory`; the factory may be dotted (`Nets.small`).
        search_path: folders to look in after everything installed; the current folder comes last.
    Raises:
        UsageError: the module cannot be found or imported, or has no such callable.
    """
    module_name, _, attribute = source.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise UsageError(
            f"model.source {source}: expected package.module:factory", hint="for example my_nets:small_cnn"
        )
    folders = [*search_path, Path.cwd()]
    for folder in map(str, map(Path.resolve, folders)):
        if folder not in sys.path:
            sys.path.append(folder)  # it stays there: the module may import its neighbours inside its factory
    importlib.invalidate_caches()
    target = _import(module_name, source, folders)
    for name in attribute.split("."):
        if not hasattr(target, name):
            where = getattr(target, "__file__", None) or module_name
            raise UsageError(
                f"model.source {source}: {where} defines no {name}",
                hint="name a function or class that returns the network",
            )
        target = getattr(target, name)
    if not callable(target):
        raise UsageError(
            f"model.source {source}: {attribute} is not callable",
            hint="name a function or class that returns the network",
        )
    return target


def _import(module_name: str, source: str, folders: Sequence[Path]) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            looked = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
            raise UsageError(
                f"model.source {source}: no module {error.name}", hint=f"looked in installed packages, then {looked}"
            ) from error
        raise UsageError(
            f"model.source {source}: {module_name} needs {error.name}", hint=f"pip install {error.name}"
        ) from error
    except Exception as error:
        raise UsageError(
            f"model.source {source}: importing {module_name} failed: {type(error).__name__}: {error}",
            hint="import it in a plain Python first",
        ) from error
