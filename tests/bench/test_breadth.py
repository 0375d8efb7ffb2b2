"""The survey of breadth says what is true of a network, and sees what it is there to see."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.append(str(Path(__file__).parent))
import breadth
import kept
import refit
import rows
import survey as survey_module
import timm_zoo
from guarded import Failure, run_each
from snapshot import differences, snapshot
from survey import HALF, UNEQUAL, Row, survey

# switching oneDNN off and on makes torch speak of Intel GPUs
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")


class _Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x).relu()).relu()
        return self.head(y.mean((2, 3)))


class _LayerNormed(_Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.layer_norm(self.first(x).permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)
        return self.head(self.second(y).relu().mean((2, 3)))


def _row(model: nn.Module, *, onnx: bool = False) -> Row:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return survey(Row("net", size=8), model.eval(), images, [HALF, UNEQUAL], onnx)


def test_a_row_counts_what_can_be_counted_by_hand() -> None:
    row = _row(_Chain(), onnx=True)
    assert (row.status, row.problems) == ("ok", {})
    assert (row.groups, row.prunable, row.units) == (3, 2, 8 + 6)
    assert row.frozen == [{"reason": "model output", "groups": 1, "units": 5, "channels": 5}]
    assert row.params == (3 * 8 * 9 + 8) + (8 * 6 * 9 + 6) + (6 * 5 + 5)
    assert row.macs == 36 * 3 * 8 * 9 + 16 * 8 * 6 * 9 + 6 * 5
    small = (3 * 4 * 9 + 4) + (4 * 3 * 9 + 3) + (3 * 5 + 5)
    assert row.cuts[HALF]["params"] == small
    assert row.removed == pytest.approx(1 - small / row.params, abs=1e-4)
    assert max(cut["relative"] for cut in row.cuts.values()) < 1e-12
    assert row.order is not None
    assert row.order < 1e-12
    assert row.onnx is not None
    assert row.onnx < 1e-5


def test_reconstruction_brings_the_output_nearer_and_the_row_says_by_how_much() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    row = survey(Row("net", size=8), _Chain().eval(), images, [HALF], reconstruct=True)
    assert row.status == "ok"
    assert row.reconstructed["after"] < row.reconstructed["cut"]
    assert row.reconstructed["layers"] > 0
    assert refit.problem({**row.reconstructed, "after": row.reconstructed["cut"]})
    assert refit.problem({**row.reconstructed, "worse": 1}) == "1 layers got worse"


def test_unequal_shares_differ_between_groups() -> None:
    row = _row(_Chain())
    assert row.cuts[UNEQUAL]["params"] != row.cuts[HALF]["params"]


def test_what_stays_is_named_with_its_reason() -> None:
    row = _row(_LayerNormed())
    assert row.prunable == 1
    assert rows.reasons(row).startswith("8 stay: layer_norm")


def test_computed_weights_are_folded_and_the_row_says_so() -> None:
    model = _Chain()
    nn.utils.parametrizations.weight_norm(next(m for m in model.modules() if type(m) is nn.Conv2d))
    row = _row(model)
    assert (row.status, row.folded) == ("ok", 1)
    assert rows.note(row) == "1 computed weights folded"
    assert rows.note(_row(_Chain())) == ""


def test_a_wrong_count_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "torch_macs", lambda model, x: 1)
    assert _row(_Chain()).status == "miscounted"


def test_a_changed_model_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: nn.Module, x: torch.Tensor) -> object:
        graph = trace(model, x)
        with torch.no_grad():
            model.first.bias.add_(1)
        return graph

    trace = survey_module.trace
    monkeypatch.setattr(survey_module, "trace", careless)
    row = _row(_Chain())
    assert row.status == "changed"
    assert "first._parameters" in row.problems["changed"]


def test_a_cut_that_does_not_fit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: nn.Module, x: torch.Tensor) -> object:
        graph = trace(model, x)
        first = graph["first"]  # its weights and bias lose rows, the next layer keeps its columns
        members = tuple(m for m in first.members if m.parameter != "second.weight")
        groups = tuple(replace(g, members=members) if g is first else g for g in graph.groups)
        return replace(graph, groups=groups).bind(model)

    trace = survey_module.trace
    monkeypatch.setattr(survey_module, "trace", careless)
    assert _row(_Chain()).problems.keys() >= {"wrong"}


def test_an_error_inside_trace_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: nn.Module, x: torch.Tensor) -> object:
        raise KeyError("label")

    monkeypatch.setattr(survey_module, "trace", broken)
    row = _row(_Chain())
    assert row.status == "failed"
    assert "KeyError" in row.problems["failed"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda net: net.head.weight.data.mul_(2), "head._parameters"),
        (lambda net: net.first.register_buffer("cache", torch.zeros(1)), "first._buffers"),
        (lambda net: net.second.train(), "second.training"),
        (lambda net: setattr(net, "width", 8), "model.width"),
        (lambda net: net.sizes.append(1), "model.sizes"),
        (lambda net: setattr(net, "head", nn.Linear(6, 5)), "head: identity"),
        (lambda net: torch.manual_seed(1), "random state"),
    ],
)
def test_a_snapshot_sees_a_change(change: object, place: str) -> None:
    torch.manual_seed(0)
    net = _Chain().eval()
    net.sizes = [8]
    before = snapshot(net)
    assert differences(before, snapshot(net)) == []
    change(net)
    assert place in differences(before, snapshot(net))


def _act(task: str) -> str:
    if task == "crash":
        os._exit(3)
    if task == "raise":
        raise ValueError("no such net")
    if task == "sleep":
        time.sleep(600)
    if task == "fill":
        torch.ones(3 * 2**30, dtype=torch.uint8)
    return task.upper()


def test_a_child_that_fails_is_a_result() -> None:
    results = dict(run_each(_act, ["a", "crash", "raise", "fill", "b"], workers=2, gib=2))
    assert (results["a"], results["b"]) == ("A", "B")
    assert results["crash"] == Failure("the process died with exit code 3")
    assert results["raise"].reason.startswith("ValueError: no such net")
    assert isinstance(results["fill"], Failure)


def test_a_child_that_takes_too_long_is_killed() -> None:
    assert list(run_each(_act, ["sleep"], seconds=0.1)) == [("sleep", Failure("killed after 0 s"))]


def test_rows_are_kept_and_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.json"
    row = Row("a", "timm", "resnet", 64, cuts={HALF: {"params_removed": 0.7}})
    rows.Table(path, {"torch": "2"}, resume=False).add(row)
    resumed = rows.Table(path, {}, resume=True)
    assert resumed.rows == {"a": row}
    assert rows.Table(path, {}, resume=False).rows == {}
    path.write_text(json.dumps({"kind": "plan", "schema_version": 1}))
    with pytest.raises(ValueError, match="no table"):
        rows.read(path)


def _removed(share: float, **problems: str) -> dict[str, Row]:
    return {"a": Row("a", cuts={HALF: {"params_removed": share}}, problems=problems)}


def test_comparison_says_what_got_worse() -> None:
    fine = _removed(0.7)
    assert rows.worse(fine, fine) == rows.better(fine, fine) == []
    (line,) = rows.worse(fine, _removed(0.6))
    assert "60.0 %" in line
    assert "70.0 %" in line
    (line,) = rows.worse(fine, _removed(0.7, wrong="differs by 1"))
    assert "ok became wrong" in line
    assert rows.better(_removed(0.6), fine) == ["a"]
    assert rows.worse(fine, {}) == rows.worse({}, fine) == rows.worse(fine, _removed(0.696)) == []
    wrong = _removed(0.7, wrong="differs by 1")
    assert rows.worse(wrong, wrong) == ["a: wrong became wrong: differs by 1"]
    assert rows.worse({}, wrong) == ["a: wrong: differs by 1"]


def test_the_table_that_stays_holds_what_a_comparison_needs(tmp_path: Path) -> None:
    path = tmp_path / "breadth.json"
    first = {**_removed(0.7), "b": Row("b", problems={"refused": "its forward loops"})}
    kept.write(path, first.values(), {"torch": "2"})
    assert rows.worse(rows.read(path), first) == rows.better(rows.read(path), first) == []
    assert [line.split()[0] for line in rows.worse(rows.read(path), _removed(0.6))] == ["a:"]
    second = Row("c", "timm", groups=5, prunable=3, cuts={HALF: {"params_removed": 0.5}})
    kept.write(path, [replace(first["a"], problems={"unbuilt": "no module"}), second], {})
    table = rows.read(path)
    assert list(table) == ["a", "b", "c"]
    assert (table["a"].removed, table["b"].status, table["c"].groups) == (0.7, "refused", 2)
    assert len(path.read_text().splitlines()) == len(table) + 4


def test_the_command_holds_its_rows_against_a_kept_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, found = str(tmp_path / "breadth.json"), {"removed": 0.7}
    monkeypatch.setattr(
        breadth,
        "work",
        lambda row, cuts, **_: replace(row, cuts={HALF: {"params_removed": found["removed"]}}),
    )
    call = ["--torchvision", "--only", "squeezenet1_1"]
    assert breadth.main([*call, "--keep", path]) == 0
    found["removed"] = 0.694
    assert breadth.main([*call, "--against", path, "--keep", path]) == 1
    assert "WORSE squeezenet1_1: one half removes 69.4 %" in capsys.readouterr().out
    assert breadth.main([*call, "--against", path]) == 0


def test_the_kept_table_of_this_project_is_read_and_nothing_in_it_is_wrong() -> None:
    table = rows.read(Path(__file__).parents[2] / "docs" / "results" / "breadth.json")
    assert len(table) > 200
    assert {row.status for row in table.values()} <= {"ok", "refused"}


def test_the_command_surveys_compares_and_exits_with_a_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old, page = tmp_path / "new.json", tmp_path / "old.json", tmp_path / "page.md"
    call = ["--torchvision", "--only", "squeezenet1_1", "--size", "48"]
    assert breadth.main([*call, "--json", str(new), "--markdown", str(page)]) == 0
    assert "1 of 1 hold" in capsys.readouterr().out
    assert "| squeezenet1_1 | 48 | ok |" in page.read_text(encoding="utf-8")
    document = json.loads(new.read_text(encoding="utf-8"))
    document["rows"][0]["cuts"][HALF]["params_removed"] = 0.99
    old.write_text(json.dumps(document), encoding="utf-8")
    assert breadth.main([*call, "--against", str(old)]) == 1
    assert "WORSE squeezenet1_1" in capsys.readouterr().out


def test_what_failed_runs_again_and_what_is_done_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    document = rows.Table(path, {}, resume=False)
    document.add(Row("squeezenet1_0", problems={"failed": "killed after 600 s"}))
    document.add(Row("squeezenet1_1"))
    monkeypatch.setattr(breadth, "work", lambda row, **_: replace(row, macs=1))
    call = ["--torchvision", "--families", "squeezenet", "--json", str(path), "--resume"]
    assert breadth.main(call) == 0
    assert {row.name: row.macs for row in rows.read(path).values()} == {
        "squeezenet1_0": 1,
        "squeezenet1_1": 0,
    }


def test_without_timm_its_networks_are_skipped_loudly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timm_zoo, "available", lambda: False)
    assert breadth.tasks(breadth.options_of(["--timm"])) == []
    assert "SKIPPED: timm is not installed" in capsys.readouterr().err


def test_the_list_of_timm_networks_is_broad_and_consistent() -> None:
    assert len(timm_zoo.NETWORKS) == len(set(timm_zoo.NETWORKS)) >= 260
    assert sum(map(len, timm_zoo.FAMILIES.values())) == len(timm_zoo.NETWORKS)
    assert {*timm_zoo.SIZES, *timm_zoo.OPTIONS} <= set(timm_zoo.NETWORKS)


class _Chaos(nn.Module):
    """The logistic map: each step doubles what the last bit of the input was."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.steps):
            x = 3.9 * x * (1 - x)
        return x


def test_rounding_that_a_network_magnifies_is_not_wrong_and_more_than_that_is() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert survey_module._is_rounding(1e-8, _Chaos(30), x)
    assert not survey_module._is_rounding(1e-8, _Chaos(2), x)
    assert not survey_module._is_rounding(0.02, _Chaos(30), x)
