"""Cutting channels: plans, physical surgery, the silenced reference, importance, and what a cut
costs.
"""

from pipeline.channels.costs import CostModel, LayerRow
from stages.prune.importance import CRITERIA, rank_channels
from stages.prune.plan import ChannelPlan
from stages.prune.proof import Proof, prove, prove_order
from stages.prune.surgery import mask, prune, sliced_tensors

__all__ = [
    "CRITERIA",
    "ChannelPlan",
    "CostModel",
    "LayerRow",
    "Proof",
    "mask",
    "prove",
    "prove_order",
    "prune",
    "rank_channels",
    "sliced_tensors",
]
