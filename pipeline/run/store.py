"""The one module that writes artefacts: atomic files, sealed JSON, hashes, the commit of a stage
folder.

Write = beside, hash, fsync, rename, fsync the folder. Read = regular file, size cap, hash, parse,
schema.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ArtifactError, EnvironmentProblem

if TYPE_CHECKING:
    from torch import Tensor

_UMASK = os.umask(0)  # a umask can be read only by setting it
os.umask(_UMASK)
_MODE = 0o666 & ~_UMASK


def dump_json(obj: Any) -> bytes:
    """Canonical JSON: sorted keys, two spaces, no NaN; the same object gives the same bytes."""
    return (
        json.dumps(obj, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into exit 4 with the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = {
            errno.ENOSPC: "free some disk space, then type the command again; finished stages stay",
            errno.EACCES: "pass --run-dir DIR with a folder you may write",
            errno.EROFS: "pass --run-dir DIR with a folder you may write",
        }.get(error.errno or 0, "type the command again; finished stages are kept")
        raise EnvironmentProblem(f"{path}: {reason}", hint=hint) from error


def fsync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder: a rename is durable only then.

    Raises:
        OSError: the disk said no; `disk_errors` makes a sentence of it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder durably, unless it is there.

    Raises:
        EnvironmentProblem: the disk said no.
    """
    with disk_errors(folder):
        if not folder.is_dir():
            folder.mkdir()
            fsync_folder(folder.parent)


def write_bytes(path: Path, data: bytes, *, check: Callable[[Path], object] | None = None) -> str:
    """Write atomically and durably; returns the sha256.

    Args:
        check: looks at the file before it takes its place; what it raises leaves the old one there.
    Raises:
        EnvironmentProblem: the disk said no; the old file, if any, is untouched.
    """
    with disk_errors(path):
        # beside it: os.replace is atomic only within one file system
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            # mkstemp's 0600 would keep colleagues and CI from reading a run
            os.fchmod(handle, _MODE)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(Path(name))
            # after its bytes: a power cut must not leave the name of an empty file
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
    return hashlib.sha256(data).hexdigest()


def append_bytes(path: Path, data: bytes) -> None:
    """Add to the end of a file durably; a kill leaves a part of `data` at most.

    Raises:
        ArtifactError: not a regular file, or it has a second name.
        EnvironmentProblem: the disk said no.
    """
    with disk_errors(path):
        check_regular(path, single=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            # one call without a buffer: a kill tears the end of a line at most
            left = memoryview(data)
            while left:  # a nearly full disk takes a part and says no only to the rest
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, obj: Any) -> str:
    """Write canonical JSON atomically; returns the sha256."""
    return write_bytes(path, dump_json(obj))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors as safetensors atomically; returns the sha256."""
    # torch with it, which commands that only look at a run do without
    from safetensors.torch import save

    # safetensors refuses strides, and training leaves weights channels-last
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_bytes(path, save(plain, dict(metadata) if metadata else None))


def check_regular(path: Path, max_bytes: int | None = None, *, single: bool = False) -> int:
    """Size of a regular file; the file itself is no symlink.

    Args:
        single: refuse a second hard link as well, through which the bytes could change unseen. For
            files of a run; files from outside may well be linked by a package manager or a cache.
    Raises:
        ArtifactError: missing, a link, device, FIFO or folder, or larger than `max_bytes`.
    """
    try:
        info = path.lstat()
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):  # to open a FIFO would block, and a device has no end
        raise ArtifactError(f"{path}: not a regular file")
    if single and info.st_nlink > 1:
        raise ArtifactError(
            f"{path}: has a second name (hard link), through which it could be changed"
        )
    if max_bytes is not None and info.st_size > max_bytes:
        raise ArtifactError(
            f"{path}: {info.st_size} bytes, more than the {max_bytes} allowed for it"
        )
    return info.st_size


def sha256_file(path: Path) -> str:
    """Hex sha256 of a regular file.

    Raises:
        ArtifactError: missing or not a regular file.
    """
    check_regular(path)
    with disk_errors(path), _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> io.BufferedReader:
    # a file that took the place of the one that was looked at is no way out of the run either
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def read_bytes(path: Path, *, max_bytes: int, sha256: str | None = None) -> bytes:
    """Read a regular file below a size cap, checking its hash before anyone parses it.

    Raises:
        ArtifactError: missing, linked, too large, or the hash differs.
    """
    size = check_regular(path, max_bytes)
    with disk_errors(path), _open(path) as file:
        data = file.read(size)  # once: what is hashed here is what the caller parses
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactError(f"{path}: the bytes differ from those committed (sha256 mismatch)")
    return data


def read_json(path: Path, *, max_bytes: int = 64 << 20, sha256: str | None = None) -> Any:
    """Read and parse JSON; NaN and duplicate keys are refused.

    Raises:
        ArtifactError: not readable, or not JSON.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes, sha256=sha256), str(path))


def parse_json(data: bytes, name: str) -> Any:
    """Parse JSON; NaN and duplicate keys are refused. `name` is for the message.

    Raises:
        ArtifactError: not JSON.
    """
    try:
        return json.loads(
            data,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
            object_pairs_hook=_no_duplicates,
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name}: not valid JSON ({error})") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:  # nothing of ours counts that far, and no float holds 1e400
        raise ValueError("an integer of more than 64 bits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number that no float holds")
    return number


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate key")
    return result


def read_tensors(
    path: Path, *, max_bytes: int = 4 << 30, sha256: str | None = None
) -> dict[str, Tensor]:
    """Read a safetensors file, hashing first.

    Raises:
        ArtifactError: not readable, the hash differs, or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    # The format has no checksum: a flipped bit in a weight loads without a word.
    data = read_bytes(path, max_bytes=max_bytes, sha256=sha256)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(f"{path}: not a safetensors file ({error})") from None
