"""A flat folder with labels.csv: the right label for each, and lists that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_sets import CLASSES, assert_colours_belong_to_labels, picture

from pipeline.config.data import DataConfig
from pipeline.data import describe, load_splits, load_test
from pipeline.data.sources.listed import Listed
from pipeline.errors import ArtifactError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """30 pictures, five a class and ten in a folder below, and their list."""
    lines = ["label,file"]
    for k in range(30):
        name = f"deep/{k}.png" if k % 3 == 0 else f"{k}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(k % 3, k))
        lines.append(f"{CLASSES[k % 3]},{name}")
    (tmp_path / "labels.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", "utf-8")
    return tmp_path


def test_every_picture_gets_its_label(root: Path) -> None:
    config = DataConfig(root=str(root), cache=False)
    card = describe(config)
    assert (card.source, card.classes) == ("listed", CLASSES)
    assert card.counts == {"train": (8, 8, 8), "test": (2, 2, 2)}
    for images in (load_splits(config, seed=0).train, load_test(config)):
        assert_colours_belong_to_labels(images)


def test_the_order_of_the_list_changes_nothing(root: Path) -> None:
    before = describe(DataConfig(root=str(root), cache=False))
    head, *lines = (root / "labels.csv").read_text("utf-8-sig").splitlines()
    (root / "labels.csv").write_text("\n".join([head, *reversed(lines)]))
    assert describe(DataConfig(root=str(root), cache=False)) == before


def test_splits_of_its_own(root: Path) -> None:
    lines = ["file,label,split"]
    for k in range(30):
        name = f"deep/{k}.png" if k % 3 == 0 else f"{k}.png"
        lines.append(f"{name},{CLASSES[k % 3]},{('train', 'search', 'test')[k // 10]}")
    (root / "labels.csv").write_text("\n".join(lines))
    assert describe(DataConfig(root=str(root), cache=False)).images == {
        "train": 10, "search": 10, "test": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column file"),
        ("name,label\n1.png,cat\n", "no column file"),
        ("file,kind\n1.png,cat\n", "no column label"),
        ("file,label\n", "names no file"),
        ("file,label\n1.png\n", ":2: no label"),
        ("file,label\n,cat\n", ":2: no file"),
        ("file,label\n1.png,cat\n1.png,dog\n", "1.png is named twice"),
        ("file,label\nnone.png,cat\n", "none.png: no such file"),
        ("file,label\n../x.png,cat\n", "no such file"),
        ("file,label\n/etc/passwd,cat\n", "no such file"),
        ("file,label,split\n1.png,cat,trian\n", "split 'trian'"),
        ("file,label\n1\x00.png,cat\n", "labels.csv"),
        ('file,label\n"1.png,cat\n', "not a readable table"),
        ("file,label\n" + "x" * 200_000 + ",cat\n", "not a readable table"),
        ("file,label\n1.png,cat\n2.png,\udcff\n", "not a readable table"),
    ],
)
def test_a_list_that_is_wrong_is_refused(root: Path, text: str, said: str) -> None:
    (root / "labels.csv").write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(ArtifactError) as caught:
        Listed(root)
    assert said in caught.value.message
    assert caught.value.hint
