"""A capture by listening: the model runs once while a dispatch mode notes every ATen call.

Usually it runs on meta tensors, where operators that plainly keep the shape are not even called,
or, for models that mix devices or look at their tensors, on fake ones. A check of a cut runs on
real tensors and watches their values (`Watch`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from pipeline.channels.branch import replace_modules
from stages.trace.capture import meta_shapes
from stages.trace.capture.calls import Capture, Ground, Input, Ref, tensors_of
from stages.trace.capture.inventory import Inventory
from stages.trace.capture.model_state import Snapshot, preserved, set_training
from stages.trace.capture.own_code import may_branch_on_sizes
from stages.trace.capture.recorder import Recorder, Unsupported, Watch


def by_dispatch(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    *,
    ground: Ground = Ground.META,
    training: bool = False,
    watch: Watch | None = None,
    snapshot: Snapshot | None = None,
    instead: Mapping[str, nn.Module] | None = None,
) -> Capture:
    """The calls of one forward pass on tensors without values; `model` stays as it is.

    Any exception means: this way does not lead there, try another. A `snapshot` of the model, taken
    before, saves the time for one. `instead` are modules that run in the places of its own.
    """
    # constants that forward holds stay real, and meet fake tensors
    fake = FakeTensorMode(allow_non_fake_inputs=True)

    def like(tensor: torch.Tensor) -> torch.Tensor:
        if ground is Ground.META:
            return meta_shapes.like(tensor)
        return fake.from_tensor(tensor.detach(), static_shapes=True)

    with preserved(model, snapshot) as state:
        replace_modules(model, instead or {})
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
    """Run `model` as it is, and note its calls.

    Args:
        watch: sees every call as it is made; the capture then names no inputs.
        inventory: what the model stores, by name; None: it is taken here.
    Returns:
        the capture, and the tensors in the output.
    Raises:
        Unsupported: the output holds something that is neither a tensor nor a plain value.
    """
    recorder = Recorder(inventory or Inventory(model), ground, watch)
    # all before the run: a tensor that is met unannounced counts as a constant
    for name, tensor in recorder.inventory.stored.items():
        recorder.declare("parameter", name, tensor)
    for position, leaf in enumerate(tree_leaves(inputs)):
        if isinstance(leaf, torch.Tensor):
            recorder.declare("input", f"#{position}", leaf)
    with ExitStack() as stack:
        # first in, last out: it writes when nothing listens any more
        stack.callback(recorder.leave)
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
    # who watches has seen the calls
    inputs_used = tuple(_used_inputs(recorder, outputs)) if watch is None else ()
    written, branches = tuple(recorder.in_buffers()), may_branch_on_sizes(recorder.codes)
    captured = Capture(
        inputs_used, tuple(recorder.calls), outputs, ground, written, branches=branches
    )
    return captured, tensors_of(output)


def _used_inputs(recorder: Recorder, outputs: tuple[Ref, ...]) -> Iterator[Input]:
    """Inputs that some call reads; an unused parameter constrains nothing."""
    read = {ref.index for ref in outputs}
    for call in recorder.calls:
        read |= {ref.index for ref in call.refs}
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
