"""What computes on a device must find there what it finds on the CPU: each check runs both.

Used by `test_gpu.py` on a GPU, and by `pretended_run.py` on one that is none.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import images, net, recipe
from torch import Tensor, nn

from pipeline.channels.plan import ChannelPlan
from pipeline.channels.surgery import cut
from pipeline.cli import main
from pipeline.cli.expected_memory import Estimate
from pipeline.config.data import DataConfig
from pipeline.config.schema import Config, DistillConfig
from pipeline.config.search import SearchConfig
from pipeline.data import Images, Splits
from pipeline.data.augment import Augment
from pipeline.data.card import DataCard
from pipeline.run import store
from pipeline.torchvision_import import import_torchvision
from pipeline.training import Fit, Objective, accuracy, fit
from pipeline.training.evaluate import reestimate_batchnorm
from pipeline.training.machine import exact_float32
from stages.distill import recover
from stages.reconstruct import reconstruct_layers
from stages.rotate.engine import rotate_trunks
from stages.search import InProcess, Network, Search, SearchProblem, Tabulation
from stages.search.front.measuring import ReconstructedAccuracy
from stages.trace import ChannelGraph, trace

NEAR = 2e-3  # of the largest value: sums in another order, over a few layers

SEARCH = SearchConfig.model_validate(
    {"budget": {"macs": 0.6}, "images": 32, "fit_images": 64, "trials": 2, "distill_steps": 1,
     "table": {"widths": 1, "images": 64}, "align": 1}
)  # fmt: skip


def near(found: Tensor, wanted: Tensor, tolerance: float = NEAR) -> None:
    """Equal but for round-off; `found` comes from the device."""
    found, wanted = found.detach().cpu().double(), wanted.detach().double()
    apart = float((found - wanted).abs().max()) / max(1e-12, float(wanted.abs().max()))
    assert apart <= tolerance, f"{apart:.1e} of the largest value apart"


def splits(device: torch.device) -> Splits:
    """Of 64 + 40 images."""
    return Splits(images(64), images(40, seed=9)).to(device)


def mobile() -> tuple[nn.Module, ChannelGraph]:
    """A short MobileNetV2 of 28 px in eval mode, whose trunk can be rotated; own statistics."""
    model, graph = _mobile()
    return copy.deepcopy(model), graph


@functools.cache
def _mobile() -> tuple[nn.Module, ChannelGraph]:
    stages = [[1, 16, 1, 2], [4, 24, 2, 2]]  # expansion, channels, blocks, stride
    torch.manual_seed(0)
    model = import_torchvision().models.MobileNetV2(2, 0.25, stages).eval()
    model.features[0][0] = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
    model.features[-1][0] = nn.Conv2d(8, 64, 1, bias=False)  # its own has 1280 channels
    model.features[-1][1] = nn.BatchNorm2d(64)
    model.classifier[1] = nn.Linear(64, 2)
    model.eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    reestimate_batchnorm(model, [pictures(40)])  # else values fade, and round-off is all there is
    return model, trace(model, torch.randn(2, 1, 28, 28))


def pictures(count: int) -> Tensor:
    """(count, 1, 28, 28), the same for the same count."""
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(count))


def halves(graph: ChannelGraph) -> ChannelPlan:
    """The first half of every group."""
    keep = {group.id: tuple(range(max(1, group.size // 2))) for group in graph.prunable}
    return ChannelPlan(keep, {})


def check_training(device: torch.device) -> None:
    """Two epochs with every augmentation and an average of weights."""
    how = recipe(
        epochs=2, ema=0.9, augment=Augment(crop=1, flip=True, cutout=2, mixup=0.2), lr=0.01
    )
    found = {}
    for where in (torch.device("cpu"), device):
        model = net(dropout=0.0).to(where)
        seen = splits(where)
        done = fit(model, seen.train, seen.search, how, seed=3)
        found[where.type] = (torch.tensor([row["loss"] for row in done.history]), model)
    (losses, model), (wanted, other) = found[device.type], found["cpu"]
    near(losses, wanted)
    assert {p.device.type for p in model.parameters()} == {device.type}
    near(model[0].weight, other[0].weight, 2e-2)


def check_batches_come_from_the_device(device: torch.device) -> None:
    """Pixels lie on the device; a subset and a draw of them as well, equal to those of the CPU."""
    here, there = images(64), images(64).to(device)
    for one, other in ((here, there), (here.subset(torch.arange(8, 40)),) * 2):
        other = other.to(device)
        for (x, y), (found, labels) in zip(one.batches(24), other.batches(24), strict=True):
            assert found.device.type == labels.device.type == device.type
            near(found, x)
            assert torch.equal(labels.cpu(), y)
    near(there.take(10, seed=1)[0], here.take(10, seed=1)[0])
    near(there.subset(torch.arange(5, 30)).take(10, seed=1)[0],
         here.subset(torch.arange(5, 30)).take(10, seed=1)[0])  # fmt: skip


def check_rotation(device: torch.device) -> None:
    """The rotated network is the same function, of the same variances."""
    model, graph = mobile()
    wanted = rotate_trunks(model, graph, pictures(48))
    found = rotate_trunks(model.to(device), graph, pictures(48))
    assert [group.id for group in found.groups] == [group.id for group in wanted.groups] != []
    for one, other in zip(found.groups, wanted.groups, strict=True):
        near(torch.tensor(one.variance), torch.tensor(other.variance))
    with torch.no_grad():
        near(found.model(pictures(8).to(device)), wanted.model(pictures(8)))


def check_reconstruction(device: torch.device) -> None:
    """The sequential form: weights, and the error of each layer."""
    model, graph = mobile()
    plan = halves(graph)
    wanted = reconstruct_layers(cut(model, graph, plan), model, graph, plan, pictures(48))
    original = model.to(device)
    found = reconstruct_layers(cut(original, graph, plan), original, graph, plan, pictures(48))
    with torch.no_grad():
        near(found.model(pictures(8).to(device)), wanted.model(pictures(8)), 5e-2)
    assert [layer.name for layer in found.layers] == [layer.name for layer in wanted.layers]
    errors = [[layer.error_before or 0.0 for layer in one.layers] for one in (found, wanted)]
    near(torch.tensor(errors[0]), torch.tensor(errors[1]), 5e-2)


def _digits(count: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 28, 28, 1), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 2, ("a", "b"))


def _problem(device: torch.device, **changes: object) -> SearchProblem:
    model, graph = mobile()
    network = Network(model.to(device), graph)
    seen = Splits(_digits(96, 0), _digits(64, 1)).to(device)
    settings = SEARCH.model_copy(update=changes)
    return SearchProblem.build(network, seen, settings, 0, align=1)


def check_candidates(device: torch.device) -> None:
    """Importance by both criteria, the score of a candidate with and without reconstruction."""
    as_cut = {"criterion": "taylor", "reconstruct": False, "distill_steps": 0}
    for changes in ({"criterion": "obs"}, as_cut):
        here, there = _problem(torch.device("cpu"), **changes), _problem(device, **changes)
        for one, other in zip(there.importance, here.importance, strict=True):
            # an inverse of moments is behind it, which widens round-off: 2.4e-3 on an H100
            near(torch.from_numpy(np.asarray(one)), torch.from_numpy(np.asarray(other)), 1e-2)
        counts = np.maximum(here.space.floors, here.space.sizes // 2)
        here = replace(here, ranking=there.ranking)  # nearly equal units may change places
        scores = [problem.evaluator(counts, (-9.0,)) for problem in (there, here)]
        # a divergence of a few thousandths of a nat differs by round-off more than by a share
        assert scores[0].score == pytest.approx(scores[1].score, rel=5e-2, abs=1e-3)


def check_search(device: torch.device) -> None:
    """Table, its solution and a few trials, and a plan measured as fronts measure it."""
    problem = _problem(device)
    entries = Search(InProcess(problem.table_evaluator()))
    table = Tabulation(problem.space, 1, entries)()
    search = Search(InProcess(problem.evaluator), table)
    trials = search.run("rl", problem.strategy("rl", trials=2, table=table), 2)
    assert len(trials) == 2
    assert all(np.isfinite(trial.outcome.score) for trial in trials)
    measure = ReconstructedAccuracy(
        problem.network.model, problem.network.graph, problem.ranking, pictures(48),
        problem.search_images, seed=0, max_bytes=1 << 30,
    )  # fmt: skip
    found = measure(trials[0].candidate.counts)
    assert 0 <= found.accuracy <= 1


def search_memory(device: torch.device) -> int:
    """Rank, tabulate and score as a search does; return the bytes expected of it before."""
    card = DataCard(
        "photos", "photos", ("a", "b"), (3, 32, 32), {"train": (48, 48), "search": (32, 32)},
        (0.5,) * 3, (0.5,) * 3, "0" * 64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    ).eval()  # fmt: skip
    graph = trace(model, torch.randn(2, 3, 32, 32))
    config = Config(search=SEARCH, data=DataConfig(in_memory_mb=0))
    expected = Estimate.of(model.to(device), card, config).search_stage().gpu
    pixels = torch.randint(0, 256, (96, 32, 32, 3), dtype=torch.uint8)
    seen = Images(pixels, torch.arange(96) % 2, card.classes)
    splits = Splits(seen, seen.subset(torch.arange(64)))
    problem = SearchProblem.build(Network(model, graph), splits, SEARCH, 0, align=1)
    table = Tabulation(problem.space, 1, Search(InProcess(problem.table_evaluator())))()
    trials = Search(InProcess(problem.evaluator), table)
    trials.run("rl", problem.strategy("rl", trials=2, table=table), 2)
    return expected


def check_recovery(device: torch.device) -> None:
    """Batch norm, then two epochs towards a teacher whose answers are kept."""
    augment = {"crop": 0, "flip": False}
    section = DistillConfig.model_validate(
        {"epochs": 2, "batch_size": 16, "bn_images": 32, "augment": augment, "precision": "fp32",
         "lr": 0.01}
    )  # fmt: skip
    found = {}
    for where in (torch.device("cpu"), device):
        seen = splits(where)

        def train(model: nn.Module, loss: Objective, at: Images, epochs: int,
                  seen: Splits = seen) -> Fit:  # fmt: skip
            how = recipe(epochs=epochs, batch_size=16, lr=0.01)
            return fit(model, at, seen.search, how, seed=0, objective=loss)

        student, teacher = net(1, 0.0).to(where), net(2, 0.0).to(where)
        done = recover(student, teacher, seen, section, seed=0, train=train)
        assert done.fit is not None
        found[where.type] = torch.tensor([row["loss"] for row in done.fit.history])
        assert accuracy(student, seen.search) == done.final
    near(found[device.type], found["cpu"], 1e-2)


def check_pipeline(device: torch.device, folder: Path, until: str) -> None:
    """A whole run, from training to `until`; its files hold tensors of the CPU."""
    settings = [
        f"device={'cpu' if device.type == 'cpu' else 'cuda'}",
        "data.source=embedded", "data.train_limit=256",
        "pretrain.epochs=1", "search.trials=4", "search.images=64", "search.fit_images=64",
        "search.table.widths=1", "rotate.images=64", "reconstruct.images=64", "distill.epochs=1",
        "model.source=mobilenet_v2", "model.kwargs={width_mult: 0.25, stem_stride: 2}",
        "search.budget.macs=0.5", "benchmark.min_seconds=0.01", "benchmark.profile=false",
        "benchmark.batches=[1]", "benchmark.launches=2",
    ]  # fmt: skip
    config = folder / "tiny.yaml"
    config.write_text("seed: 0\n", encoding="utf-8")
    command = ["pipeline", "run", str(config), "--run-dir", str(folder / "run"), "--until", until]
    for setting in settings:
        command += ["--set", setting]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code
    weights = folder / "run" / "distill" / "model.safetensors"
    tensors = store.read_tensors(weights, max_bytes=1 << 24)
    assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}


Check = Callable[[torch.device], None]

CHECKS: tuple[Check, ...] = (
    check_training,
    check_batches_come_from_the_device,
    check_rotation,
    check_reconstruction,
    check_candidates,
    check_search,
    check_recovery,
)


def exactly(check: Check, device: torch.device) -> None:
    """Run a check in float32 as the stages do."""
    with exact_float32():
        check(device)
