"""What the files of a session must be fed, or why they cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import ArtifactError, EnvironmentProblem, UsageError
from pipeline.runtime.session import ELEMENT
from pipeline.runtime.sizes import Dim, filled, images_a_call, text
from pipeline.system import memory_bytes
from pipeline.words import count_of

Given = Sequence[int] | Mapping[str, Sequence[int]] | None
"""Sizes after the batch, of every input or by name (`pipeline.runtime.sizes.filled`)."""


class FixedBatch(UsageError):
    """The file takes another number of images a call than is asked for."""

    def __init__(self, subject: str, images: int, batch: int) -> None:
        super().__init__(
            f"{subject} takes {count_of(images, 'image')} a call, --batch asks for {batch}",
            hint=f"pass --batch {images}, or export the file again with an open batch",
        )


class OpenSizes(UsageError):
    """The file leaves sizes open that nobody gave.

    Args:
        given: as many as were given for this input, which do not fit it.
    """

    def __init__(
        self, subject: str, name: str, dims: Sequence[Dim], given: Sequence[int] = ()
    ) -> None:
        usual = [3, 224, 224] if len(dims) == 4 else [128] * (len(dims) - 1)
        sizes = [dim or size for dim, size in zip(dims[1:], usual, strict=True)]
        example = "x".join(
            str(s if isinstance(s, int) else u) for s, u in zip(sizes, usual, strict=True)
        )
        wrong = f", and --shape gives {len(given)} of its {len(usual)} sizes" if given else ""
        super().__init__(
            f"{subject} leaves sizes open: its input {name} is {text(dims)}{wrong}",
            hint="say what it is used with, such as "
            f"--shape {'' if len(dims) == 4 else f'{name}='}{example}",
        )


def input_sizes(
    inputs: Sequence[Mapping[str, Any]], batch: int, given: Given, subject: str
) -> dict[str, list[int]]:
    """The sizes of every input by its name.

    Args:
        inputs: of a session: name, shape and type each (`Worker.open`).
        subject: the file, as errors name it.
    Raises:
        FixedBatch: the first input takes another number of images.
        OpenSizes: a size is open that nobody gave.
        ArtifactError: an input is no tensor of numbers.
        EnvironmentProblem: one call would fill a quarter of this machine's memory.
    """
    found = {row["name"]: _sizes(row, batch, given, subject) for row in inputs}
    images = images_a_call(inputs[0]["shape"]) if inputs else None
    if images not in (None, batch):
        assert images is not None
        raise FixedBatch(subject, images, batch)
    if inputs and images is None and found[inputs[0]["name"]][0] != batch:
        name = inputs[0]["shape"][0]
        raise UsageError(
            f"--shape {name}: this is the batch of {subject}", hint="pass it by --batch"
        )
    size = sum(_bytes(row["type"], found[row["name"]]) for row in inputs)
    if size > (memory_bytes() or math.inf) / 4:
        raise EnvironmentProblem(
            f"{subject}: the input of one call takes {size / 1e9:.1f} GB",
            hint="ask for a smaller batch or smaller sizes",
        )
    return found


def _sizes(row: Mapping[str, Any], batch: int, given: Given, subject: str) -> list[int]:
    name, dims = row["name"], row["shape"]
    if row["type"] not in ELEMENT:
        raise ArtifactError(
            f"{subject}: its input {name} is a {row['type']}, and only numbers can be made up",
            hint="export it with an input of numbers",
        )
    sizes = [size for size in filled(name, dims, batch, given) if size is not None]
    if len(sizes) == len(dims):
        return sizes
    named: Any = given if isinstance(given, Mapping) else {"": given or ()}
    raise OpenSizes(subject, name, dims, named.get(name) or named.get("") or ())


def _bytes(kind: str, sizes: Sequence[int]) -> int:
    return math.prod(sizes) * ELEMENT[kind]().itemsize


def plain(given: Given) -> Any:
    """As JSON."""
    if isinstance(given, Mapping):
        return {name: list(sizes) for name, sizes in given.items()}
    return list(given) if given else None
