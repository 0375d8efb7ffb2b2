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
