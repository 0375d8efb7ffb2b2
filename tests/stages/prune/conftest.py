from __future__ import annotations

import pytest
from channel_nets import Small, small_graph, small_net

from pipeline.channels.graph import ChannelGraph


@pytest.fixture
def net() -> Small:
    return small_net()


@pytest.fixture
def graph(net: Small) -> ChannelGraph:
    return small_graph(net)
