"""The cache of decoded images: used when whole, ignored when damaged, never needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_sets import picture, rows, write_parquet

from pipeline.config.data import DataConfig
from pipeline.data import describe, load, load_test, prepare_encoded
from pipeline.system import cache_folder


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the times a split is decoded; nothing is kept within the process."""
    counted: list[int] = []
    original = prepare_encoded.decode_all

    def counting(images, **kwargs):
        counted.append(len(images.labels))
        return original(images, **kwargs)

    monkeypatch.setattr(prepare_encoded, "decode_all", counting)
    monkeypatch.setattr(load, "_prepared_once", load._prepared_once.__wrapped__)
    return counted


def test_the_second_time_is_mapped_and_the_same(parquet: Path, decodes: list[int]) -> None:
    config = DataConfig(root=str(parquet))
    first, card = next(load_test(config).batches(6)), describe(config)
    assert decodes == [30, 6]
    again = load_test(config)
    assert torch.equal(next(again.batches(6))[0], first[0])
    assert describe(config) == card
    assert decodes == [30, 6]


def test_no_cache_when_it_is_off(parquet: Path, decodes: list[int], cache: Path) -> None:
    for _ in range(2):
        describe(DataConfig(root=str(parquet), cache=False))
    assert decodes == [30, 6] * 2
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "card", "mean"])
def test_a_damaged_entry_is_made_again(
    parquet: Path, decodes: list[int], cache: Path, damage: str
) -> None:
    config = DataConfig(root=str(parquet))
    card = describe(config)
    entry = next(cache.iterdir())
    array = entry / "train-pixels.npy"
    if damage == "flip":
        raw = bytearray(array.read_bytes())
        raw[-5] ^= 1
        array.write_bytes(raw)
    elif damage == "truncate":
        array.write_bytes(array.read_bytes()[:100])
    elif damage == "remove":
        array.unlink()
    elif damage == "card":
        (entry / "card.json").write_text("[]")
    else:  # a card that is a card, and says another thing
        text = (entry / "card.json").read_text()
        (entry / "card.json").write_text(text.replace("cat", "cow", 1))
    assert describe(config) == card
    assert decodes == [30, 6] * 2
    describe(config)
    assert decodes == [30, 6] * 2  # whole again


def test_other_content_is_another_entry(parquet: Path, decodes: list[int], cache: Path) -> None:
    describe(DataConfig(root=str(parquet)))
    write_parquet(parquet / "test-00000-of-00001.parquet", [*rows(5), (picture(2, 9), 2)])
    describe(DataConfig(root=str(parquet)))
    assert decodes == [30, 6] * 2
    assert len(list(cache.iterdir())) == 2


def test_the_same_content_elsewhere_shares_the_entry_but_not_the_label(
    parquet: Path, decodes: list[int]
) -> None:
    describe(DataConfig(root=str(parquet)))
    moved = parquet.rename(parquet.parent / "zoo")
    assert describe(DataConfig(root=str(moved))).label == "zoo (parquet)"
    assert decodes == [30, 6]


def test_a_folder_that_cannot_be_written_is_no_error(
    parquet: Path, decodes: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert describe(DataConfig(root=str(parquet))).images["train"] == 30
    assert decodes == [30, 6]


def test_no_home(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert cache_folder() is None
    assert describe(DataConfig(root=str(parquet))).images["train"] == 30


def test_leftovers_of_a_killed_process_are_swept_after_a_day(parquet: Path, cache: Path) -> None:
    for name, age in ((".new-old", 2 * 86_400), (".new-young", 60)):
        (cache / name).mkdir(parents=True)
        now = (cache / name).stat().st_mtime
        os.utime(cache / name, (now - age, now - age))
    describe(DataConfig(root=str(parquet)))
    names = {p.name for p in cache.iterdir()}
    assert ".new-old" not in names
    assert ".new-young" in names


def test_an_entry_of_another_data_set_is_not_taken(
    parquet: Path, decodes: list[int], cache: Path
) -> None:
    first = describe(DataConfig(root=str(parquet)))
    entry = next(cache.iterdir())
    write_parquet(parquet / "test-00000-of-00001.parquet", [*rows(5), (picture(2, 9), 2)])
    second = describe(DataConfig(root=str(parquet)))
    other = next(path for path in cache.iterdir() if path != entry)
    shutil.rmtree(other)
    shutil.copytree(entry, other)
    assert describe(DataConfig(root=str(parquet))) == second != first
