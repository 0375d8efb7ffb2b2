"""Which channels of a network live or die together, exactly, for any classifier torch.export
accepts.
"""

from pipeline.channels.graph import ChannelGraph, LayerCost, Width
from pipeline.channels.group import ChannelGroup, Member
from stages.trace.tracing import trace

__all__ = ["ChannelGraph", "ChannelGroup", "LayerCost", "Member", "Width", "trace"]
