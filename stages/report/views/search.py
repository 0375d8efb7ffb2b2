"""What the page says about the search: sentences and tables, of the last round and of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.config.search import Budget
from pipeline.errors import Command, Set
from pipeline.runtime.providers import find_provider
from pipeline.words import count_of
from stages.report.documents import Document, RoundDocuments

_METRICS = {"macs": "MACs", "params": "parameters", "latency": "latency", "latency_ms": "latency"}
_CLEARLY = 0.1  # of a latency that was asked for
_UNITS = {
    "divergence": "−KL to the original's outputs, nats",
    "likelihood": "log-likelihood, nats",
    "accuracy": "top-1 accuracy",
}


def channel_sentence(search: Document, graph: Document) -> str:
    """How many channels went, and how many groups could not be touched."""
    before = sum(group["size"] for group in search["groups"])
    after = sum(group["kept"] for group in search["groups"])
    frozen = sum(not group["prunable"] for group in graph["groups"])
    cut = f"{before - after:,} of {before:,} channels in {len(search['groups'])} groups were cut"
    gone = sum(not group["kept"] for group in search["groups"])
    branches = f", {gone} of them altogether with their residual branches" if gone else ""
    return f"{cut}{branches}; {frozen} group{'s are' if frozen != 1 else ' is'} frozen."


def search_sentence(search: Document) -> str:
    """What was asked, what was realised, how hard was looked."""
    budget, best = search["budget"], search["best"]
    realised = budget["realised"].get(budget["metric"])
    got = f", realised {realised['fraction']:.1%}" if realised else ""
    state = state_of(best)
    return (
        f"Strategy {search['strategy']}, {search['trials']} candidates; "
        f"budget {budget['asked']:.0%} of the base's {_METRICS[budget['metric']]}{got}. "
        f"Accuracy of the chosen cut {state}: {best['accuracy']:.2%} on "
        f"{best['images']:,} images of the search split, "
        f"the original {search['base']['accuracy']:.2%}."
    )


def state_of(row: Document) -> str:
    """What a candidate got before its score."""
    ways = ["least squares"] if row.get("reconstructed") else []
    if steps := row.get("distill_steps", 0):
        ways.append(f"{count_of(steps, 'step')} of distillation")
    return f"after {' and '.join(ways)}" if ways else "as cut, batch norm re-estimated"


def drop_sentence(search: Document) -> str:
    """How a budget within a drop of accuracy was found; empty where it was given."""
    drop = search["budget"].get("accuracy_drop")
    if not drop:
        return ""
    expected = ""
    if drop["allowed"] != drop["asked"]:
        expected = f", with {drop['allowed']:g} allowed before distillation"
    return (
        f"The budget is the smallest of {len(drop['measured'])} whose plan, reconstructed, stays "
        f"within the drop of accuracy asked for: {drop['asked']:g} points on the search split"
        f"{expected}."
    )


def drop_missed(search: Document, distill: Document, again: Command) -> str:
    """What was lost in the end, and what to type, where that is more than
    `search.budget.accuracy_drop`; else empty.
    """
    drop = search["budget"].get("accuracy_drop")
    if not drop:
        return ""
    lost = 100 * (drop["original"] - distill["search_accuracy"]["final"])
    if lost <= drop["asked"] + 1e-9:
        return ""
    smaller = Set("search.budget.accuracy_drop", float(f"{drop['asked'] ** 2 / lost:.2g}"))
    return (
        f"The final network loses {lost:.2f} points on the search split, "
        f"more than the {drop['asked']:g} asked for: {again.with_settings(smaller)}"
    )


def latency_missed(search: Document, benchmark: Document, budget: Budget, again: Command) -> str:
    """By how much the benchmark missed a latency budget, and what to type; empty where it clearly
    did not, or timed something else than the search.
    """
    key, value = budget.given
    latency, first = search.get("latency"), benchmark["settings"][0]
    if latency is None or key == "accuracy_drop" or not _timed_alike(latency, benchmark):
        return ""
    asked, took = latency["budget"], 1 / first["ratio"]
    low, high = (1 / end for end in reversed(first["ci95"]))
    if low <= (1 + _CLEARLY) * asked and high >= (1 - _CLEARLY) * asked:
        return ""
    other = Set(f"search.budget.{key}", float(f"{value * asked / took:.2g}"))
    return (
        f"The final network takes {took:.1%} of the base's latency ({low:.1%} to {high:.1%}), "
        f"where {asked:.1%} was asked for: {again.with_settings(other)}"
    )


def _timed_alike(latency: Document, benchmark: Document) -> bool:
    first = benchmark["settings"][0]
    return (
        find_provider(latency["provider"]).name == first["provider"]
        and (latency["batch"], latency["threads"]) == (first["batch"], first["threads"])
        and latency.get("precision", "fp32") == benchmark["final"]["precision"]
    )


def unit_of(search: Document) -> str:
    """What a score is, and in which unit."""
    return _UNITS.get(search.get("score_name", ""), "on the search split")


def strategy_rows(search: Document) -> list[dict[str, Any]]:
    """The best candidate of the chosen strategy and of every control, then what became the plan.

    Each says what had been done to it before its score.
    """
    base, best = search["base"], search["best"]
    rows = []
    for row in sorted(search["strategies"], key=lambda row: -row["score"]):
        name, count = row["strategy"], count_of(row["trials"], "candidate")
        mine = name == search["strategy"]
        rows.append({"name": name, "what": count, "mine": mine, **_cells(row, base)})
    if search.get("finalists"):
        what = f"best of {len(search['finalists'])} finalists"
        rows.append({"name": "the plan", "what": what, "mine": True, **_cells(best, base)})
    return rows


def _cells(row: Document, base: Document) -> dict[str, str]:
    return {
        "score": f"{row['score']:.4f}",
        "accuracy": f"{row['accuracy']:.2%}",
        "images": f"{row['images']:,}",
        "state": state_of(row),
        "macs": f"{row['macs'] / base['macs']:.1%}",
        "params": f"{row['params'] / base['params']:.1%}",
        "latency": f"{row['latency']:.1%}" if "latency" in row else "",
    }


def round_rows(rounds: Sequence[RoundDocuments]) -> list[dict[str, str]]:
    """One row a round, every share of the original network; accuracies on the search split."""
    return [_round_row(f"{n} of {len(rounds)}", one) for n, one in enumerate(rounds, 1)]


def _round_row(name: str, one: RoundDocuments) -> dict[str, str]:
    budget, accuracy = one.search["budget"], one.distillation["search_accuracy"]
    left = {metric: f"{row['fraction']:.1%}" for metric, row in budget["realised"].items()}
    return {
        "name": name,
        "asked": f"{_METRICS[budget['metric']]} {budget['asked']:.1%}",
        "got": left[budget["metric"]],
        "macs": left["macs"],
        "params": left["params"],
        "cut": f"{accuracy['cut']:.2%}",
        "final": f"{accuracy['final']:.2%}",
    }


def latency_sentence(search: Document) -> str:
    """How well the latency table predicts; empty where latency was no budget."""
    found = search.get("latency")
    if not found:
        return ""
    cross, fresh = found["median_error_cross_validated"], found["median_error_fresh"]
    after = ""
    if found["fresh"]:
        count = len(found["fresh"])
        after = f", and {fresh:.1%} on {count} candidates timed after it was fitted"
    int8 = found.get("precision") == "int8"
    quantised = "quantised " if int8 else ""
    alone = f", in INT8 {found['round_starts_at']:.1%} of that" if int8 else ""
    measured = f", measured {found['measured']:.1%}" if found["measured"] else ""
    return (
        f"The latency table was fitted to {found['samples']} {quantised}candidates timed on this "
        "machine "
        f"({found['provider']}, batch {found['batch']}, {count_of(found['threads'], 'thread')}; "
        f"the base takes {found['base_ms']:.3f} ms{alone}). "
        f"Median error of its predictions: {cross:.1%} cross-validated{after}. "
        f"The plan: predicted {found['predicted']:.1%} of the base's latency{measured}, "
        f"{found['budget']:.1%} allowed."
    )
