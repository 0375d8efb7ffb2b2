"""Plans that drop residual branches: what fits, what is left, what it costs, and files of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.channels.branch import Zeros
from pipeline.channels.costs import CostModel, ProductCost
from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut, sliced_tensors
from pipeline.config.schema import ModelConfig
from pipeline.errors import ArtifactError
from pipeline.models import build_model, load_model, save_model
from stages.trace import trace

DROP = ("layer1.1", "layer2.0", "layer3.2")


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    source = ModelConfig(source="resnet20", kwargs={"width": 8})
    return build_model(source, in_channels=3, num_classes=4).eval()


@pytest.fixture(scope="module")
def graph(net: nn.Module) -> ChannelGraph:
    return trace(net, torch.zeros(1, 3, 16, 16))


@pytest.fixture
def plan(graph: ChannelGraph) -> ChannelPlan:
    """Three branches go, and a part of everything else."""
    keep = dict(ChannelPlan.uniform(graph, 0.3).keep)
    keep |= {group: () for name in DROP for group in graph.removable[name].groups}
    return ChannelPlan.of(graph, keep, {"made": "by hand"})


def test_a_branch_goes_where_no_group_in_it_keeps_a_unit(
    graph: ChannelGraph, plan: ChannelPlan
) -> None:
    assert plan.drop == DROP
    assert "layer1.1.conv1" not in plan.keep
    plan.check(graph)
    assert plan.kept_of(graph)["layer1.1.conv1"] == ()
    assert graph.dropped(plan.kept_of(graph)) == plan.branches(graph)


def test_round_trip_is_byte_identical(plan: ChannelPlan) -> None:
    assert ChannelPlan.from_json(plan.to_json()) == plan
    assert ChannelPlan.from_json(plan.to_json()).to_json() == plan.to_json()


@pytest.mark.parametrize("drop", ['"ab"', "{}", "3", "null"])
def test_what_is_no_list_of_branches_is_refused(drop: str) -> None:
    with pytest.raises(ArtifactError, match="not a channel plan"):
        ChannelPlan.from_json(f'{{"keep": {{}}, "drop": {drop}, "metadata": {{}}}}')


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ChannelPlan({}, {}, ("layer9",)), "which the network does not have"),
        (ChannelPlan({"layer1.1.conv1": (0, 1)}, {}, ("layer1.1",)), "goes with the branch"),
        (ChannelPlan({"layer1.1.conv1": ()}), "removes every channel of layer1.1.conv1"),
    ],
)
def test_what_does_not_fit_is_refused(graph: ChannelGraph, plan: ChannelPlan, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        plan.check(graph)


def test_a_branch_that_must_stay_is_refused_with_its_reason(graph: ChannelGraph) -> None:
    frozen = graph.with_frozen({"layer1.1.conv1": "asked for"})
    with pytest.raises(ArtifactError, match=r"layer1\.1, which must stay: asked for"):
        ChannelPlan({}, {}, ("layer1.1",)).check(frozen)


@pytest.mark.parametrize(
    "change",
    [
        {"endings": [["layer1.1.bn2", [0, 0], "", 0]]},
        {"endings": [["layer1.1.bn2", [2, 2], "no.parameter", 0]]},
        {"endings": [["layer1.1.bn2", [2, 2], "layer1.1.bn2.bias", 7]]},
        {"modules": 3},
        {"id": None, "endings": [["too", "short"]]},
    ],
)
def test_a_damaged_branch_is_no_graph(graph: ChannelGraph, change: dict[str, object]) -> None:
    data = json.loads(graph.to_json())
    data["branches"][0] |= change
    with pytest.raises(ArtifactError, match="not a channel graph"):
        ChannelGraph.from_dict(data)


def test_the_cut_network_is_saved_and_comes_back(
    net: nn.Module, graph: ChannelGraph, plan: ChannelPlan, tmp_path: Path
) -> None:
    small, x = cut(net, graph, plan), torch.randn(2, 3, 20, 20)
    save_model(small, tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again(x), small(x))
    assert again.state_dict().keys() == small.state_dict().keys()
    zeros = {path for path, module in again.named_modules() if isinstance(module, Zeros)}
    assert zeros == {path for name in DROP for path in graph.removable[name].modules}
    save_model(again, tmp_path / "again")  # and once more, from what was noted on it
    assert (tmp_path / "again/model.json").read_bytes() == (tmp_path / "model.json").read_bytes()


def test_a_file_that_drops_what_the_source_lacks_is_refused(
    net: nn.Module, graph: ChannelGraph, plan: ChannelPlan, tmp_path: Path
) -> None:
    save_model(cut(net, graph, plan), tmp_path)
    text = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(text.replace("layer1.1.bn2", "layer1.7.bn2"))
    with pytest.raises(ArtifactError, match=r"layer1\.|7"):
        load_model(tmp_path)


def test_it_costs_what_the_cut_network_costs(
    net: nn.Module, graph: ChannelGraph, plan: ChannelPlan
) -> None:
    small, costs = cut(net, graph, plan), CostModel(graph)
    counts = plan.counts()
    assert costs.params(counts, plan.drop) == sum(p.numel() for p in small.parameters())
    with FlopCounterMode(display=False) as counter:
        small(torch.zeros(1, 3, 16, 16))
    assert 2 * costs.macs(counts, plan.drop) == counter.get_total_flops()
    rows = costs.layers(counts, plan.drop)
    assert sum(row.macs for row in rows) == costs.macs(counts, plan.drop)
    assert not [row for row in rows if row.name.startswith("layer1.1.")]


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_counts_of_nothing_cost_as_much_as_a_dropped_branch(
    graph: ChannelGraph, plan: ChannelPlan, metric: str
) -> None:
    ids = tuple(group.id for group in graph.prunable)
    cost, model = getattr(ProductCost, metric)(graph, ids), CostModel(graph)
    kept = plan.kept_of(graph)
    counts = np.array([len(kept[name]) for name in ids])
    exact = getattr(model, metric)(plan.counts(), plan.drop)
    whole = np.array([graph[name].size for name in ids])
    assert cost.of(counts) == exact
    assert cost.each(np.array([whole, counts])).tolist() == [getattr(model, metric)(), exact]
    assert getattr(model, metric)(dict(zip(ids, counts.tolist(), strict=True))) == exact


def test_only_tensors_that_are_left_are_sliced(
    net: nn.Module, graph: ChannelGraph, plan: ChannelPlan
) -> None:
    small = cut(net, graph, plan)
    changed = sliced_tensors(net, graph, plan)
    assert changed.keys() <= small.state_dict().keys()
    assert all(tensor.shape == small.state_dict()[name].shape for name, tensor in changed.items())


def test_of_branches_with_the_same_groups_the_inner_one_goes(graph: ChannelGraph) -> None:
    inner = graph.removable["layer1.1"]
    outer = replace(inner, id="layer1", modules=("layer1",))
    both = replace(graph, branches=(outer, *graph.branches))
    assert [b.id for b in both.dropped({"layer1.1.conv1": ()})] == ["layer1.1"]
