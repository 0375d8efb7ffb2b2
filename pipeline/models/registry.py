"""Where architectures come from: the built-in table, torchvision's, timm's, or the user's own
factory.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.channels.branch import put_in_place
from pipeline.errors import EnvironmentProblem, Hint, Key, UsageError
from pipeline.models import user_source
from pipeline.models.densenet import densenet
from pipeline.models.folding import fold_layers
from pipeline.models.googlenet import GoogLeNet
from pipeline.models.mobilenet import mobilenet_v2, mobilenet_v3
from pipeline.models.plain import plain_network
from pipeline.models.resnet_cifar import resnet20, resnet56
from pipeline.models.source import ModelSource, note_source
from pipeline.models.vgg import vgg16_bn, vgg19_bn
from pipeline.torchvision_import import import_torchvision

if TYPE_CHECKING:
    from pipeline.config.schema import ModelConfig

BUILTIN: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "resnet20": resnet20,
    "resnet56": resnet56,
    "vgg16_bn": vgg16_bn,
    "vgg19_bn": vgg19_bn,
    "googlenet": GoogLeNet,
    "densenet": densenet,
}

# what a factory raises of itself where its arguments are wrong
_BAD_ARGUMENTS = (
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    RuntimeError,
    AssertionError,
)


def build_model(
    config: ModelConfig, *, in_channels: int, num_classes: int, search_path: Sequence[Path] = ()
) -> nn.Module:
    """The untrained network of `config.source`, drawn from torch's global random state.

    Args:
        in_channels, num_classes: of the images; passed to factories that take them.
        search_path: folders looked through, after everything installed, for the user's own module.
    Raises:
        UsageError: no such source, or its factory refuses the arguments.
    """
    source = ModelSource(
        source=config.source, kwargs=config.kwargs, in_channels=in_channels, num_classes=num_classes
    )
    return note_source(_build(source, search_path), source)


def build_from(source: ModelSource, search_path: Sequence[Path] = ()) -> nn.Module:
    """As `build_model`, with the layers folded and the branches dropped that `source` names; the
    caller's random state stays as it was.

    Raises:
        UsageError: no such source, its factory refuses the arguments, or the network lacks a layer
            or a branch that `source` names.
    """
    with torch.random.fork_rng(devices=[]):  # factories draw on the CPU
        model = fold_layers(_build(source, search_path), source.folded)
    try:
        return note_source(put_in_place(model, source.dropped), source)
    except AttributeError as error:
        raise UsageError(
            f"{source.source}: a branch is dropped that it does not have: {error}",
            hint="the source of the network has changed; re-make the model",
        ) from error


def _build(described: ModelSource, search_path: Sequence[Path]) -> nn.Module:
    source, kwargs = described.source, described.kwargs
    num_classes, in_channels = described.num_classes, described.in_channels
    scheme, colon, name = source.partition(":")
    if scheme == "torchvision" and colon:
        return _torchvision(name, kwargs, in_channels, num_classes)
    if scheme == "timm" and colon:
        return _timm(name, kwargs, in_channels, num_classes)
    if colon:
        factory = user_source.find_factory(source, kwargs, search_path)
    elif source in BUILTIN:
        factory = BUILTIN[source]
    else:
        raise UsageError(f"model.source {source}: no such network", hint=_suggest(source))
    offered = {"num_classes": num_classes, "in_channels": in_channels}
    return _call(factory, source, _accepted(factory, offered) | kwargs)  # what the user says wins


def _suggest(source: str) -> str:
    close = difflib.get_close_matches(source, BUILTIN, n=1)
    if close:
        return f"did you mean {close[0]}?"
    others = "torchvision:NAME, timm:NAME or your own package.module:factory"
    return f"built in: {', '.join(BUILTIN)}; others: {others}"


def _accepted(factory: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Those of `offered` that the factory's signature takes by name.

    One that takes any name (`**kwargs`) passes them on, most likely to torchvision, where
    `num_classes` is known and `in_channels` is not.
    """
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return {}
    catches_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {
        name: value
        for name, value in offered.items()
        if name in parameters or (catches_all and name == "num_classes")
    }


def _call(factory: Callable[..., Any], source: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        net = factory(**arguments)
    except _BAD_ARGUMENTS as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise UsageError(
            f"model.source {source}: its factory refuses ({given}): {error}",
            hint=Hint("fix ", Key("model.kwargs")),
        ) from error
    if not isinstance(net, nn.Module):
        returned = f"the factory returned a {type(net).__name__}, not a torch.nn.Module"
        raise UsageError(
            f"model.source {source}: {returned}",
            hint="name a function or class that returns the network",
        )
    return plain_network(net, source)


def _torchvision(
    name: str, kwargs: dict[str, Any], in_channels: int, num_classes: int
) -> nn.Module:
    models = import_torchvision().models
    if name not in models.list_models():
        close = difflib.get_close_matches(name, models.list_models(), n=1)
        meant = "torchvision.models.list_models() lists them"
        if close:
            meant = f"did you mean torchvision:{close[0]}?"
        raise UsageError(f"model.source torchvision:{name}: no such network", hint=meant)
    defaults: dict[str, Any] = {"num_classes": num_classes, "weights": None}  # no download
    if name in ("googlenet", "inception_v3"):  # their extra heads return a tuple, in training only
        # torchvision warns unless told which initialisation is meant
        defaults |= {"aux_logits": False, "init_weights": True}
    net = _call(
        lambda **arguments: models.get_model(name, **arguments),
        f"torchvision:{name}",
        defaults | kwargs,
    )
    if in_channels != 3:
        _replace_stem(net, in_channels)
    return net


_TIMM_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")


def _timm(name: str, kwargs: dict[str, Any], in_channels: int, num_classes: int) -> nn.Module:
    import_torchvision()  # timm imports it too, which fails where its operators are missing
    try:
        import timm
    except ModuleNotFoundError:
        raise EnvironmentProblem(
            f"model.source timm:{name}: timm is not installed", hint="pip install timm"
        ) from None
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        meant = f"did you mean timm:{close[0]}?" if close else "timm.list_models() lists them"
        raise UsageError(f"model.source timm:{name}: no such network", hint=meant)
    if unsafe := [key for key in _TIMM_FILES if key in kwargs]:
        raise UsageError(
            f"model.kwargs: {unsafe[0]} lets timm read a file, which may run code in it",
            hint=Hint("name trained weights in ", Key("model.weights")),
        )
    # no download
    defaults = {"num_classes": num_classes, "in_chans": in_channels, "pretrained": False}
    return _call(
        lambda **arguments: timm.create_model(name, **arguments), f"timm:{name}", defaults | kwargs
    )


def _replace_stem(net: nn.Module, in_channels: int) -> None:
    """Give the first convolution `in_channels` inputs (torchvision's factories are for three)."""
    name, conv = next(
        (name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)
    )
    stem = nn.Conv2d(
        in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    parent, _, child = name.rpartition(".")
    setattr(net.get_submodule(parent), child, stem)
