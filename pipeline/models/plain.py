"""The plain network in what a factory returned: taken out of wrappers, in float32, all of it
trainable.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pipeline.errors import UsageError

_REMARKS = "_rlp_remarks"
# attribute that holds the network, by the name of a wrapper's class
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
}


def plain_network(network: nn.Module, source: str) -> nn.Module:
    """`network` without its wrappers, converted in place; what was done is in `remarks_on` it.

    Raises:
        UsageError: it is made for running alone, TorchScript or an exported program, or not
            finished: layers without sizes.
    """
    said = []
    while (inner := _WRAPPERS.get(type(network).__name__)) and _from_torch(network):
        said.append(f"the network was taken out of {type(network).__name__}")
        network = getattr(network, inner)
    _check_kind(network, source)
    said += _in_float32(network)
    said += _thawed(network)
    # past torch's own setattr, so that the note is no submodule and in no state dict
    network.__dict__[_REMARKS] = said
    return network


def remarks_on(network: nn.Module) -> list[str]:
    """What `plain_network` did to it."""
    return list(network.__dict__.get(_REMARKS, ()))


def _from_torch(network: nn.Module) -> bool:
    return type(network).__module__.startswith("torch.")


def _check_kind(network: nn.Module, source: str) -> None:
    kind = ""
    if isinstance(network, torch.jit.ScriptModule):
        kind = "a TorchScript module"
    elif isinstance(network, torch.fx.GraphModule) and _cannot_train(network):
        kind = "an exported program"
    for name, module in network.named_modules():
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise UsageError(
                f"model.source {source}: {name} ({type(module).__name__}) has no sizes yet",
                hint="give them, or run the network once in its factory",
            )
    if kind:
        raise UsageError(
            f"model.source {source}: the factory returns {kind}; rlp needs the module that it was "
            "made from",
            hint="return the module itself",
        )


def _cannot_train(network: nn.Module) -> bool:
    try:
        network.train(network.training)
    except NotImplementedError:  # of what torch.export makes
        return True
    return False


def _in_float32(network: nn.Module) -> list[str]:
    dtypes = {
        str(parameter.dtype).removeprefix("torch.")
        for parameter in network.parameters()
        if parameter.is_floating_point() and parameter.dtype != torch.float32
    }
    if not dtypes:
        return []
    network.float()
    return [f"the network was {' and '.join(sorted(dtypes))}, and is float32 here"]


def _thawed(network: nn.Module) -> list[str]:
    parameters = [p for p in network.parameters() if p.is_floating_point()]
    frozen = [p for p in parameters if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    if not frozen:
        return []
    return [
        f"{len(frozen)} of {len(parameters)} parameters were frozen by the factory; all are "
        "trained here: what was cut must recover"
    ]
