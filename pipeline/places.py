"""Where files that a config names are looked for: beside the config, then from here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_beside: tuple[Path, ...] = ()


@contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Within it, relative paths of a config are looked for in `folder` first."""
    global _beside
    before, _beside = _beside, (folder.resolve(),)
    try:
        yield
    finally:
        _beside = before


def places(name: str) -> list[Path]:
    """Every path that a relative `name` may stand for, in order; the last as it was given."""
    path = Path(name).expanduser()
    others = [folder / path for folder in _beside if not path.is_absolute()]
    return [one for one in others if one != path.absolute()] + [path]


def find(name: str) -> Path | None:
    """The first of `places` with anything in it, a broken link too; None where there is none."""
    return next((path for path in places(name) if os.path.lexists(path)), None)


def looked_for(name: str) -> str:
    """`looked for a, then b`: what a message says where there is nothing."""
    return "looked for " + ", then ".join(str(path.absolute()) for path in places(name))
