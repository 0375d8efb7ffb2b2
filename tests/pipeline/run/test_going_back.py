"""A drop of accuracy that recovery misses, or is far from, takes the run back to its search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_run
import pytest

from pipeline.config.load import build_config
from pipeline.errors import Interrupted
from pipeline.run import store
from pipeline.run.artifacts import RUN
from pipeline.run.going_back import Try, next_allowance
from pipeline.run.planner import Planner
from pipeline.run.rounds import chain
from pipeline.run.stage import StageContext

pytestmark = pytest.mark.usefixtures("fakes")
ASKED = "search.budget={accuracy_drop: 0.5}"
BEHIND = list(fake_run.READS)[2:]


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[float], float]], list[float]]:
    """Lets distillation lose so many points after so many were allowed; says what was allowed."""

    def set_up(lost: Callable[[float], float]) -> list[float]:
        searched: list[float] = []
        search, distill = (
            fake_run.STAGES[list(fake_run.READS).index(n)] for n in ("search", "distill")
        )
        plain = type(search).run

        def searching(self: Any, ctx: StageContext) -> dict[str, Any]:
            allowed = ctx.config.search.budget.before_recovery or 1.0
            searched.append(allowed)
            done = plain(self, ctx)
            ctx.write("plan", {"keep": {"g": f"0-{1000 * allowed:.0f}"}, "metadata": {}})
            return {**done, "allowed_drop": allowed}

        def distilling(self: Any, ctx: StageContext) -> dict[str, Any]:
            done = plain(self, ctx)
            return {**done, "teacher": 0.9, "search_accuracy": 0.9 - lost(searched[-1]) / 100}

        monkeypatch.setattr(type(search), "run", searching)
        monkeypatch.setattr(type(distill), "run", distilling)
        return searched

    return set_up


def test_a_missed_drop_is_searched_again_with_less_allowed(losing: Any, tmp_path: Path) -> None:
    searched = losing(lambda allowed: 0.8 * allowed)
    watcher = fake_run.execute(tmp_path, [ASKED])
    assert searched == [1.0, 0.625]
    assert "0.80 points lost" in watcher.notes[0]
    assert watcher.ran().count("export") == 1, "before recovery is through it would be for nothing"
    assert watcher.ran()[-len(BEHIND) :] == BEHIND
    assert fake_run.execute(tmp_path, [ASKED]).ran() == []
    config = build_config({}, [ASKED])
    planned = Planner(chain(fake_run.STAGES), config, tmp_path).plan()
    assert {step.action for step in planned} == {"reuse"}
    assert RUN.read(tmp_path / RUN.file)["config"]["search"]["budget"]["before_recovery"] is None


def test_killed_on_its_way_back_it_goes_on_there(losing: Any, tmp_path: Path) -> None:
    searched = losing(lambda allowed: 0.8 * allowed)
    calls = 0

    def stop_signal(self: StageContext) -> bool:
        nonlocal calls
        calls += 1
        return len(searched) == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageContext, "stopping", stop_signal)
        with pytest.raises(Interrupted):
            fake_run.execute(tmp_path, [ASKED])
    assert searched == [1.0, 0.625]
    fake_run.execute(tmp_path, [ASKED])
    assert searched == [1.0, 0.625, 0.625]


def test_other_settings_begin_anew(losing: Any, tmp_path: Path) -> None:
    searched = losing(lambda allowed: 0.8 * allowed)
    fake_run.execute(tmp_path, [ASKED])
    fake_run.execute(tmp_path, [ASKED, "search.trials=7"])
    assert searched == [1.0, 0.625, 1.0, 0.625]
    fake_run.execute(tmp_path, [ASKED, "search.trials=7", "benchmark.launches=7"])
    assert len(searched) == 4, "what comes after recovery does not matter"


def test_what_is_given_is_left_alone_and_a_part_of_the_chain_does_not_go_back(
    losing: Any, tmp_path: Path
) -> None:
    searched = losing(lambda allowed: 0.8 * allowed)
    given = "search.budget={accuracy_drop: 0.5, before_recovery: 2}"
    fake_run.execute(tmp_path / "given", [given])
    fake_run.execute(tmp_path / "part", [ASKED], first="pretrain", last="prune")
    assert searched == [2.0, 1.0]
    fake_run.execute(tmp_path / "part", [ASKED], first="prune", last="distill")
    assert searched == [2.0, 1.0]


@pytest.mark.parametrize(
    ("tries", "found"),
    [
        ([(1, 0.4)], None),
        ([(1, 0.8)], 0.625),
        ([(1, 5)], 0.25),
        ([(1, 0.2)], 2),
        ([(1, -0.1)], 2),
        ([(1, 0.8), (0.625, 0.6)], 0.521),
        ([(1, 0.8), (0.625, 0.1)], None),
        ([(1, 0.2), (2, 0.7)], 1),
        ([(1, 0.2), (2, 0.7), (1, 0.2)], None),
        ([(1, 0.8), (0.625, 0.6), (0.521, 0.55)], None),
        ([(1, 0.8), (0.625, 0.55), (0.568, 0.6)], 0.625),
        ([(1, 0.2), (2, 0.4)], None),
        ([(1, 0.1), (2, 0.2), (4, 0.3)], None),
    ],
)
def test_what_is_allowed_next(tries: list[tuple[float, float]], found: float | None) -> None:
    assert next_allowance(0.5, [Try(*one) for one in tries]) == found


def test_a_damaged_memory_is_begun_anew(losing: Any, tmp_path: Path) -> None:
    searched = losing(lambda allowed: 0.8 * allowed)
    fake_run.execute(tmp_path, [ASKED])
    body = RUN.read(tmp_path / RUN.file)
    RUN.write(tmp_path / RUN.file, {**body, "tried": {**body["tried"], "tries": "many"}})
    fake_run.execute(tmp_path, [ASKED])
    assert searched == [1.0, 0.625, 1.0, 0.625]
    assert store.read_json(tmp_path / RUN.file)["tried"]["tries"] == [[1.0, 0.8]]
