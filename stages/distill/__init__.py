"""Stage distill: batch-norm statistics first, then distillation from the original network; or
weights that the user trained.
"""

from __future__ import annotations

from stages.distill.engine import Recovery, adopt, recover

__all__ = ["Recovery", "adopt", "recover"]
