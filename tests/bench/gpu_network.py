"""One network through the whole chain on the device there is, within a number of seconds; a row in
JSON that grows with every stage.

    python tests/bench/gpu_network.py CONFIG --row ROW.json --run-dir RUN
        [--train 150] [--distill 60] [--export] [--set KEY=VALUE]...

How many epochs fit into the seconds is found by timing steps first; `--train 0` leaves the config's
own epochs. The test split is opened once, at the end, for the original and the final network.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

import torch  # noqa: E402

from pipeline.cli import main as rlp  # noqa: E402
from pipeline.config.load import find_config, load_config  # noqa: E402
from pipeline.config.schema import Config  # noqa: E402
from pipeline.data import describe, load_splits, load_test  # noqa: E402
from pipeline.models import build_model  # noqa: E402
from pipeline.models.files import load_model  # noqa: E402
from pipeline.training import Recipe, accuracy  # noqa: E402
from pipeline.training.loop import sgd  # noqa: E402
from pipeline.training.machine import autocast, device_for  # noqa: E402
from pipeline.training.objectives import cross_entropy  # noqa: E402

STAGES = ("pretrain", "trace", "rotate", "search", "prune", "reconstruct", "distill")
DEARER = 1.5  # a step of distillation: the teacher runs as well
WARM, TIMED = 8, 24  # steps


def seconds_of_epoch(config: Config) -> float:
    """An epoch of pretraining on this device, the score on the search split included."""
    device, card, section = device_for(config.device), describe(config.data), config.pretrain
    model = build_model(config.model, in_channels=card.in_channels, num_classes=card.num_classes)
    model = model.to(device, memory_format=torch.channels_last).train()
    train = load_splits(config.data, seed=config.seed).train.to(device)
    recipe = Recipe.from_config(section, epochs=1, lr=section.lr)
    optimizer, objective = sgd(model, recipe), cross_entropy(section.label_smoothing)
    size = min(section.batch_size, len(train))
    timed, began = min(TIMED, max(1, len(train) // size)), 0.0
    for step in range(WARM + timed if device.type == "cuda" else timed + 1):
        if step == (WARM if device.type == "cuda" else 1):
            began = time.perf_counter()
        rows = torch.arange(size) + step * size
        x, y = next(train.subset(rows % len(train)).batches(size))
        with autocast(device, "bf16" if section.precision == "bf16" else "fp32"):
            loss = objective(model, x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
    a_step = (time.perf_counter() - began) / timed
    return 1.15 * a_step * (len(train) // size)


class Row:
    """What is known so far, on disk after every change."""

    def __init__(self, path: Path, **facts: Any) -> None:
        self.path, self.facts = path, facts
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def write(self, **facts: Any) -> None:
        self.facts |= facts
        passing = self.path.with_suffix(".part")
        passing.write_text(json.dumps(self.facts, indent=1), encoding="utf-8")
        os.replace(passing, self.path)  # it may be read at any time


def run_stage(stage: str, config: str, folder: Path, sets: list[str]) -> None:
    """`rlp pipeline run CONFIG --until STAGE`."""
    words = [word for value in sets for word in ("--set", value)]
    try:
        rlp(["pipeline", "run", config, "--run-dir", str(folder), "--until", stage, *words])
    except SystemExit as ended:
        if ended.code:
            raise


def stage_facts(folder: Path, stage: str) -> dict[str, Any]:
    manifest = json.loads((folder / stage / "manifest.json").read_text(encoding="utf-8"))
    return {"seconds": manifest["duration_s"], **manifest["summary"]}


def test_accuracy(config: Config, folder: Path) -> dict[str, Any]:
    """Of the original and the final network, on images that nothing has read before."""
    device, test = device_for(config.device), load_test(config.data)
    test = test.to(device)
    found = {
        name: accuracy(load_model(folder / stage).to(device), test)
        for name, stage in (("original", "pretrain"), ("final", "distill"))
    }
    return {**found, "images": len(test)}


def gpu_memory() -> int:
    return torch.cuda.max_memory_allocated() >> 20 if torch.cuda.is_available() else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--row", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--train", type=float, default=0, help="seconds for training the original")
    parser.add_argument("--distill", type=float, default=0, help="seconds for distillation")
    parser.add_argument("--export", action="store_true", help="ONNX of both as well")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    sets, begun = options.set, time.perf_counter()
    config = load_config(Path(find_config(options.config)), sets)
    row = Row(options.row, network=config.model.source, seed=config.seed, stages={}, settings=sets)
    if options.train or options.distill:
        epoch = seconds_of_epoch(config)
        row.write(seconds_of_epoch=round(epoch, 2))
        for key, seconds, price in (
            ("pretrain", options.train, 1.0),
            ("distill", options.distill, DEARER),
        ):
            if seconds:
                sets = [*sets, f"{key}.epochs={max(1, math.floor(seconds / price / epoch))}"]
    config = load_config(Path(find_config(options.config)), sets)
    row.write(settings=sets, data=describe(config.data).label)
    stages = row.facts["stages"]
    for stage in STAGES:
        run_stage(stage, options.config, options.run_dir, sets)
        stages[stage] = stage_facts(options.run_dir, stage)
        row.write(gpu_mib=gpu_memory(), seconds=round(time.perf_counter() - begun, 1))
    cut = json.loads((options.run_dir / "prune" / "prune.json").read_text(encoding="utf-8"))
    row.write(macs=cut["macs"], params=cut["params"])
    row.write(test_accuracy=test_accuracy(config, options.run_dir), done=True)
    if options.export:
        run_stage("export", options.config, options.run_dir, sets)
        stages["export"] = stage_facts(options.run_dir, "export")
    row.write(seconds=round(time.perf_counter() - begun, 1))


if __name__ == "__main__":
    main()
