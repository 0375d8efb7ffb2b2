"""What is run, what is reused, and the reason that is given; the lock; signals."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_run
import pytest

from pipeline.errors import ArtifactError, Interrupted, Locked, UsageError
from pipeline.run import runner, store
from pipeline.run.artifacts import MANIFEST
from pipeline.run.lock import lock
from pipeline.run.planner import Selection
from pipeline.run.stage import StageContext

pytestmark = pytest.mark.usefixtures("fakes")
NAMES = list(fake_run.READS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.finished(tmp_path / "run")


def test_second_run_reuses_everything_and_writes_nothing_into_the_stages(run: Path) -> None:
    before = fake_run.tree(run)
    watcher = fake_run.execute(run)
    assert [(name, action) for name, action, _ in watcher.steps] == [
        (name, "reuse") for name in NAMES
    ]
    assert fake_run.tree(run) == before


def test_touched_files_and_a_clock_going_backwards_have_no_effect(run: Path) -> None:
    for path in run.rglob("*"):
        os.utime(path, (0, 0))
    assert fake_run.execute(run).ran() == []


def test_setting_of_one_stage_re_runs_it_and_what_depends_on_it(run: Path) -> None:
    watcher = fake_run.execute(run, ["search.trials=7"])
    assert watcher.ran() == NAMES[2:]
    assert watcher.why("search") == "search.trials 100 → 7"
    assert watcher.why("prune") == "input search/plan.json changed"


@pytest.mark.parametrize(
    ("stage", "section", "key", "other", "why"),
    [
        ("search", "search", "trials", "search.trials=7", "search.trials 100 → 7"),
        ("search", "search", "rl", "search.rl.extreme=0.9", "search.rl.extreme"),
        ("trace", "trace", "open_statistics", "trace.open_statistics=true", "False → True"),
    ],
)
def test_a_setting_newer_than_the_run_counts_as_its_default(
    run: Path, stage: str, section: str, key: str, other: str, why: str
) -> None:
    path = run / stage / "manifest.json"
    document = MANIFEST.read(path)
    del document["config"][section][key]
    MANIFEST.write(path, MANIFEST.body(document))
    assert fake_run.execute(run).ran() == []
    assert why in fake_run.execute(run, [other]).why(stage)


def test_upstream_that_makes_the_same_bytes_again_spares_what_follows(run: Path) -> None:
    watcher = fake_run.execute(run, ["trace.freeze=[a*]"])  # a fake does not depend on it
    assert watcher.ran() == ["trace"]
    assert watcher.why("trace") == "trace.freeze [] → ['a*']"


def test_a_search_that_finds_the_same_plan_spares_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, content = tmp_path / "run", fake_run._content

    def same_plan(kind: str, name: str, digest: str) -> bytes:
        text = content(kind, name, digest)
        return text.replace(f'"{digest}": "0"'.encode(), b'"g": "0"') if kind == "plan" else text

    monkeypatch.setattr(fake_run, "_content", same_plan)
    before = (fake_run.finished(made) / "search" / "plan.json").read_bytes()
    assert fake_run.execute(made, ["search.trials=7"]).ran() == ["search"]
    assert (made / "search" / "plan.json").read_bytes() != before  # how it was found is another
    monkeypatch.setattr(fake_run, "_content", content)
    assert "prune" in fake_run.execute(made, ["search.trials=8"]).ran()


def test_an_accepted_edit_of_how_a_plan_was_found_spares_what_follows(run: Path) -> None:
    plan = run / "search" / "plan.json"
    plan.write_text(plan.read_text().replace('"digest": "', '"digest": "by hand'))
    assert fake_run.execute(run, accept_edited=True).ran() == []
    plan.write_text(plan.read_text().replace('": "0"', '": "0-1"'))
    assert fake_run.execute(run, accept_edited=True).ran()[0] == "prune"


def test_seed_re_runs_everything(run: Path) -> None:
    assert fake_run.execute(run, ["seed=3"]).why("pretrain") == "seed 0 → 3"


def test_other_images_re_run_what_uses_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "describe_data", lambda config: fake_run.Card("1" * 64))
    watcher = fake_run.execute(run)
    assert watcher.ran() == ["pretrain"]  # the only fake that uses data; its bytes stay the same
    assert watcher.why("pretrain") == "the images changed"


def test_where_the_images_lie_is_no_reason(run: Path) -> None:
    assert (
        fake_run.execute(run, ["data.root=/elsewhere", "data.label=x", "data.workers=0"]).ran()
        == []
    )


def test_new_method_of_a_stage_re_runs_it(run: Path) -> None:
    pretrain, trace, *rest = fake_run.STAGES
    watcher = fake_run.execute(run, stages=[pretrain, replace(trace, version=2), *rest])
    assert watcher.ran() == ["trace"]
    assert watcher.why("trace") == "the stage's method changed"


def test_file_outside_the_run_re_runs_the_stage_that_reads_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(fake_run.STAGES[0]), "external", lambda self, config: {"weights.pth": "2" * 64}
    )
    watcher = fake_run.execute(run)
    assert watcher.ran() == ["pretrain"]
    assert watcher.why("pretrain") == "file weights.pth changed"


def test_plan_says_the_same_as_the_run_and_writes_nothing(run: Path) -> None:
    (run / "prune" / "prune.json").unlink()
    before = {path: path.lstat().st_mtime_ns for path in run.rglob("*")}
    steps = fake_run.plan(run, ["search.trials=7"])
    assert {path: path.lstat().st_mtime_ns for path in run.rglob("*")} == before
    assert steps["trace"].action == "reuse"
    assert [steps[name].action for name in NAMES[2:]] == ["run"] * 6
    assert steps["prune"].reason == "search runs before it"


def test_force_runs_fresh_stages_once(run: Path) -> None:
    assert fake_run.execute(run, force="trace").ran() == ["trace"]
    assert fake_run.execute(run, force="all").ran() == NAMES
    assert fake_run.execute(run, first="prune", last="distill", force="all").ran() == [
        "prune",
        "distill",
    ]


def test_selection_stops_and_starts_where_it_was_told(tmp_path: Path) -> None:
    assert fake_run.execute(tmp_path / "run", last="search").ran() == NAMES[:3]
    assert fake_run.execute(tmp_path / "run", first="search").ran() == NAMES[3:]


def test_stage_whose_input_was_never_made_is_blocked_with_the_command_to_type(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    fake_run.execute(run, last="trace")
    with pytest.raises(ArtifactError, match="prune is blocked: needs search: never run") as caught:
        fake_run.execute(run, first="prune", last="prune")
    assert caught.value.hint == f"rlp stage search --run {run} comes first"


def test_blocked_by_a_later_stage_is_said_before_anything_is_computed(run: Path) -> None:
    (run / "export" / "parity.json").write_text("{}")
    before = (run / "run.json").read_bytes()
    with pytest.raises(ArtifactError, match=r"parity\.json"):
        fake_run.execute(run, ["seed=9"])
    assert (run / "run.json").read_bytes() == before
    assert fake_run.execute(run, ["seed=9"], force="export").ran() == NAMES


@pytest.mark.parametrize(
    ("first", "last", "force"),
    [("nope", None, None), (None, "nope", None), (None, None, "nope"), ("report", "trace", None)],
)
def test_names_of_stages_are_checked(
    first: str | None, last: str | None, force: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        Selection.of(fake_run.STAGES, first, last, force)
    assert "pretrain, trace, search" in caught.value.hint


def test_forcing_a_stage_outside_the_selection_is_refused() -> None:
    with pytest.raises(UsageError, match="outside pretrain … trace"):
        Selection.of(fake_run.STAGES, None, "trace", "report")


def test_stage_that_does_not_write_what_it_promised_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(fake_run.STAGES[1]), "run", lambda self, ctx: {})
    with pytest.raises(ArtifactError, match=r"graph\.json"):
        fake_run.execute(tmp_path / "run")
    assert not (tmp_path / "run" / "trace").exists()
    assert fake_run.plan(tmp_path / "run")["pretrain"].action == "reuse"


def test_failed_stage_keeps_the_committed_one_and_its_checkpoints(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, ctx: StageContext) -> dict[str, Any]:
        store.write_json(ctx.work / "checkpoint.json", {"epoch": 3})
        (ctx.out / "half.bin").write_bytes(b"half")
        raise ValueError("a bug")

    before = fake_run.tree(run)
    monkeypatch.setattr(type(fake_run.STAGES[4]), "run", fail)
    with pytest.raises(ValueError, match="a bug"):
        fake_run.execute(run, force="distill")
    assert fake_run.tree(run) == before
    assert (run / ".work" / "distill" / "checkpoint.json").exists()


def test_run_remembers_its_config_and_the_name_of_the_file(run: Path) -> None:
    fake_run.execute(run, ["search.trials=7"])
    config, name = runner.read_run(run)
    assert (config.search.trials, name) == (7, "fake.yaml")


# -- the lock --------------------------------------------------------------------------------------


def test_second_process_is_refused_at_once_with_pid_and_host(
    tmp_path: Path, rlp: fake_run.Rlp
) -> None:
    run = tmp_path / "run"
    pid = _holder(run)
    try:
        with pytest.raises(Locked, match=f"process {pid} on {socket.gethostname()}") as caught:
            fake_run.execute(run)
        assert caught.value.exit_code == 5
        (tmp_path / "c.yaml").write_text("seed: 0\n")
        result = rlp("pipeline", "run", tmp_path / "c.yaml", "--run-dir", run, "--json")
        assert result.code == 5
        assert result.json()["error"]["message"].endswith(
            f"process {pid} on {socket.gethostname()}"
        )
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert fake_run.execute(run).ran() == NAMES, "the lock of a killed process is still held"


def test_reading_commands_work_while_a_run_is_locked(run: Path, rlp: fake_run.Rlp) -> None:
    with lock(run):
        assert rlp("check", run).code == 0
        assert rlp("pipeline", "status", run).code == 0


def _holder(run: Path) -> int:
    """A child that holds the lock until it is killed; returns once it does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with lock(run):
                os.write(writer, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    return pid


# -- signals ---------------------------------------------------------------------------------------


def _send(monkeypatch: pytest.MonkeyPatch, *numbers: int, inside: str = "search") -> None:
    """The stage `inside` sends this process signals when it writes its second journal entry, or
    at its start.
    """
    real = fake_run.Fake.run

    def run(self: fake_run.Fake, ctx: StageContext) -> dict[str, Any]:
        if self.name == inside:
            for number in numbers:
                os.kill(os.getpid(), number)
        return real(self, ctx)

    monkeypatch.setattr(fake_run.Fake, "run", run)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")]
)
@pytest.mark.parametrize(
    "inside", ["search", "trace"]
)  # one asks ctx.stopping(), the other does not
@pytest.mark.parametrize("times", [1, 2])
def test_signal_saves_and_prints_the_command_that_resumes(
    tmp_path: Path,
    rlp: fake_run.Rlp,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    word: str,
    inside: str,
    times: int,
) -> None:
    handlers = [signal.getsignal(n) for n in (2, 15)]
    (tmp_path / "a c.yaml").write_text("seed: 0\n")
    command = (
        "pipeline",
        "run",
        tmp_path / "a c.yaml",
        "--run-dir",
        tmp_path / "run",
        "--set",
        "search.trials=9",
    )
    with monkeypatch.context() as patch:
        _send(patch, *[number] * times, inside=inside)
        result = rlp(*command, "--json")
    assert result.code == code
    assert result.json()["exit_code"] == code
    assert result.lines("error") == [f"error: {word}; finished stages and checkpoints are kept"]
    typed = f"rlp pipeline run '{tmp_path}/a c.yaml' --run-dir {tmp_path}/run --set search.trials=9"
    assert result.lines("hint") == [f"hint: resume with: {typed}"]
    assert [signal.getsignal(n) for n in (2, 15)] == handlers
    done = NAMES[: NAMES.index(inside) + (inside == "trace" and times == 1)]
    steps = fake_run.plan(tmp_path / "run", ["search.trials=9"])
    assert [name for name in NAMES if steps[name].action == "reuse"] == done
    assert rlp(*command).code == 0
    expected = fake_run.finished(tmp_path / "whole", ["search.trials=9"])
    assert fake_run.committed(tmp_path / "run") == fake_run.committed(expected)


