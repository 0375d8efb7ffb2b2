"""`search.align: auto`: settled once, written down, kept by the search that began with it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.schema import Config, SearchConfig
from pipeline.errors import UsageError
from stages import declared
from stages.benchmark.alignment import Alignment, WidthTime, alignment_of
from stages.search.align import settle_alignment
from stages.search.setup import prepare

AUTO = SearchConfig(align="auto")


def machine(block: int) -> Any:
    """A target whose blocks have this size, and a log of what it was asked."""
    rows = tuple(
        WidthTime("conv 3x3", w, float(-(-w // block)) ** 2 * block**2)
        for w in (20, 24, 32, 40, 48, 64)
    )
    asked: list[str] = []

    def target(*, provider: str, **hooks: Any) -> tuple[Alignment, bool]:
        asked.append(provider)
        return Alignment(*alignment_of(rows), rows, provider, 1, f"{block:016d}"), False

    return SimpleNamespace(target=target, asked=asked)


def graph(*widths: int) -> Any:
    return SimpleNamespace(
        prunable=[SimpleNamespace(size=width, channels_per_unit=1) for width in widths]
    )


def test_a_number_is_left_alone_and_nothing_is_measured(tmp_path: Path) -> None:
    here = machine(16)
    settings = SearchConfig(align=4)
    assert settle_alignment(settings, graph(64), work=tmp_path, target=here.target) == (
        settings,
        None,
    )
    assert here.asked == []
    assert list(tmp_path.iterdir()) == []


def test_auto_takes_what_the_machine_pays_for(tmp_path: Path) -> None:
    notes: list[str] = []
    settings, document = settle_alignment(
        AUTO, graph(64, 128), work=tmp_path, target=machine(16).target, note=notes.append
    )
    assert settings == AUTO.model_copy(update={"align": 16})
    assert document is not None
    assert (document["multiple"], document["used"]) == (16, 16)
    assert json.dumps(document, allow_nan=False)
    assert notes == ["widths will be multiples of 16"]


def test_auto_goes_lower_for_a_narrow_network() -> None:
    notes: list[str] = []
    settings, _ = settle_alignment(
        AUTO, graph(16, 32, 32), target=machine(16).target, note=notes.append
    )
    assert settings.align == 8
    assert "lowered from 16" in notes[0]


def test_a_search_resumed_elsewhere_keeps_the_alignment_it_began_with(tmp_path: Path) -> None:
    begun = settle_alignment(AUTO, graph(64, 128), work=tmp_path, target=machine(16).target)
    elsewhere = machine(8)
    assert settle_alignment(AUTO, graph(64, 128), work=tmp_path, target=elsewhere.target) == begun
    assert elsewhere.asked == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"used": 1000}'])
def test_a_damaged_note_of_it_is_measured_again(tmp_path: Path, content: str) -> None:
    (tmp_path / "alignment.json").write_text(content)
    here = machine(16)
    assert settle_alignment(AUTO, graph(64), work=tmp_path, target=here.target)[0].align == 16
    assert len(here.asked) == 1


def test_freshness_is_that_of_the_setting_so_another_machine_re_runs_nothing() -> None:
    depends = declared("search").depends(Config(search=AUTO))
    assert depends["search"]["align"] == "auto"


def test_an_unsettled_auto_is_refused() -> None:
    with pytest.raises(UsageError, match="auto"):
        prepare(None, graph(8), None, AUTO, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["Auto", "8", 0, 257, 8.0, True, None])
def test_nothing_else_is_an_alignment(value: object) -> None:
    with pytest.raises(ValidationError, match="from 1 to 256, or auto") as caught:
        SearchConfig(align=value)  # type: ignore[arg-type]
    assert caught.value.error_count() == 1
