"""The whole chain on a network and images that rlp has never seen, from outside the checkout."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.cli import main
from pipeline.run import store
from pipeline.run.artifacts import MANIFEST
from pipeline.run.store import sha256_file
from stages import NAMES as STAGES

pytestmark = pytest.mark.slow

There = Callable[..., tuple[int, dict[str, Any]]]

NETS = """
from torch import nn

def small_cnn(num_classes=10, in_channels=3, width=16):
    def block(i, o, stride):
        return [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    wide = 2 * width
    layers = block(in_channels, width, 1) + block(width, wide, 2) + block(wide, wide, 2)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, num_classes)
    return nn.Sequential(*layers, *head)
"""

CONFIG = """
seed: 3
model: {source: "my_nets:small_cnn", kwargs: {width: 16}}
data: {root: ROOT, search_fraction: 0.2}
pretrain: {epochs: 3, batch_size: 32, augment: {crop: 0}, precision: fp32}
search: {budget: {macs: 0.6}, align: 8, trials: 6, images: 40, fit_images: 64, finalists: 1}
distill: {epochs: 4, batch_size: 32, augment: {crop: 0}, precision: fp32}
export: {images: 32, exporter: torchscript}
quantize: {images: 32, search_images: 64}
benchmark: {batches: [1], min_seconds: 0.05, min_runs: 20, launches: 2, profile: false}
"""


def make_images(root: Path) -> None:
    """Two classes that a small network can learn: bright top, bright left."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 120), ("test", 30)):
        for name in ("top", "left"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (16, 16, 3))
                pixels[
                    (slice(0, 8), slice(None)) if name == "top" else (slice(None), slice(0, 8))
                ] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")