def test_two_signals_outside_a_stage_end_it_with_the_first_ones_code(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def describe(config: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(runner, "describe_data", describe)
    with pytest.raises(Interrupted) as caught:
        fake_run.execute(run)
    assert caught.value.exit_code == 143


def test_manifest_says_what_went_in_and_what_came_out(run: Path) -> None:
    manifest = json.loads((run / "search" / "manifest.json").read_bytes())
    assert manifest["inputs"]["trace/graph.json"] == store.sha256_file(run / "trace" / "graph.json")
    assert manifest["outputs"]["plan.json"]["sha256"] == store.sha256_file(
        run / "search" / "plan.json"
    )
    assert (
        manifest["outputs"]["plan.json"]["bytes"] == (run / "search" / "plan.json").stat().st_size
    )
    assert manifest["config"]["search"]["trials"] == 100
    assert set(manifest["versions"]) >= {"python", "torch", "rlp-cnn"}


def test_settings_that_failed_are_not_left_in_the_run(
    run: Path, rlp: fake_run.Rlp, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = fake_run.STAGES[-2]
    assert stage.name == "benchmark"
    works = type(stage).run

    def bad(self: fake_run.Fake, ctx: StageContext) -> dict[str, Any]:
        if ctx.config.benchmark.against:
            raise ArtifactError("bad.onnx: not an ONNX file")
        return works(self, ctx)

    monkeypatch.setattr(type(stage), "run", bad)
    before = (run / "run.json").read_bytes()
    assert rlp("stage", "benchmark", "--run", run, "--force", "--against", "bad.onnx").code == 3
    assert (run / "run.json").read_bytes() == before
    assert rlp("stage", "benchmark", "--run", run, "--force").code == 0
