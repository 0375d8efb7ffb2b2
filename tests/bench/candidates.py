"""Search candidates per second: ours against a loop of deepcopy + Torch-Pruning + the same batch-norm fit and scoring.

    python tests/bench/candidates.py [--net mobilenet_v2] [--images 256,1512] [--candidates 12]

Same network, images, budget share and threads; each side runs in its own process, so that its peak memory is its
own. Candidates are random distributions at half the MACs; both sides cut physically, fit batch-norm statistics to
one third of the images and score the other two thirds.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from pipeline.config import DataConfig, ModelConfig, SearchConfig
from pipeline.data import load_splits
from pipeline.models import build_model
from pipeline.training.evaluate import reestimate_batchnorm
from stages.search.evaluate import SCORES
from stages.search.setup import prepare
from stages.trace import trace

NETS = {
    "mobilenet_v2": ModelConfig(source="mobilenet_v2", kwargs={"width_mult": 0.5, "stem_stride": 2}),
    "resnet20": ModelConfig(source="resnet20"),
    "densenet": ModelConfig(source="densenet"),
    "googlenet": ModelConfig(source="googlenet"),
}


def ours(net: str, images: int, candidates: int) -> list[float]:
    """Seconds a candidate: cast, fit, score."""
    model, splits = load(net)
    settings = SearchConfig(images=images * 2 // 3, fit_images=images // 3, min_keep=0.1)
    setup = prepare(model, trace(model, splits.search.take(2, seed=0)[0]), splits, settings, 0)
    rng = np.random.default_rng(0)
    times = []
    for _ in range(candidates + 1):
        start = time.perf_counter()
        setup.evaluator(setup.projector.logits(rng.standard_normal(len(setup.space))))
        times.append(time.perf_counter() - start)
    return times[1:]


def torch_pruning(net: str, images: int, candidates: int) -> list[float]:
    """Seconds a candidate: deepcopy, dependency graph, prune, fit, score."""
    import torch_pruning as tp

    model, splits = load(net)
    fit = splits.train.take(images // 3, seed=0)[0].split(256)
    x, y = splits.search.take(images * 2 // 3, seed=0)
    with torch.inference_mode():
        teacher = torch.cat([model(part) for part in x.split(256)])
    rng = np.random.default_rng(0)
    times = []
    for _ in range(candidates + 1):
        start = time.perf_counter()
        trial = copy.deepcopy(model)
        convs = [m for m in trial.modules() if isinstance(m, torch.nn.Conv2d)]
        ratios = {conv: float(rng.uniform(0.1, 0.5)) for conv in convs}
        head = [m for m in trial.modules() if isinstance(m, torch.nn.Linear)]
        pruner = tp.pruner.MetaPruner(
            trial, x[:1], importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio_dict=ratios, round_to=8, ignored_layers=head,
        )  # fmt: skip
        pruner.step()
        reestimate_batchnorm(trial, fit)
        with torch.inference_mode():
            logits = torch.cat([trial(part) for part in x.split(256)])
            SCORES["divergence"](logits, teacher, y).mean().item()
        times.append(time.perf_counter() - start)
    return times[1:]


def load(net: str):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    splits = load_splits(DataConfig(source="embedded"), seed=0)
    model = build_model(NETS[net], in_channels=splits.train.image_shape[0], num_classes=splits.train.num_classes)
    return model.eval().to(memory_format=torch.channels_last), splits


def child(side: str, net: str, images: int, candidates: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    times = {"ours": ours, "torch-pruning": torch_pruning}[side](net, images, candidates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(times), "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="mobilenet_v2", choices=NETS)
    parser.add_argument("--images", default="384,1500")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(child(options.side, options.net, int(options.images), options.candidates, options.threads)))
        return
    print(f"{options.net}, {options.threads} thread, median of {options.candidates} candidates")
    print(f"{'images':>7} {'ours /s':>9} {'torch-pruning /s':>17} {'ratio':>7} {'peak MiB, ours':>15} {'theirs':>7}")
    for images in options.images.split(","):
        found = {}
        for side in ("ours", "torch-pruning"):
            arguments = ["--side", side, "--net", options.net, "--images", images]
            arguments += ["--candidates", str(options.candidates), "--threads", str(options.threads)]
            out = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
            found[side] = json.loads(out.stdout.splitlines()[-1])
        mine, theirs = found["ours"], found["torch-pruning"]
        print(
            f"{images:>7} {1 / mine['seconds']:>9.2f} {1 / theirs['seconds']:>17.2f} "
            f"{theirs['seconds'] / mine['seconds']:>6.1f}× {mine['peak_mib']:>15.0f} {theirs['peak_mib']:>7.0f}"
        )


if __name__ == "__main__":
    main()
