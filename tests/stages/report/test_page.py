"""The page as a browser takes it: whole, self-contained, escaped, and readable by a machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from report_documents import run_documents

from pipeline.config.schema import Config
from stages.report.documents import RunDocuments
from stages.report.page import render
from stages.report.summary import PLACES, summarise

SECTIONS = (
    *("use", "next", "latency", "classes", "layers"),
    *("int8", "search", "recovery", "checks", "reproduce"),
)


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]

    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.found if "id" in attrs]


def rendered(found: RunDocuments) -> str:
    summary = summarise("r", found.benchmark, found.parity, found.quantization, **PLACES)
    return render(
        Config(),
        found,
        summary,
        run_name="<i>run",
        config_name="my.yaml",
        device="<i>EPYC",
        run="artifacts/r",
        commands="rlp pipeline run my.yaml",
        versions={"torch": "2.13"},
    )


@pytest.fixture(scope="module")
def page() -> str:
    return rendered(run_documents())


@pytest.fixture(scope="module")
def elements(page: str) -> Elements:
    return Elements(page)


def test_every_section_is_there_and_the_links_lead_to_them(elements: Elements) -> None:
    links = [str(attrs["href"]) for attrs in elements.of("a")]
    assert links == [f"#{name}" for name in SECTIONS]
    assert set(SECTIONS) <= set(elements.ids())


def test_what_people_look_for_is_on_the_page(elements: Elements) -> None:
    text = " ".join(elements.text.split())
    for said in (
        "1.90 times as fast (1.80 to 2.00); no difference in test accuracy shown",
        "measured 2026-11-27 14:00 UTC",
        "✓ delivered",
        "22.0 MB",
        "load 1.5 when it ended",
        "Gained are images that only the delivered file names correctly",
        "Confused most by the delivered file",
        "rlp predict artifacts/r/deploy photo.jpg",
        "rlp check artifacts/r --min-speedup 1.8",
        "images of the search split after every step; the ring is what was kept",
        "10 → 10",  # microseconds of the layer before and after
    ):
        assert said in text


def test_names_of_users_are_text_and_not_markup(page: str, elements: Elements) -> None:
    assert elements.of("i") == []
    for name in ("run", "stem", "conv", "output", "cat", "EPYC"):
        assert f"&lt;i&gt;{name}" in page


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page: str, elements: Elements) -> None:
    assert {tag for tag, _ in elements.found} & {"script", "link", "iframe", "img"} == set()
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:image/png;"))
    assert not re.search(r"url\(\s*['\"]?(?!#)", page)
    assert "@import" not in page


def test_every_head_of_a_table_has_a_scope_and_every_table_a_caption(elements: Elements) -> None:
    assert {attrs.get("scope") for attrs in elements.of("th")} == {"col", "row"}
    assert len(elements.of("caption")) == len(elements.of("table")) > 8
    scrolled = [attrs for attrs in elements.of("div") if attrs.get("role") == "region"]
    assert len(scrolled) == len(elements.of("table"))
    assert all(attrs["aria-label"] and attrs["tabindex"] == "0" for attrs in scrolled)


def test_every_picture_has_a_title_and_a_description_of_its_own(elements: Elements) -> None:
    ids = elements.ids()
    for attributes in elements.of("svg"):
        named = str(attributes["aria-labelledby"]).split()
        assert len(named) == 2
        assert set(named) <= set(ids)
    own = [name for name in ids if not re.fullmatch(r"[mpCD][0-9a-f_]{8,}", name)]
    assert len(own) == len(set(own)), "markers and clips have the same id where they are the same"


def test_every_picture_is_there(page: str) -> None:
    assert re.findall(r'<title id="[^"]+">([^<]+)<', page) == [
        "Accuracy against latency",
        "Speedup at every setting",
        "Distribution of the latency of single calls",
        "Microseconds of each layer before and after",
        "Channels of every group before and after",
        "Microseconds a channel by the number of channels",
        "Accuracy that every budget keeps",
        "Score of every candidate in the order they were tried",
        "What candidates score for what they cost",
        "Latency as predicted and as measured",
        "Accuracy after every step of the recovery",
    ]


def test_dark_print_and_phones_are_provided_for(page: str) -> None:
    for rule in (
        "@media screen and (prefers-color-scheme: dark)",
        "details::details-content { content-visibility: visible",
        "break-after: avoid",
        "@media (max-width: 760px)",
        'name="viewport"',
    ):
        assert rule in page


def _older(found: RunDocuments) -> RunDocuments:
    benchmark = {key: value for key, value in found.benchmark.items() if key != "classes"}
    rows = [
        {k: v for k, v in row.items() if k not in ("memory_bytes", "quantiles_ms")}
        for row in benchmark["variants"]
    ]
    return replace(found, benchmark={**benchmark, "variants": rows})


def _unprofiled(found: RunDocuments) -> RunDocuments:
    benchmark = {k: v for k, v in found.benchmark.items() if k not in ("why", "alignment")}
    return replace(found, benchmark=benchmark)


def _float_only(found: RunDocuments) -> RunDocuments:
    rows = [row for row in found.benchmark["variants"] if "int8" not in row["name"]]
    rows[1] = {**rows[1], "chosen": True}
    final = {**found.benchmark["final"], "precision": "fp32"}
    quantization = {"mode": "off", "chosen": "fp32", "reason": "", "tried": [], "base": {}}
    benchmark = {**found.benchmark, "variants": rows, "final": final}
    return replace(found, benchmark=benchmark, quantization=quantization)


def _undeployed(found: RunDocuments) -> RunDocuments:
    return replace(found, manifests={})


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (_older, "Accuracy by class"),
        (_unprofiled, "Microseconds of a call"),
        (_float_only, "Schemes that were tried"),
        (_undeployed, "rlp predict artifacts/r/deploy"),
    ],
)
def test_what_a_run_does_not_have_is_left_out(
    page: str, change: Callable[[RunDocuments], RunDocuments], gone: str
) -> None:
    assert gone in page
    less = rendered(change(run_documents()))
    assert gone not in less
    assert "None" not in Elements(less).text
    links: list[Any] = [str(attrs["href"])[1:] for attrs in Elements(less).of("a")]
    assert set(links) <= set(Elements(less).ids())
