"""Cutting channels: plans, physical surgery, the silenced reference, importance, and what a cut costs."""

from stages.prune.costs import CostModel, LayerRow
from stages.prune.importance import CRITERIA, rank_channels
from stages.prune.plan import ChannelPlan
from stages.prune.surgery import mask, prune, sliced_tensors

__all__ = ["CRITERIA", "ChannelPlan", "CostModel", "LayerRow", "mask", "prune", "rank_channels", "sliced_tensors"]
