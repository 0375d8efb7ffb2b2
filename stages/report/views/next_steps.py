"""What to try next: a sentence and the command, most pressing first.

It follows from timings and from accuracies on the search split. What was found on the test split
has no say: whoever followed such advice again and again would choose on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.config.schema import Config
from pipeline.errors import Command, Set
from pipeline.paired import near_chance
from stages.report.documents import Document, RunDocuments
from stages.report.views.wording import NO_DIFFERENCE

_BOLDER = 0.75  # of the budget that bought nothing


class Step(NamedTuple):
    """Why, and what to type."""

    why: str
    command: Command


def next_steps(
    config: Config, found: RunDocuments, summary: Document, run: str, config_name: str
) -> list[Step]:
    """Steps that follow from what was measured; the last holds what was reached in CI.

    Args:
        run, config_name: as commands name them.
    """
    again = Command.run_again(config_name, run)
    return [
        *_doubtful(found, summary, run),
        *_speed(config, summary, again),
        *_accuracy(found.distillation, again),
        *_alignment(config, found, again),
        *_front(found, summary, config_name),
        *_gate(summary, run),
    ]


def _doubtful(found: RunDocuments, summary: Document, run: str) -> Iterator[Step]:
    if summary["speedup"]["doubts"]:
        repeat = Command("stage", "benchmark", "--run", run, "--force")
        yield Step("The machine was busy while it was timed: measure again", repeat)
    original, images = found.train["search_accuracy"], found.train["images"]["search"]
    if near_chance(original, images, len(found.data["classes"])):
        what = "The original is no better than guessing: see what its images are scaled by"
        yield Step(what, Command("config", "explain", "data.mean"))


def _speed(config: Config, summary: Document, again: Command) -> Iterator[Step]:
    if summary["speedup"]["verdict"] == "faster":
        return
    key, value = config.search.budget.given
    # a drop of accuracy buys more when it is larger, every other budget when it is smaller
    bolder = value / _BOLDER if key == "accuracy_drop" else value * _BOLDER
    smaller = Set(f"search.budget.{key}", float(f"{bolder:.2g}"))
    yield Step("No speedup was shown: ask for a smaller network", again.with_settings(smaller))


def _accuracy(distillation: Document, again: Command) -> Iterator[Step]:
    """Longer training, where accuracy was shown to be lost and training was still of use."""
    change, trained = distillation.get("search_change"), distillation["training"]
    own = distillation["kept"] == "adopted"  # the user's training, which is theirs to judge
    if own or not change or not _lost(change):
        return
    epochs = len(trained["history"]) if trained else 0
    if not epochs:
        settings = Set("distill.mode", "distill"), Set("distill.epochs", 10)
        what = "Accuracy was lost on the search split, and nothing trained: distil"
        yield Step(what, again.with_settings(*settings))
    elif distillation["kept"] == f"epoch {epochs}":
        longer = Set("distill.epochs", 2 * epochs)
        what = (
            "Accuracy was lost on the search split, and the last epoch was the best: train longer"
        )
        yield Step(what, again.with_settings(longer))


def _alignment(config: Config, found: RunDocuments, again: Command) -> Iterator[Step]:
    measured, used = found.benchmark.get("alignment"), found.plan.get("metadata", {}).get("align")
    if measured and used and config.search.align != "auto" and measured["multiple"] != used:
        what = (
            f"Multiples of {measured['multiple']} channels pay on this machine, and the plan has "
            f"multiples of {used}"
        )
        yield Step(what, again.with_settings(Set("search.align", "auto")))


def _front(found: RunDocuments, summary: Document, config_name: str) -> Iterator[Step]:
    change = found.distillation.get("search_change")  # runs of older releases have none
    kept = change is not None and not _lost(change) and not _lost_in_precision(found.quantization)
    if summary["speedup"]["verdict"] == "faster" and kept:
        what = "No loss was shown on the search split: see what smaller budgets cost"
        yield Step(what, Command("search", "front", config_name))


def _gate(summary: Document, run: str) -> Iterator[Step]:
    speed = summary["speedup"]
    if speed["verdict"] == NO_DIFFERENCE or speed["ci95"][0] <= 1:
        return
    least = f"{speed['ci95'][0] - 0.05:.1f}"
    gate = Command("check", run, "--min-speedup", least, "--max-accuracy-drop", "1")
    yield Step("Hold it in CI: exit code 1 below this", gate)


def _lost(change: Document) -> bool:
    return bool(change["shown"] and change["points"] < 0)


def _lost_in_precision(quantization: Document) -> bool:
    """Whether the delivered file was shown to be less accurate than its network in fp32."""
    if quantization["chosen"] == "fp32":
        return False
    made = quantization["fp16"] if quantization["chosen"] == "fp16" else quantization
    least, _ = made["accuracy"].get("drop_ci95", (0.0, 0.0))
    return bool(least > 0)
