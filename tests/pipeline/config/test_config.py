"""Loading a config: every fault is exit 2, named by key and line, all at once, before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config.load import all_paths, build_config, find_config, load_config, schema_text
from pipeline.config.schema import Config
from pipeline.config.search import Budget
from pipeline.errors import UsageError


def problems(text: str, tmp_path: Path, *sets: str) -> list[str]:
    """The messages that loading `text` ends with, the folder of the file taken out."""
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_config(path, sets)
    assert caught.value.hint
    return [
        line.replace(f"{tmp_path}/", "") for line in (caught.value.message, *caught.value.details)
    ]


def test_defaults_are_a_whole_config() -> None:
    assert build_config({}) == Config()


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("pretrain: {lr: 1e-3}\n")
    assert load_config(tmp_path / "c.yaml").pretrain.lr == 0.001


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("serach:\n  trials: 3\n", "c.yaml:1: serach: unknown key, did you mean search?"),
        (
            "search:\n  trails: 3\n",
            "c.yaml:2: search.trails: unknown key, did you mean search.trials?",
        ),
        ("trials: 3\n", "c.yaml:1: trials: unknown key, did you mean search.trials?"),
        (
            "search: {budget: {mac: .5}}\n",
            "c.yaml:1: search.budget.mac: unknown key, did you mean search.budget.macs?",
        ),
        ("zzzqqq: 3\n", "c.yaml:1: zzzqqq: unknown key"),
        (
            "search:\n  trials: true\n",
            "c.yaml:2: search.trials: input should be a valid integer, got True",
        ),
        (
            "search:\n  trials: '3'\n",
            "c.yaml:2: search.trials: input should be a valid integer, got '3'",
        ),
        ("search:\n  trials: 3.5\n", "c.yaml:2: search.trials: input should be a valid integer"),
        (
            "search:\n  trials: 0\n",
            "c.yaml:2: search.trials: input should be greater than or equal to 1, got 0",
        ),
        (
            "search:\n\n  trials: -4\n",
            "c.yaml:3: search.trials: input should be greater than or equal to 1, got -4",
        ),
        ("pretrain: {lr: .nan}\n", "c.yaml:1: pretrain.lr: input should be a finite number"),
        ("pretrain: {lr: .inf}\n", "c.yaml:1: pretrain.lr: input should be a finite number"),
        ("pretrain: {lr: 1e999}\n", "c.yaml:1: pretrain.lr: input should be a finite number"),
        (
            "pretrain: {lr: yes}\n",
            "c.yaml:1: pretrain.lr: input should be a valid number, got 'yes'",
        ),
        (
            "pretrain: {lr: true}\n",
            "c.yaml:1: pretrain.lr: input should be a valid number, got True",
        ),
        (
            "search: {budget: {macs: 0}}\n",
            "c.yaml:1: search.budget.macs: input should be greater than 0, got 0",
        ),
        (
            "search: {budget: {macs: 1}}\n",
            "c.yaml:1: search.budget.macs: input should be less than 1, got 1",
        ),
        (
            "search: {budget: {macs: 1.5}}\n",
            "c.yaml:1: search.budget.macs: input should be less than 1, got 1.5",
        ),
        (
            "search: {budget: {macs: -1}}\n",
            "c.yaml:1: search.budget.macs: input should be greater than 0, got -1",
        ),
        (
            "search:\n  budget:\n    macs: 0.5\n    latency: 0.5\n",
            "c.yaml:2: search.budget: give exactly one of macs, params, latency",
        ),
        (
            "search: {budget: {macs: 0.5, accuracy_drop: 0.5}}\n",
            "c.yaml:1: search.budget: give exactly one of macs, params, latency, latency_ms, accur",
        ),
        (
            "search: {budget: {accuracy_drop: -0.5}}\n",
            "c.yaml:1: search.budget.accuracy_drop: input should be greater than 0, got -0.5",
        ),
        (
            "search: {budget: {macs: 0.5, of: params}}\n",
            "c.yaml:1: search.budget: of goes with accuracy_drop only",
        ),
        (
            "rounds: 2\nsearch: {budget: {accuracy_drop: 0.5}}\n",
            "c.yaml: config: search.budget.accuracy_drop is for a single round",
        ),
        (
            "search: {budget: {}}\n",
            "c.yaml:1: search.budget: give exactly one of macs, params, latency",
        ),
        ("search: 5\n", "c.yaml:1: search: "),
        ("search: []\n", "c.yaml:1: search: "),
        (
            "benchmark:\n  batches: [1, 0]\n",
            "c.yaml:2: benchmark.batches.1: input should be greater than or equal to 1",
        ),
        (
            "data: {search_fraction: 1}\n",
            "c.yaml:1: data.search_fraction: input should be less than 1, got 1",
        ),
        ("seed: 99999999999999999999999\n", "c.yaml:1: seed: "),
        ("model: {weights: 5}\n", "c.yaml:1: model.weights: input should be a valid string, got 5"),
    ],
)
def test_fault_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    found = problems(text, tmp_path)
    assert len(found) == 1
    assert found[0].startswith(said)


def test_several_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = "seed: -1\nserach: {}\nsearch:\n  trials: 0\n  align: x\ndistill: {alpha: 2}\n"
    keys = [line.split(": ")[1] for line in problems(text, tmp_path)]
    assert sorted(keys) == ["distill.alpha", "search.align", "search.trials", "seed", "serach"]


@pytest.mark.parametrize(
    "content", [b"\xff\xfea\x00", b"\x80abc", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04\x00\x00"]
)
def test_file_that_is_not_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml")


def test_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.yaml").touch()
    os.truncate(tmp_path / "c.yaml", 1 << 40)
    with pytest.raises(UsageError, match="1099511627776 bytes is no config"):
        load_config(tmp_path / "c.yaml")


def test_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfseed: 3\r\nsearch:\r\n  trials: 4\r\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.seed, config.search.trials) == (3, 4)


# -- --set -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("report.title=c=d", "title", "c=d"),
        ("report.title=", "title", None),
        ("report.title='5'", "title", "5"),
        ("report.title=a: b # c", "title", "a: b # c"),
        ("report.title='[/a]'", "title", "[/a]"),
        ("report.title=ü\n€", "title", "ü\n€"),
        ("report.title={unclosed", "title", "{unclosed"),
        ('report.title="quoted \\u00fc"', "title", "quoted ü"),
    ],
)
def test_set_keeps_the_text_as_it_is(item: str, key: str, value: object) -> None:
    assert getattr(build_config({}, [item]).report, key) == value


def test_set_takes_numbers_lists_and_the_last_of_two() -> None:
    config = build_config(
        {},
        ["pretrain.lr=1e-3", "benchmark.batches=[1, 8]", "seed=1", "seed=2", "trace.freeze=[a.*]"],
    )
    assert config.pretrain.lr == 0.001
    assert config.benchmark.batches == (1, 8)
    assert config.seed == 2
    assert config.trace.freeze == ("a.*",)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("search.trials", "--set search.trials: expected KEY=VALUE"),
        ("=5", "--set =5: expected KEY=VALUE"),
        ("search..trials=5", "--set search..trials=5: expected KEY=VALUE"),
        ("search.trails=5", "--set: search.trails: unknown key, did you mean search.trials?"),
        ("trials=5", "--set: trials: unknown key, did you mean search.trials?"),
        ("search.trials=many", "--set: search.trials: input should be a valid integer, got 'many'"),
        ("search.trials=true", "--set: search.trials: input should be a valid integer, got True"),
        ("search.trials=", "--set: search.trials: input should be a valid integer"),
        ("seed.x=5", "--set seed.x=5: seed is a value, not a section"),
        ("benchmark.batches=3", "--set: benchmark.batches: input should be a valid"),
        ("search.budget.macs=2", "--set: search.budget.macs: input should be less than 1, got 2"),
        ("search={}={}", "--set: search: "),
    ],
)
def test_fault_in_set(tmp_path: Path, item: str, said: str) -> None:
    assert problems("seed: 1\n", tmp_path, item)[0].startswith(said)


def test_budget_by_set_replaces_the_files(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("search: {budget: {macs: 0.5}}\n")
    budget = load_config(tmp_path / "c.yaml", ["search.budget.params=0.4"]).search.budget
    assert (budget.macs, budget.params) == (None, 0.4)
    with pytest.raises(UsageError, match="exactly one"):
        load_config(tmp_path / "c.yaml", ["search.budget.params=0.4", "search.budget.macs=0.4"])


def test_what_is_to_be_cheap_within_a_drop_of_accuracy_may_be_set_alone(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("search: {budget: {accuracy_drop: 0.5}}\n")
    budget = load_config(tmp_path / "c.yaml", ["search.budget.of=macs"]).search.budget
    assert (budget.given, budget.metric) == (("accuracy_drop", 0.5), "macs")
    budget = load_config(tmp_path / "c.yaml", ["search.budget.params=0.4"]).search.budget
    assert (budget.given, budget.metric) == (("params", 0.4), "params")


@pytest.mark.parametrize(
    ("given", "metric"),
    [({"latency_ms": 2}, "latency"), ({"latency": 0.5}, "latency"), ({"macs": 0.5}, "macs"),
     ({"accuracy_drop": 1}, "latency")],
)  # fmt: skip
def test_every_budget_says_what_is_to_be_small(given: dict[str, float], metric: str) -> None:
    assert Budget.model_validate(given).metric == metric


def test_fault_of_the_file_is_not_blamed_on_set(tmp_path: Path) -> None:
    found = problems("search:\n  align: 0\n  trials: 5\n", tmp_path, "search.trials=0")
    assert found[0].startswith("c.yaml:2: search.align") or found[1].startswith(
        "c.yaml:2: search.align"
    )
    assert any(line.startswith("--set: search.trials") for line in found)


# -- finding ---------------------------------------------------------------------------------------


def test_config_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nope.yaml", "", "a\nb.yaml", "\0", str(tmp_path)):
        with pytest.raises(UsageError) as caught:
            find_config(name)
        assert "rlp config ls" in caught.value.hint


def test_device_and_fifo_are_no_configs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in (tmp_path / "pipe.yaml", "/dev/zero"):
        with pytest.raises(UsageError, match="no such config"):
            find_config(str(name))


def test_schema_names_every_key() -> None:
    text = schema_text()
    assert len(all_paths()) > 40
    for path in all_paths():
        assert f'"{path.split(".")[-1]}"' in text
