"""Give a freshly built network the widths of a cut one: its shapes and the integers with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import ArtifactError
from pipeline.models.tensors import mismatches, saved_tensors, shapes_of

Attributes = dict[str, dict[str, int | tuple[int, ...]]]


def differences(
    fresh: nn.Module, model: nn.Module
) -> tuple[dict[str, tuple[int, ...]], Attributes]:
    """What `apply` needs to turn `fresh` into the shape of `model`.

    Returns:
        widths, {tensor name: shape}, and attributes, {module name: {attribute: integers}}, where
        they differ.
    Raises:
        ArtifactError: the two do not have the same tensor and module names.
    """
    mine, theirs = shapes_of(saved_tensors(model)), shapes_of(saved_tensors(fresh))
    if mine.keys() != theirs.keys():
        differ = mismatches(
            {name: shape for name, shape in theirs.items() if name not in mine},
            {name: shape for name, shape in mine.items() if name not in theirs},
        )
        another = f"the source builds another network than this {type(model).__name__}"
        raise ArtifactError(
            f"{another}: {differ}",
            hint="pass the source and kwargs that the network was built with",
        )
    widths = {name: shape for name, shape in mine.items() if shape != theirs[name]}
    return widths, _changed_attributes(fresh, model)


def _changed_attributes(fresh: nn.Module, model: nn.Module) -> Attributes:
    built = dict(fresh.named_modules())
    found: Attributes = {}
    for name, module in model.named_modules():
        before = _integers(built[name]) if name in built else {}
        changed = {
            key: value
            for key, value in _integers(module).items()
            if key in before and before[key] != value
        }
        if changed:
            found[name] = changed
    return found


def apply(
    model: nn.Module,
    attributes: Attributes,
    tensors: Mapping[str, Tensor],
    where: str,
    channels_last: Sequence[str] = (),
) -> None:
    """Set integer attributes and put `tensors` in place, whatever their shape and dtype.

    Tied weights stay tied.

    Args:
        where: what the attributes were read from, for the message.
        channels_last: names of 4-dimensional tensors to lay out in that format.
    Raises:
        ArtifactError: an attribute that the network does not have.
    """
    modules = dict(model.named_modules())
    _set_attributes(modules, attributes, where)
    targets = saved_tensors(model)
    replaced = {
        id(targets[name]): _like(targets[name], tensor, name in channels_last)
        for name, tensor in tensors.items()
    }
    # By identity, and past torch's setattr: a tied weight lies in several slots.
    for module in modules.values():
        for slots in (module._parameters, module._buffers):
            for key, old in slots.items():
                if old is not None and id(old) in replaced:
                    slots[key] = replaced[id(old)]  # type: ignore[assignment]


def _set_attributes(modules: Mapping[str, nn.Module], attributes: Attributes, where: str) -> None:
    for name, values in attributes.items():
        known = _integers(modules[name]) if name in modules else {}
        for key, value in values.items():
            if key not in known or isinstance(known[key], int) != isinstance(value, int):
                raise ArtifactError(
                    f"{where}: the network has no whole-number attribute {name}.{key}",
                    hint="re-make the model",
                )
            setattr(modules[name], key, value)


def _like(old: Tensor, tensor: Tensor, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last and tensor.ndim == 4 else torch.contiguous_format
    # `contiguous` would leave a 1×1 weight strided as it is
    tensor = torch.empty_like(tensor, memory_format=layout).copy_(tensor)
    if isinstance(old, nn.Parameter):
        return nn.Parameter(tensor, requires_grad=old.requires_grad)
    return tensor


def _integers(module: nn.Module) -> dict[str, int | tuple[int, ...]]:
    """Public attributes that are an int or a non-empty tuple or list of ints."""
    found: dict[str, int | tuple[int, ...]] = {}
    for key, value in vars(module).items():
        # a mode and a switch are no widths, though bool is an int
        if key.startswith("_") or key == "training" or isinstance(value, bool):
            continue
        if isinstance(value, int):
            found[key] = value
        elif isinstance(value, (tuple, list)) and value and all(type(v) is int for v in value):
            found[key] = tuple(value)
    return found


def guess_in_channels(model: nn.Module) -> int:
    """Input channels of the first convolution; 3 without one."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return module.in_channels
    return 3  # colour images


def guess_num_classes(model: nn.Module) -> int:
    """Outputs of the linear layer registered last; without one, of the last convolution; else 1."""
    linear = [m.out_features for m in model.modules() if isinstance(m, nn.Linear)]
    conv = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    return (linear or conv or [1])[-1]


def channels_last_names(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the convolution weights that are strided channels last.

    By stride, as the kernels choose: a 1×1 or one-channel weight would count as contiguous in
    either layout. Another layout adds up in another order, and so rounds differently.
    """
    return tuple(
        name
        for name, w in tensors.items()
        if w.ndim == 4 and w.stride() == _last(w).stride() != _usual(w)
    )


def _last(w: Tensor) -> Tensor:
    return torch.empty(w.shape, device="meta", memory_format=torch.channels_last)


def _usual(w: Tensor) -> tuple[int, ...]:
    return torch.empty(w.shape, device="meta").stride()
