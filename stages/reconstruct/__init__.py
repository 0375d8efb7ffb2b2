"""Weights by least squares: what a cut has broken is made good without labels or gradients.

`reconstruct` is the sequential form, for networks that are kept; `Moments` the independent one, for
the many candidates of a search.
"""

from stages.reconstruct.engine import Reconstruction, reconstruct, reconstruct_layers
from stages.reconstruct.independent import Moments
from stages.reconstruct.sequential import LayerResult
from stages.reconstruct.units import rank_units

__all__ = [
    "LayerResult",
    "Moments",
    "Reconstruction",
    "rank_units",
    "reconstruct",
    "reconstruct_layers",
]
