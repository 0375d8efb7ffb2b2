"""Class folders with what people, systems and strangers leave in them.

A sound folder, in one of two layouts, gets one or two of `CHANGES`; it is then read as
`rlp data import` reads it, and as `rlp quantize --calibration` does.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import tiny_sets
from mutated.changes import Case

Change = Callable[[Path, random.Random], None]
"""Changes the folder of images; beside it lie the folder `outside` and nothing else."""

# no text in UTF-8, codes that steer a terminal, markup, words that are options, and what a shell
# or a path takes for something else; 255 bytes are the most that a disk takes
NAMES: tuple[bytes, ...] = (
    *(b"\xff\xfe", b"\x80cat", b"a\xed\xb3\xbf", b"\x1b[2J", b"a\nb", b"a\tb", b"[/a]", b":smile:"),
    *(b"--help", b"-", b" ", b"...", b"~", b"%s{0}", b"a\\b", b"\xe2\x80\xaeb", b"null", b"1e3"),
    *(b"x" * 255, "é".encode() * 127, b"Cat", b"CAT", b"train", b"val", b"Test", b"cat.png"),
    *(b".hidden", b"__MACOSX", b"Thumbs.db", b"labels.csv", b"test.parquet", b"data_batch_1.bin"),
)


def sound(root: Path, chance: random.Random) -> None:
    """Three classes of four images, in one folder or in train and test."""
    for split in chance.choice([("",), ("train", "test"), ("train", "val", "test")]):
        for label, name in enumerate(tiny_sets.CLASSES):
            (root / split / name).mkdir(parents=True)
            for k in range(4):
                path = root / split / name / f"{k}.png"
                path.write_bytes(tiny_sets.picture(label, k))


def link(root: Path, chance: random.Random) -> None:
    """A link in the place of a file or folder, or beside it: broken, in a circle, or out of it."""
    at = _place(root, chance)
    targets = ["nowhere", at.name, "..", ".", str(root), str(root.parent / "outside"),
               str(root.parent / "outside" / "a.png"), "/dev/zero", "/dev/full", "/dev/null",
               "/proc/self/mem", "/etc/passwd"]  # fmt: skip
    at.symlink_to(chance.choice(targets))


def special(root: Path, chance: random.Random) -> None:
    """A FIFO or a socket, which would keep a reader waiting."""
    at = _place(root, chance)
    if chance.random() < 0.7:
        os.mkfifo(at)
        return
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(at.parent, os.O_RDONLY)
        try:  # the name of a socket has 108 bytes at most, and that of a temporary folder may not
            server.bind(f"/proc/self/fd/{folder}/{at.name[:60]}")
        finally:
            os.close(folder)


def unreadable(root: Path, chance: random.Random) -> None:
    """Without permission, which binds everybody but root; or longer than any image."""
    at = chance.choice(_everything(root))
    if at.is_dir() or chance.random() < 0.7:
        at.chmod(chance.choice([0, 0o111, 0o444]))
    else:
        os.truncate(at, 40 << 30)


def odd_name(root: Path, chance: random.Random) -> None:
    """A name that is no text, or means something to somebody."""
    at = chance.choice(_everything(root))
    name = chance.choice(NAMES) + (b"" if at.is_dir() else chance.choice([b"", b".png"]))
    to = os.path.join(os.fsencode(at.parent), name[-255:])
    if not os.path.lexists(to):
        os.rename(os.fsencode(at), to)


def nested(root: Path, chance: random.Random) -> None:
    """Folders deeper than anybody put them: in each other, or as deep as a path may be."""
    at, kind = chance.choice(_folders(root)), chance.randrange(3)
    if kind == 0:  # what was here is now one deeper
        held = list(at.iterdir())
        below = at / chance.choice(["train", "cat", "deeper", "a.png"])
        below.mkdir(exist_ok=True)
        for path in held:
            if path != below:
                path.rename(below / path.name)
    elif kind == 1:
        held = chance.choice(_folders(root))
        if not at.is_relative_to(held):  # linked: a file may be a hole of gigabytes
            shutil.copytree(held, at / "copied", symlinks=True, copy_function=os.link)
    else:
        parts = ["d" * 200] * chance.choice([3, 18]) if chance.random() < 0.5 else ["d"] * 300
        below = at.joinpath(*parts)
        below.mkdir(parents=True)
        (below / "0.png").write_bytes(tiny_sets.picture(0, 9))


def empty(root: Path, chance: random.Random) -> None:
    """A class, a split or everything without its files; or files of no bytes."""
    at, kind = chance.choice(_everything(root)), chance.randrange(3)
    if kind == 0 and at.is_dir():
        shutil.rmtree(at)
        at.mkdir()
    elif kind == 1:
        for path in _everything(root):
            if path.is_file() and path.is_relative_to(at):
                path.write_bytes(b"")
    else:
        folder = at if at.is_dir() else at.parent
        (folder / chance.choice(["none", "train", "x.png"])).mkdir()


def many(root: Path, chance: random.Random) -> None:
    """Hundreds of classes of one image, or of images of one class; all one file."""
    folder = chance.choice(_folders(root))
    first = folder / "first.png"
    first.write_bytes(tiny_sets.picture(0, 0))
    for number in range(300):
        at = folder / f"{number}" if chance.random() < 0.5 else folder
        at.mkdir(exist_ok=True)
        os.link(first, at / f"{number}.png")


def misplaced(root: Path, chance: random.Random) -> None:
    """A file where a folder belongs, a class in one split alone, another kind of data set."""
    at = chance.choice(_everything(root))
    folder, kind = at if at.is_dir() else at.parent, chance.randrange(3)
    if kind == 0:
        to = folder / chance.choice(["a.png", "train", "cat", "a.txt", "labels.csv", "x.parquet"])
        if not to.exists():
            to.write_bytes(tiny_sets.picture(0, 0) if chance.random() < 0.5 else b"file,label\n")
    elif kind == 1:
        shutil.rmtree(at) if at.is_dir() else at.unlink()
    else:
        (folder / "extra").mkdir()
        (folder / "extra" / "0.png").write_bytes(tiny_sets.picture(1, 1))


CHANGES: tuple[Change, ...] = (
    link, special, unreadable, odd_name, nested, empty, many, misplaced,
)  # fmt: skip


def _everything(root: Path) -> list[Path]:
    """The folder and all below it, in an order that no disk decides on."""
    return [root, *sorted(root.rglob("*"))]


def _folders(root: Path) -> list[Path]:
    return [root, *(path for path in _everything(root)[1:] if path.is_dir())]


def _place(root: Path, chance: random.Random) -> Path:
    """Where a thing may be put: in the place of what is there, or beside it."""
    at = chance.choice(_everything(root))
    if chance.random() < 0.5 or at == root:
        folder = at if at.is_dir() else at.parent
        return folder / chance.choice(["new", "new.png", "train", "labels.csv"])
    shutil.rmtree(at) if at.is_dir() and not at.is_symlink() else at.unlink()
    return at


def mutated(folder: Path, chance: random.Random) -> Path:
    """A sound folder of images in `folder`, changed once or twice: where it is then."""
    root, outside = folder / "data", folder / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(tiny_sets.picture(2, 2))
    sound(root, chance)
    for change in chance.sample(CHANGES, chance.choice([1, 2])):
        try:
            change(root, chance)
        except OSError:
            continue  # the two do not go together: a name is taken, a folder unreadable
    return next((path for path in folder.iterdir() if path != outside), root)


def class_folders_reader() -> Case:
    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        root = mutated(folder, chance)
        return [["data", "import", str(root)], ["card", str(root)], ["calibration", str(root)]]

    return case


def card(path: str) -> None:
    """As a run writes down what its images are."""
    from pipeline.config.data import DataConfig
    from pipeline.data.load import describe
    from pipeline.run.store import dump_json

    dump_json(describe(DataConfig(root=path, image_size=8)).to_dict())


def calibration(path: str) -> None:
    """As `rlp quantize` reads images for a file that takes 8×8 pixels."""
    from pipeline.data.loose import Wanted, loose_images

    wanted = Wanted((3, 8, 8), (0.5,) * 3, (0.5,) * 3)
    for _ in loose_images(Path(path), wanted, ("train",)).batches(16):
        pass
