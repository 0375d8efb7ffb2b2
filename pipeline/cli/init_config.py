"""What `rlp init` writes: the settings that suit what was seen, each with its reason, as YAML."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml_nodes
from pipeline.config.schema import Config

if TYPE_CHECKING:
    from pipeline.channels.graph import ChannelGraph
    from pipeline.cli.init_seen import Seen
    from pipeline.data.card import DataCard

_WIDTH = 100
_COLUMN = 32  # at which comments start where there is room
_SMALL = 96
_ALIGN, _HALF = 8, 0.5
_SLOW_CANDIDATE = 10.0  # seconds, beyond which fewer are tried
Settings = dict[str, Any]


def settings_for(seen: Seen, given: Settings) -> tuple[Settings, dict[str, str]]:
    """The settings, and by dotted key why; what is `given` is kept.

    Args:
        given: by section, as in a config.
    """
    small = max(seen.card.image_shape[1:]) <= _SMALL
    found: dict[str, tuple[Any, str]] = {"seed": (0, "of splits, weights, data order and search")}
    found |= {"model.source": (None, ""), **_weights(seen, given)}
    found |= {"data.source": ("auto", ""), "data.root": (None, "relative to where rlp is started")}
    found |= _data(seen)
    if not given["model"].get("weights"):
        found |= _pretrain(seen, small)
    found |= _search(seen, small, flattened(given))
    found |= _training(seen, small, "distill", 0.05)
    found |= {
        "distill.epochs": (
            "auto",
            "two for every point that is missing; 0 where you train yourself: "
            "rlp stage distill --run RUN --weights FILE",
        ),
        "quantize.mode": ("auto", "INT8 is delivered where it is measured faster and accurate"),
        "benchmark.batches": ([1, 32], "batch sizes timed; the first is the headline"),
        "benchmark.threads": ([1, 0], "threads for each of them; 0: all cores"),
        "deploy.license": (None, "of the network, such as mit; it stands in the model card"),
    }
    flat = flattened(given)
    values = {key: value for key, (value, _) in found.items()} | flat
    comments = {key: why for key, (_, why) in found.items() if key not in flat or why in _ALWAYS}
    for key, usual in (("data.source", "auto"), ("data.root", None)):
        if values[key] == usual:
            del values[key]
    return nested(values), comments


_ALWAYS = ("relative to where rlp is started",)


def _weights(seen: Seen, given: Settings) -> dict[str, tuple[Any, str]]:
    return {
        "model.weights": (
            None,
            "trained weights (.safetensors, or a .pth state dict); none: trained here",
        )
    }


def _data(seen: Seen) -> dict[str, tuple[Any, str]]:
    sizes = seen.stored.sizes
    found: dict[str, tuple[Any, str]] = {}
    if seen.side is not None:
        low, high = min(sizes, key=min), max(sizes, key=max)
        span = f"from {_by(low)} to {_by(high)}" if len(sizes) > 1 else _by(low)
        found["data.image_size"] = (seen.side, f"they are {span}")
        found["data.resize"] = ("crop", "shorter side, then the middle; or squash")
    if not seen.stored.own_search:
        few = sum(seen.card.counts["train"]) < 2000
        share = "of the training images; every choice is made on them, none on the test split"
        found["data.search_fraction"] = (0.2 if few else 0.1, share)
    if seen.normalisation:
        mean, std = (list(values) for values in seen.normalisation)
        scores = [f"{name} {acc:.1%}" for name, (_, acc) in seen.scores.items()]
        found["data.mean"] = (mean, f"accuracy on some training images: {', '.join(scores)}")
        found["data.std"] = (std, "")
    return found


def _pretrain(seen: Seen, small: bool) -> dict[str, tuple[Any, str]]:
    images = sum(seen.card.counts["train"])
    epochs = 30 if images >= 5000 else 60 if images >= 1000 else 100
    return {
        "pretrain.epochs": (epochs, f"{images:,} images; used while model.weights is null"),
        **_training(seen, small, "pretrain", 0.1),
    }


def _training(seen: Seen, small: bool, section: str, rate: float) -> dict[str, tuple[Any, str]]:
    """Batch, learning rate and augmentation, as far as the images and the network decide them."""
    images, edge = sum(seen.card.counts["train"]), max(seen.card.image_shape[1:])
    batch = 128 if small and images >= 10_000 else 64 if small and images >= 2000 else 32
    lr = rate * batch / 128 * (1 if seen.batch_norms else 0.1)
    why = "in proportion to the batch"
    if not seen.batch_norms:
        why = "a tenth of the usual: the network has no batch norm"
    crop = 4 if edge >= 32 else 2
    augment = {"crop": crop, "flip": True}
    return {
        f"{section}.batch_size": (batch, ""),
        f"{section}.lr": (float(f"{lr:.3g}"), why),
        f"{section}.augment": (augment, "flip mirrors left to right: false for digits and text"),
    }


def _search(seen: Seen, small: bool, given: Settings) -> dict[str, tuple[Any, str]]:
    trials = 100 if candidate_seconds(seen) < _SLOW_CANDIDATE else 32
    align, share = _budget(seen.smallest, given.get("search.align", 8))
    found: dict[str, tuple[Any, str]] = {}
    if align != _ALIGN:
        found["search.align"] = (align, "widths are multiples of it; 8, which is faster, is coarse")
    found |= {
        "search.budget": (
            {"macs": share},
            "or latency, params: a share of the original; or accuracy_drop: 1.0 in points",
        ),
        "search.trials": (trials, "candidates scored, beside the solution of the loss tables"),
    }
    if not small:
        found["search.images"] = (500, "of the search split, that score a candidate")
    return found


def _budget(smallest: dict[int, float], align: Any) -> tuple[int, float]:
    """(align, share of the MACs): one half where a network as small as that can be had."""
    usable = (
        [number for number in smallest if number <= align] if align in smallest else [*smallest]
    )
    for number in usable:
        if smallest[number] <= _HALF:
            return number, _HALF
    finest = usable[-1]
    return finest, round((1 + smallest[finest]) / 2, 2)


def candidate_seconds(seen: Seen) -> float:
    """What fitting and scoring one candidate takes, about."""
    return _candidate(seen.forward)


def _candidate(forward: float) -> float:
    return forward * (3 * 512 + 250)


def minutes(
    card: DataCard, graph: ChannelGraph, speed: tuple[float, float], config: Config
) -> dict[str, float]:
    """What the stages take on this machine, about: passes over images at the measured speed.

    Args:
        speed: seconds an image of inference, and of a training step.
    """
    train, search, (forward, step) = sum(card.counts["train"]), config.search, speed
    if "search" not in card.counts:
        train = round(train * (1 - config.data.search_fraction))
    train = min(train, config.data.train_limit or train)
    widths = sum(min(search.table.widths, g.size) for g in graph.prunable)
    tables = widths * search.table.images * forward * 0.6  # what precedes a cut is kept
    trials = search.trials * _candidate(forward) * 0.5  # half are only glanced over
    epochs = 0 if config.model.weights else config.pretrain.epochs
    fitted = config.reconstruct.images * forward * 4
    auto = config.distill.epochs == "auto"
    recovery = 4 if auto else int(config.distill.epochs)
    if config.distill.mode == "bn_only" or config.distill.weights:
        recovery = 0
    per_epoch = train * step
    seconds = {
        "pretrain": epochs * per_epoch,
        "search": 15 + tables + trials,
        "reconstruct": fitted,
        "distill": recovery * (per_epoch + train * forward),
        "export to report": 150 + 4 * sum(card.counts["test"]) * forward,
    }
    return {stage: round(took / 60, 1) for stage, took in seconds.items()}


def text_of(settings: Settings, comments: dict[str, str], head: list[str]) -> str:
    """The YAML file: a head of comments, then a block for each section."""
    lines = [part for line in head for part in _commented(line)]
    for key, value in settings.items():
        if not isinstance(value, dict):
            lines += _line(key, value, comments.get(key, ""), "")
            continue
        lines += ["", f"{_flow(key)}:"]
        for name, inner in value.items():
            lines += _line(name, inner, comments.get(f"{key}.{name}", ""), "  ")
    return "\n".join(lines) + "\n"


def _commented(line: str) -> list[str]:
    """A line of the head, folded; whatever a folder is called, it stays a comment."""
    indent = " " * (len(line) - len(line.lstrip()))
    hanging = indent or " " * (9 if "  " in line else 0)
    folded = textwrap.wrap(
        " ".join(line.splitlines()), _WIDTH - 2, subsequent_indent=hanging, break_on_hyphens=False
    )
    return [f"# {part}" for part in folded] or ["#"]


def _line(key: str, value: Any, comment: str, indent: str) -> list[str]:
    text = f"{indent}{_flow(key)}: {_flow(value)}"
    if not comment:
        return [text]
    beside = f"{text:<{_COLUMN}}  # {comment}"
    if len(beside) <= _WIDTH:
        return [beside]
    above = textwrap.wrap(comment, _WIDTH - len(indent) - 2)
    return [*(f"{indent}# {line}" for line in above), text]


_PLAIN = re.compile(r"[A-Za-z_./][\w./:+-]*")


def _flow(value: Any) -> str:
    """The value on one line, as YAML reads it back."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and not value.endswith(":")
    if plain and yaml_nodes.scalar(value) == value:
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def flattened(data: Settings, prefix: str = "") -> Settings:
    """By dotted key; below a section everything is a value."""
    found: Settings = {}
    for key, value in data.items():
        if isinstance(value, dict) and not prefix:
            found |= flattened(value, f"{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def nested(flat: Settings) -> Settings:
    """Inverse of `flattened`, in the order of the schema."""
    found: Settings = {}
    for key in sorted(flat, key=lambda key: _order(key)):
        section, _, name = key.partition(".")
        if name:
            found.setdefault(section, {})[name] = flat[key]
        else:
            found[section] = flat[key]
    return found


def _order(key: str) -> int:
    section = key.partition(".")[0]
    known = list(Config.model_fields)
    return known.index(section) if section in known else len(known)


def reasons(seen: Seen) -> list[str]:
    """Why channels stay, one line a reason, the most channels first."""
    count: Counter[str] = Counter()
    for group in seen.graph.groups:
        if not group.prunable:
            count[group.reason] += group.size * group.channels_per_unit
    return [f"{channels:,} channels stay: {reason}" for reason, channels in count.most_common()]


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
