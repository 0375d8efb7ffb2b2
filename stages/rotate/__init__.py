"""Channels of linear trunks turned to principal components, before anything is cut."""

from stages.rotate.engine import RotatedGroup, Rotation, rotate, rotate_trunks

__all__ = ["RotatedGroup", "Rotation", "rotate", "rotate_trunks"]
