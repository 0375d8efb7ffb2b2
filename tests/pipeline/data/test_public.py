"""Public sets: found in any layout, else downloaded and checked."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from tiny_sets import rows, write_cifar_python, write_idx, write_parquet

from pipeline.config.data import DataConfig
from pipeline.data import describe
from pipeline.data.sources import public
from pipeline.data.sources.public_sets import PUBLIC, PublicSet
from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.torchvision_import import import_torchvision

TEN = tuple("abcdefghij")


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny CIFAR-10 archive, which torchvision's address and checksum are made to point to."""
    write_cifar_python(tmp_path / "made", monkeypatch, each=6)
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-py", "cifar-10-batches-py")
    official = import_torchvision().datasets.CIFAR10
    monkeypatch.setattr(official, "url", archive.as_uri())
    monkeypatch.setattr(official, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setitem(PUBLIC, "cifar10", PublicSet("CIFAR10", 3, "", "CIFAR-10", (30, 6)))
    return archive


def test_download_then_read_then_no_second_download(tmp_path: Path, cifar10: Path) -> None:
    root = tmp_path / "here"
    config = DataConfig(source="cifar10", root=str(root))
    assert describe(config).images == {"train": 30, "test": 6}
    assert sorted(p.name for p in root.iterdir()) == ["cifar-10-batches-py"]
    cifar10.unlink()
    assert describe(config).label == "CIFAR-10"


def test_idx_download_tries_the_mirrors_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "mirror"
    resources = []
    for prefix in ("train", "t10k"):
        for part, array in (
            ("images-idx3", np.arange(320).reshape(20, 4, 4) % 256),
            ("labels-idx1", np.arange(20) % 10),
        ):
            path = there / f"{prefix}-{part}-ubyte"
            write_idx(path, array)
            resources.append((path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    official = import_torchvision().datasets.FashionMNIST
    monkeypatch.setattr(
        official, "mirrors", [(tmp_path / "gone").as_uri() + "/", there.as_uri() + "/"]
    )
    monkeypatch.setattr(official, "resources", resources)
    card = describe(DataConfig(source="fashion-mnist"))  # no root: into the cache folder
    assert (card.label, card.images) == ("Fashion-MNIST", {"train": 20, "test": 20})


def test_a_download_with_another_md5_is_thrown_away(tmp_path: Path, cifar10: Path) -> None:
    cifar10.write_bytes(cifar10.read_bytes() + b"0")
    with pytest.raises(ArtifactError, match="does not have the official md5"):
        describe(DataConfig(source="cifar10", root=str(tmp_path / "here")))
    assert not list((tmp_path / "here").iterdir())


def test_offline_names_the_command_that_gets_it_and_the_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(public.urllib.request, "urlopen", offline)
    root = tmp_path / "here"
    for name in PUBLIC:
        with pytest.raises(EnvironmentProblem, match="Name or service not known") as caught:
            describe(DataConfig(source=name, root=str(root)))
        assert f"rlp data get {name} {root}" in caught.value.hint
        assert "--set data.source=embedded" in caught.value.hint
    assert not [p for p in root.rglob("*") if p.is_file()]
    with pytest.raises(EnvironmentProblem, match=r"data\.download is off"):
        describe(DataConfig(source="cifar10", root=str(root), download=False))


def test_another_layout_in_the_folder_spares_the_download(tmp_path: Path) -> None:
    root = tmp_path / "ten"
    images = [(raw, k % 10) for k, (raw, _) in enumerate(rows(40))]
    for split in ("train", "test"):
        write_parquet(root / f"{split}.parquet", images, TEN)
    card = describe(DataConfig(source="cifar10", root=str(root)))
    assert (card.classes, card.label) == (TEN, "ten (parquet)")  # 40 images are not CIFAR-10
    with pytest.raises(ArtifactError, match="with 10 classes; cifar100 has 100"):
        describe(DataConfig(source="cifar100", root=str(root)))


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside-of-rlp-test"])
def test_a_member_that_escapes_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "bad.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo(name) if name[0] != "/" else _absolute_link(name), io.BytesIO())
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ArtifactError, match="refused as unsafe"):
        public.extract(archive, root)
    assert not (tmp_path / "outside").exists()
    assert not list(root.iterdir())


def _absolute_link(target: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo("innocent")
    link.type, link.linkname = tarfile.SYMTYPE, target
    return link


def test_a_damaged_archive(tmp_path: Path, cifar10: Path) -> None:
    cifar10.write_bytes(cifar10.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="is damaged"):
        public.extract(cifar10, tmp_path)


def test_the_whole_set_in_another_layout_bears_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "jpegs"
    for split in ("train", "test"):
        write_parquet(root / f"{split}.parquet", rows(12, fmt="JPEG"))
    monkeypatch.setitem(PUBLIC, "cifar10", PublicSet("CIFAR10", 3, "", "CIFAR-10", (12, 12)))
    assert describe(DataConfig(source="cifar10", root=str(root))).label == "CIFAR-10 (JPEG q75)"
