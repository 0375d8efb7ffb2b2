"""From the artefacts of a run to the few sentences, rows and plots that the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.report import plots


def headline(speedup: Mapping[str, Any], base: Mapping[str, Any], final: Mapping[str, Any]) -> str:
    """The verdict in one sentence; a speedup is only claimed where its interval excludes 1."""
    points = 100 * (final["accuracy"] - base["accuracy"])
    paid = f"{abs(points):.2f} points of test accuracy {'lost' if points < 0 else 'gained'}"
    where = f"batch {speedup['batch']}, {_threads(speedup['threads'])}, {_provider(speedup['provider'])}"
    low, high = speedup["ci95"]
    if speedup["verdict"] == "faster":
        return f"{speedup['ratio']:.2f} times as fast ({low:.2f} to {high:.2f}) at {where}; {paid}."
    if speedup["verdict"] == "slower":
        return f"Slower: {speedup['ratio']:.2f} times the speed of the base ({low:.2f} to {high:.2f}) at {where}; {paid}."
    return f"No difference in speed shown: ratio {speedup['ratio']:.2f} ({low:.2f} to {high:.2f}) at {where}; {paid}."


def before_after(
    base: Mapping[str, Any], final: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """Rows of the first table."""
    points = 100 * (final["accuracy"] - base["accuracy"])
    rows = [
        (
            "test accuracy (onnxruntime)",
            f"{base['accuracy']:.2%}",
            f"{final['accuracy']:.2%}",
            f"{points:+.2f} points",
        )
    ]
    for key, name in (("macs", "MACs"), ("params", "parameters"), ("bytes", "ONNX file, bytes")):
        rows.append(
            (name, f"{base[key]:,}", f"{final[key]:,}", f"{final[key] / base[key] - 1:+.1%}")
        )
    for key in ("p50", "p90"):
        before, after = base["latency_ms"][key], final["latency_ms"][key]
        change = f"{after / before - 1:+.1%}" if before and after else ""
        rows.append((f"{key} latency, ms", _ms(before), _ms(after), change))
    return rows


def setting_rows(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of the latency table."""
    return [
        {
            "provider": _provider(s["provider"]),
            "batch": str(s["batch"]),
            "threads": str(s["threads"]),
            "a_p50": _ms(s["a"]["latency_ms"]["p50"]) + " ms",
            "b_p50": _ms(s["b"]["latency_ms"]["p50"]) + " ms",
            "ratio": f"{s['ratio']:.2f}×" if s["verdict"] != "no difference shown" else "–",
            "ci": f"{s['ci95'][0]:.2f} … {s['ci95'][1]:.2f}",
            "aa": f"{s['aa_ci95'][0]:.2f} … {s['aa_ci95'][1]:.2f}",
            "verdict": s["verdict"],
        }
        for s in settings
    ]


def speedup_plot(settings: Sequence[Mapping[str, Any]]) -> str:
    """All settings, over the widest A/A control."""
    rows = [
        (f"batch {s['batch']}, {_threads(s['threads'])}", s["ratio"], *s["ci95"]) for s in settings
    ]
    control = max(max(abs(1 - edge) for edge in s["aa_ci95"]) for s in settings)
    return plots.speedups(rows, control)


def proof_sentence(cut: Mapping[str, Any]) -> str:
    """How cut and masked were compared."""
    proof = cut["proof"]
    return (
        f"The cut network equals the base network with the same channels silenced: largest difference "
        f"{proof['relative']:.1e} of the largest output, in {proof['dtype']}, on {proof['images']} real images "
        f"({proof['tolerance']:.0e} allowed)."
    )


def recovery_sentence(distill: Mapping[str, Any]) -> str:
    """What each step of the recovery gave, on the search split."""
    accuracy = distill["search_accuracy"]
    epochs = len(_history(distill))
    after = (
        f", after {epochs} epoch{'s' if epochs != 1 else ''} ({distill['mode']}) {accuracy['final']:.2%}"
        if epochs
        else ""
    )
    return (
        f"On the search split: teacher {accuracy['teacher']:.2%}; after the cut {accuracy['cut']:.2%}, "
        f"after batch-norm re-estimation {accuracy['batchnorm']:.2%}{after}."
    )


def _history(distill: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return distill["training"]["history"] if distill["training"] else []


def recovery_plot(distill: Mapping[str, Any]) -> str:
    """One point an epoch; empty when there was none."""
    history = _history(distill)
    if not history:
        return ""
    accuracy = distill["search_accuracy"]
    epochs = [int(row["epoch"]) for row in history]
    scores = [row["accuracy"] for row in history]
    return plots.distillation_curve(epochs, scores, accuracy["batchnorm"], accuracy["teacher"])


def parity_sentence(parity: Mapping[str, Any]) -> str:
    """Agreement of the final file with PyTorch."""
    final = parity["final"]
    return (
        f"On {parity['images']} images of the search split onnxruntime names the same class as PyTorch on "
        f"{final['top1_agreement']:.2%}; the largest difference between outputs is {final['max_abs']:.1e}. Exported by "
        f"{final['export']['exporter']}, opset {final['export']['opset']}."
    )


def artefact_rows(manifests: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Every committed file with size and hash."""
    rows = []
    for stage, manifest in manifests.items():
        for name, entry in manifest["outputs"].items():
            rows.append((f"{stage}/{name}", f"{entry['bytes']:,}", entry["sha256"]))
    return rows


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _provider(name: str) -> str:
    return name.removesuffix("ExecutionProvider")
