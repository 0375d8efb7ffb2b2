from channel_nets import graph, net

__all__ = ["graph", "net"]
