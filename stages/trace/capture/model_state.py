"""Running a network without leaving a trace of it: everything forward could change is put back.

A `Snapshot` walks whatever a network can reach: modules, attributes, containers in containers,
plain objects, closures, the attributes of its classes, and the caches of the files that define
them. It holds references, not copies of tensors: while the network runs, `replace` puts other
tensors in place of its parameters and buffers, so that their values are safe.
"""

from __future__ import annotations

import functools
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import is_not
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.trace.capture.inventory import named_modules
from stages.trace.capture.source_lines import inside_engine, inside_library

_MAX_OBJECTS = 500_000  # a network that drags a data set along is not walked to its end
# not walked into: `replace` shields tensors, `_visit_sources` looks after files and classes
_PLAIN = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, range, slice, type, BuiltinFunctionType,
        ModuleType, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
        torch.Tensor, nn.Parameter,
    }
)  # fmt: skip
_NO_TENSORS = frozenset({type(None), bool, int, float, str, tuple, dict, OrderedDict, set})
_CONTAINERS = frozenset({dict, OrderedDict, list, set, deque})


def canonical_names(model: nn.Module) -> dict[str, str]:
    """{every name of a parameter or buffer: the first name of the same tensor}."""
    first: dict[int, str] = {}
    named = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def set_training(
    model: nn.Module, training: bool, modules: Iterable[nn.Module] | None = None
) -> None:
    """`model.train(training)`, for a model whose modes differ from it; exported programs included.

    A model may do more than set flags there, so one that is in the right mode is left alone.
    `modules` are those of the model, where they are known.
    """
    known = modules or (module for _, module in named_modules(model))
    if all(module.training == training for module in known):
        return
    try:
        model.train(training)
    except NotImplementedError:  # an exported program has one mode
        for module in model.modules():
            module.training = training


class Snapshot:
    """The state of a network, its random generators included; `restore` puts it back."""

    def __init__(self, model: nn.Module) -> None:
        self._random = _random_states()
        self._seen: dict[int, Any] = {}
        self._undo: list[Callable[[], None]] = []
        self._dicts: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._waiting: list[Any] = [model]
        self._empty: list[Any] = []
        self._lists: list[list[Any]] = []
        while self._waiting and len(self._seen) < _MAX_OBJECTS:
            self._visit(self._waiting.pop())
        self._visit_sources()

    def restore(self) -> None:
        """Put everything back; may be called any number of times."""
        for restore in self._random:
            restore()
        for container in self._empty:
            if container:
                container.clear()
        for now, before in self._dicts:
            if _differ(now, before):
                now.clear()  # in place, in the old order: others hold this very dict
                now.update(before)
        for undo in self._undo:
            undo()

    def replace(self, tensors: Mapping[int, torch.Tensor]) -> None:
        """Put other tensors, {id of the old: new}, wherever attributes and containers hold them.

        Unlike `torch.func.functional_call` it serves modules and parameters that have several
        names, and parameters that are also kept in a list or a dict.
        """
        for now, before in self._dicts:
            for key, value in before.items():
                if type(value) not in _NO_TENSORS and id(value) in tensors:
                    now[key] = tensors[id(value)]
        for collection in self._lists:
            for position, value in enumerate(collection):
                if id(value) in tensors:
                    collection[position] = tensors[id(value)]

    def copy_tensors(self) -> None:
        """Also keep the values of all tensors, for a run that `replace` cannot shield."""
        held = [item for _, before in self._dicts for item in before.values()]
        held += [item for items in self._lists for item in items]
        for tensor in {id(item): item for item in held if isinstance(item, torch.Tensor)}.values():
            copy, version = tensor.detach().clone(), tensor._version
            self._undo.append(functools.partial(_rewrite, tensor, copy, version))

    def _visit(self, value: Any) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value  # also keeps it alive, so that ids stay unique
        if isinstance(value, dict):
            self._visit_dict(value)
        elif isinstance(value, nn.Module):
            self._visit_dict(value.__dict__)
        elif isinstance(value, (list, deque, set, bytearray)):
            self._visit_collection(value)
        elif isinstance(value, (tuple, frozenset)):
            self._queue(value)
        elif isinstance(value, np.ndarray):
            # copied at once: numpy does not count writes, as torch does
            self._undo.append(functools.partial(np.copyto, value, value.copy()))
        elif isinstance(value, FunctionType):
            self._visit_function(value)
        elif isinstance(value, MethodType):
            self._waiting += [value.__self__, value.__func__]
        elif isinstance(value, functools.partial):
            self._waiting += [value.func, value.args, value.keywords]
        elif not isinstance(value, (type, ModuleType, torch.Tensor)):
            self._visit_object(value)

    def _visit_dict(self, value: dict[Any, Any]) -> None:
        self._dicts.append((value, dict(value)))
        self._queue(value.values())

    def _queue(self, values: Iterable[Any]) -> None:
        for value in values:
            kind = type(value)
            if kind in _PLAIN:
                continue
            if kind in _CONTAINERS and not value:  # most of what a module holds: hooks
                self._empty.append(value)
            else:
                self._waiting.append(value)

    def _visit_collection(self, value: Any) -> None:
        before = list(value)
        self._undo.append(functools.partial(_refill, value, before))
        if isinstance(value, list):
            self._lists.append(value)
        if not isinstance(value, bytearray):
            self._queue(before)

    def _visit_function(self, value: FunctionType) -> None:
        self._waiting += [value.__defaults__, value.__kwdefaults__]
        if value.__dict__:
            self._visit_dict(value.__dict__)
        for cell in value.__closure__ or ():
            with suppress(ValueError):  # not filled yet
                content = cell.cell_contents
                self._undo.append(functools.partial(setattr, cell, "cell_contents", content))
                self._waiting.append(content)

    def _visit_object(self, value: Any) -> None:
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            self._visit_dict(attributes)
        for owner in type(value).__mro__:
            slots = vars(owner).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                with suppress(AttributeError):  # never set, or read-only
                    self._waiting.append(content := getattr(value, name))
                    self._undo.append(functools.partial(_set, value, name, content))

    def _visit_sources(self) -> None:
        """Classes, and the files that define them and the functions: one level deep."""
        spaces = {
            id(value.__globals__): value.__globals__
            for value in self._seen.values()
            if isinstance(value, FunctionType)
        }
        classes = {owner for value in self._seen.values() for owner in _classes(value)}
        for owner in classes:
            if source := sys.modules.get(owner.__module__):
                spaces[id(vars(source))] = vars(source)
            if not _of_library(vars(source) if source else {}):
                self._undo.append(functools.partial(_restore_class, owner, dict(vars(owner))))
                self._visit_caches(vars(owner).values())
        for space in spaces.values():
            # what a library caches or imports at first use is its own affair
            if not _of_library(space):
                self._undo.append(functools.partial(_restore_globals, space, dict(space)))
                self._visit_caches(space.values())

    def _visit_caches(self, values: Iterable[Any]) -> None:
        for value in list(values):
            if isinstance(value, dict) and id(value) not in self._seen:
                self._dicts.append((value, dict(value)))
            elif isinstance(value, (list, set)) and id(value) not in self._seen:
                self._undo.append(functools.partial(_refill, value, list(value)))
            elif isinstance(value, functools._lru_cache_wrapper):
                self._undo.append(functools.partial(_forget, value, value.cache_info().currsize))


