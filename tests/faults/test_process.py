"""The command line as a process: closed pipes, odd locales and widths, a decoy in the current
folder, real signals.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest

# -P: tests/ on sys.path would let its pipeline/ folder stand in for the package
PROGRAM = [sys.executable, "-P", fake_run.__file__]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test writes to."""
    with pytest.MonkeyPatch.context() as patch:
        fake_run.install(patch.setattr)
        return fake_run.finished(tmp_path_factory.mktemp("whole") / "run")


def _rlp(
    *arguments: object, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, cwd=cwd, env={**os.environ, **env}, check=False, timeout=120
    )


def _shell(line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    line = line.replace("RLP", shlex.join(PROGRAM))
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        env={**os.environ, **env},
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    "command", ["--help", "config schema", "config schema --json", "pipeline status RUN"]
)
def test_reader_that_leaves_is_no_failure(whole: Path, command: str) -> None:
    code, err = _unread(*command.replace("RUN", str(whole)).split())
    assert (code, err) == (0, b"")


def test_reader_that_leaves_does_not_turn_a_missed_gate_into_a_pass(whole: Path) -> None:
    code, err = _unread("check", str(whole), "--min-speedup", "99")
    assert code == 1
    assert err.startswith(b"error: gate missed")


def _unread(*arguments: str) -> tuple[int, bytes]:
    """Exit code and stderr of a command whose stdout is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [*PROGRAM, *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=120)
    os.close(writer)
    return done.returncode, done.stderr


def test_closed_streams(whole: Path) -> None:
    assert _shell(f"RLP check '{whole}' >&- 2>&-").returncode == 0
    assert _shell(f"RLP check '{whole}' --json --min-speedup 99 >&-").returncode == 1


def test_full_disk_below_stdout_is_an_environment_problem(whole: Path) -> None:
    done = _shell(f"RLP check '{whole}' --json > /dev/full")
    assert done.returncode == 4
    assert done.stderr.startswith(b"error: output: No space left on device\nhint: ")


@pytest.mark.parametrize(
    "env",
    [
        {"LANG": "C", "LC_ALL": "C", "COLUMNS": "40", "TERM": "dumb"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"FORCE_COLOR": "1", "NO_COLOR": "1", "PYTHONIOENCODING": "ascii"},
    ],
    ids=("C", "ascii", "no colour"),
)
def test_any_locale_and_terminal(whole: Path, env: dict[str, str]) -> None:
    done = _rlp("report", whole, **env)  # prints × and ±
    assert done.returncode == 0, done.stderr
    assert b"90.00%" in done.stdout
    if "NO_COLOR" in env:
        assert b"\x1b[3" not in done.stdout + done.stderr
    document = json.loads(_rlp("report", whole, "--json", **env).stdout)
    assert document["base"]["accuracy"] == 0.9


def test_no_home_and_no_user(whole: Path) -> None:
    line = f"unset HOME USER LOGNAME XDG_CACHE_HOME; RLP check '{whole}' --json"
    assert json.loads(_shell(line).stdout)["passed"] is True


def test_decoy_in_the_current_folder_is_not_imported(tmp_path: Path) -> None:
    for package in ("pipeline", "stages", "torch", "yaml", "rich"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('decoy imported')\n")
    (tmp_path / "json.py").write_text("raise SystemExit('decoy imported')\n")
    (tmp_path / "fake.yaml").write_text("seed: 0\n")
    done = _rlp("pipeline", "run", "fake.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_installed_command_ignores_the_decoy_too(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("rlp")
    if not script.exists():
        # run from a checkout that is not installed: the same entry point by hand
        command = [sys.executable, "-P", "-c", "from pipeline.cli import main; main()"]
    else:
        command = [str(script)]
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('decoy imported')\n")
    done = subprocess.run(
        [*command, "--version"], cwd=tmp_path, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"rlp ")


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_to_the_process(
    tmp_path: Path,
    number: int,
    code: int,
    rlp: fake_run.Rlp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The signal is sent while the search waits between two of its steps."""
    (tmp_path / "fake.yaml").write_text("seed: 0\n")
    gate = tmp_path / "gate"
    os.mkfifo(f"{gate}.begun")
    os.mkfifo(f"{gate}.go")
    command = [*PROGRAM, "pipeline", "run", "fake.yaml"]
    env = {**os.environ, "FAKE_GATE": str(gate)}
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        # a shell starts background jobs, and so this suite, with SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    open(f"{gate}.begun", "rb").close()
    child.send_signal(number)
    open(f"{gate}.go", "wb").close()
    out, err = child.communicate(timeout=60)
    assert child.returncode == code
    lines = err.decode().splitlines()
    assert lines[-2].startswith("error: ")
    assert lines[-1] == "hint: resume with: rlp pipeline run fake.yaml"
    assert out == b""
    monkeypatch.chdir(tmp_path)
    done = rlp("pipeline", "run", "fake.yaml")
    assert done.code == 0, done.err
