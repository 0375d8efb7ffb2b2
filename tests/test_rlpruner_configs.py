"""The networks of RL-Pruner's paper: each of their configs through the whole chain, in few steps
on the images in the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.config.load import bundled_configs

CONFIGS = tuple(name for name in bundled_configs() if name.startswith("rlpruner/"))
# enough to run every line, not to learn anything
FEW = {
    "data.source": "embedded",
    "data.root": "null",
    "data.train_limit": 120,
    "data.test_limit": 20,
    "pretrain.epochs": 1,
    "pretrain.batch_size": 54,
    "search.trials": 2,
    "search.images": 10,
    "search.fit_images": 32,
    "search.finalists": 1,
    "prune.images": 1,
    "reconstruct.images": 32,
    "distill.epochs": 1,
    "distill.batch_size": 54,
    "distill.bn_images": 54,
    "export.images": 8,
    "benchmark.batches": "[1]",
    "benchmark.min_seconds": 0.05,
    "benchmark.min_runs": 3,
    "benchmark.launches": 2,
    "benchmark.profile": "false",
}


def test_there_is_one_for_each_network_of_the_paper() -> None:
    networks = [Path(name).stem for name in CONFIGS]
    assert networks == ["densenet121", "googlenet", "mobilenet_v3_large", "resnet56", "vgg19"]


@pytest.mark.smoke
@pytest.mark.parametrize("name", CONFIGS)
def test_whole_chain(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sets = [word for key, value in FEW.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["pipeline", "run", f"configs/{name}", "--run-dir", str(run), "--json", *sets])
    out = capfd.readouterr()
    assert ended.value.code == 0, out.err
    summary = json.loads(out.out)
    asked = json.loads((run / "search" / "search.json").read_text())["budget"]["asked"]
    assert summary["final"]["macs"] <= asked * summary["base"]["macs"]
