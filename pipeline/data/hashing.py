"""Content identity of a data set: its bytes, whatever they are called and whenever written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipeline.data.reading import disk_error, file_size, open_file

FULL_HASH_LIMIT = 2 * 1024**3
"""Bytes up to which every byte is hashed; above, the cheaper scheme of `sha256_files`."""
_EDGE = 64 * 1024


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_files(files: Iterable[Path], *, limit: int = FULL_HASH_LIMIT) -> str:
    """One hex sha256 over an ordered list of files.

    It covers, for each file, its size and the sha256 of its bytes. When the files exceed `limit`
    bytes in all, the bytes are the first and the last 64 KiB of each file (and the size): this sees
    any change of length and of headers but not one flipped bit in the middle of a large file. File
    names do not count. Of what is no file, or cannot be opened, only that counts.

    Raises:
        EnvironmentProblem: the disk failed.
    """
    paths = list(files)
    sizes = [file_size(path) for path in paths]
    whole = sum(size or 0 for size in sizes) <= limit
    outer = hashlib.sha256(b"full" if whole else b"edges")  # the two schemes never agree
    for path, size in zip(paths, sizes, strict=True):
        outer.update(b"unreadable" if size is None else _of_file(path, size, whole))
    return outer.hexdigest()


def _of_file(path: Path, size: int, whole: bool) -> bytes:
    try:
        with open_file(path, most=size) as stream:
            if whole:
                inner = hashlib.file_digest(stream, "sha256")
            else:
                inner = hashlib.sha256(stream.read(_EDGE))
                if size > 2 * _EDGE:
                    stream.seek(-_EDGE, 2)
                inner.update(stream.read())
    except OSError as error:
        raise disk_error(error, path) from error
    return size.to_bytes(8, "little") + inner.digest()
