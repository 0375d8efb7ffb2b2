"""torchvision's classifiers, made hard for a proof: nothing that a trained network has is left
at 0 or 1.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch
from torch import nn

from pipeline.torchvision_import import import_torchvision

torchvision = import_torchvision()
models = torchvision.models

TRANSFORMERS = tuple(
    name for name in models.list_models(module=models) if re.match(r"vit_|swin|maxvit", name)
)
CNNS = tuple(name for name in models.list_models(module=models) if name not in TRANSFORMERS)


def version() -> str:
    """Of torchvision; networks change between versions."""
    return torchvision.__version__


def family(name: str) -> str:
    """The module that defines a network: "resnet" for resnext50_32x4d."""
    return models.get_model_builder(name).__module__.rpartition(".")[2]


def usual_size(name: str) -> int:
    """Edge of the square images the first published weights were evaluated on."""
    weights = models.get_model_weights(name)
    return min(next(iter(entry.transforms().crop_size)) for entry in list(weights)[:1])


def build(name: str, seed: int = 0) -> nn.Module:
    """The untrained network in eval mode, norms and one-dimensional parameters randomised."""
    torch.manual_seed(seed)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with cheap_init():
        model = models.get_model(name, weights=None, **options)
    randomise(model)
    return model.eval()


def randomise(model: nn.Module) -> None:
    """Scales in 0.5 … 1.5, shifts of a tenth, zero-initialised heads filled.

    Of the buffers only running statistics: others are constants that forward relies on.
    """
    statistics = [item for item in model.named_buffers() if item[0].endswith(_STATISTICS)]
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *statistics]:
            if not tensor.is_floating_point():
                continue
            norm = tensor.dim() == 1 and name.endswith(("weight", "var"))
            if norm or tensor.dim() == 0 or name.endswith(_SCALES):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 1 or name.endswith("mean"):
                tensor.normal_(0, 0.1)
            elif tensor.dim() > 1:
                fan_in = max(tensor[0].numel(), 1)
                tensor.view(-1).copy_(_normal(tensor.numel())).mul_(fan_in**-0.5)


_STATISTICS = ("running_mean", "running_var")
_SCALES = ("layer_scale", "gamma")  # 1e-6 in an untrained network: the branch would hardly count


def _normal(count: int) -> torch.Tensor:
    """Normal numbers that repeat after a prime length: drawing them all would take longer than
    tracing.
    """
    start = int(torch.randint(0, _DRAWN.numel(), ()))
    return torch.cat([_DRAWN[start:], _DRAWN.repeat(count // _DRAWN.numel() + 1)])[:count]


_DRAWN = torch.randn(999_983, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def cheap_init() -> Iterator[None]:
    """Within it, initialisation leaves tensors alone: it takes seconds (truncated normals) and
    is overwritten anyway.
    """
    kept = {}
    for name in (
        "trunc_normal_",
        "kaiming_normal_",
        "kaiming_uniform_",
        "normal_",
        "uniform_",
        "xavier_uniform_",
    ):
        kept[name] = getattr(nn.init, name)
        setattr(nn.init, name, lambda tensor, *_, **__: tensor)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(nn.init, name, function)
