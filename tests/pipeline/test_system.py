"""Cores, caches, hashes and file types: each worked out in one place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline import system

V2, V1 = "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_"


@pytest.mark.parametrize(
    ("files", "quota", "threads"),
    [
        ({V2: "max 100000"}, None, 4),
        ({V2: "150000 100000"}, 1.5, 2),
        ({V2: "50000 100000"}, 0.5, 1),
        ({V1 + "quota_us": "-1", V1 + "period_us": "100000"}, None, 4),
        ({V1 + "quota_us": "300000", V1 + "period_us": "100000"}, 3.0, 3),
        ({}, None, 4),
    ],
)
def test_usable_cores_are_those_that_the_quota_pays_for(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(system, "read_line", files.get)
    monkeypatch.setattr(system, "allowed_cores", lambda: [3, 5, 8, 9])
    assert system.cpu_quota() == quota
    assert system.usable_cores() == threads


def test_versions_of_what_is_installed() -> None:
    found = system.package_versions(["numpy", "no-such-package-at-all"])
    assert list(found) == ["numpy"]
    assert found["numpy"][0].isdigit()


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert system.cache_folder() == tmp_path / "rlp"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the standard says: ignore it
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert system.cache_folder() == tmp_path / ".cache" / "rlp"


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00rlp" * 50_000)
    expected = hashlib.sha256(b"\x00rlp" * 50_000).hexdigest()
    assert system.sha256_file(tmp_path / "file") == expected


def test_splitmix64_gives_the_published_sequence() -> None:
    """First outputs of the reference implementation for seed 1234567."""
    state = [(1234567 + n * system.GOLDEN_GAMMA) % 2**64 for n in range(3)]
    assert [system.splitmix64(one) for one in state] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x80\x02}q", "a pickle"),
        (b"\x02" + b"\x00" * 7 + b"{}", "a safetensors file"),
        (b"\x00" * 257 + b"ustar", "a tar archive"),
        (b"version https://git-lfs.github.com/spec/v1", "a git-lfs pointer"),
        (b"\n <!DOCTYPE html>", "an HTML page"),
        (b'<?xml version="1.0"?>', "an XML or HTML page"),
        (b' {"a": 1}', "JSON text"),
        (b"plain words", "a text file"),
        (b"\x01\x02\x03", "unrecognised binary data"),
    ],
)
def test_file_types(data: bytes, kind: str) -> None:
    assert system.file_type(data) == kind


@pytest.mark.parametrize(
    ("cpuinfo", "features", "dot_product"),
    [
        ("model name : X\nflags : fpu avx2 fma", ["AVX2"], False),
        (
            "flags : avx2 avx512f avx512_vnni amx_int8",
            ["AVX2", "AVX-512", "AVX-512 VNNI", "AMX"],
            True,
        ),
        ("flags : avx2 avx_vnni", ["AVX2", "AVX-VNNI"], True),
        ("Features : fp asimd asimddp", ["ARM dot product"], True),
        ("", [], False),
    ],
)
def test_int8_features_are_those_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, cpuinfo: str, features: list[str], dot_product: bool
) -> None:
    monkeypatch.setattr(system, "read_line", lambda path: cpuinfo)
    assert system.int8_features() == features
    assert system.has_dot_product(features) is dot_product
