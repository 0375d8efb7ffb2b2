"""The tensors of a network by name, and how two sets of them differ."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from pipeline.errors import ArtifactError
from pipeline.words import first_three

Shapes = Mapping[str, tuple[int, ...]]


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers, each tensor once (tied weights under their first name)."""
    saved = model.state_dict(keep_vars=True)  # for its names: some buffers are not saved
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return tensors


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Sizes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def mismatches(wanted: Shapes, given: Shapes) -> str:
    """The first three shapes that differ, names that are missing and names that are unexpected, and
    how many more there are of each; empty where nothing differs.
    """
    shapes = [
        f"{name} is {list(given[name])}, expected {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    missing = [f"{n} {list(s)} is missing" for n, s in wanted.items() if n not in given]
    unexpected = [f"{n} {list(s)} is unexpected" for n, s in given.items() if n not in wanted]
    kinds = (shapes, missing, unexpected)
    return "; ".join(first_three(phrases, "; ") for phrases in kinds if phrases)


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ArtifactError: naming the first three tensors that hold any.
    """
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise ArtifactError(
            f"{where}: NaN or infinity in {first_three(bad)}",
            hint="the training that made it diverged; use other weights",
        )
