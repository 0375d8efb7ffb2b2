"""Damaged, stale and foreign artefacts: found before they are used, exit 3, and the stage to
re-make is named.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import fake_run
import pytest

from pipeline.errors import ArtifactError
from pipeline.run import store
from pipeline.run.artifacts import KINDS, kinds_of
from pipeline.run.documents import Sealed

pytestmark = pytest.mark.usefixtures("fakes")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test writes to."""
    with pytest.MonkeyPatch.context() as patch:
        fake_run.install(patch.setattr)
        return fake_run.finished(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


FILES = [
    f"{s.name}/{name}" for s in fake_run.STAGES for kind in kinds_of(s.name) for name in kind.files
]
MANIFESTS = [f"{stage.name}/manifest.json" for stage in fake_run.STAGES]


def test_every_file_of_a_run_is_tried(run: Path) -> None:
    there = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    assert there == {*FILES, *MANIFESTS, "run.json"}


@pytest.mark.parametrize("name", [*FILES, *MANIFESTS, "run.json"])
def test_one_flipped_bit_is_found_and_its_stage_named(
    run: Path, rlp: fake_run.Rlp, name: str
) -> None:
    path = run / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        result = rlp("check", run, "--json")
        assert result.code == 3, f"bit of byte {place}"
        stage = name.partition("/")[0]
        assert stage in result.lines("error")[0]
        assert stage in result.lines("hint")[0] or name == "run.json"
        assert result.json()["exit_code"] == 3
    path.write_bytes(whole)
    assert rlp("check", run).code == 0


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-5]),
    "empty": lambda p: p.write_bytes(b""),
    "trailing byte": lambda p: p.write_bytes(p.read_bytes() + b"\n"),
    "huge": lambda p: os.truncate(p, 5 << 30),
    "symlink to itself moved": lambda p: (p.rename(p.with_name("moved")), p.symlink_to("moved")),
    "dangling symlink": lambda p: (p.unlink(), p.symlink_to("nowhere")),
    "hard link": lambda p: os.link(p, p.with_name("second-name")),
    "fifo": lambda p: (p.unlink(), os.mkfifo(p)),
    "folder": lambda p: (p.unlink(), p.mkdir()),
    "socket or device": lambda p: (p.unlink(), p.symlink_to("/dev/zero")),
    "not text": lambda p: p.write_bytes(b"\xff\xfe\x00"),
    "an error page": lambda p: p.write_bytes(b"<!DOCTYPE html><html>404</html>"),
    "not json": lambda p: p.write_bytes(b"{'kind': 1}"),
    "a list": lambda p: p.write_bytes(b"[]\n"),
    "NaN": lambda p: p.write_bytes(b'{"kind": NaN}\n'),
    "deep": lambda p: p.write_bytes(b"[" * 200_000),
    "wrong kind": lambda p: store.write_json(p, {"kind": "recipe", "schema_version": 1}),
    "newer schema": lambda p: store.write_json(
        p, {**json.loads(p.read_bytes()), "schema_version": 99}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["run.json", "search/manifest.json", "search/plan.json"])
def test_damaged_file_is_refused_by_every_reader(
    run: Path, rlp: fake_run.Rlp, name: str, damage: str
) -> None:
    DAMAGES[damage](run / name)
    before = fake_run.committed(run, but=name)
    commands = [("check", run), ("stage", "prune", "--run", run), ("report", run)]
    if name == "run.json":
        commands.append(("pipeline", "status", run))
    for command in commands:
        result = rlp(*command, "--json")
        assert result.code == 3, command
        assert len(result.lines("hint")) == 1
        assert name in result.lines("error")[0]
        assert result.json()["ok"] is False
    assert fake_run.committed(run, but=name) == before


def test_newer_schema_says_so(run: Path, rlp: fake_run.Rlp) -> None:
    DAMAGES["newer schema"](run / "trace" / "manifest.json")
    result = rlp("check", run)
    assert "schema version 99, this rlp reads up to 1" in result.err
    assert "upgrade" in result.err or "--force" in result.err


def test_hint_mends_what_it_was_given_for(run: Path, rlp: fake_run.Rlp) -> None:
    """Typing what the hint says, and then the run again, leads back to a whole run."""
    expected = fake_run.committed(run)
    DAMAGES["truncated"](run / "search" / "plan.json")
    hint = rlp("stage", "prune", "--run", run).lines("hint")[0]
    assert f"rlp stage search --run {run} --force" in hint
    assert rlp("stage", "search", "--run", run, "--force").code == 0
    assert rlp("check", run).code == 0
    assert fake_run.committed(run) == expected


def test_blocked_run_names_file_stage_and_remedy(run: Path) -> None:
    DAMAGES["truncated"](run / "search" / "plan.json")
    for choice in ({}, {"first": "prune"}, {"first": "search", "last": "search"}):
        with pytest.raises(ArtifactError) as caught:
            fake_run.execute(run, **choice)
        assert "search/plan.json" in caught.value.message
        assert "it /" not in caught.value.message
        assert f"rlp stage search --run {run} --force" in caught.value.hint


def test_paths_in_hints_can_be_pasted_into_a_shell(
    whole: Path, tmp_path: Path, rlp: fake_run.Rlp
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "a run; rm -rf ü"))
    DAMAGES["truncated"](run / "search" / "plan.json")
    for command in (("check", run), ("stage", "search", "--run", run)):
        assert f"--run '{run}' --force" in rlp(*command).lines("hint")[0]


