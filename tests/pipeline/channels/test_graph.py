"""The graph: one table of slices, copies that keep their model, and files that lie."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from channel_nets import Small, small_graph, small_net

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.group import ChannelGroup, Member
from pipeline.errors import ArtifactError

FLATTENED = ChannelGraph(
    groups=(
        ChannelGroup(
            "conv",
            4,
            (
                Member("conv.weight", 0, (0, 1, 2, 3)),
                Member("fc.weight", 1, (0, 1, 2, 3, 4, 5, 6, 7)),
            ),
        ),
        ChannelGroup("fc", 2, (Member("fc.weight", 0, (0, 1)),), False, "model <output>"),
    ),
    parameters={"conv.weight": (4, 3, 1, 1), "fc.weight": (2, 8)},
)
"""The example at the head of pipeline/channels/group.py."""


def test_a_unit_owns_rows_and_columns() -> None:
    table = FLATTENED.slices["conv"][1]
    assert (table.group, table.parameter, table.dim, table.per_unit) == ("conv", "fc.weight", 1, 2)
    assert table.indices.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert FLATTENED["conv"].slices(2) == [("conv.weight", 0, (2,)), ("fc.weight", 1, (4, 5))]
    assert FLATTENED.slices_along["fc.weight", 1] == [table]


def test_removed_slices() -> None:
    removed = FLATTENED.removed_slices({"conv": (0, 3), "fc": (0, 1)})
    assert {place: indices.tolist() for place, indices in removed.items()} == {
        ("conv.weight", 0): [1, 2],
        ("fc.weight", 1): [2, 3, 4, 5],
    }


@pytest.mark.parametrize(
    "changed",
    [
        lambda graph: graph.with_frozen({"a": "asked for"}),
        lambda graph: replace(graph, unused=("head.bias",)),
        copy.copy,
    ],
)
def test_a_changed_copy_keeps_the_model(
    net: Small, graph: ChannelGraph, changed: Callable[[ChannelGraph], ChannelGraph]
) -> None:
    assert changed(graph).source is net


def test_a_graph_does_not_keep_its_model_alive() -> None:
    net = small_net()
    graph = small_graph(net)
    assert graph.source is net
    del net
    gc.collect()
    assert graph.source is None


def test_what_is_sent_to_another_process_is_plain_data(graph: ChannelGraph) -> None:
    sent = pickle.dumps(graph)
    assert graph.slices["a"]
    assert pickle.dumps(graph) == sent  # tables are made anew there
    assert pickle.loads(sent) == graph
    assert pickle.loads(sent).source is None


def test_frozen_groups_say_why(graph: ChannelGraph) -> None:
    frozen = graph.with_frozen({"a": "asked for"})
    assert [group.id for group in frozen.prunable] == ["b"]
    assert frozen.frozen["a"] == "asked for"
    assert [group.id for group in graph.prunable] == ["a", "b"]


def test_described_in_one_line_and_in_a_table() -> None:
    assert repr(FLATTENED) == "<ChannelGraph: 2 groups, 1 prunable (4 of 6 units), 0 layers>"
    assert repr(FLATTENED["fc"]) == "<ChannelGroup fc: 2 units, 1 member, stays: model <output>>"
    assert FLATTENED.details().splitlines() == [
        repr(FLATTENED),
        "group  units  channels  slices of                     stays because",
        "conv   4      4         conv.weight[0], fc.weight[1]",
        "fc     2      2         fc.weight[0]                  model <output>",
    ]
    assert FLATTENED.details("conv").splitlines()[2:] == [
        "conv.weight  0    1              0-3",
        "fc.weight    1    2              0-7",
    ]


def test_a_notebook_shows_escaped_text() -> None:
    assert "<td>model &lt;output&gt;</td>" in FLATTENED._repr_html_()


def test_json_round_trip_is_byte_identical(graph: ChannelGraph) -> None:
    assert ChannelGraph.from_json(graph.to_json()) == graph
    assert ChannelGraph.from_json(graph.to_json()).to_json() == graph.to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema_version": 1}',
        '{"schema_version": 1, "groups": 3}',
    ],
)
def test_what_is_no_graph_is_refused(text: str) -> None:
    with pytest.raises(ArtifactError):
        ChannelGraph.from_json(text)


@pytest.mark.parametrize(
    ("members", "size", "message"),
    [
        ([["conv.weight", 0, "0-16777215"]], 4, "more than 4 indices"),
        ([["huge", 0, "0-16777216"]], 4, "more than 16777216 indices"),
        ([["huge", 0, "0-9000000"], ["huge", 0, "0-9000000"]], 9000001, "more than 7777215"),
        ([["conv.weight", 0, "1-4"]], 4, "has no slice 4"),
        ([["conv.weight", 9, "0-3"]], 4, "out of range"),
        ([["elsewhere", 0, "0-3"]], 4, "elsewhere"),
        ([["conv.weight", 0, "0-3"]], 0, "do not divide"),
        ([["conv.weight", 0, "0-3"]], 3, "do not divide"),
        ([["conv.weight", 0, ""]], 4, "do not divide"),
        ([], 1 << 60, "do not divide"),
    ],
)
def test_groups_that_cannot_be_are_refused(members: list[Any], size: int, message: str) -> None:
    document = json.loads(FLATTENED.to_json())
    document["groups"][0] |= {"members": members, "size": size}
    document["parameters"]["huge"] = [1 << 40]
    with pytest.raises(ArtifactError, match=message):
        ChannelGraph.from_json(json.dumps(document))


def test_tables_are_integers() -> None:
    assert all(t.indices.dtype == np.int64 for tables in FLATTENED.slices.values() for t in tables)
