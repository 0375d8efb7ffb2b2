"""Every strategy: only allowed plans, equal proposals for equal scores, learning where claimed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_nets import trained
from search_tasks import chain, sensitive_score
from search_tasks import task as made_up

from pipeline.channels.costs import ProductCost
from pipeline.channels.counts import Cost
from pipeline.channels.widths import LayerWidths
from stages.prune import ChannelPlan
from stages.search.latency import LatencyCost
from stages.search.space import Candidate, Projector, Ranking, Space
from stages.search.strategies import CONTROLS, STRATEGIES, Task

SIZES = [32, 96, 144, 64, 192, 24, 320]


def play(
    name: str, task: Task, score: Callable[[np.ndarray], float]
) -> list[tuple[Candidate, float]]:
    """Run a whole search on a made-up score."""
    strategy, history = STRATEGIES[name](task), []
    while len(history) < task.trials and (asked := strategy.ask(task.trials - len(history))):
        values = [score(candidate.counts) for candidate in asked]
        strategy.tell(asked, values)
        history.extend(zip(asked, values, strict=True))
    return history


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 120), min_size=2, max_size=8),
    share=st.floats(0.35, 0.95),
    align=st.sampled_from([1, 8, 16]),
    scores=st.randoms(use_true_random=False),
)
def test_no_strategy_leaves_budget_alignment_or_floor(
    name: str, sizes: list[int], share: float, align: int, scores: Random
) -> None:

    space, cost = chain(sizes, align=align)
    least = cost.of(space.floors) / cost.of(space.sizes)
    projector = Projector.fraction(space, cost, max(share, least))
    importance = tuple(np.random.default_rng(size).random(size) for size in sizes)
    task = Task(projector, importance, 0, 20)
    history = play(name, task, lambda counts: scores.random())
    assert history
    for candidate, _ in history:
        assert space.allows(candidate.counts)
        assert projector.fits(candidate.counts) or not candidate.eligible


@pytest.mark.parametrize("metric", ["macs", "params", "latency"])
@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=4, deadline=None)
@given(
    share=st.floats(0.3, 0.95), align=st.sampled_from([1, 8, 16]), chance=st.integers(0, 2**32 - 1)
)
def test_plans_on_a_traced_network_keep_every_kind_of_budget(
    name: str, metric: str, share: float, align: int, chance: int
) -> None:
    """Latency by a made-up table; the plan touches no frozen group and leaves every width on
    the alignment or whole.
    """
    _, graph, _ = trained()
    space, rng = (
        Space.from_groups(graph.groups, align=align, min_keep=0.1),
        np.random.default_rng(chance),
    )
    cost: Cost = (
        ProductCost.macs(graph, space.ids)
        if metric == "macs"
        else ProductCost.params(graph, space.ids)
    )
    if metric == "latency":
        widths = LayerWidths.of(graph, space.ids)
        a, b = rng.uniform(0, 1, (2, len(widths.names)))
        cost = LatencyCost(
            widths, space.sizes, block=int(rng.choice([1, 8, 16])), arithmetic=a, traffic=b
        )
    whole = cost.of(space.sizes)
    projector = Projector.fraction(space, cost, max(share, cost.of(space.floors) / whole))
    importance = tuple(rng.random(size) for size in space.sizes)
    ranking = Ranking.of(
        space, dict(zip(space.ids, map(torch.from_numpy, importance), strict=True))
    )
    frozen = {group.id for group in graph.groups if not group.prunable}
    assert frozen
    for candidate, _ in play(name, Task(projector, importance, 0, 12), lambda counts: rng.random()):
        plan = ChannelPlan(ranking.keep(candidate.counts))
        plan.check(graph)
        assert not frozen & plan.keep.keys()
        assert cost.of(candidate.counts) <= projector.limit * (1 + 1e-12) or not candidate.eligible
        for group, kept in plan.keep.items():
            assert len(kept) % align == 0 or len(kept) == graph[group].size
            assert len(kept) >= min(graph[group].size, 0.1 * graph[group].size)


@pytest.mark.parametrize("name", STRATEGIES)
def test_same_seed_and_scores_give_the_same_proposals(name: str) -> None:
    one, two = (
        play(
            name, made_up(SIZES, 0.5, seed=3, trials=40), sensitive_score(made_up(SIZES, 0.5).space)
        )
        for _ in range(2)
    )
    assert [p.counts.tolist() for p, _ in one] == [p.counts.tolist() for p, _ in two]


@pytest.mark.parametrize("name", ["random", "evolution", "rl", "rlpruner"])
def test_another_seed_gives_other_proposals(name: str) -> None:
    score = sensitive_score(made_up(SIZES, 0.5).space)
    one, two = (play(name, made_up(SIZES, 0.5, seed=seed, trials=24), score) for seed in (1, 2))
    assert [p.counts.tolist() for p, _ in one] != [p.counts.tolist() for p, _ in two]


@pytest.mark.parametrize("name", ["random", "evolution", "rl", "rlpruner"])
@pytest.mark.parametrize("trials", [1, 7, 25])
def test_never_more_candidates_than_asked_for(name: str, trials: int) -> None:
    history = play(name, made_up(SIZES, 0.5, trials=trials), lambda counts: 0.0)
    assert len(history) == trials


def test_the_policy_finds_what_uniform_and_chance_do_not() -> None:
    """A made-up score whose best distribution is far from uniform, 5 seeds, 80 evaluations each."""
    sizes = SIZES * 3
    score = sensitive_score(made_up(sizes, 0.5).space)
    best = {
        name: [
            max(s for _, s in play(name, made_up(sizes, 0.5, seed=seed, trials=80), score))
            for seed in range(5)
        ]
        for name in ("uniform", "random", "rl")
    }
    assert min(best["rl"]) > max(best["random"]) > best["uniform"][0]


def test_a_small_batch_holds_the_warm_start_and_no_more_than_asked() -> None:
    strategy = STRATEGIES["rl"](made_up(SIZES, 0.5, rl={"batch": 2}))
    assert [candidate.proposed_as for candidate in strategy.ask(8)] == ["warm start", "uniform"]


@pytest.mark.parametrize("wanted", ["warm start", "uniform", "between the two"])
def test_the_policy_starts_at_the_best_between_table_and_uniform(wanted: str) -> None:
    task = made_up([64, 96, 64, 192], 0.5)
    solution = task.projector.logits(np.array([-4.0, 4.0, -4.0, 4.0]))
    strategy = STRATEGIES["rl"](replace(task, solution=solution))
    asked = strategy.ask(8)
    kinds = [one.proposed_as for one in asked]
    assert kinds == ["warm start", "uniform", *["between the two"] * (len(asked) - 2)]
    assert len({one.key for one in asked}) == len(asked) > 2
    best = asked[kinds.index(wanted)]
    strategy.tell(asked, [float(one is best) for one in asked])
    mean = task.projector.logits(strategy.state()["mean"])
    assert min(asked, key=lambda one: np.abs(one.counts - mean).sum()) is best


@pytest.mark.parametrize("seed", range(5))
def test_the_policy_leaves_the_basin_of_its_warm_start(seed: int) -> None:
    """The warm start cuts the first group to its floor, nearly whole is far better, and nothing
    between says so.
    """
    wide = {"start_spread": 0.55, "anywhere_first": 3}
    task = made_up([64, 96, 64, 192, 64, 128], 0.5, seed=seed, trials=60, rl=wide)
    task = replace(task, importance=(0.02 * task.importance[0], *task.importance[1:]))
    smooth = sensitive_score(task.space)
    history = play("rl", task, lambda counts: float(counts[0] >= 56) + 0.3 * smooth(counts))
    assert history[0][0].counts[0] == task.space.floors[0]
    assert max(score for _, score in history) > 0.9


def test_the_policy_learns_from_rewards_alone() -> None:
    """Without critic, and with a reward that contradicts the warm start: the mean moves to the
    rewarded group.
    """
    task = made_up([64, 64, 64, 64], 0.4, trials=160, rl={"critic": False})
    strategy = STRATEGIES["rl"](task)
    begin = strategy.state()["mean"][2]
    for _ in range(20):
        asked = strategy.ask(8)
        strategy.tell(asked, [float(p.counts[2]) for p in asked])
    state = strategy.state()
    assert state["mean"][2] > begin + 0.5
    assert state["mean"].argmax() == 2


@pytest.mark.parametrize(
    ("sizes", "distinct"), [([16] * 3 + [32] * 3 + [64] * 3, 52), ([32] * 5, 45)]
)
def test_the_policy_spends_no_trial_on_what_it_has_seen(sizes: list[int], distinct: int) -> None:
    """Few groups of few blocks, as in a ResNet-20, where draws often round to the same counts."""
    for seed in range(4):
        task = made_up(sizes, 0.5, seed=seed, trials=60)
        history = play("rl", task, sensitive_score(task.space))
        keys = [candidate.key for candidate, _ in history]
        assert len(set(keys)) >= distinct
        assert len(set(keys[:40])) == len(set(keys[:8])) + 32, "repeats after the first batch"


def test_a_collapsed_policy_is_reported() -> None:
    """Two groups with one block each to give: soon every draw rounds to the same candidate."""
    task = made_up([32, 32], 0.75, align=16, trials=64)
    strategy = STRATEGIES["rl"](task)
    for _ in range(6):
        asked = strategy.ask(8)
        strategy.tell(asked, [float(p.counts[0]) for p in asked])
    assert "collapsed" in strategy.findings()[0]


def test_rlpruner_spends_its_steps_and_offers_only_the_last_as_plans() -> None:
    task = made_up([64, 128, 256], 0.4, trials=200)
    history = play("rlpruner", task, sensitive_score(task.space))
    assert len(history) == 200
    costs = [task.projector.cost.of(p.counts) for p, _ in history]
    assert min(costs[:100]) > task.projector.limit
    assert [p.eligible for p, _ in history] == [False] * 100 + [True] * 100


def test_global_taylor_removes_what_matters_least_for_its_cost() -> None:
    task = made_up([64, 64, 64], 0.5)
    values = tuple(np.full(64, weight) for weight in (1.0, 1.0, 1e-6))
    task = Task(task.projector, values, 0, 1)
    (candidate,) = STRATEGIES["global-taylor"](task).ask(1)
    assert candidate.counts[2] <= 16 < 32 < candidate.counts[0]


def test_the_settings_of_a_strategy_reach_it() -> None:
    few = made_up(SIZES, 0.5, trials=12, rl={"batch": 3}, evolution={"population": 5})
    assert len(STRATEGIES["rl"](few).ask(12)) == 3
    evolution = STRATEGIES["evolution"](few)
    evolution.tell(evolution.ask(12), [0.0])
    assert len(evolution.ask(12)) == 5


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_are_one_candidate_that_no_seed_changes(name: str) -> None:
    one, other = (play(name, made_up(SIZES, 0.5, seed=seed), lambda counts: 0.0) for seed in (1, 2))
    assert len(one) == 1
    assert one[0][0].key == other[0][0].key
