"""`search.precision`: when it is INT8, what is timed then, and what budgets mean."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import onnx
import pytest
from search_nets import even_counts, problem, trained
from search_stages import MadeUpTimer, context

import stages.search.latency.calibration as calibration
import stages.search.latency.quantized as quantized
import stages.search.settled as module
from pipeline.config.schema import Config
from pipeline.config.search import SearchConfig
from pipeline.errors import ArtifactError, Refused, UsageError
from stages import declared
from stages.benchmark import LatencyWorker, RelativeLatency
from stages.quantize.schemes import SCHEMES
from stages.search.latency import (
    CandidateTimer,
    Int8Speed,
    Int8Timing,
    SettledPrecision,
    StartLatency,
    StartTimer,
    TimingSetting,
    settle_precision,
)
from stages.search.results.finished_runs import FinishedRuns

HALF = Int8Speed(SCHEMES[0], 0.5, 2e-3)
CONVOLUTIONS = SCHEMES[3]


def settings(precision: str = "auto", **budget: float) -> SearchConfig:
    return SearchConfig(precision=precision, budget=budget or {"latency": 0.3}, align=8)


def settled(given: SearchConfig, speed: Int8Speed | Exception = HALF, **more: Any) -> Any:
    def measure() -> Int8Speed:
        if isinstance(speed, Exception):
            raise speed
        return speed

    return settle_precision(given, more.pop("mode", "auto"), measure, **more)


def test_auto_is_int8_where_that_is_faster() -> None:
    said: list[str] = []
    found = settled(settings(), note=said.append)
    assert (found.name, found.scheme) == ("int8", SCHEMES[0])
    assert said == ["candidates are timed in int8: INT8 alone is 2.00× as fast as fp32 here (U8S8)"]
    assert settled(settings(accuracy_drop=0.5)).name == "int8"


@pytest.mark.parametrize(
    ("given", "speed", "mode", "reason"),
    [
        (settings(), replace(HALF, fraction=0.98), "auto", "1.02× as fast"),
        (settings(), HALF, "off", "quantize.mode is off"),
        (settings(), ArtifactError("no kernel"), "auto", "no kernel"),
        (settings(latency=0.6), HALF, "auto", "keeps search.budget.latency=0.6 without any cut"),
        (settings(latency_ms=1.2), HALF, "auto", "keeps search.budget.latency_ms=1.2"),
    ],
)
def test_auto_is_fp32_elsewhere_with_the_reason(
    given: SearchConfig, speed: Int8Speed | Exception, mode: str, reason: str
) -> None:
    found = settled(given, speed, mode=mode)
    assert found.name == "fp32"
    assert reason in found.document["reason"]


def test_nothing_is_measured_where_it_makes_no_difference() -> None:
    never = AssertionError("measured")
    assert settled(settings(macs=0.5), never) == SettledPrecision()
    assert settled(settings("int8", macs=0.5), never) == SettledPrecision()
    assert settled(settings("fp32"), never) == SettledPrecision()
    of_align = SearchConfig(precision="int8", budget={"macs": 0.5}, align="auto")
    assert settled(of_align).name == "int8"


def test_int8_that_cannot_be_made_is_refused_where_it_was_asked_for() -> None:
    with pytest.raises(Refused, match="no kernel") as caught:
        settled(settings("int8"), ArtifactError("no kernel"))
    assert "search.precision=fp32" in caught.value.hint
    assert settled(settings("int8"), replace(HALF, fraction=1.2)).name == "int8"
    with pytest.raises(ValueError, match=r"quantize\.mode: off"):
        Config(search={"precision": "int8"}, quantize={"mode": "off"})


def test_a_search_that_goes_on_keeps_its_precision() -> None:
    never = AssertionError("measured again")
    for speed in (replace(HALF, scheme=CONVOLUTIONS), replace(HALF, fraction=2.0)):
        begun = settled(settings(), speed)
        kept = json.loads(json.dumps(begun.document))
        assert settled(settings(), never, begun=kept) == begun
    for damaged in ({}, [], {"used": "int8"}, {"used": "int8", "scheme": {"activation": "x"}}):
        assert settled(settings(), begun=damaged).name == "int8"


@pytest.fixture(scope="module")
def watch() -> Any:
    model, graph, splits = trained()
    example, _ = splits.search.take(2, seed=0)
    with CandidateTimer(
        model, graph, problem().ranking, example, TimingSetting(), seconds=0.01, scheme=SCHEMES[0]
    ) as timer:
        yield timer


def weights(data: bytes) -> dict[str, tuple[int, tuple[int, ...]]]:
    tensors = onnx.ModelProto.FromString(data).graph.initializer
    return {t.name: (t.data_type, tuple(t.dims)) for t in tensors if len(t.dims) == 4}


def test_what_is_timed_are_slices_of_the_quantised_network(watch: CandidateTimer) -> None:
    ready = problem()
    keep = ready.ranking.keep(even_counts(ready))
    sliced, whole = weights(watch.sliced(keep)), weights(watch.sliced({}))
    assert watch.unsliced == ""
    assert {kind for kind, _ in sliced.values()} == {onnx.TensorProto.INT8}
    assert sliced.keys() == whole.keys()
    operators = Counter(n.op_type for n in onnx.ModelProto.FromString(watch.sliced({})).graph.node)
    assert (operators["GlobalAveragePool"], operators["ReduceMean"]) == (1, 0), "as delivered"
    assert sliced != whole
    assert watch.measure(even_counts(ready)).fraction > 0


def test_what_cannot_be_followed_is_quantised_each_time(
    watch: CandidateTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object) -> None:
        raise Refused("node_7 is no node of the float graph")

    ready, original = problem(), quantized.OnnxSlicer
    keep = ready.ranking.keep(even_counts(ready))
    expected = watch.sliced(keep)
    monkeypatch.setattr(
        quantized, "OnnxSlicer", lambda *given: original(*given) if len(given) < 3 else refuse()
    )
    with CandidateTimer(
        watch.model, watch.graph, watch.ranking, watch.example, watch.setting, scheme=SCHEMES[0]
    ) as other:
        found = other.sliced(keep)
        assert other.unsliced == "node_7 is no node of the float graph"
    assert weights(found) == weights(expected)
    operators = [Counter(n.op_type for n in onnx.ModelProto.FromString(one).graph.node)
                 for one in (found, expected)]  # fmt: skip
    assert operators[0] == operators[1]


def test_the_fastest_scheme_is_found_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "SCHEMES", SCHEMES[2:])
    monkeypatch.setattr(quantized, "LONGER", 0.02)
    monkeypatch.setattr(quantized, "LOOK", 0.02)
    model, _, splits = trained()
    example, _ = splits.search.take(2, seed=0)
    found = Int8Timing(model, example, TimingSetting())()
    assert found.scheme in SCHEMES[2:]
    assert found.fraction > 0
    assert found.seconds > 0


def test_a_search_times_the_scheme_that_stage_quantize_would_try_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Clock:
        """The second scheme looks a little faster, less than such a look can tell."""

        def relative(self, graph: bytes, min_time: float) -> RelativeLatency:
            fraction = {SCHEMES[0]: 0.52, SCHEMES[1]: 0.50}.get(schemes[graph], 0.9)
            return cast(RelativeLatency, SimpleNamespace(fraction=fraction))

    schemes = {str(number).encode(): scheme for number, scheme in enumerate(SCHEMES)}
    made = {scheme: graph for graph, scheme in schemes.items()}
    monkeypatch.setattr(quantized, "prepared", lambda proto: proto)
    monkeypatch.setattr(quantized, "quantized_by", lambda child, proto, scheme: made[scheme])
    chosen, found = quantized.fastest_scheme(onnx.ModelProto(), cast(LatencyWorker, Clock()))
    assert chosen == SCHEMES[0]
    assert found.fraction == 0.52


def quantised_search(
    stage: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch, **search: Any
) -> dict[str, Any]:
    """A search in which INT8 takes half of what fp32 does."""
    monkeypatch.setattr(calibration, "CandidateTimer", MadeUpTimer)
    monkeypatch.setattr(module, "Int8Timing", lambda *given: lambda: HALF)
    half = StartLatency(0.5, 2e-3)
    monkeypatch.setattr(calibration, "time_start", lambda original, start: half)
    ctx = context(root, **search)
    stage.run(ctx)
    found: dict[str, Any] = json.loads((ctx.out / "search.json").read_text())
    found["journal"] = json.loads((ctx.out / "trials.jsonl").open().readline())
    found["front"] = json.loads((ctx.out / "front.json").read_text())
    found["plan"] = json.loads((ctx.out / "plan.json").read_text())
    return found


def test_a_budget_is_a_share_of_the_original_in_fp32(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = quantised_search(
        stage, tmp_path, monkeypatch, precision="auto", budget={"latency": 0.3}
    )
    timing = found["latency"]
    assert timing["precision"] == found["front"]["precision"] == "int8"
    assert found["plan"]["metadata"]["precision"] == "int8"
    assert timing["round_starts_at"] == 0.5
    assert 0.25 < timing["measured"] <= 0.3, "0.6 of what it takes in INT8"
    assert timing["base_ms"] == pytest.approx(2.0)
    assert found["precision"]["used"] == "int8"
    assert found["journal"]["settings"]["precision"] == "int8 U8S8 all"
    (whole,) = [point for point in found["front"]["points"] if not point["loss"]]
    assert whole["budget"] == pytest.approx(0.5, rel=0.02), "INT8 alone"


def test_a_budget_that_int8_alone_keeps_asks_for_nothing(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"the original takes 1 ms in INT8, 0\.50 of") as caught:
        quantised_search(stage, tmp_path, monkeypatch, precision="int8", budget={"latency": 0.6})
    assert "search.budget.latency=0.25" in caught.value.hint


def test_unreachable_budgets_are_told_against_fp32(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"latency=0\.05 cannot be met.* reachable is 0\.(1|2)"):
        quantised_search(stage, tmp_path, monkeypatch, precision="int8", budget={"latency": 0.05})


def test_a_plan_is_stale_when_its_precision_may_be_another() -> None:
    def depends(precision: str, mode: str = "auto") -> object:
        search = {"precision": precision, "budget": {"latency": 0.3}}
        return declared("search").depends(Config(search=search, quantize={"mode": mode}))

    assert depends("fp32") != depends("int8") != depends("auto")
    assert depends("auto") != depends("auto", "off")
    assert depends("auto") == depends("auto", "int8")
    assert depends("fp32") == depends("fp32", "off"), "INT8 files say nothing of an fp32 search"


def test_what_int8_alone_takes_is_timed_once_in_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, timed = StartLatency(0.5, 2e-3), []
    monkeypatch.setattr(calibration, "time_start", lambda *two: timed.append(two) or half)
    model, graph, splits = trained()
    example, _ = splits.search.take(2, seed=0)
    timer = MadeUpTimer(model, graph, problem().ranking, example, TimingSetting())
    for _ in range(2):
        finished = FinishedRuns(tmp_path, {"precision": "int8"})
        start = StartTimer(model, graph, finished.start, finished.keep_start)
        assert start(timer) == half
    assert len(timed) == 1
    assert timed[0][0].scheme is None, "against fp32"
    assert FinishedRuns(tmp_path, {"precision": "fp32"}).start is None
