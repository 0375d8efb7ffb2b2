"""Find the user's own `package.module:factory`.

Folders are appended at the end of `sys.path`, so that a module called like one of ours, of the
standard library's or of an installed package never shadows it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import Command, Hint, UsageError

_HINT = "name a function or class that returns the network"
_NOT_NETWORKS = ("torch", "pip", "setuptools")  # packages with functions that run anything


Ask = Callable[[str, Mapping[str, Any]], None]
"""Raises where the code of a source, called with these arguments, is not to be imported."""


@dataclass
class _Rules:
    """Where modules are looked for besides, and who is asked before one is imported."""

    folders: tuple[Path, ...] = ()
    ask: Ask = lambda source, kwargs: None


_rules = _Rules()


@contextmanager
def asking(folder: Path, ask: Ask) -> Iterator[None]:
    """Within it, modules are found in `folder` as well, and `ask` is asked before each import."""
    global _rules
    before, _rules = _rules, _Rules((folder,), ask)
    try:
        yield
    finally:
        _rules = before


def find_factory(
    source: str, kwargs: Mapping[str, Any], search_path: Sequence[Path] = ()
) -> Callable[..., Any]:
    """The callable that `source` names.

    Args:
        source: `package.module:factory` or `path/to/file.py:factory`; the factory may be dotted
            (`Nets.small`).
        kwargs: what it is going to be called with; code is trusted for what it is asked to do.
        search_path: folders to look in after everything installed; the current folder comes last.
    Raises:
        ArtifactError: its code is not trusted, and was not imported.
        UsageError: the module cannot be found or imported, or has no such callable.
    """
    module_name, _, attribute = source.rpartition(":")
    _check_name(source, module_name, attribute)
    _rules.ask(source, kwargs)  # before its folder is looked in for anything at all
    folders = [*search_path, *_rules.folders, Path.cwd()]
    if module_name.endswith(".py"):
        folders.append(_file_of(module_name, source, folders).parent)
    for folder in map(str, map(Path.resolve, folders)):
        if folder not in sys.path:
            sys.path.append(folder)  # for good: a factory may import the files beside its own
    importlib.invalidate_caches()  # the file may be newer than the last look at its folder
    target = _import(module_name, source, folders)
    for name in attribute.split("."):
        if not hasattr(target, name):
            where = getattr(target, "__file__", None) or module_name
            raise UsageError(f"model.source {source}: {where} defines no {name}", hint=_HINT)
        target = getattr(target, name)
    if not _may_build(target):
        wrong = f"{attribute} is no factory of networks"
        raise UsageError(f"model.source {source}: {wrong}", hint=_HINT)
    return target


def source_of_path(source: str, folder: Path) -> str:
    """`path/to/file.py:factory` as `module:factory`; any other source as it is.

    Args:
        folder: of the config, beside which a module is found; else it is below the current folder.
    Raises:
        UsageError: there is no such file, or a run would not find it.
    """
    name, colon, factory = source.rpartition(":")
    if not colon or not name.endswith(".py"):
        return source
    path = Path(name).resolve()
    if not path.is_file():
        raise UsageError(f"model.source {source}: there is no file {name}", hint=_HINT)
    for home in (folder.resolve(), Path.cwd()):
        if path.is_relative_to(home):
            parts = path.relative_to(home).with_suffix("").parts
            if parts[0] in ("pipeline", "stages"):  # as modules, these are ours
                return f"{path.relative_to(home)}:{factory}"
            if all(part.isidentifier() for part in parts):
                return f"{'.'.join(parts)}:{factory}"
    beside = Command("init", "--out", str(path.with_name("my.yaml")))
    raise UsageError(
        f"model.source {source}: not found from {folder.resolve()} by a module's name",
        hint=Hint("write the config beside it: ", beside),
    )


def _check_name(source: str, module_name: str, attribute: str) -> None:
    is_file = module_name.endswith(".py")
    names = [*([] if is_file else module_name.split(".")), *attribute.split(".")]
    if not all(part.isidentifier() for part in names):
        raise UsageError(
            f"model.source {source}: expected package.module:factory",
            hint="for example my_nets:small_cnn, or path/to/my_nets.py:small_cnn",
        )
    if not is_file and module_name.split(".")[0] in sys.stdlib_module_names:
        raise UsageError(
            f"model.source {source}: {module_name} is Python's own",
            hint="give your module another name",
        )


def _may_build(target: Any) -> bool:
    """A class of networks, or a function that someone wrote: neither torch's own nor Python's.

    A model.json names the factory and its arguments, and must not reach `subprocess.run` or
    `torch.hub.load`.
    """
    if isinstance(target, functools.partial):
        return _may_build(target.func)
    if inspect.isclass(target):
        return issubclass(target, nn.Module)
    home = str(getattr(target, "__module__", "")).split(".")[0]
    return (
        inspect.isfunction(target)
        and home not in sys.stdlib_module_names
        and home not in _NOT_NETWORKS
    )


def _import(module_name: str, source: str, folders: Sequence[Path]) -> Any:
    try:
        if module_name.endswith(".py"):
            return _load(_file_of(module_name, source, folders))
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # the module itself is missing, and not what it imports
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            looked = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in folders))
            raise UsageError(
                f"model.source {source}: no module {error.name}",
                hint=f"looked in installed packages, then {looked}",
            ) from error
        raise UsageError(
            f"model.source {source}: {module_name} needs {error.name}",
            hint=f"install what brings the module {error.name}, or put it beside the config",
        ) from error
    except Exception as error:  # a module runs any code when it is imported
        what = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"model.source {source}: importing {module_name} failed: {what}",
            hint="import it in a plain Python first",
        ) from error


def _file_of(name: str, source: str, folders: Sequence[Path]) -> Path:
    """The first file of this name in the folders.

    Raises:
        UsageError: none has it.
    """
    places = list(dict.fromkeys((folder / name).resolve() for folder in folders))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        looked = ", then ".join(map(str, places))
        raise UsageError(
            f"model.source {source}: there is no such file", hint=f"looked for {looked}"
        )
    return found


def _load(file: Path) -> Any:
    """The module in a file, under a name that nothing else has."""
    name = f"file_{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look there
        try:
            spec.loader.exec_module(sys.modules[name])
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def source_file(source: str) -> Path | None:
    """The file of the user's own module, without importing it; None where there is none."""
    module_name, colon, _ = source.rpartition(":")
    if not colon or module_name in ("torchvision", "timm"):
        return None
    if module_name.endswith(".py"):
        places = [folder / module_name for folder in (*_rules.folders, Path())]
        return next((place for place in places if place.is_file()), None)
    folders = [*(Path(entry or ".") for entry in sys.path), *_rules.folders, Path()]
    parts = module_name.split(".")
    for folder in folders:
        for candidate in (
            folder.joinpath(*parts).with_suffix(".py"),
            folder.joinpath(*parts, "__init__.py"),
        ):
            if candidate.is_file():
                return candidate
    return None
