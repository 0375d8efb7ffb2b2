"""The kinds of images that can be read; a new one is a file here and a line in `SOURCES`."""

from __future__ import annotations

import difflib
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import places
from pipeline.data.content import Decoded, Encoded
from pipeline.data.sources.base import Source
from pipeline.data.sources.cifar import CifarBinary, CifarPython
from pipeline.data.sources.embedded import Embedded
from pipeline.data.sources.folders import Folders
from pipeline.data.sources.idx import Idx
from pipeline.data.sources.listed import Listed
from pipeline.data.sources.parquet import Parquet
from pipeline.data.sources.public import default_root, download
from pipeline.data.sources.public_sets import PUBLIC
from pipeline.errors import ArtifactError, EnvironmentProblem, Hint, Set, UsageError
from pipeline.words import count_of, first_three

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

__all__ = [
    "EMBEDDED",
    "PUBLIC",
    "SOURCES",
    "Decoded",
    "Encoded",
    "Source",
    "download",
    "open_source",
]

SOURCES: dict[str, type[Source]] = {  # tried in this order when data.source is `auto`
    "embedded": Embedded,
    "parquet": Parquet,
    "cifar-binary": CifarBinary,
    "cifar-python": CifarPython,
    "idx": Idx,
    "listed": Listed,
    "folders": Folders,  # last: any folder of pictures looks like a class
}

EMBEDDED = Set("data.source", "embedded")
OFFLINE_HINT = Hint("run the same on the images inside the package: ", EMBEDDED)


def open_source(config: DataConfig) -> Source:
    """The source that `config.source` names, or that is recognised in `config.root`.

    Raises:
        UsageError: no such source, or nothing to look at.
        EnvironmentProblem: the images are not there and cannot be had.
        ArtifactError: they are there but partial or damaged.
    """
    root = None
    if config.root is not None:
        root = places.find(config.root) or places.places(config.root)[-1]
    if config.source == "embedded":
        return Embedded.open(None, config)
    if config.source in PUBLIC:
        return _open_public(config.source, root or default_root(config.source), config)
    if config.source != "auto" and config.source not in SOURCES:
        raise _unknown(config.source)
    if root is None:
        raise UsageError(
            "data.root is not set, so there are no images to read",
            hint=Hint(Set("data.root", "FOLDER"), ", or ", EMBEDDED),
        )
    if not root.is_dir():
        where = places.looked_for(config.root or "")
        what = f"data.root: there is no folder {root}; {where}"
        raise EnvironmentProblem(what, hint=OFFLINE_HINT)
    found = recognise(root) if config.source == "auto" else SOURCES[config.source]
    if found is None:
        known = Hint.command("data", "ls", says="lists the layouts that are known; or ")
        what = f"data.root: no images recognised in {root}, which holds {_held(root)}"
        raise EnvironmentProblem(what, hint=Hint(known, OFFLINE_HINT))
    return found.open(root, config)


def _unknown(name: str) -> UsageError:
    names = ["auto", *SOURCES, *PUBLIC]
    close = difflib.get_close_matches(name, names, n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else ""
    return UsageError(
        f"data.source: there is no source {name!r}{suggestion}",
        hint=f"one of {', '.join(names)}",
    )


def _held(root: Path, most: int = 10_000) -> str:
    """What is in a folder, for people: `2 folders, 12 .npz, 1 .txt`."""
    paths = list(islice(root.rglob("*"), most))
    folders = sum(path.is_dir() for path in paths)
    kinds = Counter(path.suffix.lower() or path.name for path in paths if not path.is_dir())
    found = [count_of(folders, "folder")] * bool(folders)
    found += [f"{number:,} {kind}" for kind, number in kinds.most_common()]
    return first_three(found) or "nothing"


def recognise(root: Path) -> type[Source] | None:
    """The layout in the folder `root`, by names alone; None when it is none of `SOURCES`."""
    return next((source for source in SOURCES.values() if source.recognise(root)), None)


def _open_public(name: str, root: Path, config: DataConfig) -> Source:
    found = recognise(root) if root.is_dir() else None
    if found is None:
        if not config.download:
            raise EnvironmentProblem(
                f"{name} is not in {root} and data.download is off", hint=OFFLINE_HINT
            )
        download(name, root)
        found = recognise(root)
        assert found is not None
    source = found.open(root, config)
    known = PUBLIC[name]
    if len(source.classes) != known.classes:
        raise ArtifactError(
            f"{root} holds {source.label} with {len(source.classes)} classes; "
            f"{name} has {known.classes}",
            hint=Hint.set("data.source", "auto", "reads whatever lies there"),
        )
    source.public = known
    return source
