"""What `rlp init` looks at: images, then the network on images of that size. Nothing is written."""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline.channels.costs import CostModel
from pipeline.channels.graph import ChannelGraph
from pipeline.cli.init_seen import TIMED, LookedAt, Normalisation, Seen, Size, Stored
from pipeline.config.schema import Config
from pipeline.data.content import Decoded
from pipeline.data.decode import survey
from pipeline.data.load import describe, load_splits
from pipeline.data.loose import IMAGENET
from pipeline.data.prepare_encoded import USUAL_SIZE
from pipeline.data.sources import open_source
from pipeline.errors import UsageError
from pipeline.models.files import save_model
from pipeline.models.folding import fold_standardised_weights
from pipeline.models.plain import remarks_on
from pipeline.models.registry import build_model
from pipeline.models.weights import adopt_weights, find_weights, load_weights
from pipeline.run.artifacts import document
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.training.evaluate import device_of
from pipeline.training.machine import all_cores, device_for
from pipeline.words import first_three
from stages import declared
from stages.pretrain.look import check_scores, look_at
from stages.search.space.space import Space

if TYPE_CHECKING:
    from pipeline.data.card import DataCard

_AS_THEY_ARE = None
_ALIGNS = (8, 4, 2, 1)
_SIDES = (32, 48, 64, 96, 128, 160, 192, USUAL_SIZE, 256, 299)
_SCORED, _LOOKED_AT = 256, 8  # images
_HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def look(config: Config, folder: Path) -> Seen:
    """Images first, then the network at the first size at which it runs.

    Args:
        folder: of the config that is going to be written, where the user's own module may lie.
    Raises:
        RlpError: of any kind; what a run would say to these images or this network.
    """
    stored = _stored_images(config)
    said: list[str] = []
    model = _network(config, stored.channels, stored.classes, folder, said.append)
    native = getattr(model, "pretrained_cfg", None)  # as timm's networks have it
    native = native if isinstance(native, dict) else {}
    given = config.data.image_size
    sides = [given] if given else list(usable_sides(stored, native, config.model.weights))
    side, odd = first_that_runs(model, stored, sides)
    config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": side})})
    card = describe(config.data)
    scores, normalisation = _normalised(model, config, card, native)
    graph = _traced(
        fold_standardised_weights(model, torch.zeros(2, *card.image_shape)), config, card
    )
    if not graph.prunable:
        raise UsageError(
            f"model.source {config.model.source}: nothing of it can be cut: "
            + first_three(list(dict.fromkeys(graph.frozen.values())), "; "),
            hint="name a convolutional classifier; docs/troubleshooting.md says what is cut",
        )
    costs = CostModel(graph)
    forward, step = _speed(model.to(device_for(config.device)), card.image_shape)
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    return Seen(
        card, stored, side, graph, costs.macs(), costs.params(), _smallest(graph, config, costs),
        norms, normalisation, scores, forward, step, (*said, *odd),
    )  # fmt: skip


def looked_at(config: Config, card: DataCard, folder: Path) -> LookedAt:
    """The network of a config that is there already: built, filled and looked at as the first stage
    does it, traced, and timed.

    Args:
        folder: of the config, where the user's own module may lie.
    Raises:
        RlpError: of any kind; what a run would say to this network.
    """
    said: list[str] = []
    model = _network(config, card.in_channels, card.num_classes, folder, said.append)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_LOOKED_AT, *card.image_shape, generator=generator)
    odd = look_at(model, noise, card.num_classes)
    graph = _traced(fold_standardised_weights(model, noise[:2]), config, card)
    device, before = device_for(config.device), _process_bytes()
    timed = _speed(model.to(device), card.image_shape)
    taken = before if device.type == "cpu" else _process_bytes()
    return LookedAt(model, graph, timed, taken, (*said, *odd))


