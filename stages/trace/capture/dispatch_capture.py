"""A capture by listening: the model runs once while a dispatch mode notes every ATen call.

Usually it runs on meta tensors, where operators that plainly keep the shape are not even called,
or, for models that mix devices or look at their tensors, on fake ones. A check of a cut runs on
real tensors and watches their values (`Watch`).

The mode sits on the PreDispatch key, where torch.export listens too, so that `linear` or `chunk`
arrive whole and not in the pieces autograd would see. PyTorch has no public way to listen there; if
this one changes, `capture_forward` falls back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import CodeType
from typing import Any, Protocol

import torch
from torch import nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from stages.trace.capture import meta_shapes
from stages.trace.capture.calls import (
    Call,
    Capture,
    Ground,
    Input,
    Ref,
    flatten,
    operator_name,
    tensors_of,
)
from stages.trace.capture.inventory import Inventory
from stages.trace.capture.model_state import Snapshot, preserved, set_training
from stages.trace.capture.own_code import may_branch_on_sizes
from stages.trace.capture.source_lines import line_of, own_frames, running_line

_FEW = 16  # elements of a constant that are remembered: `torch.tensor(x.shape[1])` is one


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
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.ground, self.watch = ground, watch
        self.inventory = inventory
        self.inputs: list[Input] = []
        self.calls: list[Call] = []
        self.modules: list[str] = []
        self.codes: set[CodeType] = set()
        self._refs: dict[int, Ref] = {}
        self._places: dict[Any, Ref] = {}
        self._alive: list[Any] = []
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._constant_memory: dict[int, torch.Tensor] = {}
        self._count = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while it listens; PyTorch would wrap every call."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # device, layout: no values
            return func(*args, **kwargs)
        # before the call: an operator that works in place binds its argument to its result
        before = self._refs_in((args, kwargs))
        # a snapshot keeps references only: values that forward overwrites must be copied in time
        if func._schema.is_mutable and self._constant_memory:
            self._save_constants((args, kwargs))
        try:
            out = self._run(func, args, kwargs)
        except Exception:
            if self.watch is not None:
                self.watch.failed(operator_name(func), running_line())
            raise
        several = isinstance(out, (tuple, list))
        results = list(out) if several else [out]
        index = self._next()
        call = Call(
            index=index,
            target=func,
            name=operator_name(func),
            args=tuple(before[0]),
            kwargs=before[1],
            shapes=tuple(tuple(r.shape) if isinstance(r, torch.Tensor) else None for r in results),
            module=self.modules[-1] if self.modules else "",
            line=self._line(),
        )
        self.calls.append(call)
        for position, result in enumerate(results):
            if isinstance(result, torch.Tensor):
                self._bind(result, Ref(index, position if several else None))
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

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operator itself, or only the shape of its result.

        PyTorch's Python decompositions would take most of the time, so they are switched off where
        a kernel or a formula serves.
        """
        if self.ground is Ground.FAKE:
            return func(*args, **kwargs)
        guard = torch._C._DisablePythonDispatcher()  # in force until the object is deleted
        try:
            known = None
            if self.ground is Ground.META:
                known = meta_shapes.result(operator_name(func), args, kwargs)
            elif torch.Tag.nondeterministic_seeded in func.tags:
                known = _without_chance(func, args)
            return func(*args, **kwargs) if known is None else known
        finally:
            del guard

    def declare(self, kind: str, name: str, tensor: torch.Tensor) -> None:
        """Make a parameter, buffer, input or constant known."""
        # a sparse tensor has no storage that `tolist` could read
        small = kind == "constant" and tensor.numel() <= _FEW and not tensor.is_sparse
        with no_dispatch():  # a constant has values even among tensors that have none
            numbers = tuple(flatten(tensor.detach().tolist())) if small else ()
        self.inputs.append(Input(self._next(), kind, name, tuple(tensor.shape), numbers))
        self._bind(tensor, Ref(self.inputs[-1].index))
        if kind == "constant":
            # by memory: it may be written to through a view
            self._constant_memory[tensor.untyped_storage()._cdata] = tensor

    def restore_constants(self) -> None:
        """Undo what forward wrote into tensors that are neither parameter nor buffer."""
        with no_dispatch():
            for tensor, copy in self._copies.values():
                tensor.copy_(copy)

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
            place = _place(value)
            if place in self._places:  # factory functions hand out a second object
                self._bind(value, self._places[place])
            elif not isinstance(value, FakeTensor) and not value.is_meta:
                name = self.inventory.attribute(value) or "outside the model"
                self.declare("constant", name, value)
            else:
                raise Unsupported("a tensor that no recorded call made")
        return self._refs[id(value)]

    def _refs_in(self, tree: Any) -> Any:
        """`ref` on every tensor of nested tuples, lists and dicts.

        What `tree_map` does, many times faster.
        """
        if isinstance(tree, torch.Tensor):
            return self.ref(tree)
        kind = type(tree)
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
        self._places[_place(tensor)] = ref
        self._alive.append(tensor)  # ids stay unique while everything lives

    def _next(self) -> int:
        self._count += 1
        return self._count


