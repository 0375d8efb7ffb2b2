"""The kinds of images that can be read. Adding one is a file beside this and a line in `SOURCES`."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.sources.base import Decoded, Encoded, Source
from pipeline.data.sources.embedded import Embedded
from pipeline.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from pipeline.config import DataConfig

__all__ = ["SOURCES", "Decoded", "Encoded", "Source", "open_source"]

SOURCES: dict[str, type[Source]] = {
    "embedded": Embedded,
}

OFFLINE_HINT = "run the same on the images inside the package: --set data.source=embedded"


def open_source(config: DataConfig) -> Source:
    """The source that `config.source` names, or that is recognised in `config.root`.

    Raises:
        UsageError: no such source, or nothing to look at.
        EnvironmentProblem: the images are not there and cannot be had.
        ArtifactError: they are there but partial or damaged.
    """
    root = Path(config.root).expanduser() if config.root is not None else None
    if config.source == "embedded":
        return Embedded.open(None, config)
    if config.source != "auto":
        if config.source not in SOURCES:
            close = difflib.get_close_matches(config.source, SOURCES, n=1)
            raise UsageError(
                f"data.source: there is no source {config.source!r}"
                + (f"; did you mean {close[0]!r}?" if close else ""),
                hint=f"one of auto, {', '.join(SOURCES)}",
            )
        return SOURCES[config.source].open(root, config)
    if root is None:
        raise UsageError(
            "data.root is not set, so there are no images to read",
            hint="--set data.root=FOLDER, or --set data.source=embedded",
        )
    if not root.is_dir():
        raise EnvironmentProblem(f"data.root: there is no folder {root}", hint=OFFLINE_HINT)
    for source in SOURCES.values():
        if source.recognise(root):
            return source.open(root, config)
    raise EnvironmentProblem(f"data.root: no images recognised in {root}", hint=OFFLINE_HINT)
