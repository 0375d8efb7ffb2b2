"""CIFAR-10 and CIFAR-100 in the binary and in the Python layout, neither of them unpickled.

Binary: records of one label byte (two in CIFAR-100: coarse, fine) and 3,072 bytes, channel by
channel. Python: those files are pickles. Their md5 is compared with the official one, then the
opcodes are walked with `pickletools`, which executes nothing, to pick out the one long string of
pixels and the list of labels.
"""

from __future__ import annotations

import hashlib
import pickletools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.content import Decoded
from pipeline.data.reading import read_file
from pipeline.data.sources.base import Source, guess_kind
from pipeline.errors import ArtifactError, Command, Hint

if TYPE_CHECKING:
    from pipeline.config.data import DataConfig

_PIXELS = 3 * 32 * 32
_MAX_BYTES = 1 << 30
# folder: (train files, test files, class names, label bytes)
_BINARY = {
    "cifar-10-batches-bin": (
        [f"data_batch_{i}.bin" for i in range(1, 6)],
        ["test_batch.bin"],
        "batches.meta.txt",
        1,
    ),
    "cifar-100-binary": (["train.bin"], ["test.bin"], "fine_label_names.txt", 2),
}
_PYTHON = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}
# opcodes that build the list around its items
_STRUCTURE = {
    "PUT",
    "BINPUT",
    "LONG_BINPUT",
    "MEMOIZE",
    "FRAME",
    "EMPTY_LIST",
    "LIST",
    "MARK",
    "APPEND",
    "APPENDS",
}
_AGAIN = Hint("fetch the data set again: ", Command("data", "get", "NAME", "FOLDER"))


def _folder(root: Path, names: Any) -> Path | None:
    """The first of `names` that lies in `root`, or `root` itself when that is called so."""
    for name in names:
        if (root / name).is_dir():
            return root / name
        if root.resolve().name == name:
            return root
    return None


class CifarBinary(Source):
    """The binary version; of CIFAR-100 the fine labels."""

    kind = "cifar-binary"
    about = "CIFAR-10/100, binary version: cifar-10-batches-bin/ or cifar-100-binary/"
    splits = ("train", "test")

    def __init__(self, folder: Path) -> None:
        train, test, names, self._label_bytes = _BINARY[folder.resolve().name]
        self._files = {
            "train": tuple(folder / f for f in train),
            "test": tuple(folder / f for f in test),
        }
        self.label = "CIFAR-10" if self._label_bytes == 1 else "CIFAR-100"
        needed = (*self._files["train"], *self._files["test"], folder / names)
        missing = [path for path in needed if not path.is_file()]
        if missing:
            raise ArtifactError(f"{self.label}: {missing[0]} is missing", hint=_AGAIN)
        self.classes = _class_names(folder / names, self.label)

    @classmethod
    def recognise(cls, root: Path) -> bool:
        return _folder(root, _BINARY) is not None

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> CifarBinary:
        folder = _folder(root, _BINARY) if root else None
        if folder is None:
            raise ArtifactError(f"{root}: there is no {' or '.join(_BINARY)}", hint=_AGAIN)
        return cls(folder)

    def files(self, split: str) -> tuple[Path, ...]:
        return self._files[split]

    def read(self, split: str) -> Decoded:
        record, pixels, labels = self._label_bytes + _PIXELS, [], []
        for path in self._files[split]:
            raw = _read(path, self.label)
            if not raw or len(raw) % record:
                why = guess_kind(path) or f"{len(raw)} bytes is no multiple of {record}"
                raise ArtifactError(f"{self.label}: {path} is damaged ({why})", hint=_AGAIN)
            rows = np.frombuffer(raw, np.uint8).reshape(-1, record)
            labels.append(rows[:, self._label_bytes - 1])
            pixels.append(rows[:, self._label_bytes :])
        return _decoded(np.concatenate(pixels), np.concatenate(labels))


