"""Decoded images kept between runs: `~/.cache/rlp/data/<key>/{card.json, train-pixels.npy, …}`.

The key covers the content of the files and every setting that changes the pixels. `card.json` is
written last; it is sealed, and holds the key and the sha256 of the arrays: an entry is whole or
absent, and a damaged one is made again. Without a folder to write to, nothing is cached and nothing
fails; the folder may be deleted at any time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.run.documents import Sealed
from pipeline.system import cache_folder, sha256_file

_CARD = Sealed(
    "cached_images", "", ("card.json",), 64 << 20, "decoded images", {"key": str, "arrays": dict}
)
_STAGING = ".new-"
_ABANDONED_S = 24 * 3600


def load(key: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The entry `(card, arrays)`, or None when it is absent or damaged.

    The arrays are memory-mapped copy-on-write: what is written to them reaches no file.
    """
    folder = _entry(key)
    if folder is None:
        return None
    try:
        found = _CARD.read(folder / _CARD.file)
        if found["key"] != key:
            return None
        arrays = {}
        for name, digest in found["arrays"].items():
            if sha256_file(folder / f"{name}.npy") != digest:
                return None
            # "r" would be read-only, and torch warns of that
            arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        return found["card"], arrays
    except (ArtifactError, EnvironmentProblem, OSError, ValueError, KeyError):
        return None


def save(key: str, card: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the entry in the place of one of the same key, if the folder can be written to."""
    folder = _entry(key)
    if folder is None:
        return
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_STAGING))
        digests = {}
        for name, array in arrays.items():
            np.save(staging / f"{name}.npy", array, allow_pickle=False)
            digests[name] = sha256_file(staging / f"{name}.npy")
        # last: an entry without it is none
        body = {"key": key, "card": dict(card), "arrays": digests}
        _CARD.write(staging / _CARD.file, body)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)  # fails where another process was quicker, and its entry stays
    except (OSError, EnvironmentProblem):
        pass  # a cache that cannot be written costs time, and only time
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half-written a day ago or earlier."""
    for left in folder.glob(f"{_STAGING}*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)


def _entry(key: str) -> Path | None:
    base = cache_folder()
    return base / "data" / key if base else None
