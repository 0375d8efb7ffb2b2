"""All that a GPU is wanted for, side by side within minutes: `make gpu`; on a CPU, tiny: `--dry`.

    python -P tests/bench/gpu_run.py --out DIR [--dry] [--minutes 7] [--alone 1] [--only JOB,JOB]
        [--data CIFAR10] [--weights FOLDER] [--photos FOLDER]

Each job is a process of its own with a log, DIR/logs/JOB.log; DIR/gpu.json is written anew every
few seconds from what the jobs have finished, so a run that is cut off leaves its rows. At the
deadline what still runs is ended; the last minute belongs to what is timed with nothing beside it.
Jobs whose files are not there (weights, photographs) are left out, and named.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

from gpu_board import BENCH, ROOT, Board, Job  # noqa: E402

RLP = (sys.executable, "-c", "from pipeline.cli import main; main()")

NETWORKS = {  # config, share of the MACs that is left (RL-Pruner's), batch, seconds of training
    "densenet121": ("densenet121", 0.61, 256, 150),
    "googlenet": ("googlenet", 0.46, 256, 150),
    "vgg19": ("vgg19", 0.56, 512, 100),
    "resnet56": ("resnet56", 0.49, 512, 150),
    "mobilenet_v3_large": ("mobilenet_v3_large", 0.67, 512, 150),
}
LEFT = {  # budgets of the comparisons; ResNet-20 has few steps of eight channels to give
    ("resnet20_cifar", "macs"): 0.34, ("resnet20_cifar", "latency"): 0.65,
    ("mobilenet_cifar", "macs"): 0.34, ("mobilenet_cifar", "latency"): 0.35,
}  # fmt: skip
FEW = (  # every line runs, nothing is learned
    "data.train_limit=120", "data.test_limit=20", "pretrain.batch_size=54", "search.trials=2",
    "search.images=10", "search.fit_images=32", "search.finalists=1", "search.table.widths=1",
    "prune.images=1", "reconstruct.images=32", "rotate.images=32", "distill.batch_size=54",
    "distill.bn_images=54", "pretrain.epochs=1", "distill.epochs=1", "export.images=8",
)  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    out: Path
    data: Path
    weights: Path
    photos: Path
    dry: bool

    @property
    def images(self) -> list[str]:
        if self.dry:
            return ["data.source=embedded", "data.root=null", *FEW]
        return ["data.source=cifar10", f"data.root={self.data}"]


DRY = (
    "resnet56_published_0", "mobilenet_cifar", "recovery", "compare_resnet20_cifar",
    "breadth_torchvision", "quickstart", "latency",
)  # fmt: skip
"""One of every kind that needs no files."""


def jobs_of(places: Places) -> list[Job]:
    """All of them, in the order in which they begin."""
    found = [_trained(places, name, rank) for rank, name in enumerate(NETWORKS)]
    found += [_resnet56(places, seed, 5 if seed == 0 else 20 + seed) for seed in range(3)]
    found += [_mobilenet(places, left) for left in ((0.25,) if places.dry else (0.25, 0.2, 0.15))]
    found += [_recovery(places), _photographs(places)]
    found += [
        _compare(places, name, budget)
        for name in ("resnet20_cifar", "mobilenet_cifar")
        for budget in (("macs", "latency") if not places.dry else ("macs",))
    ]
    found += [_breadth(places, "timm"), _breadth(places, "torchvision")]
    found += [_versus(places), _smoke(), _quickstart(places), _latency(places)]
    found += [] if places.dry else [_tests()]
    return sorted(found, key=lambda job: job.rank)


def _network(places: Places, name: str, config: str, sets: list[str], **options: Any) -> list[str]:
    words = [word for value in (*places.images, *sets) for word in ("--set", value)]
    timed = [] if places.dry else [f"--{key}={value}" for key, value in options.items()]
    folder = places.out / "runs" / name
    command = [sys.executable, str(BENCH / "gpu_network.py"), str(ROOT / "configs" / config)]
    row = places.out / "rows" / f"{name}.json"
    return [*command, "--row", str(row), "--run-dir", str(folder), "--export", *timed, *words]


def _trained(places: Places, name: str, rank: int) -> Job:
    config, left, batch, seconds = NETWORKS[name]
    sets = [f"search.budget.macs={left}"]
    if not places.dry:
        sets += [
            f"pretrain.batch_size={batch}", f"distill.batch_size={batch}",
            "pretrain.precision=bf16", "distill.precision=bf16",
            f"pretrain.lr={0.2 if batch > 256 else 0.1}",
            "pretrain.warmup=0.25", "pretrain.schedule=linear", "distill.lr=0.02",
            "search.trials=40", "search.table.widths=4",
        ]  # fmt: skip
    command = _network(places, name, f"rlpruner/{config}.yaml", sets, train=seconds, distill=60)
    return Job(name, command, rank)


def _resnet56(places: Places, seed: int, rank: int) -> Job:
    """From published weights, trained a little further on these images."""
    weights, name = places.weights / "resnet56_cifar10.safetensors", f"resnet56_published_{seed}"
    sets = [f"seed={seed}", "search.budget.macs=0.47", f"pretrain.init={weights}"]
    if places.dry:
        sets.pop()
    else:
        sets += [
            "data.mean=[0.485, 0.456, 0.406]", "data.std=[0.229, 0.224, 0.225]",
            "pretrain.lr=0.02", "pretrain.label_smoothing=0.0", "pretrain.batch_size=256",
            "pretrain.precision=bf16", "distill.batch_size=256", "distill.precision=bf16",
            "distill.lr=0.02", "search.trials=60", "search.table.widths=6",
        ]  # fmt: skip
    command = _network(places, name, "rlpruner/resnet56.yaml", sets, train=60, distill=240)
    return Job(name, command, rank, needs=() if places.dry else (weights,))


def _mobilenet(places: Places, left: float) -> Job:
    name = "mobilenet_cifar" if places.dry else f"mobilenet_cifar_{left}"
    sets = ["search.budget.latency=null", f"search.budget.macs={left}"]
    if places.dry:
        sets += ["model.weights=null"]
    else:
        sets += [
            "distill.epochs=20", "search.trials=150", "distill.precision=bf16",
            "distill.batch_size=256", "distill.lr=0.06",
        ]  # fmt: skip
    return Job(name, _network(places, name, "mobilenet_cifar.yaml", sets), 6)


def _recovery(places: Places) -> Job:
    sets = [*places.images, "search.budget.macs=0.475", f"distill.epochs={1 if places.dry else 2}"]
    config = ROOT / "configs" / ("quickstart.yaml" if places.dry else "resnet20_cifar.yaml")
    command = [sys.executable, str(BENCH / "recovery.py"), str(config)]
    command += ["--seeds", "1" if places.dry else "3"]
    command += ["--out", str(places.out / "rows" / "recovery.json")]
    command += [word for value in sets for word in ("--set", value)]
    return Job("recovery", command, 10)


def _photographs(places: Places) -> Job:
    weights = places.photos / "efficientnet_lite0.pth"
    files = [places.photos / f"{name}.parquet" for name in ("train", "other")]
    command = [sys.executable, str(BENCH / "efficientnet_without_labels.py"), str(weights)]
    command += [*map(str, files), "--json", str(places.out / "rows" / "efficientnet.json")]
    if places.dry:
        command += ["--left", "0.8", "--seeds", "1", "--images", "8", "--others", "8"]
    return Job("efficientnet", command, 11, threads=2, needs=(weights, *files))


def _compare(places: Places, config: str, budget: str) -> Job:
    names = "rl,table,evolution,random,uniform,global-taylor,rlpruner"
    left: dict[str, object] = {"macs": "null", "latency": "null", budget: LEFT[config, budget]}
    sets = [*places.images, *(f"search.budget.{key}={value}" for key, value in left.items())]
    name = f"compare_{config}" + ("_latency" if budget == "latency" else "")
    command = [*RLP, "search", "compare", str(ROOT / "configs" / f"{config}.yaml")]
    if places.dry:
        names = "rl,table,uniform"
        sets += ["model.weights=null", "data.mean=null", "data.std=null"]
    command += ["--strategies", names, "--seeds", "2" if places.dry else "5"]
    command += ["--trials", "2" if places.dry else "30", "--no-distill"]
    command += ["--run-dir", str(places.out / "runs" / name)]
    command += ["--json", *(word for value in sets for word in ("--set", value))]
    return Job(name, command, 12, heavy=False)


def _versus(places: Places) -> Job:
    """What a sceptic would try instead; the network by the config itself."""
    run, out = places.out / "runs" / "versus", places.out / "rows" / "versus"
    config = str(ROOT / "configs" / "mobilenet_cifar.yaml")
    sets = [word for value in places.images for word in ("--set", value)]
    first = [*RLP, "pipeline", "run", config, "--run-dir", str(run), "--until", "reconstruct"]
    script = [sys.executable, str(BENCH / "versus_alternatives.py"), config, "--run-dir", str(run)]
    script += ["--narrow-epochs", "5", "--out", str(out)]
    both = " && ".join(shlex.join([*words, *sets]) for words in (first, script))
    return Job("versus", ["sh", "-c", both], 8)


def _quickstart(places: Places) -> Job:
    """The quickstart with its files timed on the GPU, fp16 among them."""
    sets = ["benchmark.provider=cuda", "benchmark.batches=[1,32,256]"]
    if places.dry:
        sets = ["quantize.fp16=on", "model.weights=null", "benchmark.batches=[1]", *FEW]
        sets += ["benchmark.min_seconds=0.05", "benchmark.launches=2", "benchmark.profile=false"]
    config, run = ROOT / "configs" / "quickstart.yaml", places.out / "runs" / "quickstart"
    command = [*RLP, "pipeline", "run", str(config), "--run-dir", str(run)]
    command += [word for value in sets for word in ("--set", value)]
    return Job("quickstart", command, 2, heavy=False)


def _tests() -> Job:
    """The tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    return Job("tests", [*command, "-m", "gpu", str(ROOT / "tests" / "test_gpu.py")], 3, False)


