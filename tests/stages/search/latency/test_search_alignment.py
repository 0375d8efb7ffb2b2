"""`search.align: auto`: settled once, kept by the search that began with it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.schema import Config
from pipeline.config.search import SearchConfig
from stages import declared
from stages.benchmark.alignment import Alignment, WidthTime, alignment_of
from stages.search.latency import SettledAlignment, settle_alignment

AUTO = SearchConfig()  # the default


def machine(block: int) -> Any:
    """A machine whose blocks have this size, and a log of what it was asked."""
    rows = tuple(
        WidthTime("conv 3x3", w, float(-(-w // block)) ** 2 * block**2)
        for w in (20, 24, 32, 40, 48, 64)
    )
    asked: list[str] = []

    def measure(*, provider: str, **hooks: Any) -> tuple[Alignment, bool]:
        asked.append(provider)
        return Alignment(*alignment_of(rows), rows, provider, 1, f"{block:016d}"), False

    return SimpleNamespace(measure=measure, asked=asked)


def graph(*widths: int) -> Any:
    return SimpleNamespace(
        prunable=[SimpleNamespace(size=width, channels_per_unit=1) for width in widths]
    )


def test_a_number_is_left_alone_and_nothing_is_measured() -> None:
    here = machine(16)
    found = settle_alignment(SearchConfig(align=4), graph(64), measure=here.measure)
    assert found == SettledAlignment(4)
    assert here.asked == []


def test_auto_takes_what_the_machine_pays_for() -> None:
    notes: list[str] = []
    found = settle_alignment(AUTO, graph(64, 128), measure=machine(16).measure, note=notes.append)
    assert found.align == 16
    assert found.document is not None
    assert (found.document["multiple"], found.document["used"]) == (16, 16)
    assert json.dumps(found.document, allow_nan=False)
    assert notes == ["widths will be multiples of 16"]


def test_auto_goes_lower_for_a_narrow_network() -> None:
    notes: list[str] = []
    narrow = graph(16, 32, 32)
    found = settle_alignment(AUTO, narrow, measure=machine(16).measure, note=notes.append)
    assert found.align == 8
    assert "lowered from 16" in notes[0]


def test_a_search_resumed_elsewhere_keeps_the_alignment_it_began_with() -> None:
    begun = settle_alignment(AUTO, graph(64, 128), measure=machine(16).measure)
    elsewhere = machine(8)
    again = settle_alignment(AUTO, graph(64, 128), begun=begun.document, measure=elsewhere.measure)
    assert again == begun
    assert elsewhere.asked == []


@pytest.mark.parametrize("begun", [None, [], {}, {"used": 1000}, "16"])
def test_a_damaged_note_of_it_is_measured_again(begun: object) -> None:
    here = machine(16)
    assert settle_alignment(AUTO, graph(64), begun=begun, measure=here.measure).align == 16
    assert len(here.asked) == 1


def test_freshness_is_that_of_the_setting_so_another_machine_re_runs_nothing() -> None:
    depends = declared("search").depends(Config(search=AUTO))
    assert depends["search"]["align"] == "auto"


@pytest.mark.parametrize("value", ["Auto", "8", 0, 257, 8.0, True, None])
def test_nothing_else_is_an_alignment(value: object) -> None:
    with pytest.raises(ValidationError, match="from 1 to 256, or auto") as caught:
        SearchConfig(align=value)  # type: ignore[arg-type]
    assert caught.value.error_count() == 1
