"""Files of images as they are on disk: a bad file is data, a bad disk is an error."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

from pipeline.errors import EnvironmentProblem

LARGEST_IMAGE = 256 << 20
"""Bytes of one encoded image; a photo of 100 megapixels has a fifth of it."""
# what is so again the next time; anything else that a system says of a file may pass
_OF_THE_FILE = {
    *(errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV),
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.EOPNOTSUPP),
}


def open_file(path: Path, most: int) -> io.BufferedReader:
    """A regular file of at most `most` bytes, opened; links are followed.

    Raises:
        OSError: there is none, it is a folder, FIFO, socket or device, or it is larger.
        EnvironmentProblem: the system failed to open it, and may not the next time.
    """
    try:
        # a FIFO would keep us waiting for somebody to write
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise _sorted(error, path) from error
    info = os.fstat(file.fileno())
    if stat.S_ISREG(info.st_mode) and info.st_size <= most:
        return file
    file.close()
    if stat.S_ISREG(info.st_mode):
        raise OSError(errno.EFBIG, f"more than {most} bytes", str(path))
    raise OSError(errno.EINVAL, "not a file", str(path))


def read_file(path: Path, most: int = LARGEST_IMAGE) -> bytes:
    """All of it; raises as `open_file` does."""
    with open_file(path, most) as file:
        try:
            return file.read()
        except OSError as error:
            raise _sorted(error, path) from error


def file_size(path: Path) -> int | None:
    """Bytes of a regular file that may be read; None of anything else.

    Raises:
        EnvironmentProblem: the system failed to tell.
    """
    try:
        info = os.stat(path)
        readable = stat.S_ISREG(info.st_mode) and os.access(path, os.R_OK)
        return info.st_size if readable else None
    except OSError as error:
        if isinstance(problem := _sorted(error, path), EnvironmentProblem):
            raise problem from error
        return None


def disk_error(error: OSError, path: Path) -> EnvironmentProblem:
    """What the system failed at, which says nothing about the file."""
    return EnvironmentProblem(
        f"{path}: {error.strerror}",
        hint="that is the disk, and no damaged image; type the command again once it reads",
    )


def _sorted(error: OSError, path: Path) -> Exception:
    """A read error must not be taken for an image's damage for good."""
    return error if error.errno in _OF_THE_FILE else disk_error(error, path)