def rlp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", "from pipeline.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a config, a network, images and a finished run `run`; and what the run
    printed.
    """
    home = tmp_path_factory.mktemp("elsewhere")
    make_images(home / "my images")
    (home / "my_nets.py").write_text(NETS)
    (home / "my.yaml").write_text(CONFIG.replace("ROOT", '"my images"'))
    done = rlp("pipeline", "run", "my.yaml", "--run-dir", "run", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    return home, json.loads(done.stdout)


def copy_of(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    home = tmp_path / "home"
    shutil.copytree(finished[0], home)
    return home


def test_the_summary_holds_what_was_measured(finished: tuple[Path, dict[str, Any]]) -> None:
    home, doc = finished
    assert doc["ok"] is True
    assert [row["action"] for row in doc["stages"]] == ["run"] * len(STAGES)
    assert doc["data"]["test_images"] == 60
    assert doc["final"]["macs"] <= 0.6 * doc["base"]["macs"]
    assert doc["base"]["accuracy"] >= 0.9
    assert doc["final"]["latency_ms"]["p50"] > 0
    assert doc["speedup"]["ci95"][0] <= doc["speedup"]["ratio"] <= doc["speedup"]["ci95"][1]
    assert doc["parity"]["top1_agreement"] >= 0.99
    page = (home / doc["report"]).read_text()
    assert "src=" not in page
    assert "<svg" in page
    assert (home / doc["onnx"]).stat().st_size == doc["final"]["bytes"]


@pytest.fixture
def there(
    finished: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> There:
    """Runs a command in the folder of `finished`, in this process: exit code and JSON document."""
    monkeypatch.chdir(finished[0])

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = _in_process(*arguments, "--json")
        return code, json.loads(capsys.readouterr().out)

    return run


def test_what_was_deployed_is_as_accurate_as_the_benchmark_says(
    finished: tuple[Path, dict[str, Any]], there: There
) -> None:
    home, doc = finished
    code, found = there("predict", "run", "my images/test", "--labels-from-folders")
    assert code == 0
    assert home / found["deploy"] == home / doc["deploy"]
    assert found["accuracy"]["images"] == doc["data"]["test_images"]
    assert found["accuracy"]["accuracy"] == doc["final"]["accuracy"]
    script = [sys.executable, str(home / doc["deploy"] / "predict.py"), "--json", "my images/test"]
    own = subprocess.run(script, cwd=home, capture_output=True, text=True, timeout=120, check=True)
    assert [row["labels"] for row in json.loads(own.stdout)["images"]] == [
        row["labels"] for row in found["images"]
    ]


def test_all_four_variants_are_there_and_one_of_them_is_the_final_one(
    finished: tuple[Path, dict[str, Any]], there: There
) -> None:
    home, doc = finished
    rows = {row["name"]: row for row in doc["variants"]}
    assert list(rows) == ["base", "base_int8", "final", "final_int8"]
    (chosen,) = (row for row in rows.values() if row["chosen"])
    for key in ("accuracy", "bytes", "macs", "latency_ms", "precision"):
        assert chosen[key] == doc["final"][key]
    assert [chosen[key] for key in ("ratio", "ci95")] == [
        doc["speedup"][k] for k in ("ratio", "ci95")
    ]
    assert (rows["base"]["accuracy"], rows["base"]["ratio"]) == (doc["base"]["accuracy"], 1.0)
    assert rows["base_int8"]["macs"] == rows["base"]["macs"] > rows["final_int8"]["macs"]
    page = (home / doc["report"]).read_text()
    assert "original, INT8 alone" in page
    _, alone = there("check", "run", "--variant", "base_int8", "--max-macs", "1")
    assert alone["gates"][0]["value"] == rows["base"]["macs"]


def test_typing_it_again_runs_nothing(finished: tuple[Path, dict[str, Any]], there: There) -> None:
    code, doc = there("pipeline", "run", "my.yaml", "--run-dir", "run")
    assert code == 0
    assert [row["action"] for row in doc["stages"]] == ["reuse"] * len(STAGES)
    assert doc["final"] == finished[1]["final"]


def test_a_search_key_reruns_search_and_what_follows(there: There) -> None:
    _, doc = there("pipeline", "plan", "my.yaml", "--run-dir", "run", "--set", "search.trials=7")
    rows = {row["stage"]: row for row in doc["stages"]}
    assert [rows[name]["action"] for name in STAGES] == ["reuse"] * 3 + ["run"] * (len(STAGES) - 3)
    assert rows["search"]["reason"] == "search.trials 6 → 7"
    assert rows["prune"]["reason"] == "search runs before it"


def test_check_passes_and_gates(there: There) -> None:
    assert there("check", "run", "--max-accuracy-drop", "100")[0] == 0
    code, missed = there("check", "run", "--min-speedup", "1000")
    assert code == 1
    assert missed["gates"][0]["passed"] is False


def test_one_flipped_byte_anywhere_is_found(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path) / "run"
    files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert len(files) >= 20
    for path in files:
        original = path.read_bytes()
        middle = len(original) // 2
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        assert _check_in_process(run) == 3, path
        hint = capsys.readouterr().err.splitlines()[-1]
        stage = path.relative_to(run).parts[0]
        assert path.name == "run.json" or f"rlp stage {stage} " in hint, (path, hint)
        path.write_bytes(original)
    assert _check_in_process(run) == 0


def _check_in_process(run: Path) -> int:
    return _in_process("check", str(run), "--quiet")


def _in_process(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(left.value.code or 0)


EPOCHS = ("--set", "pretrain.epochs=5")


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("pretrain", EPOCHS),
        ("distill", ()),
        # nothing augmented: the teacher is asked once
        ("distill", ("--set", "distill.augment.flip=false")),
    ],
    ids=["pretrain", "distill", "distill from remembered logits"],
)
def test_two_runs_and_a_killed_one_give_the_same_weights(
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    stage: str,
    settings: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the three, only the one that is killed needs a process of its own."""
    home = copy_of(finished, tmp_path)
    monkeypatch.chdir(home)
    arguments = ["pipeline", "run", "my.yaml", "--run-dir", "run", "--until", stage, *settings]
    wanted = _weights(home, stage)
    assert _in_process(*arguments, f"--force={stage}") == 0
    if settings:  # else it is the second run of what `finished` holds
        assert _weights(home, stage) != wanted
        wanted = _weights(home, stage)
    assert _weights(home, stage) == wanted
    shutil.rmtree(home / "run" / stage)
    killed_at_a_checkpoint(home, arguments)
    assert not (home / "run" / stage).exists()
    capsys.readouterr()
    assert _in_process(*arguments) == 0
    assert "resumed after step" in capsys.readouterr().err
    assert _weights(home, stage) == wanted


