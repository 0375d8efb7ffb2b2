"""`rlp inspect`: what it shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import fake_run
import pytest
import torch
from failures import assert_failure

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.run import store
from pipeline.run.artifacts import KINDS, TRIALS, document

pytestmark = pytest.mark.usefixtures("fakes")


def test_inspect_shows_files_of_a_run(rlp: fake_run.Rlp, whole: Path) -> None:
    files = [path for path in whole.rglob("*.json") if path.name != "model.json"]  # no real ones
    assert len(files) > 15
    for path in files:
        result = rlp("inspect", path, "--json")
        assert result.code == 0, path
        shown, content = result.json(), json.loads(path.read_bytes())
        assert (shown["kind"], shown["content"]) == (content["kind"], content)


def test_inspect_says_what_an_artefact_is_for(rlp: fake_run.Rlp, whole: Path) -> None:
    assert KINDS["parity"].meaning in rlp("inspect", whole / "export" / "parity.json").err


def test_inspect_counts_the_units_of_a_plan(rlp: fake_run.Rlp, here: Path) -> None:
    plan = ChannelPlan({"conv1": tuple(range(12))}, {"widths": {"conv1": [16, 12]}})
    document("plan").write(here / "plan.json", plan.to_dict())
    assert rlp("inspect", "plan.json").out.splitlines()[-1].split() == ["conv1", "12", "16", "0-11"]


def test_inspect_leaves_out_columns_without_a_value(rlp: fake_run.Rlp, here: Path) -> None:
    document("plan").write(here / "plan.json", ChannelPlan({"conv1": (0, 1, 5)}, {}).to_dict())
    said = rlp("inspect", "plan.json").out.splitlines()
    assert [line.split() for line in said[-2:]] == [
        ["group", "units", "kept", "which"],
        ["conv1", "3", "0-1,5"],
    ]


def test_inspect_shows_what_every_budget_costs(rlp: fake_run.Rlp, here: Path) -> None:
    point = {"budget": 0.5, "macs": 1000, "params": 70, "latency": None, "loss": 0.25}
    point |= {"accuracy": 0.875, "measured": False, "keep": {"a": 1}}
    original = {"accuracy": 0.9, "macs": 2000, "params": 90}
    body = {"metric": "macs", "original": original, "points": [point]}
    document("front").write(here / "front.json", body)
    said = rlp("inspect", "front.json").out.splitlines()
    assert said[0] == "original: 2,000 MACs, 90.00% on the search split"
    assert "latency" not in said[1]
    assert said[2].split() == ["50.00%", "1,000", "70", "0.2500", "87.50%", "predicted"]


def test_inspect_shows_widths_and_work_before_and_after_a_cut(
    rlp: fake_run.Rlp, here: Path
) -> None:
    layer = {"name": "conv1", "in_channels": 3, "out_channels": 8, "macs": 4000}
    gone = {**layer, "name": "conv2"}
    after = [{**layer, "out_channels": 5, "macs": 2500}]
    body = {"layers": {"before": [layer, gone], "after": after}, "proof": {"max_abs": 0.0}}
    body |= {"macs": {}, "params": {}}
    document("cut").write(here / "prune.json", body)
    rows = [line.split() for line in rlp("inspect", "prune.json").out.splitlines()]
    assert ["conv1", "3", "→", "8", "3", "→", "5", "4,000", "2,500"] in rows
    assert ["conv2", "3", "→", "8", "gone", "4,000", "0"] in rows
    assert ["proof.max_abs", "0.0"] in rows


def test_inspect_shows_trials_below_their_header(rlp: fake_run.Rlp, here: Path) -> None:
    header, row = TRIALS.stamp({"seed": 7, "groups": ["a"]}), {"trial": 3, "score": -0.25}
    (here / "trials.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(row)}\n")
    said = rlp("inspect", "trials.jsonl").out.splitlines()
    assert [line.split() for line in said] == [["seed:", "7"], ["trial", "score"], ["3", "-0.25"]]


def test_inspect_lists_tensors_in_the_order_of_the_network(rlp: fake_run.Rlp, here: Path) -> None:
    names = ("layer.10.weight", "layer.2.weight", "conv.weight", "layer.2.bias")
    (here / "prune").mkdir()
    file = here / "prune" / "model.safetensors"
    store.write_tensors(file, {name: torch.zeros(2) for name in names})

    def listed() -> list[str]:
        return [row["name"] for row in rlp("inspect", file, "--json").json()["content"]]

    assert listed() == ["conv.weight", "layer.2.bias", "layer.2.weight", "layer.10.weight"]
    (here / "trace").mkdir()
    parameters = {"layer.2.weight": (2,), "layer.2.bias": (2,), "layer.10.weight": (2,)}
    graph = ChannelGraph((), {**parameters, "conv.weight": (2,)})
    (here / "trace" / "graph.json").write_text(json.dumps(graph.to_dict()))  # its keys in order
    assert listed() == ["layer.2.bias", "layer.2.weight", "layer.10.weight", "conv.weight"]
    for damaged in ("not JSON", '{"parameters": 5}', '{"parameters": [5]}'):
        (here / "trace" / "graph.json").write_text(damaged)
        assert listed()[0] == "conv.weight"


def test_inspect_takes_a_run_a_stage_and_a_page(rlp: fake_run.Rlp, whole: Path) -> None:
    run = rlp("inspect", whole, "--json").json()
    assert (run["kind"], run["content"]["stages"][0]["stage"]) == ("folder", "pretrain")
    assert rlp("inspect", whole / "export", "--json").json()["kind"] == "manifest"
    assert rlp("inspect", whole / "report" / "report.html", "--json").json()["kind"] == "summary"


def test_inspect_names_layers_that_are_never_reached(rlp: fake_run.Rlp, here: Path) -> None:
    shapes = {f"{name}.weight": (2, 3) for name in "abcde"}
    graph = ChannelGraph((), shapes, unused=tuple(shapes))
    document("graph").write(here / "graph.json", graph.to_dict())
    assert "never reached: a, b, c and 2 more, 30 numbers" in rlp("inspect", "graph.json").out


def test_inspect_names_the_branches_that_go(rlp: fake_run.Rlp, here: Path) -> None:
    document("plan").write(here / "plan.json", ChannelPlan({}, {}, ("layer1.0", "x")).to_dict())
    assert rlp("inspect", "plan.json").out.splitlines()[-1] == "branches that go: layer1.0, x"


def test_inspect_shows_every_scheme_that_was_tried(rlp: fake_run.Rlp, here: Path) -> None:
    scheme = {
        "name": "U8S8",
        "per_channel": True,
        "reduce_range": False,
        "operators": "all",
        "calibrator": "entropy",
    }
    tried = {"scheme": scheme, "float_nodes": 3, "accuracy": 0.75, "images": 40, "ratio": 1.5}
    side = {"tried": [{**tried, "ci95": None}], "float_nodes": ["conv1", "conv2"]}
    body = {"mode": "auto", "chosen": "fp32", "reason": "because", "base": side, **side}
    body["curve"] = [{"float_nodes": 7, "accuracy": 0.8, "ratio": 1.25, "ci95": [1.2, 1.3]}]
    document("quantization").write(here / "quantize.json", body)
    said = rlp("inspect", "quantize.json").out
    assert "delivered: fp32; because" in said
    assert said.count("U8S8, per channel, entropy") == 2
    assert "conv1, conv2" in said
    assert said.splitlines()[-1].split() == ["7", "80.00%", "1.25×", "1.20", "to", "1.30"]


def test_inspect_shows_the_variants_of_a_benchmark(rlp: fake_run.Rlp, here: Path) -> None:
    setting = {
        "batch": 32,
        "threads": 2,
        "ratio": 1.5,
        "ci95": [1.4, 1.6],
        "verdict": "faster",
        "b": {"latency_ms": {"p50": 2.0}},
    }
    base = {"accuracy": 0.9, "bytes": 2000}
    row = {"name": "final_int8", "chosen": True, **base, "settings": [setting]}
    rows = [{"name": "base", "chosen": False, **base, "settings": []}, row]
    body = {"base": {}, "variants": rows, "remarks": ["a remark"], "final": {}, "data": {}}
    body |= {"settings": [], "machine": {}, "why_int8": {"causes": ["a cause"]}}
    document("benchmark").write(here / "benchmark.json", body)
    said = rlp("inspect", "benchmark.json").out
    assert "against the original in fp32 (90.00%, 2.0 kB)" in said
    assert "final_int8 (delivered)" in said
    assert "1.40 to 1.60" in said
    assert "a remark" in said
    assert "why_int8: a cause" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", b'{"kind": "plan"}'),
        ("plan.json", b'{"kind": "plan", "schema_version": 1, "keep": {"a": 1}, "metadata": {}}'),
        ("plan.json", b'{"kind": "plan", "schema_version": 3, "keep": {}, "metadata": {}}'),
        ("graph.json", b'{"groups": 5, "layers": 3}'),
        ("graph.json", b'{"kind": "graph", "schema_version": 1, "groups": 5}'),
        ("package.json", b'{"kind": "bundle", "schema_version": 1}'),
        ("manifest.json", b'{"kind": "manifest"}'),
        ("a.json", b'{"x": NaN}'),
        ("a.json", b'{"x": 1, "x": 2}'),
        ("a.json", b"\xff\xfe"),
        ("a.json", b""),
        ("trials.jsonl", b'{"a": 1}\n{"a": \n'),
        ("trials.jsonl", b"[1]\n"),
        ("trials.jsonl", b'{"a": Infinity}\n'),
        ("m.safetensors", b"\x80\x04pickle"),
        ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        ("m.onnx", b"\x89PNG\r\n"),
        ("m.onnx", b""),
    ],
)
def test_inspect_refuses_what_is_not_what_its_name_says(
    rlp: fake_run.Rlp, here: Path, name: str, content: bytes
) -> None:
    (here / name).write_bytes(content)
    result = rlp("inspect", here / name, "--json")
    assert_failure(result, 3)
    assert name in result.lines("error")[0]


def test_inspect_shows_the_fp16_of_both_networks(rlp: fake_run.Rlp, here: Path) -> None:
    half = {
        "reason": "fp16 is 1.50× as fast",
        "accuracy": {"fp16": 0.84},
        "parity": {"top1_agreement": 0.999, "output_error": 0.0012},
        "float_nodes": ["Max_1"],
    }
    absent = {"reason": "fp16 does not run", "accuracy": None, "parity": None, "float_nodes": []}
    body = {"mode": "off", "chosen": "fp16", "reason": "because", "tried": [], "fp16": half}
    body["base"] = {"tried": [], "fp16": absent}
    document("quantization").write(here / "quantize.json", body)
    assert rlp("inspect", "quantize.json").out.splitlines() == [
        "delivered: fp16; because",
        "final in fp16: fp16 is 1.50× as fast",
        "  accuracy 84.00%, 99.90% of the classes as fp32, outputs off by 0.0012",
        "final in fp16, nodes that stayed float32: Max_1",
        "original in fp16: fp16 does not run",
    ]
