"""What recovers a uniformly cut network: batch-norm statistics, fine-tuning, or distillation; over several seeds.

    python tests/bench/recovery.py CONFIG [--set KEY=VALUE]... [--seeds 3]

CONFIG names network, weights and data, and `distill.*` the budget, the same for every row. The cut is uniform with
L2 importance, to the fraction in `search.budget.macs`. Every choice is made on the search split; the table is of
the test split, which is opened once a row, at the end.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pipeline.config import Config, DistillConfig
from pipeline.config_load import find_config, load_config
from pipeline.data import Images, describe, load_splits, load_test
from pipeline.models import adopt_weights, build_model, find_weights, load_weights
from pipeline.training import Callbacks, Fit, Recipe, accuracy, fit
from pipeline.training.machine import Objective, all_cores
from stages.distill import recover
from stages.prune import ChannelPlan, CostModel, prune
from stages.trace import ChannelGraph, trace

MODES = ("bn_only", "finetune", "distill")


def teacher_of(config: Config) -> nn.Module:
    card = describe(config.data)
    model = build_model(config.model, in_channels=card.in_channels, num_classes=card.num_classes)
    if config.model.weights is None:
        sys.exit("give --set model.weights=FILE: the table is about recovering a trained network")
    adopt_weights(model, load_weights(find_weights(config.model.weights)), config.model.weights)
    return model.eval()


def uniform_plan(graph: ChannelGraph, fraction: float, align: int) -> ChannelPlan:
    """The gentlest uniform plan that leaves at most `fraction` of the MACs."""
    costs = CostModel(graph)
    for percent in range(1, 96):
        plan = ChannelPlan.uniform(graph, percent / 100, align)
        if costs.macs(plan.counts()) <= fraction * costs.macs():
            return plan
    sys.exit(f"no uniform plan leaves {fraction:.0%} of the MACs")


def trainer(config: Config, section: DistillConfig, seed: int) -> Callable[[nn.Module, Objective, Images], Fit]:
    splits = load_splits(config.data, seed=config.seed)
    recipe = Recipe.from_config(section, epochs=section.epochs, lr=section.lr)
    tell = Callbacks(
        progress=lambda done, total, **f: print(f"  step {done}/{total} loss {f['loss']:.3f}", file=sys.stderr),
        progress_seconds=30.0,
    )

    def train(model: nn.Module, objective: Objective, images: Images) -> Fit:
        return fit(model, images, splits.search, recipe, seed=seed, objective=objective, callbacks=tell)

    return train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    config = load_config(Path(find_config(options.config)), options.set)
    fraction = config.search.budget.macs or 0.5
    with all_cores() as threads:
        teacher, splits, test = teacher_of(config), load_splits(config.data, seed=config.seed), load_test(config.data)
        graph = trace(teacher, splits.train.take(2, seed=0)[0])
        plan = uniform_plan(graph, fraction, config.search.align)
        costs = CostModel(graph)
        left = costs.macs(plan.counts()) / costs.macs()
        base = accuracy(teacher, test)
        section = config.distill
        print(
            f"{config.model.source} on {describe(config.data).label}: {base:.2%} on {len(test)} test images; "
            f"cut uniformly to {left:.1%} of the MACs; {section.epochs} epochs at lr {section.lr:g}, "
            f"batch {section.batch_size}; torch {torch.__version__}, {threads} threads"
        )
        print(f"{'recovery':<10} {'test accuracy, % (a seed each)':<32} {'mean':>6} {'spread':>7} {'lost':>6} {'s':>6}")
        for mode in MODES:
            scores, begun = [], time.perf_counter()
            for seed in range(options.seeds):
                student = prune(teacher, graph, plan)
                chosen = section.model_copy(update={"mode": mode})
                recover(student, teacher, splits, chosen, seed=seed, train=trainer(config, chosen, seed))
                scores.append(100 * accuracy(student, test))
            mean, spread = statistics.mean(scores), max(scores) - min(scores)
            each = (time.perf_counter() - begun) / options.seeds
            row = " ".join(f"{score:.2f}" for score in scores)
            print(f"{mode:<10} {row:<32} {mean:6.2f} {spread:7.2f} {100 * base - mean:6.2f} {each:6.0f}", flush=True)


if __name__ == "__main__":
    main()
