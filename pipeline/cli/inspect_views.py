"""How `rlp inspect` shows each kind of artefact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline import console
from pipeline.channels.graph_text import unreached
from pipeline.channels.index_ranges import count_ranges
from pipeline.run.variants import scheme_name


def show(kind: str, content: dict[str, Any], limit: int) -> None:
    """A JSON document as tables of at most `limit` rows."""
    views: dict[str, Callable[[dict[str, Any], int], None]] = {
        "graph": _graph,
        "plan": _plan,
        "manifest": _manifest,
        "quantization": _quantization,
        "benchmark": _benchmark,
        "front": _front,
        "cut": _cut_layers,
    }
    views.get(kind, _flat)(content, limit)


def _cut(rows: list[Any], limit: int) -> list[Any]:
    if len(rows) > limit:
        console.note(f"{len(rows) - limit} more rows; --limit shows them")
    return rows[:limit]


def _graph(graph: dict[str, Any], limit: int) -> None:
    rows = [_group(group) for group in graph["groups"]]
    frozen = sum(not group["prunable"] for group in graph["groups"])
    console.say(f"{len(rows)} channel groups, {len(rows) - frozen} prunable, {frozen} frozen")
    if text := unreached(graph.get("unused", ()), graph.get("parameters", {})):
        console.say(text)
    columns = ("group", "units", "prunable", "members, or why not")
    console.table(columns, _cut(rows, limit), right=("units",))
    if branches := graph.get("branches", []):
        about = [(b["id"], _branch(b), b.get("reason", "")) for b in branches]
        console.table(("branch", "goes with groups", "stays because"), _cut(about, limit))


def _branch(branch: dict[str, Any]) -> str:
    return "" if branch.get("reason") else ", ".join(branch.get("groups", [])) or "none"


def _group(group: dict[str, Any]) -> tuple[Any, ...]:
    members = ", ".join(f"{name}[{dim}]" for name, dim, *_ in group["members"])
    short = members if len(members) < 60 or console.verbose else members[:57] + "…"
    prunable = "yes" if group["prunable"] else "frozen"
    return group["id"], group["size"], prunable, group.get("reason") or short


def _plan(plan: dict[str, Any], limit: int) -> None:
    metadata = plan["metadata"]
    for key, value in metadata.items():
        if isinstance(value, (str, int, float)):
            console.say(f"{key}: {value}")
    widths = metadata.get("widths", {})  # absent from plans made by hand
    rows = [
        (group, count_ranges(kept), widths.get(group, [""])[0], _shortened(kept))
        for group, kept in plan["keep"].items()
    ]
    columns = ("group", "units kept", "of", "which")
    console.table(columns, _cut(rows, limit), right=columns[1:3])
    if drop := plan.get("drop", []):
        console.say(f"branches that go: {', '.join(drop)}")


def _shortened(ranges: str, most: int = 40) -> str:
    """The units by number, `0-3,8`, where they fit a line."""
    return ranges if len(ranges) <= most or console.verbose else f"{ranges[: most - 1]}…"


def _front(front: dict[str, Any], limit: int) -> None:
    original = front["original"]
    if original:
        accuracy = _percent(original["accuracy"])
        console.say(f"original: {original['macs']:,} MACs, {accuracy} on the search split")
    rows = [
        (
            _percent(point["budget"]),
            f"{point['macs']:,}",
            f"{point['params']:,}",
            _percent(point["latency"]),
            f"{point['loss']:.4f}",
            _percent(point["accuracy"]),
            "measured" if point["measured"] else "predicted",
        )
        for point in front["points"]
    ]
    columns = (
        f"{front['metric']} left",
        "MACs",
        "parameters",
        "latency",
        "loss",
        "accuracy",
        "how",
    )
    console.table(columns, _cut(rows, limit), right=columns[:-1])


def _cut_layers(found: dict[str, Any], limit: int) -> None:
    """Widths and work of every layer, before and after."""
    layers = found["layers"]
    after = {layer["name"]: layer for layer in layers.get("after", ())}
    rows = []
    for layer in layers.get("before", ()):
        now = after.get(layer["name"], {})
        widths = [
            f"{side.get('in_channels', 0)} → {side.get('out_channels', 0)}" if side else "gone"
            for side in (layer, now)
        ]
        rows.append((layer["name"], *widths, f"{layer['macs']:,}", f"{now.get('macs', 0):,}"))
    columns = ("layer", "before", "after", "MACs before", "MACs after")
    console.table(columns, _cut(rows, limit), right=columns[1:])
    _flat({key: value for key, value in found.items() if key != "layers"}, limit)


def _manifest(manifest: dict[str, Any], limit: int) -> None:
    took = console.duration(manifest["duration_s"])
    console.say(f"stage {manifest['stage']}, {manifest['started']}, {took}, {manifest['device']}")
    outside = {f"{name} (outside the run)": digest for name, digest in manifest["external"].items()}
    made = {name: entry["sha256"] for name, entry in manifest["outputs"].items()}
    rows = [("in", name, hash_[:16]) for name, hash_ in (manifest["inputs"] | outside).items()]
    rows += [("out", name, hash_[:16]) for name, hash_ in made.items()]
    console.table(("", "file", "sha256"), _cut(rows, limit))
    for name in manifest["accepted_edits"]:
        console.say(f"edited by hand and accepted: {name}")


def _quantization(found: dict[str, Any], limit: int) -> None:
    console.say(f"delivered: {found['chosen']}; {found['reason']}")
    for name, side in (("final", found), ("original", found["base"])):
        if nodes := side.get("float_nodes", []):
            console.say(f"{name}, nodes that were not quantised: {', '.join(nodes)}")
        rows = [_tried(row) for row in side.get("tried", [])]
        columns = ("scheme", "float nodes", "accuracy", "images", "ratio", "95 % CI")
        if rows or not side.get("fp16"):
            console.table(columns, _cut(rows, limit), title=name, right=columns[1:])
        _half(name, side.get("fp16") or {})
    if curve := found.get("curve"):
        rows = [(row["float_nodes"], _percent(row["accuracy"]), *_ratio(row)) for row in curve]
        console.table(("float nodes", "accuracy", "ratio", "95 % CI"), _cut(rows, limit))


def _half(name: str, made: dict[str, Any]) -> None:
    """Of the fp16 file of one network, where one was tried."""
    if not made:
        return
    console.say(f"{name} in fp16: {made['reason']}")
    if made["accuracy"]:
        accuracy, error = made["accuracy"], made["parity"]["output_error"]
        share = _percent(made["parity"]["top1_agreement"])
        what = "" if accuracy["fp16"] is None else f"accuracy {_percent(accuracy['fp16'])}, "
        console.say(f"  {what}{share} of the classes as fp32, outputs off by {error:.2g}")
    if nodes := made["float_nodes"]:
        console.say(f"{name} in fp16, nodes that stayed float32: {', '.join(nodes)}")


def _tried(row: dict[str, Any]) -> tuple[Any, ...]:
    scheme, accuracy = scheme_name(row["scheme"]), _percent(row["accuracy"])
    return scheme, row["float_nodes"], accuracy, row["images"] or "", *_ratio(row)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _ratio(row: dict[str, Any]) -> tuple[str, str]:
    ratio, ci95 = row["ratio"], row["ci95"]
    interval = f"{ci95[0]:.2f} to {ci95[1]:.2f}" if ci95 else ""
    return "" if ratio is None else f"{ratio:.2f}×", interval


def _benchmark(found: dict[str, Any], limit: int) -> None:
    rows = [
        (
            row["name"] + (" (delivered)" if row["chosen"] else ""),
            _percent(row["accuracy"]),
            setting["batch"],
            setting["threads"],
            f"{setting['b']['latency_ms']['p50']:.3f}",
            *_ratio(setting),
        )
        for row in found["variants"]
        for setting in row["settings"]
    ]
    for base in found["variants"][:1]:
        accuracy, size = _percent(base["accuracy"]), console.size(base["bytes"])
        console.say(f"against the original in fp32 ({accuracy}, {size}):")
    # as wide as 80 columns hold
    columns = ("variant", "accuracy", "batch", "threads", "p50 ms", "ratio", "95 % CI")
    console.table(columns, _cut(rows, limit), right=columns[1:])
    for remark in found["remarks"]:
        console.say(remark)
    for key in ("why", "why_int8", "why_fp16"):
        for cause in found.get(key, {}).get("causes", []):
            console.say(f"{key}: {cause}")


def _flat(content: dict[str, Any], limit: int) -> None:
    console.table(("key", "value"), _cut(_leaves(content), limit))


def _leaves(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Every value with its path: `base.latency_ms.p50`, `settings[0].ratio`."""
    if isinstance(content, dict):
        below = {f"{prefix}.{key}" if prefix else str(key): v for key, v in content.items()}
    elif isinstance(content, list) and any(isinstance(item, (dict, list)) for item in content):
        below = {f"{prefix}[{index}]": v for index, v in enumerate(content)}
    else:
        text = ", ".join(map(str, content)) if isinstance(content, list) else str(content)
        return [(prefix, text)]
    return [leaf for path, value in below.items() for leaf in _leaves(value, path)]


