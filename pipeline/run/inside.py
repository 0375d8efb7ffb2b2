"""Folders of a run, held open: what is done in one is done there, and never behind a link.

A run may have come from anybody. A link in it (`.work → ~`) would otherwise lead what is swept,
emptied and renamed here out of the run. The run itself may lie behind one: its user named it.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ArtifactError, EnvironmentProblem

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FOLDER = (errno.ELOOP, errno.ENOTDIR)  # what a link is called here, and what a file is
WORK = ".work"


@dataclass(frozen=True)
class Folder:
    """An open folder. Names are of what lies directly in it; everything raises OSError.

    Attributes:
        path: where it was when it was opened.
        handle: its descriptor, which stays on it whatever happens to the path.
    """

    path: Path
    handle: int

    def has(self, name: str) -> bool:
        """Whether there is anything of this name, a link to nothing too."""
        return self._mode(name) != 0

    def has_folder(self, name: str) -> bool:
        return stat.S_ISDIR(self._mode(name))

    def _mode(self, name: str) -> int:
        try:
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return 0

    def names(self, prefix: str = "", suffix: str = "") -> list[str]:
        found = os.listdir(self.handle)
        return sorted(n for n in found if n.startswith(prefix) and n.endswith(suffix))

    def make(self, name: str) -> None:
        os.mkdir(name, dir_fd=self.handle)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def remove(self, name: str) -> None:
        """Remove a file, a link itself, or a folder with all in it; quiet where there is none."""
        if self.has_folder(name):
            shutil.rmtree(name, ignore_errors=True, dir_fd=self.handle)
        elif self.has(name):
            os.unlink(name, dir_fd=self.handle)

    def sync(self) -> None:
        """Make what was renamed or made in it durable."""
        os.fsync(self.handle)

    @contextmanager
    def folder(self, name: str, *, make: bool = False) -> Iterator[Folder]:
        """A folder in this one.

        Args:
            make: when it is not there.
        Raises:
            ArtifactError: it is a link, or no folder.
        """
        path = self.path / name
        if make and not self.has(name):
            self.make(name)
            self.sync()
        try:
            handle = os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=self.handle)
        except OSError as error:
            if error.errno not in _NO_FOLDER:
                raise
            raise ArtifactError(
                f"{path}: a link or a file where a run has a folder; refused as unsafe",
                hint=f"nothing behind it was touched; look at it, then rm '{path}'",
            ) from None
        try:
            yield Folder(path, handle)
        finally:
            os.close(handle)


@contextmanager
def open_run(run: Path, *inner: str, make: bool = False) -> Iterator[Folder]:
    """A run's folder, or the one in it that `inner` leads to.

    Args:
        make: what is missing of `inner`.
    Raises:
        ArtifactError: there is a link on the way from the run to it.
        EnvironmentProblem: there is no such run, or it may not be read.
    """
    try:
        handle = os.open(run, _FLAGS)
    except OSError as error:
        raise EnvironmentProblem(f"{run}: {error.strerror}") from error
    try:
        with _inner(Folder(run, handle), inner, make) as folder:
            yield folder
    finally:
        os.close(handle)


@contextmanager
def _inner(outer: Folder, names: tuple[str, ...], make: bool) -> Iterator[Folder]:
    if not names:
        yield outer
        return
    with outer.folder(names[0], make=make) as folder, _inner(folder, names[1:], make) as last:
        yield last
