"""A search problem is resolved once, and nothing changes it afterwards."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
from search_nets import even_counts, problem, random_counts, trained

import stages.search.problem as module
from pipeline.config.search import Budget, SearchConfig
from pipeline.errors import Refused, UsageError
from stages.prune import ChannelPlan, CostModel, prune
from stages.search import Network, SearchProblem


def test_nothing_about_it_can_be_set() -> None:
    ready = problem()
    for one in fields(ready):
        with pytest.raises(FrozenInstanceError):
            setattr(ready, one.name, None)
    for mapping in (ready.costs, ready.original.costs, ready.original.sizes):
        with pytest.raises(TypeError):
            mapping["macs"] = 1  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        ready.budget.share = 0.1  # type: ignore[misc]


def test_whatever_a_search_does_with_it_it_stays_as_it_was() -> None:
    ready = problem(trials=10)
    before = {one.name: id(getattr(ready, one.name)) for one in fields(ready)}
    evaluator = ready.evaluator
    ready.strategy("rl", trials=10).ask(8)
    evaluator(even_counts(ready))
    ready.final_evaluator()
    assert {one.name: id(getattr(ready, one.name)) for one in fields(ready)} == before
    assert ready.evaluator is evaluator


def test_building_it_does_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str) -> Any:
        original = getattr(module, name)

        def wrapper(*args: Any, **settings: Any) -> Any:
            calls[name] += 1
            return original(*args, **settings)

        return wrapper

    for name in ("rank_channels", "resolve_budget"):
        monkeypatch.setattr(module, name, counted(name))
    parsed = Budget.given.fget  # type: ignore[attr-defined]

    def given(budget: Budget) -> tuple[str, float]:
        calls["given"] += 1
        return parsed(budget)

    monkeypatch.setattr(Budget, "given", property(given))
    problem()
    assert calls == {"rank_channels": 1, "resolve_budget": 1, "given": 1}


def test_settings_are_those_that_were_given() -> None:
    model, graph, splits = trained()
    settings = SearchConfig(align="auto", images=100, fit_images=64)
    ready = SearchProblem.build(Network(model, graph), splits, settings, 3, align=4)
    assert ready.settings is settings
    assert (ready.align, ready.seed) == (4, 3)
    assert ready.space.blocks.tolist() == [4] * len(ready.space)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_budget_is_that_of_the_setting(metric: str) -> None:
    ready = problem(budget={metric: 0.4})
    assert (ready.budget.metric, ready.budget.asked, ready.budget.share) == (metric, 0.4, 0.4)
    assert ready.projector.limit == 0.4 * ready.original.costs[metric]
    assert ready.calibration is None


def test_costs_are_those_of_the_cost_model_and_of_the_cut_network() -> None:
    model, graph, _ = trained()
    ready, exact = problem(), CostModel(graph)
    for seed in range(5):
        counts = random_counts(ready, seed)
        kept = ready.space.as_dict(counts)
        expected = {"macs": exact.macs(kept), "params": exact.params(kept)}
        assert ready.exact_costs(counts) == ready.all_costs(counts) == expected
    cut = prune(model, graph, ChannelPlan(ready.ranking.keep(counts)))
    assert expected["params"] == sum(parameter.numel() for parameter in cut.parameters())


def test_finalists_see_more_images_after_more_steps() -> None:
    ready = problem(images=50, distill_steps=3, evaluation={"final_images": 3, "final_steps": 5})
    final = ready.final_evaluator()
    assert final is not None
    assert (len(final.x), final.steps) == (150, 15)
    assert problem(images=400, distill_steps=0).final_evaluator() is None, "they saw all of it"
    assert len(problem(images=300).final_evaluator().x) == 400, "no more than there are"


def test_scoring_images_are_balanced_from_the_start() -> None:
    labels = problem().evaluator.y
    assert np.bincount(labels.numpy()).tolist() == [25] * 4
    assert np.bincount(labels[:40].numpy(), minlength=4).min() >= 4


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown search strategy 'magic'") as caught:
        problem().strategy("magic", trials=1)
    assert "rlpruner" in caught.value.hint


def test_a_network_without_prunable_groups_is_refused() -> None:
    model, graph, splits = trained()
    frozen = graph.with_frozen({group.id: "no" for group in graph.groups})
    with pytest.raises(Refused, match="every channel group is frozen"):
        SearchProblem.build(Network(model, frozen), splits, SearchConfig(), 0, align=8)
