"""Listening to PyTorch's dispatcher: a mode that notes every ATen call of a run.

The mode sits on the PreDispatch key, where torch.export listens too, so that `linear` or `chunk`
arrive whole and not in the pieces autograd would see. PyTorch has no public way to listen there; if
this one changes, `capture_forward` falls back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any, Protocol

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from stages.trace.capture import meta_shapes
from stages.trace.capture.calls import Call, Ground, Input, Ref, flatten
from stages.trace.capture.inventory import Inventory
from stages.trace.capture.operators import draws, operator_name, writes
from stages.trace.capture.source_lines import line_of, own_frames, running_line

_FEW = 16  # elements of a constant that are remembered: `torch.tensor(x.shape[1])` is one
_KEY = torch._C.DispatchKey.PreDispatch
_OUTSIDE = "outside the model"
_NUMBERS = frozenset({type(None), bool, int, float})


class Watch(Protocol):
    """Looks on while a network runs; whatever it raises ends the run."""

    def seen(self, call: Call, results: Sequence[Any]) -> None:
        """An operator has returned."""

    def failed(self, name: str, line: str) -> None:
        """An operator has raised."""


class Unsupported(Exception):
    """Something this way of capturing cannot vouch for."""


# torch lets three kinds of modes onto the PreDispatch key; nothing but the type of this one is
# used.
class Recorder(SchemaCheckMode):
    """Notes calls; a real tensor that it did not see being made is a constant of the network."""

    def __init__(self, inventory: Inventory, ground: Ground, watch: Watch | None = None) -> None:
        # SchemaCheckMode's own __init__ takes no key
        TorchDispatchMode.__init__(self, _KEY)
        self.ground, self.watch = ground, watch
        self.inventory = inventory
        self.inputs: list[Input] = []
        self.calls: list[Call] = []
        self.modules: list[str] = []
        self.codes: set[CodeType] = set()
        self._refs: dict[int, Ref] = {}
        self._bound: list[tuple[torch.Tensor, Ref]] = []
        self._places: dict[Any, Ref] = {}
        self._placed = 0
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._constant_memory: dict[int, torch.Tensor] = {}
        self._count = 0
        self._met: list[Ref] = []
        self._direct: list[Any] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while it listens; PyTorch would wrap every call."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # fake tensors run operators of their own inside of one
        if type(func) is torch._ops.OpOverload and self.ground is not Ground.FAKE:
            self._listen_directly(func)
        return self._called(func, args, kwargs or {})

    def _listen_directly(self, func: Any) -> None:
        """Have further calls of an operator come straight to `_called`: PyTorch takes longer to
        find the mode, and to take it off and put it back, than noting a call takes.
        """
        handlers = getattr(func, "_dispatch_cache", None)
        if isinstance(handlers, dict):
            handlers[_KEY] = functools.partial(self._without_listening, func)
            self._direct.append(func)

    def _without_listening(self, func: Any, /, *args: Any, **kwargs: Any) -> Any:
        include = torch._C._dispatch_tls_set_dispatch_key_included
        include(_KEY, False)
        try:
            return self._called(func, args, kwargs)
        finally:
            include(_KEY, True)

    def leave(self) -> None:
        """Undo `_listen_directly`, and what forward wrote into tensors that are neither parameter
        nor buffer.
        """
        for func in self._direct:
            func._dispatch_cache.pop(_KEY, None)
        with no_dispatch():
            for tensor, copy in self._copies.values():
                tensor.copy_(copy)

    def _called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = operator_name(func)
        if name.startswith("prim::"):  # device, layout: no values
            return func(*args, **kwargs)
        if name == "index":
            self._declare_indices(args[1])
        met = self._met = []
        # before the call: an operator that works in place binds its argument to its result
        before, named = self._refs_in(args), self._refs_in(kwargs)
        # a snapshot keeps references only: values that forward overwrites must be copied in time
        if self._constant_memory and writes(func):
            self._save_constants((args, kwargs))
        try:
            out = self._run(func, name, args, kwargs)
        except Exception:
            if self.watch is not None:
                self.watch.failed(name, running_line())
            raise
        several = isinstance(out, (tuple, list))
        results = list(out) if several else [out]
        index = self._next()
        call = Call(
            index=index,
            target=func,
            name=name,
            args=before,
            kwargs=named,
            shapes=tuple(tuple(r.shape) if isinstance(r, torch.Tensor) else None for r in results),
            module=self.modules[-1] if self.modules else "",
            line=self._line(),
        )
        vars(call)["refs"] = tuple(met)  # at hand here; `Call.refs` would search for them
        self.calls.append(call)
        for position, result in enumerate(results):
            if isinstance(result, torch.Tensor):
                self._bind(result, Ref.known(index, position if several else None))
        if self.watch is not None:
            self.watch.seen(call, results)
        return out

    def _line(self) -> str:
        if self.watch is not None:  # its code is known, and a walk through all frames takes time
            return running_line()
        frames = list(own_frames())
        # their bytecode says later whether forward may branch on a size
        self.codes.update(frame.f_code for frame in frames)
        return line_of(frames[0] if frames else None)

    def _run(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operator itself, or only the shape of its result.

        PyTorch's Python decompositions would take most of the time, so they are switched off where
        a kernel or a formula serves.
        """
        if self.ground is Ground.FAKE:
            return func(*args, **kwargs)
        with torch._C._DisablePythonDispatcher():
            known = None
            if self.ground is Ground.META:
                known = meta_shapes.result(name, args, kwargs)
            elif draws(func):
                known = _without_chance(func, args)
            return func(*args, **kwargs) if known is None else known

    def declare(self, kind: str, name: str, tensor: torch.Tensor) -> None:
        """Make a parameter, buffer, input or constant known."""
        numbers: tuple[Any, ...] = ()
        # a sparse tensor has no storage that `tolist` could read
        if kind == "constant" and tensor.numel() <= _FEW and not tensor.is_sparse:
            with no_dispatch():  # a constant has values even among tensors that have none
                numbers = tuple(flatten(tensor.detach().tolist()))
        self.inputs.append(Input(self._next(), kind, name, tuple(tensor.shape), numbers))
        self._bind(tensor, Ref.known(self.inputs[-1].index))
        if kind == "constant":
            # by memory: it may be written to through a view
            self._constant_memory[tensor.untyped_storage()._cdata] = tensor

    def _declare_indices(self, indices: Any) -> None:
        """A list of numbers in `x[:, [2, 0, 1]]` becomes a tensor without a call.

        Without values, too, among meta tensors: long ones are not asked for their numbers.
        """
        for tensor in indices:
            long = isinstance(tensor, torch.Tensor) and tensor.is_meta and tensor.numel() > _FEW
            if long and id(tensor) not in self._refs and self._by_place(tensor) is None:
                self.declare("constant", _OUTSIDE, tensor)

    def in_buffers(self) -> Iterator[Ref]:
        """Where the tensors come from that buffers hold now."""
        # read after the run: forward may have assigned another tensor to the name
        for module in self.inventory.modules.values():
            for tensor in module._buffers.values():
                if id(tensor) in self._refs:
                    yield self._refs[id(tensor)]

    def ref(self, value: Any) -> Any:
        """Where a tensor comes from; anything else as it is."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self._refs:
            known = self._by_place(value)  # factory functions hand out a second object
            if known is not None:
                self._bind(value, known)
            elif not isinstance(value, FakeTensor) and not value.is_meta:
                name = self.inventory.attribute(value) or _OUTSIDE
                self.declare("constant", name, value)
            else:
                raise Unsupported("a tensor that no recorded call made")
        return self._refs[id(value)]

    def _by_place(self, tensor: torch.Tensor) -> Ref | None:
        """Where the tensor comes from whose elements lie where those of this one lie."""
        # only now: hardly any network asks
        for other, ref in self._bound[self._placed :]:
            self._places[_place(other)] = ref
        self._placed = len(self._bound)
        return self._places.get(_place(tensor))

    def _refs_in(self, tree: Any) -> Any:
        """`ref` on every tensor of nested tuples, lists and dicts.

        What `tree_map` does, many times faster.
        """
        kind = type(tree)
        if kind in _NUMBERS:
            return tree
        if isinstance(tree, torch.Tensor):
            self._met.append(ref := self.ref(tree))
            return ref
        if kind is tuple or kind is list:
            return kind([self._refs_in(item) for item in tree])
        return {key: self._refs_in(item) for key, item in tree.items()} if kind is dict else tree

    def _save_constants(self, tree: Any) -> None:
        for leaf in flatten(tree):
            if isinstance(leaf, torch.Tensor) and not leaf.is_meta:
                memory = leaf.untyped_storage()._cdata
                if memory in self._constant_memory and memory not in self._copies:
                    constant = self._constant_memory[memory]
                    with no_dispatch():  # under a fake mode a clone would have no values
                        self._copies[memory] = constant, constant.detach().clone()

    def _bind(self, tensor: torch.Tensor, ref: Ref) -> None:
        self._refs[id(tensor)] = ref
        self._bound.append((tensor, ref))  # ids stay unique while everything lives

    def _next(self) -> int:
        self._count += 1
        return self._count


def _without_chance(func: Any, args: tuple[Any, ...]) -> Any:
    """Dropout that is always on keeps everything: what is compared must not hang on a seed."""
    if "dropout" not in operator_name(func):
        return None
    # another tensor, as from dropout: forward may write into it
    return args[0] if func._schema.is_mutable else args[0].clone()


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Where a tensor's elements lie: equal for two objects that are the same view of the same
    memory.
    """
    layout = (tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset(), tensor.dtype)
    return (tensor.untyped_storage()._cdata, *layout)
