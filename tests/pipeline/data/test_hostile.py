"""Images and disks that are not what they seem: nothing hangs, fills memory or is believed."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import CLASSES, picture, rows, write_parquet

from pipeline.config.data import DataConfig
from pipeline.data import describe
from pipeline.data.content import Encoded
from pipeline.data.decode import decode_all, survey
from pipeline.errors import ArtifactError, EnvironmentProblem
from pipeline.preprocessing import Fit, decode


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two splits of three classes with four images each."""
    for split in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for k in range(4):
                (tmp_path / "data" / split / name / f"{k}.png").write_bytes(picture(label, k))
    return tmp_path / "data"


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


STRANGE: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": _socket,
    "folder": Path.mkdir,
    "broken link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "sparse": lambda path: (path.touch(), os.truncate(path, 40 << 30)),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_is_counted_and_never_waited_for(folders: Path, kind: str) -> None:
    STRANGE[kind](folders / "train" / "cat" / "x.png")
    card = describe(DataConfig(root=str(folders), max_corrupt=0.5))
    assert card.skipped == {"train": 1, "test": 0}
    assert card.images == {"train": 12, "test": 12}


def test_a_failing_disk_is_an_error_and_no_damaged_image(
    folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config, real = DataConfig(root=str(folders), max_corrupt=0.5), os.open
    bad = str(folders / "train" / "cat" / "0.png")

    def failing(path: object, *args: object, **kwargs: object) -> int:
        if str(path) == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), bad)
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing)
        with pytest.raises(EnvironmentProblem, match=r"0\.png: Input/output error"):
            describe(config)
    assert describe(config).skipped["train"] == 0, "the error was kept"


def test_a_read_error_within_a_decoding_thread_is_raised() -> None:
    def read(i: int) -> bytes:
        raise EnvironmentProblem("the disk")

    images = Encoded(read=read, labels=np.zeros(3, np.int64), name=str)
    with pytest.raises(EnvironmentProblem):
        survey(images)
    with pytest.raises(EnvironmentProblem):
        decode_all(images, grey=False, shape=(8, 8), fit=None)


def test_a_large_label_without_class_names_is_refused_before_names_are_made(
    tmp_path: Path,
) -> None:
    for split in ("train", "test"):
        path = tmp_path / "set" / f"{split}-00000-of-00001.parquet"
        write_parquet(path, [*rows(5), (picture(0, 9), 2**40)], names=None)
    with pytest.raises(ArtifactError, match=f"labels go up to {2**40}, and there are 6 images"):
        describe(DataConfig(root=str(tmp_path / "set")))


def test_no_other_program_is_started_for_an_image(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("subprocess.check_call", started)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (folders / "train" / "cat" / "x.png").write_bytes(eps)
    assert describe(DataConfig(root=str(folders), max_corrupt=0.5)).skipped["train"] == 1


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1)])
def test_a_strip_is_scaled_at_its_middle_alone(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, largest = io.BytesIO(), 0
    Image.new("RGB", size, (10, 20, 30)).save(stream, "PNG")
    real = Image.Image.resize

    def watched(self: Image.Image, *args: object, **kwargs: object) -> Image.Image:
        nonlocal largest
        made = real(self, *args, **kwargs)  # type: ignore[arg-type]
        largest = max(largest, made.width * made.height)
        return made

    monkeypatch.setattr(Image.Image, "resize", watched)
    pixels = decode(stream.getvalue(), grey=False, fit=Fit(224, 224))
    assert pixels.shape == (224, 224, 3)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]
    assert largest == 224 * 224
