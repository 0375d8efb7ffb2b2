"""The child process: it answers, dies without its parent, and refuses what is no ONNX file."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import double, endless_loop

from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.runtime import Worker, find_provider, require_provider, session


def test_runs_a_file_and_times_it(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with Worker() as worker:
        opened = worker.open(double(tmp_path / "double.onnx"))
        assert opened["inputs"][0] == {
            "name": "input",
            "shape": ["batch", 3],
            "type": "tensor(float)",
        }
        np.testing.assert_array_equal(worker.infer(x), 2 * x)
        worker.feed(batch=4)
        times = worker.slot(seconds=0.0, least=7)
        assert len(times) >= 7
        assert min(times) > 0
        assert worker.warm(window=0.0, tolerance=1e9, limit=5.0)["stable"]


@pytest.mark.parametrize(
    ("medians", "windows"),
    [
        ([9, 5, 4, 3.95, 2], 4),  # cold, and then no faster
        ([4, 4, 6, 1], 3),  # other work comes: no longer waited for
        ([9, 4, 6, 1], 3),
        ([9, 8, 7, 6, 5, 4, 3], 7),  # still falling when the time is up
    ],
)
def test_warms_up_until_windows_no_longer_get_faster(
    monkeypatch: pytest.MonkeyPatch, medians: list[float], windows: int
) -> None:
    seen = iter(medians)
    monkeypatch.setattr(session, "timed", lambda *_: [int(next(seen) * 100)])
    clock = iter(range(100))
    monkeypatch.setattr(session.time, "perf_counter", lambda: next(clock))
    found = session.warm_up(None, window=1.0, tolerance=0.03, limit=7)  # type: ignore[arg-type]
    assert found["runs"] == windows
    assert found["stable"] == (windows < 7)


def test_binds_inputs_and_outputs_to_a_device_and_times_the_copies_apart(tmp_path: Path) -> None:
    with Worker() as worker:
        worker.open(double(tmp_path / "double.onnx"))
        worker.feed(batch=4, device="cpu")
        assert min(worker.slot(seconds=0.0, least=3)) > 0
        assert worker.copies("cpu", repeats=3) > 0


def test_a_non_contiguous_batch_arrives_in_order(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2).T
    with Worker() as worker:
        worker.open(double(tmp_path / "double.onnx"))
        np.testing.assert_array_equal(worker.infer(x), 2 * x)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_killed_child_is_an_artifact_error_naming_file_and_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Worker() as worker:
        worker.open(double(tmp_path / "deadly.onnx"))
        os.kill(worker.pid, number)
        with pytest.raises(ArtifactError, match=rf"{number.name}.*deadly\.onnx") as caught:
            worker.infer(np.zeros((1, 3), np.float32))
    assert caught.value.exit_code == 3


def test_a_child_that_dies_while_opening_reports_its_last_words(tmp_path: Path) -> None:
    script = (
        "import os, sys; sys.stdin.readline()\n"
        "print('stack smashed', file=sys.stderr, flush=True); os.abort()"
    )
    with Worker(command=[sys.executable, "-c", script]) as worker:
        with pytest.raises(ArtifactError, match=r"SIGABRT.*model\.onnx") as caught:
            worker.open(double(tmp_path / "model.onnx"))
        assert not worker.alive
    assert caught.value.details == ("stack smashed",)


def test_a_child_that_hangs_is_killed(tmp_path: Path) -> None:
    script = "import sys, threading; sys.stdin.readline(); threading.Event().wait()"
    with Worker(command=[sys.executable, "-c", script], timeout=0.2) as worker:
        with pytest.raises(ArtifactError, match="did not answer"):
            worker.open(double(tmp_path / "model.onnx"))
        assert not worker.alive


def test_what_a_library_prints_does_not_disturb_the_answers(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(
        "import os\nprint('hello')\nos.write(1, b'noise')\n"
        "__version__ = 'fake'\nget_available_providers = list\n"
    )
    child = Path(sys.modules[Worker.__module__].__file__ or "").with_name("child.py")
    start = (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"runpy.run_path({str(child)!r}, run_name='__main__')"
    )
    with Worker(command=[sys.executable, "-c", start]) as worker:
        assert worker.hello()["onnxruntime"] == "fake"


def test_modules_in_the_current_folder_do_not_shadow_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "numpy", "pipeline"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('decoy')")
    monkeypatch.chdir(tmp_path)
    with Worker() as worker:
        assert "CPUExecutionProvider" in worker.hello()["available"]


@pytest.mark.parametrize(
    ("content", "guess"),
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\x80\x04\x95pickled", "a pickle"),
        (b"", "an empty file"),
    ],
)
def test_another_type_of_file_is_refused_by_name(
    tmp_path: Path, content: bytes, guess: str
) -> None:
    path = tmp_path / "fake.onnx"
    path.write_bytes(content)
    with Worker() as worker, pytest.raises(ArtifactError, match=rf"fake\.onnx.*{guess}"):
        worker.open(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = double(tmp_path / "double.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with Worker() as worker, pytest.raises(ArtifactError, match=r"double\.onnx"):
        worker.open(path)


def test_an_absent_provider_is_exit_4_naming_its_package(tmp_path: Path) -> None:
    with Worker() as worker:
        absent = next(
            name
            for name in ("TensorrtExecutionProvider", "OpenVINOExecutionProvider")
            if name not in worker.hello()["available"]
        )
        with pytest.raises(EnvironmentProblem, match=absent) as caught:
            require_provider(worker, absent)
        with pytest.raises(EnvironmentProblem, match=absent):
            worker.open(double(tmp_path / "double.onnx"), provider=absent)
    assert caught.value.exit_code == 4
    assert find_provider(absent).package in caught.value.hint


def test_a_file_whose_run_never_ends_is_given_up(tmp_path: Path) -> None:
    path = endless_loop(tmp_path / "endless.onnx")
    with Worker(first_run=0.1) as worker:
        worker.open(path)
        worker.feed(batch=1)
        with pytest.raises(ArtifactError, match=r"did not answer within .*/endless\.onnx"):
            worker.warm(limit=0.1)
        assert not worker.alive


def test_onnxruntime_keeps_nothing_about_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.delenv("CI", raising=False)  # where it keeps quiet of itself
    with Worker() as worker:
        worker.open(double(tmp_path / "double.onnx"))
        worker.infer(np.ones((1, 3), np.float32))
    assert [path for path in home.rglob("*") if path.is_file()] == []
