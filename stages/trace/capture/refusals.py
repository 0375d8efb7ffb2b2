"""Why a network cannot be traced: one line that names the user's own code, and what to do."""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves, tree_map

from pipeline.errors import OutOfMemory, RlpError, UsageError
from stages.trace.capture.model_state import preserved, set_training
from stages.trace.capture.source_lines import line_of_error, short_path

_CALL_IT = "call the network on the same input in eval mode: trace takes what runs there"
_REWRITE = (
    "forward may not branch on tensor values or leave torch; rewrite that line, "
    "e.g. with torch.where"
)
_SAYINGS = {
    "data-dependent": "it depends on the values of a tensor",
    ".numpy() is not supported": "it leaves torch for numpy",
}
"""What PyTorch says: what it means."""
_PLAIN = (torch.Tensor, int, float, str, type(None))


def checked_inputs(model: Any, example_inputs: Any) -> tuple[Any, ...]:
    """The positional inputs.

    Raises:
        UsageError: the model is none that can be run, or the inputs cannot be its inputs.
    """
    if not isinstance(model, nn.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise UsageError(f"trace takes an nn.Module, got {got}", hint="pass the network itself")
    _check_model(model)
    single = isinstance(example_inputs, torch.Tensor)
    if not single and not isinstance(example_inputs, (tuple, list)):
        raise UsageError(
            f"the example input is of type {type(example_inputs).__name__}, no tensor",
            hint="pass one tensor, or a tuple of all positional inputs",
        )
    inputs = (example_inputs,) if single else tuple(example_inputs)
    if not inputs:
        raise UsageError(
            "trace needs an example input", hint="pass a tensor of the shape the model is used with"
        )
    for leaf in tree_leaves(inputs):
        # nothing to compare: any cut of it would pass
        if isinstance(leaf, torch.Tensor) and not leaf.numel():
            raise UsageError(
                f"the example input of shape {tuple(leaf.shape)} has no elements",
                hint="pass a tensor of the shape the model is used with",
            )
    return inputs


def _check_model(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "a TorchScript module has no Python code to trace",
            hint="trace and cut the nn.Module that it was made of",
        )
    for path, module in model.named_modules():
        if type(module).__module__.startswith("torch.ao.nn.quantized"):
            raise UsageError(
                f"{path or 'the network'} ({type(module).__name__}) is quantised",
                hint="trace and cut the network in floating point, then quantise what is left",
            )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UsageError(
                f"the parameter {name} has no shape yet",
                hint="call the network once on the example input before trace",
            )


def refusal(model: nn.Module, inputs: tuple[Any, ...], error: Exception) -> RlpError:
    """Why capturing stopped with `error`: the network does not run at all, or does what cannot be
    followed.
    """
    if OutOfMemory.said_by(error):
        return unexpected(model, error)
    try:
        output = _run(model, inputs)
    except (Exception, SystemExit) as own:  # sys.exit() in forward is not to end us
        if OutOfMemory.said_by(own):
            return unexpected(model, own)
        what = what_stopped(model, own)
        return UsageError(f"the network does not run on this input, {what}", hint=_CALL_IT)
    for leaf in tree_leaves(output):
        if not isinstance(leaf, _PLAIN):
            return no_output(f"an object of type {type(leaf).__name__}")
    return not_traceable(what_stopped(model, error))


def not_traceable(what: str) -> UsageError:
    """The refusal of a network that runs and does what cannot be followed."""
    return UsageError(f"forward cannot be traced, {what}", hint=_REWRITE)


def unexpected(model: nn.Module, error: BaseException) -> RlpError:
    """Whatever else ends a trace, such as memory that ran out."""
    if OutOfMemory.said_by(error):
        place = _place(model, error)
        return OutOfMemory(f"trace at {place}" if place else "trace", None)
    what = f"{type(error).__name__} {what_stopped(model, error)}"
    return UsageError(
        f"the network cannot be traced: {what}",
        hint="rewrite what stands there, or report it with the network",
    )


def no_output(holds: str = "no tensor") -> UsageError:
    """The refusal of an output in which nothing, or not everything, can be compared."""
    return UsageError(
        f"the output holds {holds}", hint="return a tensor, or a tuple, list or dict of tensors"
    )


def _run(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    with preserved(model) as snapshot, torch.no_grad():
        snapshot.copy_tensors()  # no stand-ins here: it runs on the network's own
        set_training(model, False)
        copies = tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, inputs)
        return model(*copies)


def what_stopped(model: nn.Module, error: BaseException) -> str:
    """Where a run of the network ended and why, in one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].strip()
    text = next((means for says, means in _SAYINGS.items() if says in text), text)
    place = _place(model, error)
    return f"stopped at {place}: {text}" if place else f"stopped: {text}"


def _place(model: nn.Module, error: BaseException) -> str:
    """The user's line, or for a network of library modules alone the module."""
    frame = line_of_error(error)
    if frame is None:
        return _module(model, error)
    line = f"{short_path(frame.filename)}:{frame.lineno}"
    return f"{line} ({frame.line})" if frame.line else line


def _module(model: nn.Module, error: BaseException) -> str:
    """The innermost module that was running, "4 (Linear)"."""
    paths = {id(module): path for path, module in model.named_modules() if path}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = frame.f_locals.get("self")
        if id(module) in paths:
            return f"{paths[id(module)]} ({type(module).__name__})"
    return ""
