"""From a config to images: every load opens the source once, and reads a split once for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_sets import rows, write_parquet

from pipeline.config.data import DataConfig
from pipeline.data import describe, load_splits, load_test
from pipeline.data.sources import Source
from pipeline.data.sources.folders import Folders
from pipeline.data.sources.parquet import Parquet
from pipeline.data.sources.public_sets import PUBLIC, PublicSet


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a source was opened, and each split read."""
    counts: Counter[str] = Counter()

    def watch(kind: type[Source]) -> None:
        def open_(root: Path, config: DataConfig, original: Callable[..., Source]) -> Source:
            counts["open"] += 1
            return original(root, config)

        def read(source: Source, split: str, original: Callable[..., object]) -> object:
            counts[split] += 1
            return original(source, split)

        opened, reader = kind.open, kind.read
        monkeypatch.setattr(kind, "open", staticmethod(lambda r, c: open_(r, c, opened)))
        monkeypatch.setattr(kind, "read", lambda s, split: read(s, split, reader))

    for kind in (Folders, Parquet):
        watch(kind)
    return counts


@pytest.mark.parametrize("load", [lambda c: load_splits(c, seed=0), load_test, describe])
def test_a_load_opens_the_source_once(
    load: Callable[[DataConfig], object], parquet: Path, counted: Counter[str]
) -> None:
    load(DataConfig(root=str(parquet)))
    assert counted == {"open": 1, "train": 1, "test": 1}


def test_the_next_load_looks_at_the_files_and_reads_them_no_more(
    folders: Callable[..., Path], counted: Counter[str]
) -> None:
    config = DataConfig(root=str(folders("train", "test")))
    describe(config)
    load_splits(config, seed=0)
    assert counted == {"open": 2, "train": 1, "test": 1}


def test_a_public_set_is_read_once_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Counter[str]
) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / "set" / f"{split}.parquet", rows(12))
    known = PublicSet("CIFAR10", 3, "", "CIFAR-10", (12, 12))
    monkeypatch.setitem(PUBLIC, "cifar10", known)
    card = describe(DataConfig(source="cifar10", root=str(tmp_path / "set")))
    assert card.label == "CIFAR-10"
    assert counted == {"open": 1, "train": 1, "test": 1}
