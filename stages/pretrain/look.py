"""A look at the user's network before anything is spent on it: does it take one batch of images and
answer each with one score for every class, the same every time, whatever else is in the batch?
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from pipeline.errors import ArtifactError, Hint, Key, OutOfMemory, UsageError
from pipeline.modes import mode
from pipeline.words import count_of, first_three
from stages.trace.capture.model_state import preserved
from stages.trace.capture.refusals import checked_inputs, what_stopped
from stages.trace.capture.source_lines import inside_library, line_of

_WRAP = "name a factory that wraps the network and returns the logits alone"
_CLOSE = 1e-3  # of the largest score; batches of another size round otherwise


def look_at(model: nn.Module, images: Tensor, num_classes: int) -> list[str]:
    """Run the network in eval mode on `images` (B, C, H, W), B at least 2; it stays as it was.

    Returns:
        what is odd and no reason to stop.
    Raises:
        UsageError: it is no network that can be pruned and served as a classifier of these images.
    """
    checked_inputs(model, images)
    _check_inputs(model)
    with preserved(model) as before, mode(model, False), torch.no_grad():
        before.copy_tensors()  # a forward may count its calls
        scores = _scores(model, images, num_classes)
        _check_repeatable(model, images, scores)
        _check_batch(model, images, scores)
        odd = _in_training(model, images, scores)
    return [*odd, *_outputs_too_many(scores, num_classes), *_no_logits(scores)]


def check_scores(model: nn.Module, images: Tensor, where: str) -> None:
    """Refuse weights with which the network answers real images with NaN or infinity.

    Raises:
        ArtifactError: naming the batch norms that are to blame, if any.
    """
    with preserved(model) as before, mode(model, False), torch.no_grad():
        before.copy_tensors()
        finite = bool(model(images).isfinite().all())
    broken = [
        f"running_var of {name} is negative"
        for name, norm in model.named_modules()
        if isinstance(norm, _BatchNorm)
        and norm.running_var is not None
        and bool((norm.running_var < 0).any())
    ]
    if not finite or broken:
        why = f" ({first_three(broken)})" if broken else ""
        what = "a variance is negative" if finite else "outputs on real images are NaN or infinite"
        raise ArtifactError(
            f"{where}: {what}{why}",
            hint="the training that made the weights diverged; use other weights",
        )


def _check_inputs(model: nn.Module) -> None:
    needed = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        raise UsageError(
            f"the network takes {len(needed)} inputs ({', '.join(needed)}), rlp gives it one batch "
            "of images",
            hint="name a factory that wraps the network and sets the others",
        )


def _output(model: nn.Module, images: Tensor) -> Any:
    try:
        return model(images)
    except (Exception, SystemExit) as error:  # sys.exit() in forward is not to end us
        if OutOfMemory.said_by(error):
            raise
        size = "x".join(map(str, images.shape[1:]))
        raise UsageError(
            f"the network does not run on {len(images)} images of {size}, "
            f"{what_stopped(model, error)}",
            hint=Hint("try another ", Key("data.image_size"), ", or mend forward"),
        ) from error


def _scores(model: nn.Module, images: Tensor, num_classes: int) -> Tensor:
    output = _output(model, images)
    wanted = f"expected one tensor ({len(images)}, {num_classes})"
    if not isinstance(output, Tensor):
        place = _logits_in(output, len(images), num_classes)
        hint = f"{_WRAP}, which are output{place}" if place else _WRAP
        raise UsageError(f"the network returns {_described(output)}, {wanted}", hint=hint)
    if output.ndim != 2 or len(output) != len(images) or not output.is_floating_point():
        found = f"{str(output.dtype).removeprefix('torch.')} of shape {tuple(output.shape)}"
        raise UsageError(f"the network returns {found}, {wanted}", hint=_WRAP)
    columns = output.shape[1]
    if columns < num_classes:
        one = "a binary network with one logit z must return two, [0, z]; "
        raise UsageError(
            f"the network has {count_of(columns, 'output')}, the data have {num_classes} classes",
            hint=Hint(one if columns == 1 else "", "see ", Key("model.kwargs")),
        )
    return output


def _described(output: Any) -> str:
    """What a forward returned, for people: its type, and what it holds."""
    kind = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {kind} with {first_three([repr(key) for key in output])}"
    if dataclasses.is_dataclass(output):
        return f"a {kind} with {first_three([f.name for f in dataclasses.fields(output)])}"
    if isinstance(output, (tuple, list)):
        return f"a {kind} of {len(output)}"
    return f"a {kind}"


def _logits_in(output: Any, images: int, num_classes: int) -> str:
    """Where in what a forward returned the logits are, as code; empty where that is not clear."""
    if isinstance(output, Mapping):
        parts = {f"[{key!r}]": value for key, value in output.items()}
    elif dataclasses.is_dataclass(output):
        parts = {f".{f.name}": getattr(output, f.name) for f in dataclasses.fields(output)}
    elif isinstance(output, (tuple, list)):
        parts = {f"[{number}]": value for number, value in enumerate(output)}
    else:
        return ""
    shape = (images, num_classes)
    fits = [where for where, v in parts.items() if isinstance(v, Tensor) and v.shape == shape]
    named = [where for where in fits if where in ("['logits']", ".logits")]
    clear = named or fits
    return clear[0] if len(clear) == 1 else ""


def _check_repeatable(model: nn.Module, images: Tensor, scores: Tensor) -> None:
    if torch.equal(_output(model, images).nan_to_num(), scores.nan_to_num()):
        return
    first, second = _Calls(), _Calls()
    for calls in (first, second):
        with calls:
            _output(model, images)
    differ = (a for a, b in zip(first.made, second.made, strict=False) if a != b)
    function, line, _ = next(differ, ("something", "an unknown line", 0.0))
    raise UsageError(
        f"the network is random in eval mode ({function} at {line})",
        hint="give dropout training=self.training, or leave the noise out of forward in eval mode",
    )


class _Calls(TorchFunctionMode):
    """Notes of every call of torch its name, the user's line, and the sum of what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, str, float]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            total = float(result.detach().double().sum())
            self.made.append((getattr(function, "__name__", "?"), _users_line(), total))
        return result