def show_lines(rows: list[dict[str, Any]], limit: int) -> None:
    """One row a line below the header, whose single values are said above; its columns are what
    the first of them holds.
    """
    for key, value in rows[0].items() if rows else ():
        if not isinstance(value, (dict, list)) and key not in ("kind", "schema_version"):
            console.say(f"{key}: {value}")
    body = rows[1:]
    model = body[0] if body else {}
    columns = [key for key, value in model.items() if not isinstance(value, (dict, list))]
    shown = [tuple(_short(row.get(key)) for key in columns) for row in body]
    console.table(columns, _cut(shown, limit))


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def show_tensors(tensors: list[dict[str, Any]], limit: int) -> None:
    rows = [
        (t["name"], _by(t["shape"]) or "scalar", t["dtype"].removeprefix("torch.")) for t in tensors
    ]
    console.table(("tensor", "shape", "dtype"), _cut(rows, limit))


def show_onnx(found: dict[str, Any], limit: int) -> None:
    counted = ", ".join(f"{n} {op}" for op, n in sorted(found["nodes"].items()))
    console.say(f"{console.size(found['bytes'])}, opset {found['opsets']}, {counted}")
    console.table(("key", "value"), list(found["metadata"].items()))
    layers = [(name, _by(shape)) for name, shape in found["layers"]]
    console.table(("layer", "weight"), _cut(layers, limit))


def _by(shape: list[int]) -> str:
    return "×".join(map(str, shape))
