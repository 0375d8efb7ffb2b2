"""Stage distill: batch-norm statistics first, then distillation from the original network."""

from __future__ import annotations

from stages.distill.engine import Recovery, recover

__all__ = ["Recovery", "recover"]