@pytest.mark.parametrize("name", FILES)
def test_missing_output_re_runs_that_stage_only(run: Path, name: str) -> None:
    expected = fake_run.committed(run)
    (run / name).unlink()
    watcher = fake_run.execute(run)
    stage = name.partition("/")[0]
    assert watcher.ran() == [stage]
    assert f"{name} is missing" in watcher.why(stage)
    assert fake_run.committed(run) == expected


def test_missing_manifest_re_runs_that_stage_only(run: Path) -> None:
    (run / "search" / "manifest.json").unlink()
    assert fake_run.execute(run).ran() == ["search"]


def test_stage_folder_that_is_a_file_or_a_link_is_refused_or_replaced(
    run: Path, rlp: fake_run.Rlp
) -> None:
    (run / "search").rename(run.parent / "elsewhere")
    (run / "search").symlink_to(run.parent / "elsewhere")
    result = rlp("check", run)
    assert result.code == 3
    assert "search" in result.err
    (run / "search").unlink()
    (run / "search").write_text("")
    assert rlp("check", run).code == 3
    assert fake_run.execute(run).ran() == ["search"]
    assert rlp("check", run).code == 0


FORGED: dict[str, Callable[[dict], object]] = {
    "absolute name": lambda m: m["outputs"].update(
        {"/etc/hostname": {**m["outputs"]["plan.json"]}}
    ),
    "name that climbs out": lambda m: m["outputs"].update(
        {"../run.json": {**m["outputs"]["plan.json"]}}
    ),
    "kind of another stage": lambda m: m["outputs"]["plan.json"].update(kind="graph"),
    "kind that does not exist": lambda m: m["outputs"]["plan.json"].update(kind="nonsense"),
    "no outputs": lambda m: m.pop("outputs"),
    "outputs are a list": lambda m: m.update(outputs=[1]),
    "hash is a number": lambda m: m["outputs"]["plan.json"].update(sha256=3),
    "no config": lambda m: m.pop("config"),
    "inputs are null": lambda m: m.update(inputs=None),
    "duration is a word": lambda m: m.update(duration_s="long"),
    "manifest of another stage": lambda m: m.update(stage="trace"),
}


def forge(path: Path, document: dict) -> None:
    """Any content under a right seal."""
    Sealed(document["kind"], "", (), 1 << 20, "forged").write(path, document)


@pytest.mark.parametrize("forgery", FORGED)
def test_manifest_with_a_right_seal_and_wrong_content(
    run: Path, rlp: fake_run.Rlp, forgery: str
) -> None:
    path = run / "search" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    FORGED[forgery](manifest)
    forge(path, manifest)
    for command in (("check", run), ("stage", "prune", "--run", run), ("report", run)):
        result = rlp(*command)
        assert result.code == 3, forgery
        assert "search" in result.lines("error")[0]
    assert rlp("pipeline", "status", run).code == 0
    assert rlp("stage", "search", "--run", run, "--force").code == 0
    assert rlp("check", run).code == 0


def test_output_that_an_older_rlp_did_not_write_is_made(run: Path) -> None:
    path = run / "search" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["outputs"]["search.json"]
    forge(path, manifest)
    (run / "search" / "search.json").unlink()
    assert fake_run.execute(run).ran() == ["search"]


@pytest.mark.parametrize(
    "change", [{"config": {"serach": {}}}, {"config": []}, {"config_name": None}]
)
def test_run_file_with_a_right_seal_and_wrong_content(
    run: Path, rlp: fake_run.Rlp, change: dict
) -> None:
    record = json.loads((run / "run.json").read_bytes())
    forge(run / "run.json", {**record, **change})
    result = rlp("check", run)
    assert result.code == 3
    assert "run.json" in result.lines("error")[0]


def test_hand_edited_plan_is_refused_until_accepted(run: Path, rlp: fake_run.Rlp) -> None:
    plan = run / "search" / "plan.json"
    plan.write_text(plan.read_text().replace("digest", "digest by hand"))
    config = run.parent / "c.yaml"
    config.write_text("seed: 0\n")
    command = ("pipeline", "run", config, "--run-dir", run)
    refused = rlp(*command)
    assert refused.code == 3
    assert "search/plan.json" in refused.lines("error")[0]
    accepted = rlp(*command, "--accept-edited")
    assert accepted.code == 0
    assert "edited by hand" in accepted.err
    manifest = json.loads((run / "search" / "manifest.json").read_bytes())
    assert manifest["accepted_edits"] == ["plan.json"]
    assert "digest by hand" in plan.read_text()
    assert rlp("check", run).code == 0
    assert rlp(*command).code == 0


def test_input_that_changes_while_the_stage_runs_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fake_run.Fake.run

    def meddled(self: fake_run.Fake, ctx: object) -> object:
        if self.name == "prune":
            (run / "search" / "plan.json").write_bytes(b"{}")
        return real(self, ctx)

    monkeypatch.setattr(fake_run.Fake, "run", meddled)
    with pytest.raises(ArtifactError, match=r"plan\.json: changed while the run was going on"):
        fake_run.execute(run, first="prune", force="prune")
    assert fake_run.plan(run)["prune"].action == "blocked"


def test_artefact_above_its_size_cap_is_not_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = run / "search" / "plan.json"
    os.truncate(plan, KINDS["plan"].max_bytes + 1)
    monkeypatch.setattr(
        store, "sha256_file", lambda path: pytest.fail("read it") if path == plan else "0" * 64
    )
    assert "more than the" in fake_run.plan(run)["search"].reason
