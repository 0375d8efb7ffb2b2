"""Large images behind the same interface: the same bits whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_sets import colour, picture

from pipeline.config.data import DataConfig
from pipeline.data import Augment, describe, load_splits, load_test, stream
from pipeline.data.hashing import sha256_files
from pipeline.data.stream import StreamedImages
from pipeline.errors import ArtifactError, UsageError


@pytest.fixture
def photos(folders: Callable[..., Path]) -> Path:
    """30 + 30 JPEG photos of 150×120."""
    return folders("train", "test", each=10, size=(150, 120), fmt="JPEG")


def config(root: Path, **options: object) -> DataConfig:
    return DataConfig(root=str(root), image_size=100, **options)


def test_large_images_stream_and_small_ones_do_not(photos: Path) -> None:
    assert isinstance(load_test(config(photos)), StreamedImages)
    small = load_test(DataConfig(root=str(photos), image_size=96))
    assert not isinstance(small, StreamedImages)
    assert isinstance(
        load_test(DataConfig(root=str(photos), image_size=96, in_memory_mb=1)), StreamedImages
    )


def test_pixels_labels_and_card(photos: Path) -> None:
    card = describe(config(photos))
    assert (card.image_shape, card.label) == ((3, 100, 100), "photos (class folders, JPEG q75)")
    test = load_test(config(photos, mean=(0.0,) * 3, std=(1 / 255,) * 3))
    (x, y), *_ = test.batches(30)
    assert x.shape == (30, 3, 100, 100)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    expected = torch.tensor([float(colour(label, 0)[0]) for label in y.tolist()])
    assert float((x.mean((2, 3))[:, 0] - expected).abs().max()) <= 3  # JPEG is lossy


def test_take_and_splits(photos: Path) -> None:
    splits = load_splits(config(photos), seed=0)
    assert (len(splits.train), len(splits.search)) == (27, 3)
    x, y = splits.train.take(6, seed=1)
    assert y.bincount().tolist() == [2, 2, 2]
    assert torch.equal(x, splits.train.take(6, seed=1)[0])


def test_workers_change_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WORTH_WORKERS", 1)
    for path in photos.rglob("*.jpeg"):  # a gradient, so that a crop shows
        from PIL import Image

        Image.linear_gradient("L").convert("RGB").save(path)

    def epoch(workers: int, seed: int = 0) -> torch.Tensor:
        images = load_splits(config(photos, workers=workers), seed=0).train
        generator = torch.Generator().manual_seed(seed)
        augment = Augment(crop=1, flip=True, cutout=9)
        return torch.cat(
            [x for x, _ in images.batches(8, shuffle=True, augment=augment, generator=generator)]
        )

    state = torch.get_rng_state()
    alone = epoch(0)
    assert torch.equal(state, torch.get_rng_state())
    assert alone.shape == (27, 3, 100, 100)
    assert torch.equal(alone, epoch(2))
    assert not torch.equal(alone, epoch(0, seed=1))


def test_a_corrupt_photo_is_skipped_and_counted(photos: Path) -> None:
    whole = picture(0, 0, (150, 120), "JPEG")
    (photos / "train" / "cat" / "3.jpeg").write_bytes(whole[: len(whole) // 2])
    card = describe(config(photos, max_corrupt=0.05))
    assert card.skipped == {"train": 1, "test": 0}
    splits = load_splits(config(photos, max_corrupt=0.05), seed=0)
    assert len(splits.train) + len(splits.search) == 29
    for x, y in splits.train.batches(64):
        red = (x[:, 0].mean((1, 2)) * splits.train.std[0] + splits.train.mean[0]) * 255
        assert (
            float((red - torch.tensor([float(colour(k, 0)[0]) for k in y.tolist()])).abs().max())
            <= 3
        )
    with pytest.raises(ArtifactError, match="1 of 30 train images cannot be read"):
        describe(config(photos))


def test_a_photo_that_breaks_after_the_check_stops_the_run(photos: Path) -> None:
    images = load_test(config(photos))
    (photos / "test" / "dog" / "0.jpeg").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"test/dog/0\.jpeg can no longer be decoded"):
        list(images.batches(8))
    with pytest.raises(ArtifactError, match="can no longer be decoded"):
        list(images.batches(8, augment=Augment(crop=1), generator=torch.Generator()))


def test_large_images_need_a_square_size(photos: Path) -> None:
    with pytest.raises(UsageError, match="120×150, not square"):
        describe(DataConfig(root=str(photos)))


def test_above_the_limit_the_hash_sees_length_and_edges(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(300_000))
    whole, edges = sha256_files([path]), sha256_files([path], limit=1000)
    assert whole != edges
    for place, seen in ((0, True), (299_999, True), (150_000, False)):
        raw = bytearray(300_000)
        raw[place] = 1
        path.write_bytes(raw)
        assert (sha256_files([path], limit=1000) != edges) is seen
        assert sha256_files([path]) != whole
    path.write_bytes(bytes(300_001))
    assert sha256_files([path], limit=1000) != edges
