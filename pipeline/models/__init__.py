"""Networks: built in, torchvision's, or the user's own; loaded and saved without pickle."""

from __future__ import annotations

from pipeline.models.registry import BUILTIN, build_model

__all__ = ["BUILTIN", "build_model"]
