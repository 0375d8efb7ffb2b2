"""Which channels of a network live or die together, exactly, for any classifier torch.export accepts."""

from stages.trace.graph import ChannelGraph, ChannelGroup, LayerCost, Member, Width

__all__ = ["ChannelGraph", "ChannelGroup", "LayerCost", "Member", "Width"]
