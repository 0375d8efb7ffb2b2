"""Small made-up search tasks: layer chains, and a score with a known best distribution."""

from __future__ import annotations

import itertools

import numpy as np

from pipeline.channels.costs import ProductCost
from pipeline.channels.dropping import Dropping
from pipeline.config.search import SearchConfig
from stages.search.space import Projector, Space
from stages.search.strategies import Task


def chain(
    sizes: list[int], *, align: int = 8, min_keep: float = 0.1, pixels: list[float] | None = None
) -> tuple[Space, ProductCost]:
    """A chain of 3x3 convolutions 3 -> sizes[0] -> ... -> sizes[-1] -> 10 classes; MACs as cost."""
    count = len(sizes)
    size = np.array(sizes, dtype=np.int64)
    blocks = np.full(count, align, dtype=np.int64)
    wanted = np.maximum(np.ceil(size * min_keep), 1).astype(np.int64)
    space = Space(
        tuple(f"g{i}" for i in range(count)),
        size,
        blocks,
        np.minimum(-(-wanted // align) * align, size),
    )
    inputs, outputs = np.zeros((count + 1, count)), np.zeros((count + 1, count))
    inputs[np.arange(1, count + 1), np.arange(count)] = 1
    outputs[np.arange(count), np.arange(count)] = 1
    first, last = np.zeros(count + 1), np.zeros(count + 1)
    first[0], last[count] = 3, 10
    factor = 9.0 * np.array([*(pixels or [64.0] * count), 1.0])
    return space, ProductCost("macs", factor, inputs, outputs, first, last)


def task(
    sizes: list[int],
    share: float,
    *,
    align: int = 8,
    seed: int = 0,
    trials: int = 40,
    **settings: object,
) -> Task:
    space, cost = chain(sizes, align=align)
    rng = np.random.default_rng(7)
    importance = tuple(rng.gamma(1.0, size=size) for size in sizes)
    chosen = SearchConfig.model_validate(settings)
    return Task(Projector.fraction(space, cost, share), importance, seed, trials, chosen)


def sensitive_score(space: Space, seed: int = 3) -> object:
    """-sum of a_g (1/keep_g - 1), a_g very unequal: the best distribution is far from uniform."""
    weight = np.random.default_rng(seed).lognormal(0, 1.5, len(space))

    def score(counts: np.ndarray) -> float:
        return -float((weight * (space.sizes / counts - 1)).sum() / weight.sum())

    return score


def residual(
    branches: list[list[int]], *, trunk: int = 16, align: int = 8
) -> tuple[Space, ProductCost]:
    """A trunk with residual branches, each a chain of 3x3 convolutions of these inner widths, then
    10 classes; every convolution has a bias, so that a branch costs beyond what its groups do.
    """
    sizes = [trunk, *(size for inner in branches for size in inner)]
    size = np.array(sizes, dtype=np.int64)
    starts = 1 + np.cumsum([0, *(len(inner) for inner in branches)])
    places = [tuple(range(a, b)) for a, b in itertools.pairwise(starts.tolist())]
    floors = np.minimum(-(-np.ceil(size * 0.1).astype(np.int64) // align) * align, size)
    names = tuple(f"g{i}" for i in range(len(sizes)))
    space = Space(names, size, np.full(len(sizes), align), floors, tuple(places))
    hops = [(None, 0), *(hop for own in places for hop in itertools.pairwise((0, *own, 0)))]
    layers = [(into, out, 9.0 * 64) for into, out in [*hops, (0, None)]]
    biases = [(None, out, 9.0 * 64) for _, out in hops]
    terms = [*layers, *biases]
    inputs, outputs = np.zeros((2, len(terms), len(sizes)))
    fixed = np.zeros((2, len(terms)))
    for row, (into, out, _) in enumerate(terms):
        for matrix, column, group in ((inputs, 0, into), (outputs, 1, out)):
            if group is None:
                fixed[column, row] = 1
            else:
                matrix[row, group] = 1
    return space, ProductCost(
        "macs",
        np.array([factor for _, _, factor in terms]),
        inputs,
        outputs,
        *fixed,
        Dropping(
            tuple(f"b{i}" for i in range(len(places))),
            np.array([[group in own for group in range(len(sizes))] for own in places]),
            _inside(places, hops, len(layers)),
        ),
    )


def _inside(
    places: list[tuple[int, ...]], hops: list[tuple[int | None, int]], biases: int
) -> np.ndarray:
    """(branches, terms): layers and biases that lie in a branch."""
    found = np.zeros((len(places), biases + len(hops)), dtype=bool)
    for branch, own in enumerate(places):
        for row, (into, out) in enumerate(hops):
            if into in own or out in own:
                found[branch, [row, biases + row]] = True
    return found