def _latency(places: Places) -> Job:
    """Every exported run, original against final, when nothing else runs."""
    command = [sys.executable, str(BENCH / "gpu_latency.py"), "--runs", str(places.out / "runs")]
    command += ["--json", str(places.out / "rows" / "latency.json")]
    command += ["--cache", str(places.out / "tensorrt")]
    if places.dry:
        command += ["--providers", "cpu", "--batches", "1,2", "--seconds", "0.05"]
    return Job("latency", command, 40, alone=True)


def _smoke() -> Job:
    """RL-Pruner's networks through the whole chain on the images in the package."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "5",
        "-m",
        "smoke",
    ]
    return Job("smoke", [*command, str(ROOT / "tests" / "test_rlpruner_configs.py")], 31, False)


def _breadth(places: Places, which: str) -> Job:
    file = places.out / "rows" / f"breadth_{which}.json"
    command = [sys.executable, str(BENCH / "breadth.py"), f"--{which}", "--json", str(file)]
    if which == "torchvision":
        command += ["--reconstruct", *(["--size", "96"] if places.dry else ["--cuts", "0.5"])]
    if places.dry:
        command += ["--only", "resnet18", "--cuts", "0.5"]
    else:
        command += ["--workers", "5" if which == "timm" else "4", "--resume"]
    return Job(f"breadth_{which}", command, 30, heavy=False)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry", action="store_true", help="tiny, on the images in the package")
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--alone", type=float, default=1.0, help="minutes of them kept for timings")
    parser.add_argument("--only", default="", help="jobs, with commas between")
    parser.add_argument("--heavy", type=int, default=8, help="GPU jobs at a time")
    parser.add_argument("--jobs", type=int, default=12, help="jobs at a time")
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"))
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--photos", type=Path, default=Path("photos"))
    options = parser.parse_args(arguments)
    folders = (options.out, options.data, options.weights, options.photos)
    places = Places(*(folder.resolve() for folder in folders), options.dry)
    wanted = {name for name in options.only.split(",") if name}
    chosen = wanted or (set(DRY) if options.dry else set())
    jobs = [job for job in jobs_of(places) if not chosen or job.name in chosen]
    if unknown := wanted - {job.name for job in jobs}:
        parser.error(f"no such job: {', '.join(sorted(unknown))}")
    board = Board(places.out, jobs, options.heavy, options.jobs)
    board.run(60 * options.minutes, 60 * options.alone)
    bad = [job.name for job in board.ended if job.facts["status"] == "failed"]
    print(f"{places.out / 'gpu.json'}: {len(board.ended)} jobs, {len(bad)} failed {' '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
