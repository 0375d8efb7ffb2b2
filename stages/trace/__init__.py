"""Which channels of a network live or die together, exactly, for any classifier torch.export
accepts.
"""

from pipeline.channels.graph import ChannelGraph, Width
from pipeline.channels.group import ChannelGroup, Member
from pipeline.channels.layer_cost import LayerCost
from stages.trace.tracing import trace

__all__ = ["ChannelGraph", "ChannelGroup", "LayerCost", "Member", "Width", "trace"]