def killed_at_a_checkpoint(home: Path, arguments: list[str]) -> None:
    """Type `rlp` in `home`, in a process that dies of SIGKILL as soon as a checkpoint is saved."""
    dies = (
        "import os, signal\n"
        "from pipeline.run.checkpoints import CheckpointFolder as Folder\n"
        "save = Folder.save\n"
        "Folder.save = lambda self, point: (save(self, point), os.kill(os.getpid(), "
        "signal.SIGKILL))\n"
        f"from pipeline.cli import main; main({arguments!r})"
    )
    child = subprocess.run(
        [sys.executable, "-P", "-c", dies], cwd=home, capture_output=True, text=True, timeout=300
    )
    assert child.returncode == -signal.SIGKILL, child.stderr


def test_weights_of_ones_own_training_are_adopted(
    finished: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = copy_of(finished, tmp_path)
    monkeypatch.chdir(home)
    (home / "run" / "distill" / "model.safetensors").rename(home / "mine.safetensors")
    asked = ("stage", "distill", "--run", "run", "--weights", "mine.safetensors", "--trust-code")
    assert _in_process(*asked) == 0
    rest = ["my.yaml", "--run-dir", "run", "--set", "distill.weights=mine.safetensors"]
    assert f"rlp pipeline run {shlex.join(rest)}" in capsys.readouterr().err
    found = json.loads((home / "run" / "distill" / "distill.json").read_text())
    digest = sha256_file(home / "mine.safetensors")
    assert found["weights"] == {"name": "mine.safetensors", "sha256": digest}
    assert _in_process(*asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "fresh"
    assert _in_process("pipeline", "plan", *rest, "--json") == 0
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    # the very network that was there; only the report tells where it comes from
    assert {name for name, row in rows.items() if row["action"] == "run"} == {"report"}
    tensors = load_file("mine.safetensors")
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, "mine.safetensors")
    assert _in_process("pipeline", "plan", *rest, "--json") == 0
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
    assert rows["distill"]["reason"] == "file mine.safetensors changed"
    Path("mine.safetensors").rename("gone")
    assert _in_process("pipeline", "plan", *rest) == 3
    assert "leave distill.weights out" in capsys.readouterr().err


def _weights(home: Path, stage: str) -> str:
    manifest = json.loads((home / "run" / stage / "manifest.json").read_text())
    return manifest["outputs"]["model.safetensors"]["sha256"]


def test_made_up_numbers_with_right_hashes_are_found(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path) / "run"
    path = run / "report" / "summary.json"
    for change, code in ((lambda summary: None, 0), (_better, 3)):
        summary = json.loads(path.read_bytes())
        change(summary)
        data = store.dump_json(summary)
        path.write_bytes(data)
        manifest = MANIFEST.read(run / "report" / MANIFEST.file)
        digest = hashlib.sha256(data).hexdigest()
        manifest["outputs"]["summary.json"] |= {"sha256": digest, "bytes": len(data)}
        MANIFEST.write(run / "report" / MANIFEST.file, manifest)
        with pytest.raises(SystemExit) as end:
            main(["check", str(run)])
        said = capsys.readouterr().err
        assert end.value.code == code, said
    assert "summary.json: speedup is not what benchmark.json" in said


def _better(summary: dict[str, Any]) -> None:
    summary["speedup"]["ratio"] *= 2
