"""A capture by listening: the model runs once without arithmetic while a dispatch mode notes every
ATen call.

It runs on meta tensors, where operators that plainly keep the shape are not even called, or, for
models that mix devices or look at their tensors, on fake ones.

The mode sits on the PreDispatch key, where torch.export listens too, so that `linear` or `chunk`
arrive whole and not in the pieces autograd would see. PyTorch has no public way to listen there; if
this one changes, `capture_forward` falls back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from stages.trace.capture import meta_shapes
from stages.trace.capture.calls import Call, Capture, Input, Ref, flatten, operator_name
from stages.trace.capture.model_state import mode, preserved
from stages.trace.capture.source_lines import running_line

_FEW = 16  # elements of a constant that are remembered: `torch.tensor(x.shape[1])` is one


class Unsupported(Exception):
    """Something this way of capturing cannot vouch for."""


class Recorder(SchemaCheckMode):
    """Notes calls; `light` for meta tensors, otherwise fake ones."""

    def __init__(self, paths: dict[int, str], constants: dict[int, str], light: bool) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self.paths, self.constants, self.light = paths, constants, light
        self.inputs: list[Input] = []
        self.calls: list[Call] = []
        self.modules: list[str] = []
        self._refs: dict[int, Ref] = {}
        self._places: dict[Any, Ref] = {}
        self._alive: list[Any] = []
        self._count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # device, layout: no values
            return func(*args, **kwargs)
        before = self._refs_in((args, kwargs))
        out = self._light(func, args, kwargs) if self.light else func(*args, **kwargs)
        results = list(out) if isinstance(out, (tuple, list)) else [out]
        index = self._next()
        self.calls.append(
            Call(
                index=index,
                target=func,
                name=operator_name(func),
                args=tuple(before[0]),
                kwargs=before[1],
                shapes=tuple(
                    tuple(r.shape) if isinstance(r, torch.Tensor) else None for r in results
                ),
                module=self.modules[-1] if self.modules else "",
                line=running_line(),
            )
        )
        for position, result in enumerate(results):
            if isinstance(result, torch.Tensor):
                self._bind(result, Ref(index, position if isinstance(out, (tuple, list)) else None))
        return out

    def _light(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result's shape by the shortest way: PyTorch's Python decompositions take most of
        the time otherwise.
        """
        guard = torch._C._DisablePythonDispatcher()
        try:
            known = meta_shapes.result(operator_name(func), args, kwargs)
            return func(*args, **kwargs) if known is None else known
        finally:
            del guard

    def declare(self, kind: str, name: str, tensor: torch.Tensor) -> None:
        """Make a parameter, buffer or input known before the run."""
        small = kind == "constant" and tensor.numel() <= _FEW and not tensor.is_sparse
        numbers = tuple(flatten(tensor.detach().tolist())) if small else ()
        self.inputs.append(Input(self._next(), kind, name, tuple(tensor.shape), numbers))
        self._bind(tensor, Ref(self.inputs[-1].index))

    def ref(self, value: Any) -> Any:
        """Tensors become references; a real tensor that was not declared is a constant that
        forward refers to.
        """
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self._refs:
            if (
                _place(value) in self._places
            ):  # factory functions hand out a second object for their result
                self._bind(value, self._places[_place(value)])
            elif not isinstance(value, FakeTensor) and not value.is_meta:
                self.declare("constant", self.constants.get(id(value), "outside the model"), value)
            else:
                raise Unsupported("a tensor that no recorded call made")
        return self._refs[id(value)]

    def _refs_in(self, tree: Any) -> Any:
        """`ref` on every tensor of nested tuples, lists and dicts; what `tree_map` does, many
        times faster.
        """
        if isinstance(tree, torch.Tensor):
            return self.ref(tree)
        kind = type(tree)
        if kind is tuple or kind is list:
            return kind([self._refs_in(item) for item in tree])
        return {key: self._refs_in(item) for key, item in tree.items()} if kind is dict else tree

    def _bind(self, tensor: torch.Tensor, ref: Ref) -> None:
        self._refs[id(tensor)] = ref
        self._places[_place(tensor)] = ref
        self._alive.append(tensor)  # ids stay unique while everything lives

    def _next(self) -> int:
        self._count += 1
        return self._count


def by_dispatch(
    model: nn.Module, example_inputs: tuple[Any, ...], *, light: bool, training: bool = False
) -> Capture:
    """Run `model` on meta (`light`) or fake tensors; any exception means: try the next way."""
    paths = {id(module): path for path, module in model.named_modules()}
    recorder = Recorder(paths, _attributes(model), light)
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        if light:
            return meta_shapes.like(tensor)
        return fake.from_tensor(tensor.detach(), static_shapes=True)

    used: dict[str, torch.Tensor] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        used[name] = stand_in(tensor)
        recorder.declare("parameter", name, used[name])
    inputs = tree_map(
        lambda value: stand_in(value) if torch.is_tensor(value) else value, example_inputs
    )
    for position, leaf in enumerate(tree_leaves(inputs)):
        if isinstance(leaf, torch.Tensor):
            recorder.declare("input", f"#{position}", leaf)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for context in (
            preserved(model),
            mode(model, training),
            _module_paths(recorder),
            torch.no_grad(),
        ):
            stack.enter_context(context)
        for context in (*(() if light else (fake,)), enable_python_dispatcher(), recorder):
            stack.enter_context(context)
        output = torch.func.functional_call(model, used, inputs)
    leaves = tree_leaves(output)
    if not all(
        leaf is None or isinstance(leaf, (torch.Tensor, int, float, str)) for leaf in leaves
    ):
        raise Unsupported("an output is no tensor")
    outputs = tuple(recorder.ref(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor))
    return Capture(tuple(_used_inputs(recorder, outputs)), tuple(recorder.calls), outputs, light)


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
        recorder.modules.append(
            recorder.paths.get(id(module), recorder.modules[-1] if recorder.modules else "")
        )

    def leave(*_: Any) -> None:
        recorder.modules.pop()

    handles = [
        torch.nn.modules.module.register_module_forward_pre_hook(enter),
        torch.nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attributes(model: nn.Module) -> dict[int, str]:
    """{id: path} of tensors kept as plain attributes."""
    return {
        id(value): f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor)
    }


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Where a tensor's elements lie: equal for two objects that are the same view of the same
    memory.
    """
    layout = (tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset(), tensor.dtype)
    return (tensor.untyped_storage()._cdata, *layout)
