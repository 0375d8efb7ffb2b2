"""Two counters of MACs, one of channel graphs and one of ONNX files, agree."""

from __future__ import annotations

from pathlib import Path

import torch
from export_nets import small, small_graph

from pipeline.channels.costs import CostModel
from pipeline.channels.plan import ChannelPlan
from pipeline.runtime import Worker
from stages.export import export_proto, slice_onnx


def test_an_exported_file_costs_what_its_graph_says(tmp_path: Path) -> None:
    proto, graph, path = export_proto(small(), torch.zeros(2, 3, 8, 8)), small_graph(), tmp_path
    plans = [ChannelPlan({}), ChannelPlan.uniform(graph, 0.4)]
    with Worker() as worker:
        for number, plan in enumerate(plans):
            file = path / f"{number}.onnx"
            file.write_bytes(slice_onnx(proto, graph, plan).SerializeToString())
            found = worker.scan(file, (3, 8, 8))
            assert found["macs"] == CostModel(graph).macs(plan.counts())