@contextmanager
def preserved(model: nn.Module, snapshot: Snapshot | None = None) -> Iterator[Snapshot]:
    """Put back whatever changes about `model` inside the block, also when it raises.

    A `snapshot` that was taken before says what to put back.
    """
    snapshot = snapshot or Snapshot(model)
    try:
        yield snapshot
    finally:
        snapshot.restore()


def _random_states() -> list[Callable[[], None]]:
    states: list[Callable[[], None]] = [
        functools.partial(torch.set_rng_state, torch.get_rng_state()),
        functools.partial(random.setstate, random.getstate()),
        functools.partial(np.random.set_state, np.random.get_state()),
    ]
    # asking for the state would start CUDA: seconds, and memory that is never given back
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(
            functools.partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        )
    return states


def _differ(now: Mapping[Any, Any], before: Mapping[Any, Any]) -> bool:
    if len(now) != len(before):
        return True
    # by identity: == compares tensors element by element, and may run code of the user's
    return any(map(is_not, now, before)) or any(map(is_not, now.values(), before.values()))


def _refill(value: Any, before: list[Any]) -> None:
    if isinstance(value, set):
        if value != set(before):
            value.clear()
            value.update(before)
    elif len(value) != len(before) or any(a is not b for a, b in zip(value, before, strict=True)):
        value.clear()
        value.extend(before)


def _rewrite(tensor: torch.Tensor, copy: torch.Tensor, version: int) -> None:
    # copying counts as a write, and autograd refuses graphs whose tensors were written to
    if tensor._version != version:
        with torch.no_grad():
            tensor.copy_(copy)


def _set(value: Any, name: str, content: Any) -> None:
    if getattr(value, name, None) is not content:
        with suppress(AttributeError, TypeError):
            setattr(value, name, content)


def _classes(value: Any) -> tuple[type, ...]:
    return type(value).__mro__[:-1] if isinstance(value, nn.Module) else ()


def _of_library(space: Mapping[str, Any]) -> bool:
    file = space.get("__file__") or ""
    return inside_library(file) or inside_engine(file)


def _restore_globals(space: dict[str, Any], before: dict[str, Any]) -> None:
    """Names that were there get their values back; of new ones, which another thread may have
    made, those that hold a tensor go.
    """
    for name, value in list(space.items()):
        if name in before:
            if value is not before[name]:
                space[name] = before[name]
        elif isinstance(value, torch.Tensor):
            del space[name]


def _restore_class(owner: type, before: dict[str, Any]) -> None:
    now = vars(owner)
    for name in [name for name in now if name not in before]:
        with suppress(AttributeError, TypeError):
            delattr(owner, name)
    for name, value in before.items():
        if now.get(name) is not value:
            with suppress(AttributeError, TypeError):
                setattr(owner, name, value)


def _forget(cached: Any, entries: int) -> None:
    """Empty an `lru_cache` that grew: single entries cannot be taken out, and a cache may."""
    if cached.cache_info().currsize > entries:
        cached.cache_clear()
