"""A trained teacher and its half, made once."""

from __future__ import annotations

import copy
from functools import cache

import torch
from tiny_training import splits
from torch import nn

from pipeline.config.schema import ModelConfig
from pipeline.models import build_model
from pipeline.training import Recipe, fit
from stages.prune import ChannelPlan, prune
from stages.trace import trace


@cache
def _pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    teacher = build_model(
        ModelConfig(source="resnet20", kwargs={"width": 4}), in_channels=1, num_classes=2
    )
    fit(teacher, splits().train, splits().search, Recipe(6, 16, 0.05, precision="fp32"), seed=0)
    x = torch.zeros(2, 1, 8, 8)
    graph = trace(teacher, x)
    return teacher, prune(teacher, graph, ChannelPlan.uniform(graph, cut=0.5))


def pair() -> tuple[nn.Module, nn.Module]:
    """(teacher, student), fresh copies."""
    return copy.deepcopy(_pair())
