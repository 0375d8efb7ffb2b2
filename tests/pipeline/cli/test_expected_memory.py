"""What stages take at their peak: figures that follow from the settings, and a search measured."""

from __future__ import annotations

from dataclasses import replace

import device_checks
import torch
from allocated import Allocated
from torch import nn

from pipeline.cli.expected import expect
from pipeline.cli.expected_memory import Estimate
from pipeline.cli.init_seen import LookedAt
from pipeline.config.schema import Config
from pipeline.data.card import DataCard
from pipeline.run.rounds import chain
from pipeline.run.step import Step
from pipeline.training.activations import Activations
from stages import STAGES
from stages.prune.importance import taylor
from stages.trace import trace

PHOTOS = DataCard(
    "folders", "photos", ("a", "b"), (3, 224, 224), {"train": (4000, 4000), "test": (50, 50)},
    (0.5,) * 3, (0.2,) * 3, "0" * 64,
)  # fmt: skip
THUMBNAILS = replace(PHOTOS, image_shape=(3, 32, 32))
IMAGE = 4 * 3 * 224 * 224


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 2),
    ).eval()  # fmt: skip


def of(card: DataCard = PHOTOS) -> Estimate:
    return Estimate.of(net(), card, Config())


def estimate(card: DataCard = PHOTOS, **sections: object) -> Estimate:
    return replace(of(card), config=Config.model_validate(sections))


def steps(*names: str) -> list[Step]:
    found = chain(STAGES, 1)
    return [Step(s, "run" if s.name in names else "reuse", "", None, None) for s in found]


def test_figures_of_network_and_images() -> None:
    found = estimate()
    count = 3 * 8 * 9 + 8 + 4 * 8 + 8 * 2 + 2  # of numbers; the batch norm counts batches as well
    assert found.weights == 4 * count + 8
    assert (found.image, found.train, found.search, found.held) == (IMAGE, 7200, 800, 0)
    assert of(THUMBNAILS).held == 8100 * 3 * 32 * 32


def test_stages_that_run_and_compute_are_there() -> None:
    found = estimate().stages(steps("trace", "search", "distill", "export"))
    assert list(found) == ["search", "distill"]
    assert found["search"].drawn == (512 + 800 + 2 * 800) * IMAGE
    held = estimate(THUMBNAILS).stages(steps("search"))["search"]
    assert held.gpu - held.cpu == of(THUMBNAILS).held
    assert held.drawn == 0


def test_a_search_of_a_large_network_is_bounded_by_what_its_phases_may_take() -> None:
    large = replace(estimate(), activations=Activations(90_000_000, 3_000_000))
    assert large._taylor(16) == 16 * large.activations.learning + 2 * large.weights
    assert large._taylor(7200) == taylor.MAX_BYTES + 2 * large.weights
    assert large.search_stage().gpu < 3 * taylor.MAX_BYTES
    steps_too = {"search": {"distill_steps": 1, "evaluation": {"step_images": 512}}}
    trained = replace(large, config=Config.model_validate(steps_too)).search_stage()
    assert trained.gpu > 512 * 90_000_000


def test_training_takes_what_its_batch_takes() -> None:
    small, twice = (estimate(distill={"batch_size": n}).distill().gpu for n in (512, 1024))
    assert twice - small == 512 * (2 * IMAGE + of().activations.learning)
    only_norms = estimate(distill={"mode": "bn_only"}).distill()
    assert only_norms.gpu < small
    assert only_norms.drawn == 2 * 2048 * IMAGE
    given = estimate(model={"weights": "a.pth"}).pretrain()
    assert given.gpu < estimate().pretrain().gpu


def test_on_the_cpu_it_is_in_the_process_and_on_a_gpu_beside_it() -> None:
    graph = trace(net(), torch.zeros(2, 3, 32, 32))
    looked_at = LookedAt(net(), graph, (1e-4, 3e-4), 1_000_000_000, ())
    found = expect(looked_at, PHOTOS, Config(), steps("search", "distill"))
    taken = estimate().stages(steps("search", "distill"))
    most = max(stage.cpu for stage in taken.values())
    assert 1_000_000_000 + most < found.memory_bytes < 1_000_000_000 + 1.5 * most
    assert found.on_gpu is None
    assert found.device_memory_bytes is None


def test_a_search_takes_about_what_is_expected() -> None:
    with Allocated() as allocated:
        expected = device_checks.search_memory(torch.device("cpu"))
    assert expected / 2 < allocated.peak < expected * 1.3
