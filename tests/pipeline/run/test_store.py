"""Atomic files, canonical and sealed JSON, commits, recovery."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.run import store
from pipeline.run.commit import commit, recover, staging
from pipeline.run.documents import Sealed
from pipeline.run.inside import open_run
from pipeline.run.lock import lock

SEALED = Sealed("k", "", ("a.json",), 1 << 20, "a thing")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)
few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@few
@given(JSON)
def test_json_comes_back_as_it_was(tmp_path: Path, obj: Any) -> None:
    digest = store.write_json(tmp_path / "a.json", obj)
    assert store.read_json(tmp_path / "a.json", sha256=digest) == obj
    assert store.sha256_file(tmp_path / "a.json") == digest


@few
@given(st.dictionaries(st.text(), SCALARS, min_size=2), st.randoms())
def test_same_object_gives_the_same_bytes(obj: dict[str, Any], chance: Any) -> None:
    items = list(obj.items())
    chance.shuffle(items)
    assert store.dump_json(dict(items)) == store.dump_json(obj)
    assert store.dump_json(json.loads(store.dump_json(obj))) == store.dump_json(obj), (
        "not a fixed point"
    )


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400])
def test_an_integer_that_nothing_counts_up_to_is_no_json(value: int) -> None:
    with pytest.raises(ArtifactError, match="more than 64 bits"):
        store.parse_json(json.dumps([value]).encode(), "a.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_never_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write_json(tmp_path / "a.json", {"loss": value})
    assert list(tmp_path.iterdir()) == []


@few
@given(st.binary(max_size=200), st.data())
def test_sealed_file_shows_any_changed_byte(
    tmp_path: Path, blob: bytes, data: st.DataObject
) -> None:
    path = tmp_path / "a.json"
    SEALED.write(path, {"blob": blob.hex(), "n": 0.1, "t": "ü"})
    assert SEALED.read(path)["blob"] == blob.hex()
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
    with pytest.raises(ArtifactError):
        SEALED.read(path)


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        ([], "not a k file"),
        ({"kind": "other", "schema_version": 1}, "not a k file"),
        ({"kind": "k", "schema_version": 2}, "reads up to 1"),
        ({"kind": "k", "schema_version": "1"}, "schema version"),
        ({"kind": "k"}, "schema version None"),
        ({"kind": "k", "schema_version": 1}, "seal broken"),
        ({"kind": "k", "schema_version": 1, "seal": "0" * 64}, "seal broken"),
        ({"kind": "k", "schema_version": 1, "seal": None}, "seal broken"),
    ],
)
def test_sealed_file_of_another_kind(tmp_path: Path, obj: Any, said: str) -> None:
    store.write_json(tmp_path / "a.json", obj)
    with pytest.raises(ArtifactError, match=said):
        SEALED.read(tmp_path / "a.json")


def test_reading_stops_at_the_cap_before_the_first_byte(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    os.truncate(tmp_path / "a.json", 1 << 40)
    with pytest.raises(ArtifactError, match="more than the"):
        store.read_json(tmp_path / "a.json")


def test_hash_is_checked_before_parsing(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("not json")
    with pytest.raises(ArtifactError, match="sha256 mismatch"):
        store.read_json(tmp_path / "a.json", sha256="0" * 64)


def test_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_bytes(tmp_path / "a", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(EnvironmentProblem, match="No space left") as caught:
        store.write_bytes(tmp_path / "a", b"new")
    assert caught.value.exit_code == 4
    assert "disk space" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_data_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that survives a power cut: fsync the file, rename, fsync the folder."""
    order: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        real_sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *a: (order.append("rename"), real_replace(*a)))
    store.write_bytes(tmp_path / "a", b"data")
    assert order == ["file", "rename", "folder"]


def test_writing_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "a").symlink_to(tmp_path / "target")
    store.write_bytes(tmp_path / "a", b"ours")
    assert (tmp_path / "target").read_text() == "theirs"
    assert not (tmp_path / "a").is_symlink()


def test_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    assert store.check_regular(tmp_path / "file") == 1
    for path in (
        tmp_path,
        tmp_path / "link",
        tmp_path / "fifo",
        Path("/dev/zero"),
        tmp_path / "nothing",
    ):
        with pytest.raises(ArtifactError):
            store.check_regular(path)
        with pytest.raises(ArtifactError):
            store.sha256_file(path)


def test_second_name_is_refused_for_files_of_a_run_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    os.link(tmp_path / "a", tmp_path / "b")
    assert store.check_regular(tmp_path / "a") == 1
    with pytest.raises(ArtifactError, match="hard link"):
        store.check_regular(tmp_path / "a", single=True)


def test_commit_replaces_the_whole_folder(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with open_run(tmp_path) as home, staging(home, "trace") as folder:
            (folder / content).write_text(content)
            commit(home, "trace")
    assert [p.name for p in (tmp_path / "trace").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["trace"]


@pytest.mark.parametrize("in_the_way", ["file", "dangling link"])
def test_commit_replaces_whatever_is_in_its_place(tmp_path: Path, in_the_way: str) -> None:
    target = tmp_path / "trace"
    for _ in range(2):  # twice: what was set aside must not be in the way the next time
        if in_the_way == "file":
            target.write_text("")
        else:
            target.symlink_to("nowhere")
        with open_run(tmp_path) as home, staging(home, "trace") as folder:
            (folder / "graph.json").write_text("{}")
            commit(home, "trace")
        assert [p.name for p in tmp_path.iterdir()] == ["trace"]
        assert (target / "graph.json").is_file()
        (target / "graph.json").unlink()
        target.rmdir()


@pytest.mark.parametrize("forward", [True, False])
def test_commit_killed_between_its_renames_is_finished_or_undone(
    tmp_path: Path, forward: bool
) -> None:
    (tmp_path / ".old-trace").mkdir()
    (tmp_path / ".old-trace" / "manifest.json").write_text("old")
    (tmp_path / ".staging-trace").mkdir()
    if forward:
        (tmp_path / ".staging-trace" / "manifest.json").write_text("new")
    notes = recover(tmp_path)
    assert (tmp_path / "trace" / "manifest.json").read_text() == ("new" if forward else "old")
    assert [p.name for p in tmp_path.iterdir()] == ["trace"]
    assert "finished" in notes[0] if forward else "undone" in notes[0]
    assert recover(tmp_path) == []


def test_staging_is_swept_when_a_stage_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with open_run(tmp_path) as home, staging(home, "trace") as folder:
            (folder / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_lock_is_freed_and_leaves_no_owner(tmp_path: Path) -> None:
    for _ in range(2):
        with lock(tmp_path / "run"):
            assert json.loads((tmp_path / "run" / ".owner.json").read_bytes())["pid"] == os.getpid()
    assert not (tmp_path / "run" / ".owner.json").exists()


def test_a_line_is_appended_whole_where_the_system_takes_it_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "trials.jsonl", os.write
    path.write_bytes(b"first\n")
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
    store.append_bytes(path, b"second line\n")
    assert path.read_bytes() == b"first\nsecond line\n"
