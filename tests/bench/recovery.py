"""What recovers a uniformly cut network: batch-norm statistics, least squares, fine-tuning or
distillation, and these from the reconstructed start; over several seeds.

    python tests/bench/recovery.py CONFIG [--set KEY=VALUE]... [--seeds 3] [--out FILE]

CONFIG names network, weights and data, and `distill.*` the budget and arithmetic, the same for
every row. The cut is uniform with L2 importance, to the fraction in `search.budget.macs`, in
multiples of `search.align`, or of 8 where that is auto. Every choice is made on the search split;
the table is of the test split, which is opened once a row, at the end. A seed decides the images
for batch-norm statistics and reconstruction, the order of the batches and their augmentation;
network, cut and splits stay the same.

Each row that is done goes into FILE (artifacts/recovery-CONFIG.json): killed and typed again, the
rest is done. Rows of other settings, weights, images or torch are never taken over.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.config.load import find_config, load_config
from pipeline.config.schema import Config, DistillConfig
from pipeline.data import Images, Splits, describe, load_splits, load_test
from pipeline.models import adopt_weights, build_model, find_weights, load_weights
from pipeline.run import store
from pipeline.training import Callbacks, Fit, Objective, Recipe, accuracy, fit
from pipeline.training.machine import all_cores, device_for
from stages.distill import recover
from stages.prune import ChannelPlan, CostModel, prune
from stages.reconstruct import reconstruct
from stages.trace import ChannelGraph, trace

RECONSTRUCTED = "reconstruct+"
MODES = {
    "cut": "no recovery",
    "bn_only": "batch-norm statistics",
    "finetune": "and fine-tuning",
    "distill": "and distillation",
    "reconstruct": "reconstructed",
    f"{RECONSTRUCTED}finetune": "and fine-tuning",
    f"{RECONSTRUCTED}distill": "and distillation",
}


def teacher_of(config: Config) -> nn.Module:
    card = describe(config.data)
    model = build_model(config.model, in_channels=card.in_channels, num_classes=card.num_classes)
    if config.model.weights is None:
        sys.exit("give --set model.weights=FILE: the table is about recovering a trained network")
    adopt_weights(model, load_weights(find_weights(config.model.weights)), config.model.weights)
    return model.eval().to(device_for(config.device))


def uniform_plan(graph: ChannelGraph, fraction: float, align: int) -> ChannelPlan:
    """The gentlest uniform plan that leaves at most `fraction` of the MACs."""
    costs = CostModel(graph)
    for percent in range(1, 96):
        plan = ChannelPlan.uniform(graph, percent / 100, align)
        if costs.macs(plan.counts()) <= fraction * costs.macs():
            return plan
    sys.exit(f"no uniform plan leaves {fraction:.0%} of the MACs")


def widths(config: Config) -> int:
    """What layers' widths are multiples of."""
    align = config.search.align
    return 8 if align == "auto" else align


