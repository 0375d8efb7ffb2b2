"""Cutting channels: which matter, and the proof that a cut changed nothing else.

Plans, surgery and costs are `pipeline.channels`'s; they are offered here as well, where people look
for them.
"""

from pipeline.channels.costs import CostModel, LayerRow
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import mask, sliced_tensors
from stages.prune.checked import prune
from stages.prune.importance import CRITERIA, rank_channels
from stages.prune.proof import Proof, prove, prove_order

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
