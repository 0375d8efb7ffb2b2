"""What a network keeps without any training: trunks turned to principal components, a table of
losses, its solution, least squares; over several seeds.

    python tests/bench/without_training.py CONFIG [--set KEY=VALUE]... [--left 0.5,0.34,0.25,0.143]
        [--seeds 3] [--align 8] [--as-is]

CONFIG names network, weights and data. `--left` are shares of the MACs. Accuracies are on the
search split, a part of whose images the table is measured on; the images that components, moments
and weights come from are of the train split, another draw for each seed. `--as-is` leaves trunks as
they are: rotation is the difference to a run without it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from recovery import teacher_of  # noqa: E402
from torch import nn  # noqa: E402

from pipeline.config.load import find_config, load_config  # noqa: E402
from pipeline.config.schema import Config  # noqa: E402
from pipeline.config.search import Budget  # noqa: E402
from pipeline.data import Splits, load_splits  # noqa: E402
from pipeline.run.rounds import ONLY_ROUND  # noqa: E402
from pipeline.training import accuracy  # noqa: E402
from pipeline.training.evaluate import device_of  # noqa: E402
from pipeline.training.machine import all_cores  # noqa: E402
from stages.prune import ChannelPlan, prune  # noqa: E402
from stages.reconstruct import reconstruct  # noqa: E402
from stages.rotate import rotate  # noqa: E402
from stages.search import InProcess, Network, Search, SearchProblem, Tabulation  # noqa: E402
from stages.search.budget import resolve_budget  # noqa: E402
from stages.search.tables import solve  # noqa: E402
from stages.trace import ChannelGraph, trace  # noqa: E402


@dataclass
class Clock:
    """Seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.seconds[what] = self.seconds.get(what, 0.0) + spent


@dataclass(frozen=True)
class Bench:
    """One network and its images."""

    config: Config
    model: nn.Module
    graph: ChannelGraph
    splits: Splits
    align: int
    turn: bool

    def accuracies(
        self, left: list[float], seed: int, clock: Clock
    ) -> Iterator[tuple[float, float]]:
        """(share of the MACs, accuracy on search) for each budget, from one table."""
        with clock.on("rotation"):
            network = Network(self._turned(seed), self.graph)
        with clock.on("table"):
            problem = self._problem(network, left[0], seed)
            entries = Search(InProcess(problem.table_evaluator()))
            table = Tabulation(problem.space, problem.settings.table.widths, entries)()
        for share in left:
            with clock.on("solution"):
                counts = solve(table, within(problem, share).projector)
                plan = ChannelPlan.of(self.graph, problem.ranking.keep(counts))
            with clock.on("least squares"):
                small = self._fitted(network, plan, seed)
            cost = problem.costs["macs"]
            yield (
                cost.of(counts) / cost.of(problem.space.sizes),
                accuracy(small, self.splits.search),
            )

    def _turned(self, seed: int) -> nn.Module:
        if not self.turn:
            return self.model
        images, _ = self.splits.train.take(self.config.rotate.images, seed=seed)
        return rotate(self.model, self.graph, images)

    def _problem(self, network: Network, share: float, seed: int) -> SearchProblem:
        settings = self.config.search.model_copy(update={"budget": Budget(macs=share)})
        return SearchProblem.build(network, self.splits, settings, seed, align=self.align)

    def _fitted(self, network: Network, plan: ChannelPlan, seed: int) -> nn.Module:
        images, _ = self.splits.train.take(self.config.reconstruct.images, seed=seed)
        small = prune(network.model, self.graph, plan)
        return reconstruct(small, network.model, self.graph, plan, images, seed=seed)


def within(problem: SearchProblem, share: float) -> SearchProblem:
    """The same problem with another budget in MACs."""
    budget = resolve_budget(
        "macs", share, ONLY_ROUND, problem.space, problem.costs, problem.original.costs, None
    )
    return replace(problem, budget=budget)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--left", default="0.5,0.34,0.25,0.143")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--align", type=int, default=8)
    parser.add_argument("--as-is", action="store_true")
    options = parser.parse_args()
    config = load_config(find_config(options.config), options.set)
    left = [float(share) for share in options.left.split(",")]
    with all_cores() as threads:
        model = teacher_of(config).to(memory_format=torch.channels_last)
        splits = load_splits(config.data, seed=config.seed)
        splits = splits.to(device_of(model))
        graph = trace(model, splits.train.take(2, seed=0)[0])
        bench = Bench(config, model, graph, splits, options.align, not options.as_is)
        whole = accuracy(model, splits.search)
        print(
            f"{config.model.source}, whole: {whole:.2%} on {len(splits.search):,} images of the "
            f"search split; {'trunks as they are' if options.as_is else 'trunks rotated'}; "
            f"widths in steps of {options.align}; torch {torch.__version__}, {threads} thread(s)"
        )
        runs, clocks = [], [Clock() for _ in range(options.seeds)]
        for seed, clock in enumerate(clocks):
            runs.append(list(bench.accuracies(left, seed, clock)))
            spent = ", ".join(f"{what} {took:.0f} s" for what, took in clock.seconds.items())
            print(f"seed {seed}: {spent}", flush=True)
    print(
        f"{'MACs left':<12}{'accuracy, % (a seed each)':<28}{'mean ± sd':>16}{'lost, points':>14}"
    )
    for place, asked in enumerate(left):
        scores = [100 * run[place][1] for run in runs]
        mean = statistics.mean(scores)
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        each = " ".join(f"{score:.2f}" for score in scores)
        print(f"{asked:<12}{each:<28}{f'{mean:.2f}{spread}':>16}{100 * whole - mean:>14.2f}")


if __name__ == "__main__":
    main()
