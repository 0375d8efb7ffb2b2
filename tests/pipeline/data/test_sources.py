"""Every layout is recognised by itself and gives the right pixels, labels, classes and card."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sets import (
    CLASSES,
    assert_colours_belong_to_labels,
    colour,
    picture,
    pixels_of,
    rows,
    write_cifar_binary,
    write_cifar_python,
    write_idx,
    write_parquet,
)

from pipeline.config.data import DataConfig
from pipeline.data import DataCard, Images, describe, load_splits, load_test
from pipeline.data.decode import jpeg_quality
from pipeline.data.sources import cifar
from pipeline.errors import UsageError


def both(root: Path, **options: object) -> tuple[DataCard, Images, Images]:
    config = DataConfig(root=str(root), **options)
    return describe(config), load_splits(config, seed=0).train, load_test(config)


def test_parquet(parquet: Path) -> None:
    card, train, test = both(parquet)
    assert (card.source, card.label, card.classes) == ("parquet", "animals (parquet)", CLASSES)
    assert card.image_shape == (3, 8, 8)
    assert card.images == {"train": 30, "test": 6}
    assert card.encodings == {"PNG": 36}
    assert_colours_belong_to_labels(train)
    assert_colours_belong_to_labels(test)
    assert pixels_of(test)[:, 1, 3, 3].tolist() == [
        3 * k for k in range(6)
    ]  # rows keep their order


def test_parquet_in_shards_below_data_without_class_names(tmp_path: Path) -> None:
    for k in range(2):
        write_parquet(
            tmp_path / "data" / f"train-0000{k}-of-00002-abc123.parquet",
            rows(9),
            None,
            "fine_label",
        )
    write_parquet(
        tmp_path / "data" / "validation-00000-of-00001.parquet", rows(6), None, "fine_label"
    )
    card, train, _ = both(tmp_path)
    assert card.classes == ("0", "1", "2")
    assert card.images == {"train": 18, "test": 6}  # the only other split there is
    assert_colours_belong_to_labels(train)


def test_the_label_tells_lossy_encoding_and_its_quality(tmp_path: Path) -> None:
    root = tmp_path / "animals"
    write_parquet(root / "train.parquet", rows(30, fmt="JPEG"))
    write_parquet(root / "test.parquet", rows(6, fmt="JPEG"))
    assert describe(DataConfig(root=str(root))).label == "animals (parquet, JPEG q75)"
    assert describe(DataConfig(root=str(root), label="mine")).label == "mine"


@pytest.mark.parametrize("quality", [1, 30, 50, 75, 90, 100])
def test_jpeg_quality_is_read_from_the_luminance_table(quality: int) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=quality)
    assert jpeg_quality(tuple(Image.open(stream).quantization[0])) == quality
    assert jpeg_quality((7,) * 64) is None


def test_class_folders_with_val(folders: Callable[..., Path]) -> None:
    card, train, test = both(folders("train", "val"))
    assert (card.source, card.label, card.classes) == ("folders", "photos (class folders)", CLASSES)
    assert card.counts == {"train": (5, 5, 5), "test": (5, 5, 5)}
    assert_colours_belong_to_labels(train)
    assert_colours_belong_to_labels(test)


def test_a_single_folder_is_split_by_name_and_never_otherwise(folders: Callable[..., Path]) -> None:
    root = folders(each=10)
    config = DataConfig(root=str(root))
    assert describe(config).counts == {"train": (8, 8, 8), "test": (2, 2, 2)}
    before = {tuple(p) for p in pixels_of(load_test(config))[:, :2, 0, 0].tolist()}
    (root / "cat" / "10.png").write_bytes(picture(0, 10))
    (root / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    after = {tuple(p) for p in pixels_of(load_test(config))[:, :2, 0, 0].tolist()}
    assert len(before - after) <= 1
    assert len(load_test(config)) == 6
    chosen = {green // 3 for _, green in before}
    assert chosen - {0, 1}  # not simply the first names, which often are of one session


def test_grey_images_have_one_channel_and_one_colour_image_makes_it_three(
    folders: Callable[..., Path],
) -> None:
    root = folders("train", "test")
    for path in root.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert describe(DataConfig(root=str(root))).image_shape == (1, 8, 8)
    (root / "test" / "owl" / "0.png").write_bytes(picture(2, 0))
    assert describe(DataConfig(root=str(root))).image_shape == (3, 8, 8)


def test_images_of_several_sizes_are_resized_to_the_size_asked_for(
    folders: Callable[..., Path],
) -> None:
    root = folders("train", "test")
    (root / "train" / "cat" / "0.png").write_bytes(picture(0, 0, (20, 11)))
    card, train, _ = both(root, image_size=16)
    assert card.image_shape == (3, 16, 16)
    assert list(card.sizes) == ["8×8", "11×20"]
    assert_colours_belong_to_labels(train)


def test_cifar_binary(tmp_path: Path) -> None:
    first = write_cifar_binary(tmp_path)
    card, train, test = both(tmp_path)
    assert (card.source, card.label, card.classes) == ("cifar-binary", "CIFAR-10", CLASSES)
    assert card.images == {"train": 30, "test": 6}
    assert train.image_shape == (3, 32, 32)
    assert (pixels_of(train) == torch.from_numpy(first)).flatten(1).all(1).any()
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert describe(DataConfig(root=str(tmp_path / "cifar-10-batches-bin"))).sha256 == card.sha256


def test_cifar_100_binary_takes_the_fine_label(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name in ("train.bin", "test.bin"):
        records = b"".join(bytes([9, k % 3]) + bytes([k]) * 3072 for k in range(6))
        (folder / name).write_bytes(records)
    (folder / "fine_label_names.txt").write_text("\n".join(CLASSES))
    card, _, test = both(tmp_path)
    assert card.label == "CIFAR-100"
    assert test.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("protocol", [2, 4])
def test_cifar_python_is_read_without_unpickling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    pixels = write_cifar_python(tmp_path, monkeypatch, protocol)

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, never)
    card, _, test = both(tmp_path)
    assert (card.source, card.label, card.classes) == ("cifar-python", "CIFAR-10", CLASSES)
    assert card.images == {"train": 6000, "test": 1200}
    assert test.labels.tolist() == [k % 3 for k in range(1200)]
    source = cifar.CifarPython.open(tmp_path, DataConfig(root=str(tmp_path)))
    assert np.array_equal(source.read("train").pixels[:1200], pixels.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_in_torchvisions_layout(tmp_path: Path, zipped: bool) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 4), np.uint8)
    for prefix in ("train", "t10k"):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", images)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(30) % 10)
    if zipped:
        for path in list(raw.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    card, _, test = both(tmp_path)
    assert (card.source, card.label, card.classes[9]) == ("idx", "Fashion-MNIST", "Ankle boot")
    assert card.image_shape == (1, 5, 4)
    assert np.array_equal(pixels_of(test)[:, 0].numpy(), images)


def test_a_card_survives_json_and_the_config_overrides_normalisation(parquet: Path) -> None:
    import json

    card = describe(DataConfig(root=str(parquet), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    assert card.mean == (0.5, 0.5, 0.5)
    assert DataCard.from_dict(json.loads(json.dumps(card.to_dict()))) == card
    (x, _), *_ = load_test(
        DataConfig(root=str(parquet), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    ).batches(6)
    assert x[:, 0, 0, 0].tolist() == pytest.approx(
        [colour(k % 3, k)[0] for k in range(6)], abs=1e-3
    )


def test_identity_follows_content_labels_and_classes_but_not_names(
    folders: Callable[..., Path],
) -> None:
    root = folders("train", "test")
    config = DataConfig(root=str(root))
    first = describe(config).sha256
    moved = root.rename(root.parent / "renamed")
    assert describe(DataConfig(root=str(moved))).sha256 == first
    # The last cat becomes the first dog: the same bytes in the same order, another label.
    (moved / "train" / "cat" / "4.png").rename(moved / "train" / "dog" / "+.png")
    assert describe(DataConfig(root=str(moved))).sha256 != first


def test_decoded_images_are_resized_too() -> None:
    config = DataConfig(source="embedded", image_size=14)
    small, test = describe(config), load_test(config)
    assert small.image_shape == test.image_shape == (1, 14, 14)
    assert small.mean[0] == pytest.approx(describe(DataConfig(source="embedded")).mean[0], abs=0.01)
    native = pixels_of(load_test(DataConfig(source="embedded"))).float()
    triangle = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8  # bilinear with antialiasing at half the size
    halves = torch.nn.functional.conv2d(
        native[..., 1:, 1:], (triangle[:, None] * triangle)[None, None], stride=2
    )
    torch.testing.assert_close(pixels_of(test)[..., 1:-1, 1:-1].float(), halves, atol=1.01, rtol=0)
    with pytest.raises(UsageError, match=r"embedded 12k subset\) at 1000×1000 takes 14,000 MB"):
        describe(DataConfig(source="embedded", image_size=1000))
