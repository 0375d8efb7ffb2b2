"""Peak resident memory in MiB before and after a reconstruction with the MiB allowed that are
given; run as a script.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import torch
from torch import nn

from stages.prune import ChannelPlan, prune
from stages.reconstruct import reconstruct
from stages.trace import trace


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip
    x = torch.randn(256, 3, 112, 112)
    graph, plan = trace(net, x[:1]), ChannelPlan({"0": tuple(range(32))})
    small = prune(net, graph, plan)
    with torch.no_grad():
        small(x[:4]), net(x[:4])
    before = peak()
    reconstruct(small, net, graph, plan, x, max_bytes=int(sys.argv[1]) << 20)
    print(before, peak())


if __name__ == "__main__":
    main()
