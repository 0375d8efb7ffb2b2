"""Downloads of public data sets, checked before they are used.

Addresses and checksums are torchvision's own. An archive is summed before it is opened, and a
member that would land outside the folder stops the extraction.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from functools import partial
from http.client import HTTPException
from pathlib import Path

from pipeline.data.sources.public_sets import PUBLIC
from pipeline.errors import ArtifactError, Command, EnvironmentProblem, Hint, Set
from pipeline.system import cache_folder
from pipeline.torchvision_import import import_torchvision

TIMEOUT_S = 20
_CHUNK = 1 << 20


def default_root(name: str) -> Path:
    """Where a download goes when `data.root` is not set."""
    return (cache_folder() or Path("data")) / "sets" / name


def download(name: str, root: Path) -> None:
    """Fetch the public set `name` into `root`, in torchvision's layout.

    Raises:
        EnvironmentProblem: no network, or the folder cannot be written.
        ArtifactError: what came is not what torchvision's checksum says.
    """
    official = getattr(import_torchvision().datasets, PUBLIC[name].official)
    try:
        if hasattr(official, "tgz_md5"):
            root.mkdir(parents=True, exist_ok=True)
            archive = root / official.filename
            _fetch([official.url], archive, official.tgz_md5)
            extract(archive, root)
            archive.unlink()
        else:
            folder = root / official.__name__ / "raw"
            folder.mkdir(parents=True, exist_ok=True)
            for file, md5 in official.resources:
                _fetch([mirror + file for mirror in official.mirrors], folder / file, md5)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise EnvironmentProblem(
            f"{name} is not in {root} and cannot be downloaded ({reason})",
            hint=Hint(
                "with a network: ",
                Command("data", "get", name, str(root)),
                "; without one: ",
                Set("data.source", "embedded"),
            ),
        ) from error


def extract(archive: Path, root: Path) -> None:
    """Unpack a tar archive below `root`; only files and folders in it are taken.

    Raises ArtifactError: damaged, or a link, a device or a path that leaves `root` is in it.
    """
    again = "remove the archive, fetch it again"
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            if unsafe := [member.name for member in members if not _is_safe(member, root)]:
                raise ArtifactError(f"{archive} is refused as unsafe: {unsafe[0]}", hint=again)
            # Python before 3.11.4 has no filters (PEP 706)
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(root, members)
    except (tarfile.TarError, EOFError) as error:
        raise ArtifactError(f"{archive} is damaged: {error}", hint=again) from error


def _is_safe(member: tarfile.TarInfo, root: Path) -> bool:
    inside = (root / member.name).resolve().is_relative_to(root.resolve())
    return inside and (member.isreg() or member.isdir())


def _fetch(urls: list[str], path: Path, md5: str) -> None:
    """Download the first of `urls` that answers to `path`, unless that is there already."""
    if path.is_file() and _md5(path) == md5:
        return
    problem: Exception | None = None
    for url in urls:
        try:
            return _fetch_one(url, path, md5)
        except (urllib.error.URLError, TimeoutError, HTTPException) as error:
            problem = error  # the next mirror may answer
    assert problem is not None
    raise problem


def _fetch_one(url: str, path: Path, md5: str) -> None:
    """Download beside `path` and sum before it takes its place; nothing partial is left."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    part = Path(name)
    try:
        with (
            os.fdopen(handle, "wb") as out,
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as response,
        ):
            shutil.copyfileobj(response, out, _CHUNK)
        if _md5(part) != md5:
            raise ArtifactError(
                f"{path.name}: the download does not have the official md5, it was thrown away"
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        # the publishers give no other; FIPS builds refuse it where it is meant for security
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
