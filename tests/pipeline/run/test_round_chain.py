"""A chain of several rounds, over stages that write a few bytes: what follows what, what is
re-run, what is told.
"""

from __future__ import annotations

import os
from pathlib import Path

import fake_run
import pytest

from pipeline.config.load import build_config
from pipeline.errors import ArtifactError
from pipeline.run import store
from pipeline.run.manifest import HashCache, damaged_outputs, read_manifest
from pipeline.run.rounds import InputSource, Round, chain
from stages import STAGES

pytestmark = pytest.mark.usefixtures("fakes")
TWO = ("rounds=2",)
REPEATED = ("trace", "search", "prune", "distill")
NAMES = [
    "pretrain",
    *(f"round-1/{name}" for name in REPEATED),
    *REPEATED,
    "export",
    "benchmark",
    "report",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.finished(tmp_path / "run", TWO)


def test_each_round_reads_what_the_one_before_left_and_the_teacher_stays() -> None:
    stages = {stage.name: stage for stage in chain(fake_run.STAGES, 3)}
    assert [name for name in stages if name.startswith("round-2")] == [
        f"round-2/{name}" for name in REPEATED
    ]
    assert stages["round-1/trace"].input_sources == {
        "base_model": InputSource("pretrain", "base_model")
    }
    assert stages["round-2/trace"].input_sources == {
        "base_model": InputSource("round-1/distill", "final_model")
    }
    assert stages["prune"].input_sources == {
        "base_model": InputSource("round-2/distill", "final_model"),
        "graph": InputSource("trace", "graph"),
        "plan": InputSource("search", "plan"),
    }
    assert stages["distill"].input_sources == {
        "pruned_model": InputSource("prune", "pruned_model"),
        "original/base_model": InputSource("pretrain", "base_model"),
    }
    assert stages["export"].input_sources["final_model"] == InputSource("distill", "final_model")
    rounds = [stages[name].round for name in ("round-1/trace", "round-2/search", "search")]
    assert rounds == [Round(1, 3), Round(2, 3), Round(3, 3)]
    assert stages["report"].round == Round(3, 3)


def test_one_round_is_the_chain_as_it_is() -> None:
    placed = chain(fake_run.STAGES, 1)
    assert [stage.name for stage in placed] == [stage.name for stage in fake_run.STAGES]
    assert {stage.round for stage in placed} == {Round(1, 1)}
    sources = placed[4].input_sources
    assert sources["base_model"] == InputSource("pretrain", "base_model")
    assert not any("/" in key for stage in placed for key in stage.input_sources)


def test_budget_is_shared_out_geometrically() -> None:
    shares = [Round(number, 3).share(0.125) for number in (1, 2, 3)]
    assert shares == pytest.approx([0.5, 0.25, 0.125])
    assert [(Round(n, 2).first, Round(n, 2).last) for n in (1, 2)] == [(True, False), (False, True)]


def test_only_a_stage_that_uses_its_round_depends_on_it() -> None:
    stages = {stage.name: stage for stage in chain(STAGES, 2)}
    config = build_config({}, TWO)
    assert stages["round-1/search"].depends(config).items() >= {"round": 1, "rounds": 2}.items()
    assert "rounds" not in stages["round-1/trace"].depends(config)
    assert "rounds" not in chain(STAGES, 1)[2].depends(config)


def test_second_run_of_two_rounds_reuses_everything(run: Path) -> None:
    assert [name for name, *_ in fake_run.execute(run, TWO).steps] == NAMES
    assert fake_run.execute(run, TWO).ran() == []


def test_from_until_and_force_take_stages_of_a_round(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert fake_run.execute(run, TWO, last="round-1/search").ran() == NAMES[:3]
    assert fake_run.execute(run, TWO, first="round-1/prune", last="trace").ran() == NAMES[3:6]
    assert fake_run.execute(run, TWO, last="trace", force="round-1/search").ran() == [
        "round-1/search"
    ]
    with pytest.raises(ArtifactError, match="prune is blocked: needs search: never run"):
        fake_run.execute(run, TWO, first="prune", last="prune")


def test_earlier_round_that_changes_re_runs_the_later_ones(run: Path) -> None:
    watcher = fake_run.execute(run, [*TWO, "search.trials=7"])
    assert watcher.ran() == [name for name in NAMES[2:] if name != "report"] + ["report"]
    assert watcher.why("round-1/prune") == "input round-1/search/plan.json changed"
    assert watcher.why("trace") == "input round-1/distill/model.json changed, " + (
        "input round-1/distill/model.safetensors changed"
    )


def test_folders_of_more_rounds_are_left_alone_and_told(run: Path, rlp: fake_run.Rlp) -> None:
    fake_run.execute(run, ["rounds=3"])
    before = fake_run.committed(run / "round-2")
    watcher = fake_run.execute(run, TWO)
    assert [text for text in watcher.warnings if "round-2: left by a run of more rounds" in text]
    assert fake_run.committed(run / "round-2") == before
    checked = rlp("check", run, "--json")
    assert (checked.code, checked.json()["unlisted"]) == (0, ["round-2/"])


def test_linked_folder_of_a_round_is_refused(run: Path, rlp: fake_run.Rlp) -> None:
    (run / "round-1").rename(run.parent / "elsewhere")
    (run / "round-1").symlink_to(run.parent / "elsewhere")
    result = rlp("check", run)
    assert result.code == 3
    assert "round-1: a link" in result.lines("error")[0]


def test_status_says_what_blocks_a_stage(run: Path, rlp: fake_run.Rlp) -> None:
    (run / "round-1" / "search" / "plan.json").write_text("{}")
    rows = {row["stage"]: row for row in rlp("pipeline", "status", run, "--json").json()["stages"]}
    states = {name: row["state"] for name, row in rows.items()}
    assert [name for name, state in states.items() if state == "damaged"] == ["round-1/search"]
    assert [name for name, state in states.items() if state == "fresh"] == [
        "pretrain",
        "round-1/trace",
    ]
    assert {states[name] for name in NAMES[3:]} == {"blocked"}
    for name in NAMES[3:]:
        assert rows[name]["reason"].startswith("needs round-1/search: ")


def test_file_that_no_manifest_lists_is_told_and_no_refusal(run: Path, rlp: fake_run.Rlp) -> None:
    assert rlp("check", run, "--json").json()["unlisted"] == []
    (run / "search" / "notes.txt").write_text("mine")
    (run / "round-1" / "prune" / ".DS_Store").write_text("")
    result = rlp("check", run, "--json")
    assert result.code == 0
    assert result.json()["unlisted"] == ["round-1/prune/.DS_Store", "search/notes.txt"]
    assert "search/notes.txt: belongs to no stage" in result.err


def test_each_file_is_hashed_once_a_command_and_again_once_it_changed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    real = store.sha256_file
    monkeypatch.setattr(store, "sha256_file", lambda path: read.append(path) or real(path))
    fake_run.execute(run, TWO)
    assert len(read) == len(set(read)) == sum(len(m["outputs"]) for m in _manifests(run))
    once, plan = HashCache(), run / "search" / "plan.json"
    manifest = read_manifest(run, "search")
    assert manifest is not None
    assert damaged_outputs(run, "search", manifest, once) == {}
    stamp = plan.stat()
    plan.write_bytes(plan.read_bytes()[:-2] + b"!\n")
    os.utime(plan, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "plan.json" in damaged_outputs(run, "search", manifest, once)["changed"]


def _manifests(run: Path) -> list[dict]:
    found = [read_manifest(run, name) for name in NAMES]
    return [manifest for manifest in found if manifest is not None]