def _users_line() -> str:
    """The innermost running line of the network's own code."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code is not _check_repeatable.__code__:
        if not inside_library(frame.f_code.co_filename) and frame.f_globals is not globals():
            return line_of(frame)
        frame = frame.f_back
    return line_of(None)


def _check_batch(model: nn.Module, images: Tensor, scores: Tensor) -> None:
    """Each image's scores, whatever stands beside it."""
    without = [
        f"{type(norm).__name__} {name} has no running statistics"
        for name, norm in model.named_modules()
        if isinstance(norm, _BatchNorm) and norm.running_mean is None
    ]
    few = images[: len(images) // 2]
    half, expected = _output(model, few), scores[: len(few)]
    if half.shape != expected.shape or (half - expected).abs().max() > _CLOSE * scores.abs().max():
        why = without[0] if without else "its answer to an image changes with the others"
        raise UsageError(
            f"{why}: the network's output depends on the batch",
            hint="a deployed network meets images one by one: keep running statistics, or use a "
            "normalisation of each image",
        )


def _in_training(model: nn.Module, images: Tensor, scores: Tensor) -> list[str]:
    """Whether it answers alike in training mode; a loss has no use for auxiliary outputs."""
    try:
        with mode(model, True):
            output = _output(model, images)
    except UsageError as error:
        return [f"in training mode {error.message}: it cannot be trained here"]
    if isinstance(output, Tensor) and output.shape == scores.shape:
        return []
    return [
        f"in training mode the network returns {_described(output)}: it cannot be trained here; "
        "name a factory without auxiliary outputs"
    ]


def _outputs_too_many(scores: Tensor, num_classes: int) -> list[str]:
    if scores.shape[1] == num_classes:
        return []
    return [
        f"the network has {scores.shape[1]} outputs, the data have {num_classes} classes: does its "
        "factory call the number something other than num_classes? (model.kwargs)"
    ]


def _no_logits(scores: Tensor) -> list[str]:
    """Whether rows are probabilities or their logarithms; of logits they are by no chance."""
    if scores.shape[1] < 2 or not bool(scores.isfinite().all()):
        return []
    scores, one = scores.float(), torch.ones(len(scores))
    if bool((scores >= 0).all()) and torch.allclose(scores.sum(1), one, atol=1e-4):
        return ["the network ends in a softmax: losses take logits, and softmax is taken twice"]
    if torch.allclose(scores.exp().sum(1), one, atol=1e-4):
        return ["the network ends in a log-softmax; that is taken for logits, which it may be"]
    return []
