"""Several rounds: a chain of committed stages like any other, every number against the network
as it came.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_chain import NETS, killed_at_a_checkpoint, make_images

from pipeline.cli import main
from pipeline.run.artifacts import kinds_of
from pipeline.run.store import read_json

pytestmark = pytest.mark.slow

CONFIG = """
seed: 3
rounds: 2
model: {source: "my_nets:small_cnn", kwargs: {width: 16}}
data: {root: images, search_fraction: 0.2}
pretrain: {epochs: 2, batch_size: 32, augment: {crop: 0}, precision: fp32}
search: {budget: {macs: 0.36}, trials: 6, align: 2, images: 40, fit_images: 64, finalists: 2}
distill: {epochs: 3, batch_size: 32, augment: {crop: 0}, precision: fp32}
export: {images: 32, exporter: torchscript}
quantize: {mode: off}
benchmark: {batches: [1], min_seconds: 0.1, min_runs: 10, launches: 2, profile: false}
"""

REPEATED = ("trace", "rotate", "search", "prune", "reconstruct", "distill")
CHAIN = (
    "pretrain",
    *(f"round-1/{name}" for name in REPEATED),
    *REPEATED,
    "export",
    "quantize",
    "benchmark",
    "deploy",
    "report",
)

# Runs the stages up to distill in forked children that the kernel ends after a random share of
# processor time.
KILLER = """
import json, os, random, signal, sys
import torch.export
import pipeline.cli, pipeline.run.runner, pipeline.run.rounds
import stages.distill.stage, stages.search.stage, stages.trace
from pipeline.cli.planned import stages_of
from pipeline.config.load import load_config
stages_of(load_config(__import__("pathlib").Path("my.yaml")))
random.seed(0)
statuses = []
while len(statuses) < 60:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, random.uniform(0.2, 1.6) if len(statuses) < 5 else 60)
        try:
            run = ["pipeline", "run", "my.yaml", "--run-dir", "run"]
            pipeline.cli.main([*run, "--until", "distill", "--quiet"])
        except SystemExit as end:
            os._exit(int(end.code or 0))
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if statuses[-1] != -signal.SIGPROF:
        break
