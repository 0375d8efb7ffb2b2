"""Errors of the child process in the words of the parent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError, EnvironmentProblem, Hint, Key, RlpError
from pipeline.system import file_type

_NO_MEMORY = ("bad allocation", "Failed to allocate")  # onnxruntime has no error of its own for it
# commands whose failure is the file's fault
_READS_THE_FILE = (
    *("open", "check", "scan", "describe", "infer", "feed", "call", "warm", "slot"),
    *("prepare", "hold", "halve", "watch", "observe", "equalize", "quantize", "correct"),
)
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")  # says nothing to a reader
_MOST_BYTES = 2**31 - 1  # of a protobuf message


def require_readable(path: Path, subject: str) -> None:
    """Refuse a file that protobuf could not read, before anything tries to.

    Raises:
        ArtifactError: it is missing, no file, or larger than 2 GiB.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise ArtifactError(f"{subject}: {what}", hint="check the path")
    if path.stat().st_size > _MOST_BYTES:
        raise ArtifactError(
            f"{subject} has {path.stat().st_size / 1e9:.1f} GB, and an ONNX file can have 2.1",
            hint="keep its weights beside it, as external data",
        )


def refusal(command: str, answer: Mapping[str, Any], subject: str) -> RlpError:
    """The error for an answer that says `ok: false`; `subject` is the file, as errors name it."""
    kind, message = answer["kind"], _PREFIX.sub("", answer["message"])
    if kind in ("EPFail", "MemoryError") or any(words in message for words in _NO_MEMORY):
        return EnvironmentProblem(
            f"onnxruntime could not run {subject}: {message[:300]}",
            hint=Hint("set smaller ", Key("benchmark.batches"), ", or choose another provider"),
        )
    if kind in ("ModuleNotFoundError", "ImportError"):
        return EnvironmentProblem(
            f"a package is missing: {message}",
            hint=Hint.command("doctor", says="shows what is installed"),
        )
    if command in _READS_THE_FILE:
        return ArtifactError(
            f"onnxruntime refused {subject}{_looks_like(subject)}: {message[:300]}",
            hint="check that it is an ONNX file that this onnxruntime supports, or export it again",
        )
    return RlpError(f"{command} failed in the onnxruntime child: {kind}: {message[:300]}")


def _looks_like(subject: str) -> str:
    """`, which looks like a PNG image`, say, where the first bytes of the file tell."""
    try:
        with open(subject, "rb") as file:
            kind = file_type(file.read(4096))
    except OSError:
        return ""
    return "" if kind == "unrecognised binary data" else f", which looks like {kind}"
