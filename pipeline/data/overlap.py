"""Images that are in two splits at once, by their content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.words import count_of


def overlaps(train: Iterable[bytes], test: Sequence[bytes]) -> tuple[str, ...]:
    """What is to be said of test images that are in train as well.

    Args:
        train, test: a hash of each image that can be read.
    """
    known = set(train)
    shared = sum(content in known for content in test)
    if not shared:
        return ()
    of = count_of(len(test), "test image")
    if shared == len(test):
        return (f"all {of} are in train as well: accuracy on them tells nothing",)
    return (f"{shared:,} of {of} {'is' if shared == 1 else 'are'} in train as well",)
