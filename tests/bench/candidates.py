"""Search candidates per second: ours against a loop of deepcopy + Torch-Pruning + the same fit,
training and scoring.

    python tests/bench/candidates.py [--net NAME] [--images 384,1500] [--steps 0,16] [--candidates
    10] [--trials 150]

Same network, images, budget share and threads; each side runs in its own process, so that its peak
memory is its own. A candidate is cut physically, trained for `--steps` steps of distillation (64
images each; 0: not at all), batch-norm statistics are fitted to one third of the images, and the
other two thirds are scored. Three ways are timed:

* theirs: every candidate is trained and sees every image;
* ours, every image: the same, with our cutting;
* ours, in a search: what a candidate costs in a search of so many trials by the default strategy,
  where rungs of few images spare most candidates the rest, and repeated ones are answered from
  memory (seconds of proposing included).

Times are processor seconds of the one thread (wall seconds with --threads above 1), so that other
work on the machine disturbs little. The base network is trained for a moment first, or scores would
all be alike.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline.config.data import DataConfig
from pipeline.config.schema import ModelConfig
from pipeline.config.search import EvaluationConfig, SearchConfig
from pipeline.data import load_splits
from pipeline.models import build_model
from pipeline.training.evaluate import norms_of, reestimate_batchnorm
from pipeline.training.machine import keep_freed_memory
from stages.search import InProcess, Network, Search, SearchProblem
from stages.search.evaluation import SCORES
from stages.search.evaluation.short_distillation import distill, distill_batches
from stages.search.space.ranking import Removal
from stages.trace import trace

STEPS = 40  # of training, batch 64
NETS = {
    "mobilenet_v2": ModelConfig(
        source="mobilenet_v2", kwargs={"width_mult": 0.5, "stem_stride": 2}
    ),
    "resnet20": ModelConfig(source="resnet20"),
    "densenet": ModelConfig(source="densenet"),
    "googlenet": ModelConfig(source="googlenet"),
}


def ours(net: str, images: int, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds a candidate on every image; mean seconds a trial in a whole search."""
    problem = ready(net, images, options.steps)
    rng, clock = np.random.default_rng(0), clock_of(options)
    times = []
    for _ in range(options.candidates + 1):
        start = clock()
        problem.evaluator(problem.projector.logits(rng.standard_normal(len(problem.space))))
        times.append(clock() - start)
    start = clock()
    search = Search(InProcess(problem.evaluator), Removal(problem.importance))
    trials = search.run("rl", problem.strategy("rl", trials=options.trials), options.trials)
    spent = clock() - start
    whole = sum(not trial.outcome.stopped and not trial.cached for trial in trials)
    seen = {"whole": whole, "repeated": sum(trial.cached for trial in trials)}
    return {"seconds": statistics.median(times[1:]), "in_search": spent / len(trials), **seen}


def ready(net: str, images: int, steps: int = 0) -> SearchProblem:
    model, splits = load(net)
    settings = SearchConfig(
        images=images * 2 // 3, fit_images=images // 3, min_keep=0.1, distill_steps=steps
    )
    network = Network(model, trace(model, splits.search.take(2, seed=0)[0]))
    return SearchProblem.build(network, splits, settings, 0, align=8)


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.threads == 1 else time.perf_counter


def torch_pruning(net: str, images: int, options: argparse.Namespace) -> dict[str, float]:
    """Median seconds a candidate: deepcopy, dependency graph, prune, fit, score."""
    import torch_pruning as tp

    model, splits = load(net)
    fit = splits.train.take(images // 3, seed=0)[0].split(256)
    rules = EvaluationConfig()
    x, y = splits.search.take(images * 2 // 3, seed=0)
    with torch.inference_mode():
        teacher = torch.cat([model(part) for part in x.split(256)])
    batches = distill_batches(model, fit, rules.step_images)
    rng, clock = np.random.default_rng(0), clock_of(options)
    times = []
    for _ in range(options.candidates + 1):
        start = clock()
        trial = copy.deepcopy(model)
        convs = [m for m in trial.modules() if isinstance(m, torch.nn.Conv2d)]
        ratios = {conv: float(rng.uniform(0.1, 0.5)) for conv in convs}
        head = [m for m in trial.modules() if isinstance(m, torch.nn.Linear)]
        pruner = tp.pruner.MetaPruner(
            trial, x[:1], importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio_dict=ratios, round_to=8, ignored_layers=head,
        )  # fmt: skip
        pruner.step()
        if options.steps:
            distill(trial, batches, options.steps, rules, norms_of(trial))
        reestimate_batchnorm(trial, fit)
        with torch.inference_mode():
            logits = torch.cat([trial(part) for part in x.split(256)])
            SCORES["divergence"](logits, teacher, y).mean().item()
        times.append(clock() - start)
    return {"seconds": statistics.median(times[1:])}


def load(net: str):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    splits = load_splits(DataConfig(source="embedded"), seed=0)
    model = build_model(
        NETS[net], in_channels=splits.train.image_shape[0], num_classes=splits.train.num_classes
    )
    model = model.to(memory_format=torch.channels_last).train()
    optimizer, generator = (
        torch.optim.SGD(model.parameters(), 0.05, 0.9),
        torch.Generator().manual_seed(0),
    )
    for step, (x, y) in enumerate(splits.train.batches(64, shuffle=True, generator=generator)):
        if step == STEPS:
            break
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), splits


def child(options: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(options.threads)
    options.steps = int(options.steps)
    keep_freed_memory()  # for both sides alike
    found = {"ours": ours, "torch-pruning": torch_pruning}[options.side](
        options.net, int(options.images), options
    )
    return found | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="mobilenet_v2", choices=NETS)
    parser.add_argument("--images", default="384,1500")
    parser.add_argument("--steps", default="0,16")
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(child(options)))
        return
    print(
        f"{options.net}, {options.threads} thread, {options.candidates} candidates, "
        f"searches of {options.trials} trials"
    )
    head = (
        "images",
        "steps",
        "theirs /s",
        "ours /s, every image",
        "ratio",
        "ours /s, in a search",
        "ratio",
        "trials",
    )
    print(" | ".join((*head, "on all images", "repeated", "peak MiB ours", "theirs")))
    for images, steps in itertools.product(options.images.split(","), options.steps.split(",")):
        mine, theirs = (
            measured(side, images, steps, options) for side in ("ours", "torch-pruning")
        )
        slow, each, in_search = theirs["seconds"], mine["seconds"], mine["in_search"]
        row = (
            images,
            steps,
            f"{1 / slow:.2f}",
            f"{1 / each:.2f}",
            f"{slow / each:.1f}×",
            f"{1 / in_search:.2f}",
            f"{slow / in_search:.1f}×",
            options.trials,
            mine["whole"],
            mine["repeated"],
            f"{mine['peak_mib']:.0f}",
            f"{theirs['peak_mib']:.0f}",
        )
        print(" | ".join(str(cell) for cell in row))


def measured(side: str, images: str, steps: str, options: argparse.Namespace) -> dict[str, float]:
    """One side in a process of its own."""
    arguments = ["--side", side, "--net", options.net, "--images", images, "--steps", steps]
    arguments += ["--trials", str(options.trials)]
    arguments += ["--candidates", str(options.candidates), "--threads", str(options.threads)]
    out = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    return dict(json.loads(out.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
