"""What people's folders hold besides images: other suffixes, leftovers, the same image twice."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import write_idx

from pipeline.config.data import DataConfig
from pipeline.data import describe, load_splits, load_test, prepare_encoded
from pipeline.data.sources import folders
from pipeline.errors import ArtifactError, UsageError


def config(root: Path, **options: object) -> DataConfig:
    return DataConfig(root=str(root), cache=False, **options)


def photo(label: int, k: int, fmt: str = "PNG") -> bytes:
    """One colour: red tells the class, green and blue the number."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (80 * label + 10, 3 * k, 5 * k)).save(stream, fmt)
    return stream.getvalue()


def fill(
    root: Path, classes: tuple[str, ...] = ("9", "10"), count: int = 5, first: int = 0
) -> None:
    """`count` images a class, numbered from `first`."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(first, first + count):
            (root / name / f"{k}.png").write_bytes(photo(label, k))


def grey(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8) + np.arange(8, dtype=np.uint8)).save(
        stream, "PNG"
    )
    return stream.getvalue()


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Test"), ("TRAINING", "Testing")])
def test_splits_in_whatever_letters(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path / names[0])
    fill(tmp_path / names[1], first=7, count=2)
    assert describe(config(tmp_path)).images == {"train": 10, "test": 4}


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".Trash-1000"])
def test_leftovers_below_a_class_are_no_data(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    (tmp_path / "9" / name).mkdir()
    (tmp_path / "9" / name / "0.png").write_bytes(photo(0, 0))
    card = describe(config(tmp_path))
    assert sum(card.images.values()) == 10
    assert card.remarks == ()


def test_suffixes_that_pillow_reads_and_those_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    for k in range(3):
        (tmp_path / "9" / f"more{k}.JFIF").write_bytes(photo(0, 20 + k, fmt="JPEG"))
    (tmp_path / "10" / "raw.cr2").write_bytes(b"raw")
    (tmp_path / "10" / "notes").write_text("of the camera")
    card = describe(config(tmp_path))
    assert sum(card.images.values()) == 13
    (said,) = card.remarks
    assert said.startswith("left out, by their suffix: ")
    assert "1 .cr2" in said
    assert "1 without a suffix" in said


def test_images_in_train_and_test_are_counted(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", first=4, count=3)
    assert describe(config(tmp_path)).remarks == ("2 of 6 test images are in train as well",)


def test_counting_them_reads_no_streamed_image_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", first=4, count=3)
    monkeypatch.setattr(prepare_encoded, "LARGEST_HELD", 4)
    monkeypatch.setattr(prepare_encoded, "FULL_CHECK", 0)
    monkeypatch.setattr(prepare_encoded, "STATISTICS", 2)
    read: Counter[Path] = Counter()
    monkeypatch.setattr(folders, "read_file", lambda path: read.update([path]) or path.read_bytes())
    assert describe(config(tmp_path)).remarks == ("2 of 6 test images are in train as well",)
    assert sorted(read.values()) == [1] * 14 + [2, 2]  # the header of each, and mean and std


def test_a_test_split_that_is_train(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    (said,) = describe(config(tmp_path)).remarks
    assert said.startswith("all 10 test images are in train as well")


def test_unreadable_images_below_the_cap_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", count=30)
    fill(tmp_path / "test", first=40, count=2)
    (tmp_path / "train" / "9" / "3.png").write_bytes(b"broken")
    (said,) = describe(config(tmp_path, max_corrupt=0.05)).remarks
    assert said == "left out: 1 train image that cannot be read: train/9/3.png"


def test_one_class_and_no_variation_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "one", classes=("only",))
    with pytest.raises(ArtifactError, match="one class, 'only'"):
        describe(config(tmp_path / "one"))
    for folder, last in (("train", 5), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / "flat" / folder / name).mkdir(parents=True)
            for k in range(last):
                stream = io.BytesIO()
                Image.new("L", (8, 8), 255).save(stream, "PNG")
                (tmp_path / "flat" / folder / name / f"{k}.png").write_bytes(stream.getvalue())
    with pytest.raises(ArtifactError, match="the same value"):
        describe(config(tmp_path / "flat"))


def test_a_constant_channel_is_said(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for k in range(5):
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), (40 * label, k, 200)).save(stream, "PNG")
            (tmp_path / name / f"{k}.png").write_bytes(stream.getvalue())
    assert "channel 2 has one value in all train images" in describe(config(tmp_path)).remarks


def test_classes_in_the_order_of_the_network(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", first=7, count=2)
    natural = config(tmp_path, classes=("9", "10"))
    assert describe(config(tmp_path)).classes == ("10", "9")
    assert describe(natural).classes == ("9", "10")
    assert describe(natural).sha256 != describe(config(tmp_path)).sha256
    x, y = next(load_test(natural).batches(4))
    assert torch.equal(x[:, 0].mean((1, 2)) > 0, y == 1)  # red tells the class
    for wrong in (("9",), ("9", "10", "11"), ("9", "9")):
        with pytest.raises(UsageError, match="are not those of"):
            describe(config(tmp_path, classes=wrong))


def test_grey_images_for_a_network_of_colours_and_the_other_way(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for k in range(5):
            (tmp_path / name / f"{k}.png").write_bytes(grey(60 * label + k))
    assert describe(config(tmp_path)).in_channels == 1
    three = load_splits(config(tmp_path, channels=3, search_fraction=0.3), seed=0).train
    x, _ = next(three.batches(2))
    assert x.shape[1] == 3
    assert torch.allclose(x[:, 0], x[:, 2])
    fill(tmp_path / "colours" / "train")
    fill(tmp_path / "colours" / "test", first=7)
    assert describe(config(tmp_path / "colours", channels=1)).in_channels == 1


@pytest.mark.parametrize(("channels", "stored"), [(3, 1), (1, 1), ("auto", 1)])
def test_plain_pixels_with_other_channels(tmp_path: Path, channels: object, stored: int) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("t10k", 10)):
        write_idx(
            tmp_path / f"{split}-images-idx3-ubyte", rng.integers(0, 255, (count, 28, 28), np.uint8)
        )
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    wanted = stored if channels == "auto" else channels
    assert describe(config(tmp_path, channels=channels)).in_channels == wanted
