"""Least-squares weights for a cut network."""

from stages.reconstruct.engine import Reconstruction, reconstruct, reconstruct_layers

__all__ = ["Reconstruction", "reconstruct", "reconstruct_layers"]
