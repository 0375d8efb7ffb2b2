"""Damaged, partial and missing data: the right exit code, and a sentence that names the place."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import (
    assert_colours_belong_to_labels,
    picture,
    rows,
    write_cifar_binary,
    write_cifar_python,
    write_idx,
    write_parquet,
)

from pipeline.config.data import DataConfig
from pipeline.data import describe, load_splits, load_test
from pipeline.data.sources.embedded import Embedded, embedded_folder
from pipeline.errors import ArtifactError, EnvironmentProblem, RlpError, UsageError
from pipeline.run.store import dump_json


def refusal(kind: type[RlpError], **options: object) -> RlpError:
    """The error that describing the data ends in; every one has a message of one line."""
    with pytest.raises(kind) as caught:
        describe(DataConfig(**options))
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "null"])
def test_a_corrupt_image_is_skipped_and_counted_up_to_the_cap(tmp_path: Path, damage: str) -> None:
    train = rows(60)
    whole = picture(0, 30, (60, 60))
    bad = {
        "truncated": whole[: len(whole) // 2],
        "garbage": b"not an image",
        "empty": b"",
        "null": None,
    }[damage]
    train[30] = (bad, 0)
    write_parquet(tmp_path / "train.parquet", train)
    write_parquet(tmp_path / "test.parquet", rows(6))
    config = DataConfig(root=str(tmp_path), max_corrupt=0.02, image_size=8)
    card = describe(config)
    assert card.skipped == {"train": 1, "test": 0}
    assert card.counts["train"] == (19, 20, 20)
    splits = load_splits(config, seed=0)
    assert len(splits.train) + len(splits.search) == 59
    assert_colours_belong_to_labels(
        splits.train
    )  # the labels after the gap have moved up with the images
    error = refusal(ArtifactError, root=str(tmp_path), max_corrupt=0.01, image_size=8)
    allowed = "1 of 60 train images cannot be read, more than the 1.0% allowed"
    assert error.message.endswith(f"{allowed}: train row 30")


def test_the_cap_holds_for_test_images_and_for_a_cached_card(parquet: Path) -> None:
    write_parquet(parquet / "test-00000-of-00001.parquet", [*rows(6), (b"broken", 0)])
    for _ in range(2):
        assert "1 of 7 test images" in refusal(ArtifactError, root=str(parquet)).message
    assert describe(DataConfig(root=str(parquet), max_corrupt=0.2)).skipped["test"] == 1


def test_corruption_that_empties_a_class(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", rows(30))
    write_parquet(tmp_path / "test.parquet", [*rows(2), (b"broken", 2)])
    error = refusal(ArtifactError, root=str(tmp_path), max_corrupt=0.9)
    assert "class 'owl' has no image in test" in error.message


def test_every_image_corrupt(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [(b"broken", k % 3) for k in range(9)])
    assert "not one image can be read" in refusal(ArtifactError, root=str(tmp_path)).message


@pytest.mark.parametrize(
    ("label", "says"), [(3, "the first is 3 in row 4"), (-1, "the first is -1 in row 4")]
)
def test_labels_out_of_range(parquet: Path, label: int, says: str) -> None:
    train = rows(30)
    train[4] = (train[4][0], label)
    write_parquet(parquet / "train-00000-of-00001.parquet", train)
    error = refusal(ArtifactError, root=str(parquet))
    assert "1 labels of train are out of range (0 … 2)" in error.message
    assert says in error.message


def test_a_missing_label(parquet: Path) -> None:
    write_parquet(parquet / "train-00000-of-00001.parquet", [*rows(9), (picture(0, 0), None)])
    assert "1 train rows have no label" in refusal(ArtifactError, root=str(parquet)).message


def test_an_empty_class(parquet: Path, folders: Callable[..., Path]) -> None:
    write_parquet(
        parquet / "train-00000-of-00001.parquet", [row for row in rows(30) if row[1] != 1]
    )
    assert "class 'dog' has no image in train" in refusal(ArtifactError, root=str(parquet)).message
    root = folders("train", "test")
    shutil.rmtree(root / "test" / "owl")
    assert "class 'owl' has no images in" in refusal(ArtifactError, root=str(root)).message


def test_a_class_that_only_the_test_folder_has(folders: Callable[..., Path]) -> None:
    root = folders("train", "test")
    shutil.copytree(root / "test" / "owl", root / "test" / "yak")
    assert "has class 'yak'" in refusal(ArtifactError, root=str(root)).message


def test_names_that_are_no_utf_8(folders: Callable[..., Path]) -> None:
    root = folders()
    (root / "cat" / "caf\udce9.txt").write_text("by an old archive")
    (root / "cat" / "caf\udce9.png").write_bytes(b"broken")
    card = describe(DataConfig(root=str(root), max_corrupt=0.5))
    assert sum(r"caf\udce9" in remark for remark in card.remarks) == 2
    dump_json(card.to_dict())
    (root / "cat").rename(root / "caf\udce9")
    error = refusal(ArtifactError, root=str(root), max_corrupt=0.5)
    assert error.message.endswith(r"the name of class caf\udce9 is no UTF-8 text")


def test_a_missing_split(parquet: Path, folders: Callable[..., Path]) -> None:
    (parquet / "test-00000-of-00001.parquet").unlink()
    assert "there is no test split" in refusal(ArtifactError, root=str(parquet)).message
    assert "there is no test split" in refusal(ArtifactError, root=str(folders("train"))).message


def test_an_empty_split(parquet: Path) -> None:
    write_parquet(parquet / "test-00000-of-00001.parquet", [])
    assert "the test split is empty" in refusal(ArtifactError, root=str(parquet)).message


def test_a_missing_shard(parquet: Path) -> None:
    (parquet / "train-00000-of-00001.parquet").rename(parquet / "train-00001-of-00003.parquet")
    assert (
        "2 of 3 train files are missing, first number 00000"
        in refusal(ArtifactError, root=str(parquet)).message
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>404</html>", "HTML page"),
        (b"PAR1 and then nothing", "not a readable parquet file"),
    ],
)
def test_a_file_that_is_no_parquet(parquet: Path, content: bytes, says: str) -> None:
    (parquet / "train-00000-of-00001.parquet").write_bytes(content)
    assert says in refusal(ArtifactError, root=str(parquet)).message


def test_a_damaged_parquet_page(parquet: Path) -> None:
    path = parquet / "train-00000-of-00001.parquet"
    raw = bytearray(path.read_bytes())
    raw[4:400] = bytes(396)
    path.write_bytes(raw)
    assert str(path) in refusal(ArtifactError, root=str(parquet)).message


def test_a_parquet_without_images(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "test.parquet")
    assert "has columns text, label" in refusal(ArtifactError, root=str(tmp_path)).message


def test_different_sizes_without_a_size_to_resize_to(folders: Callable[..., Path]) -> None:
    root = folders("train", "test")
    (root / "train" / "cat" / "0.png").write_bytes(picture(0, 0, (20, 11)))
    error = refusal(UsageError, root=str(root))
    assert "2 sizes, from 8×8 to 11×20" in error.message
    assert "data.image_size" in error.hint


def test_the_embedded_strip_is_summed_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "embedded"
    shutil.copytree(embedded_folder(), folder)
    raw = bytearray((folder / "test.png").read_bytes())
    raw[5000] ^= 1
    (folder / "test.png").write_bytes(raw)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ArtifactError, match="does not have the recorded sha256"):
        Embedded.open(folder, DataConfig()).read("test")
    (folder / "index.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"index\.json cannot be read"):
        Embedded.open(folder, DataConfig())


def test_cifar_binary_partial_and_truncated(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "is no multiple of 3073" in refusal(ArtifactError, root=str(tmp_path)).message
    path.unlink()
    assert f"{path} is missing" in refusal(ArtifactError, root=str(tmp_path)).message


def test_cifar_python_with_another_md5_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar_python(tmp_path, monkeypatch, each=6)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes() + b".")
    assert (
        f"{path} does not have the official md5"
        in refusal(ArtifactError, root=str(tmp_path)).message
    )


@pytest.mark.parametrize("damage", ["short", "long", "magic", "gzip", "count", "missing"])
def test_idx_damage(tmp_path: Path, damage: str) -> None:
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.zeros((6, 4, 4)))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(6) % 3)
    path = tmp_path / "t10k-images-idx3-ubyte"
    raw = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "gzip":
        path.unlink()
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw)[:-12])
    elif damage == "count":
        write_idx(path, np.zeros((5, 4, 4)))
    else:
        path.write_bytes({"short": raw[:-1], "long": raw + b"0", "magic": b"\1" + raw[1:]}[damage])
    says = {"missing": "is missing", "count": "5 images"}.get(damage, "is damaged")
    assert says in refusal(ArtifactError, root=str(tmp_path)).message


def test_nothing_there(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        error = refusal(EnvironmentProblem, root=str(root))
        assert str(root) in error.message
        assert "--set data.source=embedded" in error.hint
    assert "data.root is not set" in refusal(UsageError).message


def test_an_unknown_source_is_corrected(tmp_path: Path) -> None:
    assert (
        "did you mean 'parquet'?"
        in refusal(UsageError, source="parket", root=str(tmp_path)).message
    )


def test_normalisation_of_another_number_of_channels(parquet: Path) -> None:
    assert "data.mean has 1 numbers" in refusal(UsageError, root=str(parquet), mean=(0.5,)).message
    assert "must be positive" in refusal(UsageError, root=str(parquet), std=(0.5, 0.0, 0.5)).message


def test_a_changed_file_is_seen_within_one_process(parquet: Path) -> None:
    config = DataConfig(root=str(parquet))
    before = describe(config)
    write_parquet(parquet / "test-00000-of-00001.parquet", rows(9))
    assert describe(config).sha256 != before.sha256
    assert len(load_test(config)) == 9


def test_a_list_of_classes_that_is_empty_is_refused(tmp_path: Path) -> None:
    write_cifar_binary(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "batches.meta.txt").write_text("\n")
    found = refusal(ArtifactError, root=str(tmp_path))
    assert "no class: there is nothing to tell apart" in found.message
