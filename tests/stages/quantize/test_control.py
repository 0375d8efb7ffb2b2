"""Which nodes stay float: units, a network with one layer that INT8 spoils, a slow beginning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from quantize_nets import labelled, quadrants

from stages.quantize import Scheme, Workbench, control, engine, quantize_onnx, workbench
from stages.quantize.candidate import Candidate
from stages.quantize.report import Timing, Tried


class Clock:
    """A graph is the faster the fewer of its nodes read dequantised values, if `inverted`."""

    inverted = False
    half = 0.05  # of an interval

    def __init__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    @classmethod
    def look(cls, model: bytes) -> Timing:
        nodes = onnx.ModelProto.FromString(model).graph.node
        share = sum(node.op_type == "DequantizeLinear" for node in nodes) / 100
        return Timing(1.2 - share if cls.inverted else 1.2 + share)

    @classmethod
    def time_pair(cls, before: Path | bytes, model: bytes, *_: object) -> Timing:
        start = cls.look(before).ratio if isinstance(before, bytes) else 1.0
        return cls.interval(cls.look(model).ratio / start)

    @classmethod
    def interval(cls, ratio: float) -> Timing:
        return Timing(ratio, (ratio - cls.half, ratio + cls.half), "faster", (ratio, 1.0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(workbench, "Looker", Clock)
    monkeypatch.setattr(workbench, "time_pair", Clock.time_pair)
    monkeypatch.setattr(engine, "check_file", lambda path, label: None)
    return Clock


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """Channels multiplied by 1 to 10,000 and back: one scale for all of them loses the small."""
    factors = np.geomspace(1, 1e4, 8, dtype=np.float32).reshape(1, 8, 1, 1)
    middle = [
        helper.make_node("Mul", ["features", "up"], ["large"], "up"),
        helper.make_node("Mul", ["large", "down"], ["altered"], "down"),
    ]
    constants = {"up": factors, "down": 1 / factors}
    return quadrants(tmp_path / "net.onnx", middle, constants=constants)


def test_a_unit_is_a_layer_with_what_follows_it(tmp_path: Path):
    with Workbench(quadrants(tmp_path / "net.onnx")) as bench:
        kinds = [
            [name.partition("_")[0] for name in unit] for unit in control.units_of(bench.proto)
        ]
    assert kinds == [["Conv", "Relu"], ["Conv", "Relu", "Sub", "Add", "Flatten"], ["Gemm"]]


def test_the_layer_that_int8_spoils_goes_back_to_float(spoiled: Path, clock: type[Clock]):
    out = spoiled.with_name("out.onnx")
    report = quantize_onnx(
        spoiled, out, labelled(64, 1), labelled(), images=64, search_images=96
    )  # fmt: skip
    document = report.to_dict()
    plain = [row for row in document["tried"] if row["images"] and not row["float_nodes"]]
    assert min(row["output_error"] for row in plain) > 0.3
    assert report.chosen == "int8"
    assert {"up", "down"} <= set(report.float_nodes)
    assert any(name.startswith("Gemm") for name in operators_in_int8(out))
    assert [row["float_nodes"] for row in document["curve"]][-1] == 4  # the layer and its ReLU too
    assert document["curve"][-1]["accuracy"] == 1


def operators_in_int8(path: Path) -> list[str]:
    nodes = onnx.load(path).graph.node
    made = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    return [node.op_type for node in nodes if made.intersection(node.input)]


@pytest.mark.parametrize(
    ("inverted", "half", "kept"), [(True, 0.0, True), (True, 0.5, False), (False, 0.0, False)]
)
def test_a_beginning_stays_float_where_that_is_shown_to_be_faster(
    tmp_path: Path,
    clock: type[Clock],
    monkeypatch: pytest.MonkeyPatch,
    inverted: bool,
    half: float,
    kept: bool,
):
    monkeypatch.setattr(clock, "inverted", inverted)
    monkeypatch.setattr(clock, "half", half)
    with Workbench(quadrants(tmp_path / "net.onnx")) as bench:
        scheme = Scheme("uint8", "int8")
        graph = bench.sketch(scheme)
        assert graph is not None
        whole = Candidate(Tried(scheme, Clock.look(graph.model)), graph)
        found = control.faster_in_part(bench, whole)
        stem = control.units_of(bench.proto)[0]
    assert (found is not None) == kept
    assert found is None or found.tried.exclude[: len(stem)] == stem
