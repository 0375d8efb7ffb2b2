"""Searches that may drop residual branches, from the problem to plan, cut and exported graph."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from search_nets import images, trained
from torch import nn

from pipeline.channels.branch import stand_ins_of
from pipeline.config.search import SearchConfig
from pipeline.data import Splits
from pipeline.run.rounds import Round
from stages.export import export_proto, slice_onnx
from stages.prune import ChannelPlan, CostModel, prune
from stages.search import InProcess, Network, Search, SearchProblem, Tabulation
from stages.search.latency import fit_latency, spread_out
from stages.search.strategies import STRATEGIES
from stages.search.tables import LossTable
from stages.trace import trace

X = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
IDLE = "3.body.0"


@cache
def posed(share: float = 0.5, branches: bool = True) -> SearchProblem:
    """The trained network with a first block that adds the same to every image."""
    model, _, splits = trained()
    model = copy.deepcopy(model)
    nn.init.zeros_(model[3].body[7].weight)
    return problem_of(model, splits, share, branches=branches)


def problem_of(model: nn.Module, splits: Splits, share: float, **settings: object) -> SearchProblem:
    values = {"images": 100, "fit_images": 64, "budget": {"macs": share}, "trials": 16, **settings}
    chosen = SearchConfig.model_validate({"branches": True, **values})
    network = Network(model.eval(), trace(model, X[:2]))
    return SearchProblem.build(network, splits, chosen, 0, align=8)


@cache
def table() -> LossTable:
    ready = posed()
    return Tabulation(ready.space, 3, Search(InProcess(ready.table_evaluator())))()


def plan_of(ready: SearchProblem, counts: np.ndarray) -> ChannelPlan:
    return ChannelPlan.of(ready.network.graph, ready.ranking.keep(counts))


def test_a_branch_that_gives_nothing_loses_nothing_and_goes() -> None:
    ready = posed()
    place = ready.space.ids.index(IDLE)
    assert table().measured[place][0] == pytest.approx(0, abs=1e-4)
    others = [known[0] for g, known in enumerate(table().measured) if 0 in known and g != place]
    assert len(others) == 2
    assert min(others) > 1e-3
    for share in (0.5, 0.2):
        at = ready.within(share)
        counts = at.strategy("table", trials=1, table=table()).ask(1)[0].counts
        assert counts[place] == 0, share
        assert at.projector.fits(counts)


def test_without_the_setting_every_group_stays() -> None:
    ready = posed(0.2, branches=False)
    assert not ready.space.branches
    counts = ready.projector.logits(np.zeros(len(ready.space)))
    assert (counts >= ready.space.floors).all()
    assert not plan_of(ready, counts).drop


def test_what_was_scored_is_what_is_cut() -> None:
    ready = posed(0.3)
    counts = ready.strategy("table", trials=1, table=table()).ask(1)[0].counts
    plan = plan_of(ready, counts)
    assert "3" in plan.drop
    assert IDLE not in plan.keep
    network, graph = ready.network.model, ready.network.graph
    assert ChannelPlan.from_json(plan.to_json()) == plan
    small = prune(network, graph, ChannelPlan.from_json(plan.to_json()), check=True, inputs=[X])
    assert ready.moments is not None
    tensors = ready.moments.tensors_after(ready.ranking.keep(counts))
    small.load_state_dict(tensors, strict=False)
    with torch.inference_mode():
        scored = ready.evaluator.candidate(counts).eval()(X)
        torch.testing.assert_close(scored, small.eval()(X), rtol=1e-4, atol=1e-5)
    cost = CostModel(graph)
    assert ready.exact_costs(counts)["macs"] == cost.macs(plan.counts(), plan.drop)
    assert ready.exact_costs(counts)["params"] == sum(p.numel() for p in small.parameters())


def test_the_sliced_graph_of_a_plan_is_its_export() -> None:
    ready = posed(0.3)
    plan = plan_of(ready, ready.strategy("table", trials=1, table=table()).ask(1)[0].counts)
    network, graph = ready.network.model, ready.network.graph
    exported = export_proto(prune(network, graph, plan).eval(), X)
    sliced = slice_onnx(export_proto(network, X), graph, plan)
    assert shapes(sliced) == shapes(exported)
    kept = sum(node.op_type == "Add" for node in export_proto(network, X).graph.node)
    assert sum(node.op_type == "Add" for node in sliced.graph.node) == kept - len(plan.drop)


def shapes(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Of the weights that nodes multiply by."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    heavy = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return sorted(sizes[name] for node in heavy for name in node.input if name in sizes)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_keeps_to_the_space(name: str) -> None:
    ready = posed(0.15)
    strategy = ready.strategy(name, trials=16, table=table())
    seen = []
    for _ in range(3):
        asked = strategy.ask(8)
        if not asked:
            break
        strategy.tell(asked, [-table()(candidate.counts) for candidate in asked])
        seen += asked
    assert seen
    for candidate in seen:
        assert ready.space.allows(candidate.counts)
        assert ready.projector.fits(candidate.counts) or not candidate.eligible


@pytest.mark.parametrize("back", [True, False])
def test_what_learns_goes_where_the_score_is_with_a_branch_or_without(back: bool) -> None:
    ready = posed(0.3)
    strategy = ready.strategy("rl", trials=200, table=table())
    place = ready.space.ids.index(IDLE)
    found: list[bool] = []
    for _ in range(8):
        asked = strategy.ask(8)
        sign = 1 if back else -1
        strategy.tell(asked, [sign * float(candidate.counts[place]) for candidate in asked])
        found += [bool(candidate.counts[place]) for candidate in asked]
    assert set(found) == {True, False}
    learned = ready.projector.logits(strategy.state()["mean"])
    assert bool(learned[place]) is back


def test_the_latency_table_learns_what_a_branch_takes_whatever_its_width() -> None:
    ready = posed()
    counts = spread_out(ready.space, ready.costs["macs"], 60, 0)
    gone = counts == 0
    assert 0.1 < gone.any(1).mean() < 0.7
    macs = ready.costs["macs"].each(counts) / ready.costs["macs"].of(ready.space.sizes)
    away = gone[:, [places[0] for places in ready.space.branches]]
    # nodes of a branch take 8 % of the time each, however narrow it is
    taken = 0.26 + 0.5 * macs + 0.08 * (3 - away.sum(1))
    found = fit_latency(ready.network.graph, ready.space.ids, counts[:40], taken[:40])
    predicted = found.each(counts[40:])
    assert np.abs(predicted / taken[40:] - 1).max() < 0.06
    narrow = ready.space.floors
    for places in ready.space.branches:
        without = ready.space.moved(narrow, places[0], 0)
        assert found.of(narrow) - found.of(without) == pytest.approx(0.08, abs=0.03)
        steps = without - narrow
        assert -found.deltas(narrow, steps)[places[0]] < 0.08, "its layers alone are not all"


def test_a_later_round_goes_on_without_the_branches_that_went() -> None:
    first = posed(0.5)
    network, graph = first.network.model, first.network.graph
    counts = first.space.moved(first.space.sizes, first.space.ids.index(IDLE), 0)
    small = prune(network, graph, plan_of(first, counts)).eval()
    again = trace(small, X[:2])
    _, _, splits = trained()
    settings = first.settings.model_copy(update={"images": 80})
    second = SearchProblem.build(
        Network(small, again), splits, settings, 0, align=8, round=Round(2, 2),
        original=first.network,
    )  # fmt: skip
    assert IDLE not in second.space.ids
    assert {second.space.ids[p] for places in second.space.branches for p in places} == {
        "4.body.0",
        "8.body.0",
    }
    without = second.space.moved(second.space.sizes, second.space.ids.index("4.body.0"), 0)
    plan = plan_of(second, without)
    assert plan.drop == ("4",)
    smaller = prune(small, again, plan, check=True, inputs=[X])
    assert len(stand_ins_of(smaller)) > len(stand_ins_of(small)) > 0
    assert second.evaluator(without).score < 0


def test_a_network_without_branches_is_searched_as_before() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    splits = Splits(train=images(64, 1), search=images(80, 2))
    ready = problem_of(model, splits, 0.5, images=40)
    assert not ready.space.branches
    assert (ready.space.least == ready.space.floors).all()
    assert (spread_out(ready.space, ready.costs["macs"], 20, 0) > 0).all()


def test_a_branch_whose_group_is_frozen_stays() -> None:
    model, graph, splits = trained()
    frozen = graph.with_frozen({IDLE: "by hand"})
    settings = SearchConfig(images=40, fit_images=64, branches=True)
    ready = SearchProblem.build(Network(model, frozen), splits, settings, 0, align=8)
    going = [ready.space.ids[place] for places in ready.space.branches for place in places]
    assert going == ["4.body.0", "8.body.0"]
