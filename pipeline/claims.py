"""What may be claimed of two networks, in words: a difference only where it was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def interval_text(change: Mapping[str, Any]) -> str:
    """`-1.32 to +0.12`, in points."""
    low, high = change["ci95"]
    return f"{low:+.2f} to {high:+.2f}"


def change_text(change: Mapping[str, Any] | None, points: float) -> str:
    """A cell of a table.

    Args:
        points: the bare difference, which is all that runs of older releases tell.
    """
    if change is None:
        return f"{points:+.2f} points"
    if not change["shown"]:
        return f"no difference shown ({interval_text(change)} points)"
    return f"{points:+.2f} points ({interval_text(change)})"


def change_sentence(change: Mapping[str, Any] | None, points: float) -> str:
    """`0.30 points of test accuracy lost (-0.50 to -0.10)`, or that nothing was shown."""
    if change is not None and not change["shown"]:
        return f"no difference in test accuracy shown ({interval_text(change)} points)"
    said = f"{abs(points):.2f} points of test accuracy {'lost' if points < 0 else 'gained'}"
    return said if change is None else f"{said} ({interval_text(change)})"


def chance_sentence(what: str, accuracy: float, classes: int) -> str:
    """The remark on a network that names no more than guessing does."""
    return (
        f"{what} names {accuracy:.2%} of the images correctly, which guessing among {classes} "
        "classes does too: were its weights trained with other mean and std, image size or order "
        "of classes? data.mean, data.std, data.image_size and data.classes say which"
    )


def busy_clause(doubts: Sequence[str], repeat: str) -> str:
    """What follows a verdict in its own line where the machine was busy; empty where it was not.

    Args:
        doubts: of a comparison of times (`stages.benchmark.doubts`).
        repeat: the command that measures again.
    """
    return f"; the machine was busy: {', '.join(doubts)}; repeat with {repeat}" if doubts else ""
