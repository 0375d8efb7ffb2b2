"""Where a network comes from, as plain data that can rebuild it; noted on the network itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

_NOTE = "_rlp_source"

Channels = Annotated[int, Field(ge=0, lt=2**20)]
Step = Annotated[int, Field(ge=1, lt=2**20)]


class ModelSource(BaseModel):
    """What rebuilds the untrained, uncut network.

    Attributes:
        source: a built-in name, `torchvision:NAME`, `package.module:factory` or
            `path/to/file.py:factory`.
        kwargs: of its factory, besides the two that follow.
        folded: layers that hold a weight which the source computes, see `pipeline.models.folding`.
        dropped: modules of residual branches that have gone: channels and stride of the zeros in
            their places, null where a module hands its input on.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    source: str = Field(min_length=1)
    kwargs: dict[str, Any] = {}
    in_channels: int = Field(ge=1, lt=2**20)
    num_classes: int = Field(ge=1, lt=2**24)
    folded: tuple[str, ...] = ()
    dropped: dict[str, tuple[Channels, tuple[Step, ...]]] = {}


def note_source(model: nn.Module, source: ModelSource) -> nn.Module:
    """Note on the model where it comes from; deep copies keep it. Returns the model."""
    # past torch's own setattr, so that the note is no submodule and in no state dict
    model.__dict__[_NOTE] = source
    return model


def source_of(model: nn.Module) -> ModelSource | None:
    """What `note_source` noted, or None."""
    return model.__dict__.get(_NOTE)