def trainer(
    config: Config, section: DistillConfig, seed: int
) -> Callable[[nn.Module, Objective, Images, int], Fit]:
    splits = load_splits(config.data, seed=config.seed).to(device_for(config.device))
    tell = Callbacks(
        progress=lambda done, total, **f: print(
            f"  {section.mode} seed {seed}: step {done}/{total} loss {f['loss']:.3f}, "
            f"{f['images_per_s']:.0f} images/s",
            file=sys.stderr,
        ),
        progress_seconds=30.0,
    )

    def train(model: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
        recipe = Recipe.from_config(section, epochs=epochs, lr=section.lr)
        return fit(
            model, images, splits.search, recipe, seed=seed, objective=objective, callbacks=tell
        )

    return train


class Rows:
    """Finished rows on disk, by (mode, seed), of exactly this experiment."""

    def __init__(self, path: Path, of: dict[str, Any]) -> None:
        self.path, self.of = path, hashlib.sha256(store.dump_json(of)).hexdigest()
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            found = store.read_json(path, max_bytes=1 << 20)
            if found.get("of") != self.of:
                sys.exit(f"{path} holds rows of other settings; give another --out, or remove it")
            self.rows = found["rows"]
        path.parent.mkdir(parents=True, exist_ok=True)

    def get(self, mode: str, seed: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row, from the file or made now."""
        for row in self.rows:
            if (row["mode"], row["seed"]) == (mode, seed):
                return row
        begun = time.perf_counter()
        row = {
            "mode": mode,
            "seed": seed,
            **make(),
            "seconds": round(time.perf_counter() - begun, 1),
        }
        self.rows.append(row)
        store.write_json(self.path, {"of": self.of, "rows": self.rows})
        return row


def rows_file(path: Path, config: Config, plan: ChannelPlan) -> Rows:
    """Of exactly this network, plan, data and training."""
    return Rows(
        path,
        {
            "config": config.model_dump(
                mode="json", include={"seed", "data", "model", "reconstruct", "distill"}
            ),
            "plan": plan.to_json(),
            "weights": store.sha256_file(find_weights(config.model.weights or "")),
            "data": describe(config.data).sha256,
            "torch": torch.__version__,
        },
    )


@dataclass(frozen=True)
class Recoveries:
    """One network, one cut, and everything that is tried on it."""

    config: Config
    teacher: nn.Module
    graph: ChannelGraph
    plan: ChannelPlan
    splits: Splits
    test: Images

    def row(self, mode: str, seed: int) -> dict[str, Any]:
        """Recover a fresh cut in one way; the test split is read last."""
        student = prune(self.teacher, self.graph, self.plan)
        if mode.startswith("reconstruct"):
            images, _ = self.splits.train.take(self.config.reconstruct.images, seed=seed)
            student = reconstruct(student, self.teacher, self.graph, self.plan, images, seed=seed)
        found: dict[str, Any] = {}
        if mode in ("cut", "reconstruct"):
            found["search_accuracy"] = accuracy(student, self.splits.search)
        else:
            found = self._trained(student, mode.removeprefix(RECONSTRUCTED), seed)
        return {**found, "test_accuracy": accuracy(student, self.test)}

    def _trained(self, student: nn.Module, mode: str, seed: int) -> dict[str, Any]:
        section = self.config.distill.model_copy(update={"mode": mode})
        train = trainer(self.config, section, seed)
        found = recover(student, self.teacher, self.splits, section, seed=seed, train=train)
        return {"search_accuracy": found.final, "kept": found.kept}


def show(name: str, rows: list[dict[str, Any]], base: float) -> None:
    """One line of the table."""
    scores = [100 * row["test_accuracy"] for row in rows]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    each = " ".join(f"{score:.2f}" for score in scores)
    mean, seconds = statistics.mean(scores), statistics.mean(row["seconds"] for row in rows)
    print(
        f"{name:<24}{each:<32}{f'{mean:.2f}{spread}':>16}{100 * base - mean:>14.2f}{seconds:>7.0f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file of finished rows")
    options = parser.parse_args()
    file = Path(find_config(options.config))
    config = load_config(file, options.set)
    with all_cores() as threads:
        device = device_for(config.device)
        teacher = teacher_of(config)
        splits = load_splits(config.data, seed=config.seed).to(device)
        test = load_test(config.data).to(device)
        graph = trace(teacher, splits.train.take(2, seed=0)[0])
        plan = uniform_plan(graph, config.search.budget.macs or 0.5, widths(config))
        section, card = config.distill, describe(config.data)
        path = options.out or Path("artifacts") / f"recovery-{file.stem}.json"
        rows = rows_file(path, config, plan)
        recoveries = Recoveries(config, teacher, graph, plan, splits, test)
        base = rows.get("base", 0, lambda: {"test_accuracy": accuracy(teacher, test)})[
            "test_accuracy"
        ]
        costs = CostModel(graph)
        left = costs.macs(plan.counts()) / costs.macs()
        print(
            f"{config.model.source} on {card.label}: {base:.2%} on {len(test):,} test images "
            "(standard error "
            f"{100 * (base * (1 - base) / len(test)) ** 0.5:.2f} points); cut uniformly to "
            f"{left:.1%} of the MACs; "
            f"{section.epochs} epoch(s) of {len(splits.train):,} images at lr {section.lr:g}, "
            "batch "
            f"{section.batch_size}, {section.precision}; torch {torch.__version__}, {threads} "
            "thread(s)"
        )
        print(
            f"{'recovery':<24}{'test accuracy, % (a seed each)':<32}"
            f"{'mean ± sd':>16}{'lost, points':>14}{'s':>7}"
        )
        for mode, name in MODES.items():
            seeds = 1 if mode == "cut" else options.seeds
            make = partial(recoveries.row, mode)
            show(name, [rows.get(mode, n, partial(make, n)) for n in range(seeds)], base)


if __name__ == "__main__":
    main()