class CifarPython(Source):
    """The version for Python, official bytes only; of CIFAR-100 the fine labels."""

    kind = "cifar-python"
    about = (
        "CIFAR-10/100 as torchvision downloads it: cifar-10-batches-py/ or cifar-100-python/, "
        "read without unpickling"
    )
    splits = ("train", "test")

    def __init__(self, folder: Path) -> None:
        from pipeline.torchvision_import import import_torchvision

        self._folder = folder
        official = getattr(import_torchvision().datasets, _PYTHON[folder.resolve().name])
        self.label = official.__name__.replace("CIFAR", "CIFAR-")
        self._md5 = {"train": official.train_list, "test": official.test_list}
        self._label_key = "labels" if official.__name__ == "CIFAR10" else "fine_labels"
        meta = official.meta
        self.classes = tuple(
            _collect(self._official(meta["filename"], meta["md5"]), meta["key"], str)
        )

    @classmethod
    def recognise(cls, root: Path) -> bool:
        return _folder(root, _PYTHON) is not None

    @classmethod
    def open(cls, root: Path | None, config: DataConfig) -> CifarPython:
        folder = _folder(root, _PYTHON) if root else None
        if folder is None:
            raise ArtifactError(f"{root}: there is no {' or '.join(_PYTHON)}", hint=_AGAIN)
        return cls(folder)

    def files(self, split: str) -> tuple[Path, ...]:
        return tuple(self._folder / name for name, _ in self._md5[split])

    def read(self, split: str) -> Decoded:
        parts = [self._official(name, md5) for name, md5 in self._md5[split]]
        labels = [np.array(_collect(raw, self._label_key, int), np.int64) for raw in parts]
        pixels = [_longest_string(raw).reshape(-1, _PIXELS) for raw in parts]
        return _decoded(np.concatenate(pixels), np.concatenate(labels))

    def _official(self, name: str, md5: str) -> bytes:
        path = self._folder / name
        raw = _read(path, self.label)
        # torchvision knows no other sum; without the flag a FIPS build refuses to compute it
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() != md5:
            raise ArtifactError(
                f"{self.label}: {path} does not have the official md5, so it is not read",
                hint=_AGAIN,
            )
        return raw


def _read(path: Path, label: str) -> bytes:
    try:
        return read_file(path, _MAX_BYTES)
    except OSError as error:
        raise ArtifactError(
            f"{label}: {path} cannot be read ({error.strerror})", hint=_AGAIN
        ) from error


def _class_names(path: Path, label: str) -> tuple[str, ...]:
    try:
        return tuple(_read(path, label).decode().split())
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{label}: {path} is not UTF-8 text", hint=_AGAIN) from error


def _decoded(pixels: np.ndarray, labels: np.ndarray) -> Decoded:
    """(N, 3072) channel-first bytes as (N, 32, 32, 3)."""
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Decoded(images, labels.astype(np.int64))


def _longest_string(raw: bytes) -> np.ndarray:
    """The longest string or bytes argument among the opcodes of a pickle, as uint8."""
    arguments = (arg for _, arg, _ in pickletools.genops(raw) if isinstance(arg, str | bytes))
    longest = max(arguments, key=len)  # 30 MB of pixels beside short names
    # Python 2 wrote bytes as text; latin-1 maps one to the other.
    raw_pixels = longest.encode("latin-1") if isinstance(longest, str) else longest
    return np.frombuffer(raw_pixels, np.uint8)


def _collect(raw: bytes, key: str, kind: type) -> list[Any]:
    """The items of the list that follows the string `key` among the opcodes of a pickle.

    Long lists come in runs of MARK item … APPENDS; protocol 0 writes item APPEND item APPEND …
    SETITEM.
    """
    found: list[Any] = []
    active = between_runs = False
    for opcode, arg, _ in pickletools.genops(raw):
        if opcode.name in _STRUCTURE:
            between_runs = opcode.name == "APPENDS" or (between_runs and opcode.name != "MARK")
            continue
        value = arg.decode("latin-1") if isinstance(arg, bytes) else arg
        if not active:
            active = value == key
            between_runs = False
        elif between_runs or not isinstance(value, kind) or opcode.name.endswith("GET"):
            break
        else:
            found.append(value)
    return found
