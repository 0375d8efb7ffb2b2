"""Images that are in two splits at once, by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

from pipeline.data.content import Decoded, Encoded
from pipeline.words import count_of


def overlaps(raw: Mapping[str, Decoded | Encoded]) -> tuple[str, ...]:
    """What is to be said of test images that are in train as well; images that cannot be read do
    not count.
    """
    known = set(_contents(raw["train"]))
    tests = list(_contents(raw["test"]))
    shared = sum(content in known for content in tests)
    if not shared:
        return ()
    of = count_of(len(tests), "test image")
    if shared == len(tests):
        return (f"all {of} are in train as well: accuracy on them tells nothing",)
    return (f"{shared:,} of {of} {'is' if shared == 1 else 'are'} in train as well",)


def _contents(part: Decoded | Encoded) -> Iterator[bytes]:
    content: Callable[[int], bytes] = (
        (lambda i: part.pixels[i].tobytes()) if isinstance(part, Decoded) else part.read
    )
    for row in range(len(part.labels)):
        try:
            yield hashlib.sha256(content(row)).digest()
        except OSError:  # told of as an image that cannot be read
            continue
