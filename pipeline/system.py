"""The machine and its files: cores, limits, versions, the cache folder, hashes, what a file is.

Standard library only, so that the command line and onnxruntime's child process start light.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import string
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def allowed_cores() -> list[int]:
    """Logical cores that this process may use, by its affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """Cores' worth of time that the control group allows; None when unlimited or unknown."""
    text = read_line("/sys/fs/cgroup/cpu.max")
    if text:
        limit, _, period = text.partition(" ")
        return None if limit == "max" else int(limit) / int(period or 100_000)
    quota = read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")  # control groups, version 1
    period = read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def usable_cores() -> int:
    """How many threads can run at once, at least 1: beyond the quota they would only wait."""
    cores, quota = len(allowed_cores()), cpu_quota()
    # 1.5 cores' worth of time keeps two threads busy most of the time
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_name() -> str:
    """The processor, in words."""
    for line in (read_line("/proc/cpuinfo") or "").splitlines():
        if line.lower().startswith(("model name", "hardware", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# what 8-bit products are multiplied with, and what it means that a processor has it
_INT8_FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "amx_int8": "AMX",
    "asimddp": "ARM dot product",
    "i8mm": "ARM I8MM",
}
_DOT_PRODUCTS = ("AVX-512 VNNI", "AVX-VNNI", "AMX", "ARM dot product", "ARM I8MM")


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, as Linux names them; empty where it does not tell."""
    for line in (read_line("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def int8_features() -> list[str]:
    """Those that make 8-bit arithmetic fast, in words: "AVX2", "AVX-512 VNNI" …"""
    flags = cpu_flags()
    return [name for flag, name in _INT8_FEATURES.items() if flag in flags]


def has_dot_product(features: Iterable[str]) -> bool:
    """Whether four 8-bit products are summed in 32 bits by one instruction."""
    return any(name in _DOT_PRODUCTS for name in features)


def memory_bytes() -> int | None:
    """Memory of the machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those that are installed, by name; nothing is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def read_line(path: str) -> str | None:
    """What a file of /proc or /sys says, stripped; None where there is none."""
    try:
        return Path(path).read_text().strip()
    except (OSError, ValueError):
        return None


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/rlp` or `~/.cache/rlp`, made or not; None when there is no home."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():  # a relative one is to be ignored, says the standard
        return Path(base) / "rlp"
    try:
        return Path.home() / ".cache" / "rlp"
    except RuntimeError:
        return None


def sha256_file(path: Path) -> str:
    """Hex sha256 of the bytes of a file. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


GOLDEN_GAMMA = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: what splitmix64's state steps by


def splitmix64(state: int) -> int:
    """A fixed, well-spread 64-bit number for any integer: the output of the generator's next step.

    Its n-th output from seed 0 is `splitmix64((n - 1) * GOLDEN_GAMMA)`. Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mask = (1 << 64) - 1
    z = (state + GOLDEN_GAMMA) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


_MAGIC = (
    (b"version https://git-lfs", "a git-lfs pointer"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ", "xz-compressed data"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
)


def file_type(data: bytes) -> str:
    """What a file really is, by its first bytes, for names lie: "an HTML page", "a pickle", "a
    safetensors file", "unrecognised binary data" …

    Args:
        data: the file's bytes, or the first few thousand.
    """
    if not data:
        return "an empty file"
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[257:262] == b"ustar":
        return "a tar archive"
    # since protocol 2 a pickle opens with 0x80 and its protocol's number
    if data[0] == 0x80 and len(data) > 1 and 2 <= data[1] <= 5:
        return "a pickle"
    if is_safetensors(data):
        return "a safetensors file"
    return _text_type(data[:512])


def _text_type(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if text.startswith((b"<?xml", b"<error", b"<")):
        return "an XML or HTML page"
    if text.startswith((b"{", b"[")):
        return "JSON text"
    if all(chr(byte) in string.printable for byte in head):
        return "a text file"
    return "unrecognised binary data"


def is_safetensors(data: bytes) -> bool:
    """Whether it begins like safetensors: a 64-bit header length, then a JSON object."""
    # the format allows a header of 100 MB; random bytes would nearly always claim more
    return len(data) > 9 and int.from_bytes(data[:8], "little") < 100_000_000 and data[8:9] == b"{"
