"""What a file really is, by its first bytes; names lie."""

from __future__ import annotations

import json
import string

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


def guess(data: bytes) -> str:
    """A few words for people: "an HTML page", "a pickle", "a safetensors file", "unrecognised
    binary data" …

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
    if data[0] == 0x80 and len(data) > 1 and 2 <= data[1] <= 5:
        return "a pickle"
    if is_safetensors(data):
        return "a safetensors file"
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if head.startswith((b"<?xml", b"<error", b"<")):
        return "an XML or HTML page"
    if head.startswith((b"{", b"[")):
        return "JSON text"
    if all(chr(byte) in string.printable for byte in data[:512]):
        return "a text file"
    return "unrecognised binary data"


def is_safetensors(data: bytes) -> bool:
    """Whether it begins like safetensors: a 64-bit header length, then a JSON object."""
    return len(data) > 9 and int.from_bytes(data[:8], "little") < 100_000_000 and data[8:9] == b"{"


def header_of(data: bytes) -> dict[str, object]:
    """The JSON header of safetensors bytes; empty when it is not one."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}