print(json.dumps(statuses))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a config, a network, images and a finished run `run`; and what the run
    printed.
    """
    home = tmp_path_factory.mktemp("rounds")
    make_images(home / "images")
    (home / "my_nets.py").write_text(NETS)
    (home / "my.yaml").write_text(CONFIG)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(home)
        patch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as end:
            main(["pipeline", "run", "my.yaml", "--run-dir", "run", "--json"])
    assert not end.value.code
    return home, json.loads(printed.getvalue())


@pytest.fixture
def home(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of it, as the current folder."""
    copy = Path(shutil.copytree(finished[0], tmp_path / "home"))
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return copy


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    """A command in this process: exit code, JSON document, stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--json"])
    text = capsys.readouterr()
    return int(left.value.code or 0), json.loads(text.out), text.err


def search_of(home: Path, place: str) -> dict[str, Any]:
    return dict(read_json(home / "run" / place / "search.json"))


def weights(home: Path) -> list[str]:
    """Hashes of what both rounds left."""
    manifests = [
        json.loads((home / "run" / p / "manifest.json").read_text())
        for p in ("round-1/distill", "distill")
    ]
    return [manifest["outputs"]["model.safetensors"]["sha256"] for manifest in manifests]


def test_two_rounds_share_the_budget_and_count_from_the_original(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    home, doc = finished
    assert [row["stage"] for row in doc["stages"]] == list(CHAIN)
    first, last = search_of(home, "round-1/search"), search_of(home, "search")
    assert first["budget"]["asked"] == pytest.approx(0.6)
    assert last["budget"]["asked"] == pytest.approx(0.36)
    assert (first["round"], last["round"]) == ({"number": 1, "of": 2}, {"number": 2, "of": 2})
    base = doc["base"]["macs"]
    for found in (first, last):
        realised = found["budget"]["realised"]["macs"]
        assert realised["base"] == found["base"]["macs"] == base
        assert 0.8 * found["budget"]["asked"] < realised["fraction"] <= found["budget"]["asked"]
        assert [group["size"] for group in found["groups"]] == [16, 32, 32]
    assert doc["final"]["macs"] == last["budget"]["realised"]["macs"]["pruned"]
    kept = [[group["kept"] for group in found["groups"]] for found in (first, last)]
    assert all(after <= before for before, after in zip(*kept, strict=True))
    page = (home / doc["report"]).read_text()
    assert '<th scope="row">1 of 2</th>\n<td class="n">MACs 60.0%</td>' in page
    assert "candidate of round 2" in page
    assert "round-1/search/plan.json" in page
    cut = read_json(home / "run" / "prune" / "prune.json")
    assert cut["macs"] == {"before": base, "after": doc["final"]["macs"]}
    assert cut["layers"]["before"][0]["out_channels"] == 16


def test_each_round_starts_from_the_one_before_and_learns_from_the_original(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    home, _ = finished
    inputs = {
        place: json.loads((home / "run" / place / "manifest.json").read_text())["inputs"]
        for place in ("trace", "rotate", "search", "prune", "distill", "round-1/search")
    }
    for place in ("trace", "rotate"):
        assert "round-1/distill/model.safetensors" in inputs[place]
    for place in ("search", "prune"):
        assert "rotate/model.safetensors" in inputs[place]
    assert "pretrain/model.safetensors" in inputs["distill"]
    assert "round-1/distill/model.safetensors" not in inputs["distill"]
    assert {"pretrain/model.safetensors", "round-1/trace/graph.json"} <= set(inputs["search"])
    assert "round-1/trace/graph.json" in inputs["round-1/search"]


def test_typing_it_again_runs_nothing_and_check_passes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, doc, _ = here(capsys, "pipeline", "run", "my.yaml", "--run-dir", "run")
    assert code == 0
    assert [row["action"] for row in doc["stages"]] == ["reuse"] * len(CHAIN)
    assert here(capsys, "check", "run")[0] == 0
    assert not list((home / "run").rglob(".work/*"))


def test_one_flipped_byte_in_an_earlier_round_is_found_and_its_stage_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in (home / "run" / "round-1").rglob("*") if path.is_file()]
    kinds = [kind for name in REPEATED for kind in kinds_of(name)]
    assert len(files) == sum(len(kind.files) for kind in kinds) + len(REPEATED)  # and a manifest
    for path in files:
        original = path.read_bytes()
        middle = len(original) // 2
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        code, doc, _ = here(capsys, "check", "run")
        assert code == 3, path
        stage = f"round-1/{path.parent.name}"
        assert doc["error"]["hint"].startswith(f"rlp stage {stage} --run run --force"), path
        path.write_bytes(original)
    assert here(capsys, "check", "run")[0] == 0


def test_stage_of_an_earlier_round_runs_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (home / "run" / "round-1" / "search" / "plan.json").read_bytes()
    asked = ("stage", "round-1/search", "--run", "run", "--force", "--trust-code")  # a copied run
    code, doc, _ = here(capsys, *asked)
    assert code == 0
    assert (doc["stage"], doc["action"]) == ("round-1/search", "run")
    assert doc["outputs"]["plan.json"] == "run/round-1/search/plan.json"
    assert (home / "run" / "round-1" / "search" / "plan.json").read_bytes() == before
    assert here(capsys, "check", "run")[0] in (0, 3)  # search.json holds seconds


def test_other_number_of_rounds_says_what_it_re_runs_and_reports_what_is_left(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = here(capsys, "pipeline", "plan", "my.yaml", "--run-dir", "run", "--set", "rounds=3")[1][
        "stages"
    ]
    rows = {row["stage"]: row for row in plan}
    assert list(rows)[1 : 1 + 2 * len(REPEATED)] == [
        f"round-{k}/{name}" for k in (1, 2) for name in REPEATED
    ]
    assert (rows["round-1/trace"]["action"], rows["round-1/search"]["reason"]) == (
        "reuse",
        "rounds 2 → 3",
    )
    one = (
        "pipeline",
        "run",
        "my.yaml",
        "--run-dir",
        "run",
        "--set",
        "rounds=1",
        "--until",
        "trace",
    )
    code, doc, errors = here(capsys, *one)
    assert code == 0
    assert {row["stage"]: row["action"] for row in doc["stages"]}["trace"] == "run"
    assert "run/round-1: left by a run of more rounds" in errors
    refused = here(capsys, "stage", "round-1/search", "--run", "run")
    assert refused[0] == 2
    assert "rounds: 2" in refused[1]["error"]["hint"]


def test_unreachable_budget_is_said_in_the_first_round(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    too_small = ("--set", "search.budget.macs=0.01", "--until", "round-1/search")
    code, doc, _ = here(capsys, "pipeline", "run", "my.yaml", "--run-dir", "run", *too_small)
    assert code == 2
    assert (
        "search.budget.macs=0.01 cannot be met: the smallest reachable" in doc["error"]["message"]
    )


def test_killed_again_and_again_the_real_chain_ends_with_the_same_weights(home: Path) -> None:
    wanted = weights(home)
    for place in ("round-1", *CHAIN[1 + len(REPEATED) :]):
        shutil.rmtree(home / "run" / place)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", KILLER],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    statuses = json.loads(done.stdout.splitlines()[-1])
    assert statuses[-1] == 0, done.stderr
    assert len(statuses) > 2, "no kill met a run that was going on"
    assert weights(home) == wanted


def test_killed_in_the_distillation_of_round_1_it_resumes_to_the_same_weights(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = weights(home)
    for place in CHAIN[CHAIN.index("round-1/distill") :]:
        shutil.rmtree(home / "run" / place)
    arguments = ["pipeline", "run", "my.yaml", "--run-dir", "run", "--until", "distill"]
    killed_at_a_checkpoint(home, arguments)
    assert (home / "run" / "round-1" / ".work" / "distill" / "checkpoint.json").exists()
    code, _, errors = here(capsys, *arguments)
    assert code == 0
    assert "resumed" in errors
    assert weights(home) == wanted
