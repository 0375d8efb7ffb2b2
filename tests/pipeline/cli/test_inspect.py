"""`rlp inspect`: what it shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import fake_run
import pytest
from failures import assert_failure

from pipeline.channels.graph import ChannelGraph
from pipeline.channels.plan import ChannelPlan
from pipeline.run.artifacts import KINDS, document

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
    assert rlp("inspect", "plan.json").out.splitlines()[-1].split() == ["conv1", "12", "16"]


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
    assert said.splitlines()[-1].split() == ["7", "80.00%", "1.25×", "1.20", "…", "1.30"]


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
    assert "1.40 … 1.60" in said
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