def _process_bytes() -> int:
    """Memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _traced(model: nn.Module, config: Config, card: DataCard) -> ChannelGraph:
    """What the stage trace of a run will find."""
    with tempfile.TemporaryDirectory() as temporary:
        out, work, saved = (Path(temporary) / name for name in ("out", "work", "model"))
        out.mkdir()
        save_model(model, saved)
        hashes = {path.name: sha256_file(path) for path in saved.iterdir()}
        inputs = {"base_model": (saved, hashes)}
        declared("trace").run(StageContext(config, out, work, inputs, data_card=card))
        graph = document("graph")
        return ChannelGraph.from_dict(graph.body(graph.read(out / graph.file)))


def _smallest(graph: ChannelGraph, config: Config, costs: CostModel) -> dict[int, float]:
    found = {}
    for align in _ALIGNS:
        space = Space.from_groups(graph.groups, align=align, min_keep=config.search.min_keep)
        kept = dict(zip(space.ids, map(int, space.least), strict=True))
        found[align] = costs.macs(kept) / costs.macs()
    return found


def _stored_images(config: Config) -> Stored:
    """Headers of every image, no pixels."""
    source = open_source(config.data)
    sizes: Counter[Size] = Counter()
    grey = True
    for split in source.splits:
        part = source.read(split)
        if isinstance(part, Decoded):
            sizes[part.pixels.shape[1:3]] += len(part.labels)
            grey &= part.pixels.shape[3] == 1
        else:
            found = survey(part)
            sizes += found.sizes
            grey &= found.grey
    if not sizes:
        describe(config.data)  # it says what is wrong with them
    return Stored(len(source.classes), sizes, 1 if grey else 3, "search" in source.splits)


def usable_sides(
    stored: Stored, native: dict[str, Any], weights: str | None
) -> Iterator[int | None]:
    """Sizes worth trying, the best first: as the images are where they have one moderate size;
    else what the weights were trained at, or the largest usual side that loses no pixels.
    """
    if stored.uniform:
        yield _AS_THEY_ARE
        first = stored.middle + 1
    else:
        trained = (native.get("input_size") or (3, USUAL_SIZE))[-1] if weights else USUAL_SIZE
        fits = [side for side in _SIDES if side <= min(stored.middle, trained)]
        first = (
            trained if weights and stored.middle >= trained else (fits or _SIDES)[-1 if fits else 0]
        )
        yield first
    yield from (side for side in _SIDES if side > first)


def _network(
    config: Config, channels: int, classes: int, folder: Path, say: Callable[[str], None]
) -> nn.Module:
    """The network with its weights, as the first stage builds it.

    Args:
        folder: of the config, where the user's own module may lie.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(
            config.model,
            in_channels=channels,
            num_classes=classes,
            search_path=(folder,),
        )
    for remark in remarks_on(model):
        say(remark)
    if config.model.weights is not None:
        tensors = load_weights(find_weights(config.model.weights), say=say)
        for left in adopt_weights(model, tensors, config.model.weights):
            say(left)
    return model.eval()


def first_that_runs(
    model: nn.Module, stored: Stored, sides: Sequence[int | None]
) -> tuple[int | None, list[str]]:
    """The first size at which the network runs, and what a run would find odd about it.

    Raises:
        UsageError: what a run would refuse it for; where it runs at no size, at the first one.
    """
    side = next((side for side in sides if _runs(model, _noise(stored, side))), sides[0])
    return side, look_at(model, _noise(stored, side), stored.classes)


def _noise(stored: Stored, side: int | None) -> Tensor:
    height, width = (side, side) if side else next(iter(stored.sizes))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_LOOKED_AT, stored.channels, height, width, generator=generator)


def _runs(model: nn.Module, images: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(images)
    except (Exception, SystemExit):  # of anybody's code; `look_at` says what it was
        return False
    return True


def _normalised(
    model: nn.Module, config: Config, card: DataCard, native: dict[str, Any]
) -> tuple[dict[str, tuple[float, float]], Normalisation | None]:
    """Which mean and std given weights expect: {name: (cross-entropy, accuracy)} on a few training
    images, and the best where that is not the images' own.

    Raises:
        ArtifactError: the network answers these images with NaN or infinity.
    """
    if config.model.weights is None:
        return {}, None
    images = load_splits(config.data, seed=config.seed).train
    x, y = images.take(_SCORED, seed=config.seed)
    check_scores(model, x[:_LOOKED_AT], config.model.weights)
    if config.data.mean or config.data.std:
        return {}, None
    pixels = x * _row(card.std) + _row(card.mean)
    ways: dict[str, Normalisation] = {"the images' own": (card.mean, card.std)}
    if card.in_channels == 3:
        ways |= {"ImageNet's": IMAGENET, "one half": _HALVES}
    theirs = tuple(native.get("mean") or ()), tuple(native.get("std") or ())
    if {len(values) for values in theirs} == {card.in_channels}:
        ways["the architecture's"] = theirs
    scores = {name: _scored(model, pixels, y, way) for name, way in ways.items()}
    ranked = sorted(scores, key=lambda name: scores[name][0])
    best = ways[ranked[0]]
    own = best == (card.mean, card.std)
    return {name: scores[name] for name in ranked}, None if own else best


def _scored(model: nn.Module, pixels: Tensor, y: Tensor, way: Normalisation) -> tuple[float, float]:
    mean, std = way
    with all_cores(), torch.inference_mode():
        parts = ((pixels - _row(mean)) / _row(std)).split(32)
        logits = torch.cat([model(part) for part in parts])
    loss = nn.functional.cross_entropy(logits, y).item()
    return loss, (logits.argmax(1) == y).float().mean().item()


def _row(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


def _speed(
    model: nn.Module, shape: tuple[int, int, int], batch: int = TIMED
) -> tuple[float, float]:
    """Seconds an image of inference, and of a training step; other work on the machine only adds to
    them, so the best of some counts.
    """
    x = torch.randn(batch, *shape, device=device_of(model))
    x = x.contiguous(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def infer() -> None:
        with torch.inference_mode():
            model(x).sum().item()

    def train() -> None:
        model(x).sum().backward()
        next(p for p in model.parameters() if p.grad is not None).grad.sum().item()  # type: ignore[union-attr]

    # in eval mode both: in training mode a network may answer with more than its scores
    with all_cores(), torch.random.fork_rng():
        forward, step = _best(infer), _best(train)
    return forward / batch, step / batch


def _best(work: Callable[[], None], seconds: float = 1.5) -> float:
    """Of three calls, and of more within these seconds."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