def by_dispatch(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    ground: Ground = Ground.META,
    training: bool = False,
    watch: Watch | None = None,
    snapshot: Snapshot | None = None,
) -> Capture:
    """The calls of one forward pass on tensors without values; `model` stays as it is.

    Any exception means: this way does not lead there, try another. A `snapshot` of the model, taken
    before, saves the time for one.
    """
    # constants that forward holds stay real, and meet fake tensors
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def like(tensor: torch.Tensor) -> torch.Tensor:
        if ground is Ground.META:
            return meta_shapes.like(tensor)
        return fake.from_tensor(tensor.detach(), static_shapes=True)

    with preserved(model, snapshot) as state:
        inventory = Inventory(model)
        stand_ins = {id(tensor): like(tensor) for tensor in inventory.stored.values()}
        state.replace(stand_ins)
        inputs = tree_map(lambda v: like(v) if torch.is_tensor(v) else v, example_inputs)
        set_training(model, training, inventory.modules.values())
        with nullcontext() if ground is Ground.META else fake:  # what forward makes is fake as well
            return record(model, inputs, ground, watch, inventory.replaced(stand_ins))[0]


def record(
    model: nn.Module,
    inputs: tuple[Any, ...],
    ground: Ground,
    watch: Watch | None = None,
    inventory: Inventory | None = None,
) -> tuple[Capture, list[torch.Tensor]]:
    """Run `model` as it is, and note its calls; also returns what its output holds."""
    recorder = Recorder(inventory or Inventory(model), ground, watch)
    # all before the run: a tensor that is met unannounced counts as a constant
    for name, tensor in recorder.inventory.stored.items():
        recorder.declare("parameter", name, tensor)
    for position, leaf in enumerate(tree_leaves(inputs)):
        if isinstance(leaf, torch.Tensor):
            recorder.declare("input", f"#{position}", leaf)
    with ExitStack() as stack:
        # first in, last out: it writes when nothing listens any more
        stack.callback(recorder.restore_constants)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if watch is None:  # module paths are for reasons, and cost time
            stack.enter_context(_module_paths(recorder))
        # the key exists in the Python dispatcher alone: without it not one call would be noted
        for context in (torch.no_grad(), enable_python_dispatcher(), recorder):
            stack.enter_context(context)
        output = model(*inputs)
    leaves = tree_leaves(output)
    if not all(
        leaf is None or isinstance(leaf, (torch.Tensor, int, float, str)) for leaf in leaves
    ):
        raise Unsupported("an output is no tensor")
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    outputs = tuple(recorder.ref(leaf) for leaf in tensors)
    inputs_used = tuple(_used_inputs(recorder, outputs))
    written, branches = tuple(recorder.in_buffers()), may_branch_on_sizes(recorder.codes)
    captured = Capture(
        inputs_used, tuple(recorder.calls), outputs, ground, written, branches=branches
    )
    return captured, tensors_of(output)


def _used_inputs(recorder: Recorder, outputs: tuple[Ref, ...]) -> Iterator[Input]:
    """Inputs that some call reads; an unused parameter constrains nothing."""
    read = {ref.index for ref in outputs}
    for call in recorder.calls:
        read |= {leaf.index for leaf in flatten((call.args, call.kwargs)) if isinstance(leaf, Ref)}
    return (source for source in recorder.inputs if source.index in read or source.kind == "input")


@contextmanager
def _module_paths(recorder: Recorder) -> Iterator[None]:
    """Keep `recorder.modules` the stack of paths of the modules that are running."""

    def enter(module: nn.Module, _: Any) -> None:
        running = recorder.modules[-1] if recorder.modules else ""
        # a module that forward makes has no path of its own
        recorder.modules.append(recorder.inventory.paths.get(id(module), running))

    def leave(*_: Any) -> None:
        recorder.modules.pop()

    handles = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        # always: an error that forward catches would leave the path of the module behind
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
