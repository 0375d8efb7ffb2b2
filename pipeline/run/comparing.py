"""Two runs side by side, from their documents alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.channels.index_ranges import count_ranges
from pipeline.errors import Command
from pipeline.run.artifacts import document
from pipeline.run.documents import as_written
from pipeline.run.manifest import read_manifest
from pipeline.run.runner import read_run
from pipeline.unpaired import share_interval, unpaired_change


@dataclass(frozen=True)
class Look:
    """What is compared of a run; None what it has not come to."""

    run: Path
    config: dict[str, Any]
    plan: dict[str, Any] | None
    summary: dict[str, Any] | None
    adopted: dict[str, Any] | None
    measured: dict[str, Any] | None


def look_at(run: Path) -> Look:
    """Read the documents of a run.

    Raises:
        ArtifactError: no run, or a document of it is damaged.
    """
    config, _ = read_run(run)
    manifests = [read_manifest(run, name) for name in ("pretrain", "benchmark")]
    found = (_document(run, name) for name in ("plan", "summary"))
    return Look(run, config.model_dump(mode="json"), *found, *manifests)


def _document(run: Path, name: str) -> dict[str, Any] | None:
    kind = document(name)
    path = run / kind.maker / kind.file
    return kind.read(path) if path.exists() else None


def compare(a: Look, b: Look) -> dict[str, Any]:
    """The differences, as JSON: settings, made_with, widths, accuracy and speed; the last two null
    where a run has no answer yet.
    """
    with as_written(f"a document of {a.run} or {b.run}"):
        return {
            "settings": _settings(a.config, b.config),
            "made_with": _settings(_made_with(a), _made_with(b)),
            "widths": _widths(a.plan, b.plan),
            "accuracy": _accuracy(a, b),
            "speed": _speed(a, b),
        }


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    one, other = _flat(a), _flat(b)
    keys = [*one, *(key for key in other if key not in one)]
    pairs = [(key, one.get(key), other.get(key)) for key in keys]
    return [{"key": key, "a": mine, "b": its} for key, mine, its in pairs if mine != its]


def _flat(found: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in found.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


def _made_with(look: Look) -> dict[str, Any]:
    """Machine and versions of the benchmark."""
    if look.measured is None:
        return {}
    return {"machine": look.measured["device"], **look.measured["versions"]}


def _widths(a: dict[str, Any] | None, b: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Units kept of every group that a plan names, 0 where it goes with its branch."""
    if a is None or b is None:
        return []
    sizes = {name: of for plan in (a, b) for name, (of, _) in _listed(plan).items()}
    groups = list(dict.fromkeys([*a["keep"], *b["keep"], *sizes]))
    return [
        {"group": name, "of": sizes.get(name), "a": _kept(a, name), "b": _kept(b, name)}
        for name in groups
    ]


def _listed(plan: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(size, kept) of the groups that the search planned; none in a plan made by hand."""
    return {name: (size, kept) for name, (size, kept) in plan["metadata"].get("widths", {}).items()}


def _kept(plan: Mapping[str, Any], group: str) -> int | None:
    if group in plan["keep"]:
        return count_ranges(plan["keep"][group])
    return 0 if group in _listed(plan) else None


def _accuracy(a: Look, b: Look) -> dict[str, Any] | None:
    if a.summary is None or b.summary is None:
        return None
    sides = [_side(look.summary) for look in (a, b) if look.summary]
    same = _images(a) == _images(b)
    change = unpaired_change(*((side["images"], side["value"]) for side in sides)) if same else {}
    return {
        "a": sides[0],
        "b": sides[1],
        **{key: change.get(key) for key in ("points", "ci95", "shown")},
        "why_not": "" if same else "other images",
    }


def _side(summary: Mapping[str, Any]) -> dict[str, Any]:
    final, images = summary["final"], summary["data"]["test_images"]
    return {
        "value": final["accuracy"],
        "ci95": share_interval(images, final["accuracy"]),
        "images": images,
        "macs": final["macs"],
        "params": final["params"],
        "bytes": final["bytes"],
    }


def _images(look: Look) -> str:
    return str(look.measured["data"]) if look.measured else ""


def _speed(a: Look, b: Look) -> dict[str, Any] | None:
    if a.summary is None or b.summary is None:
        return None
    sides = [dict(look.summary["speedup"]) for look in (a, b) if look.summary]
    why = _not_comparable(a, b, sides)
    ratio, interval = (None, None) if why else _of_ratios(*sides)
    return {"a": sides[0], "b": sides[1], "ratio": ratio, "ci95": interval, "why_not": why}


def _not_comparable(a: Look, b: Look, sides: list[dict[str, Any]]) -> str:
    """Why times against the original say nothing about each other; empty where they do."""
    files = [
        look.adopted["outputs"]["model.safetensors"]["sha256"] if look.adopted else look.run
        for look in (a, b)
    ]
    setting = [tuple(side[key] for key in ("provider", "batch", "threads")) for side in sides]
    machine = [look.measured["device"] if look.measured else look.run for look in (a, b)]
    found: dict[str, list[Any]] = {
        "original": files,
        "setting of the benchmark": setting,
        "machine": machine,
    }
    other = [name for name, both in found.items() if both[0] != both[1]]
    paths = [str(look.run / look.summary["onnx"]) for look in (a, b) if look.summary]
    side_by_side = Command("bench", *paths)
    return f"another {', another '.join(other)}; {side_by_side} times them" if other else ""


def _of_ratios(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[float, list[float]]:
    """How many times as fast b is as a, with the interval of a quotient of independent ratios."""
    ratio = b["ratio"] / a["ratio"]
    # on the scale of logarithms, half a width adds up as a standard error does
    halves = [math.log(side["ci95"][1] / side["ci95"][0]) / 2 for side in (a, b)]
    half = math.exp(math.hypot(*halves))
    return ratio, [ratio / half, ratio * half]
