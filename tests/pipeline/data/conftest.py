"""A cache folder of its own for every test, and small data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_sets import CLASSES, picture, rows, write_parquet


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for every test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "rlp" / "data"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """30 train and 6 test images."""
    root = tmp_path / "animals"
    write_parquet(root / "train-00000-of-00001.parquet", rows(30))
    write_parquet(root / "test-00000-of-00001.parquet", rows(6))
    return root


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., Path]:
    """Makes class folders: `folders("train", "val", each=5)`; without a split a single folder."""

    def make(*splits: str, each: int = 5, size: tuple[int, int] = (8, 8), fmt: str = "PNG") -> Path:
        root = tmp_path / "photos"
        for base in [root / split for split in splits] or [root]:
            for label, name in enumerate(CLASSES):
                (base / name).mkdir(parents=True)
                for k in range(each):
                    (base / name / f"{k}.{fmt.lower()}").write_bytes(picture(label, k, size, fmt))
        return root

    return make
