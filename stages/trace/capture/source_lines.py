"""Which line of the network's own code something happened on, the same text on every machine."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache, lru_cache
from types import FrameType

import torch

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in ')
_TORCH = os.path.dirname(torch.__file__) + os.sep
_STANDARD = sysconfig.get_paths()["stdlib"] + os.sep
_ENGINE = os.path.dirname(os.path.dirname(__file__)) + os.sep
"""The folder of the trace engine: it runs the network and is no line of it."""
_UNKNOWN = "unknown line"
_OF_FX = "<eval_with_key>"
GENERATED = "generated code"
"""Stands for the file of code that torch.fx made."""


@cache
def inside_library(file: str) -> bool:
    """True for source files of PyTorch and of the standard library, and for code they generate."""
    # where dataclasses, namedtuple and numpy generate code
    if file.startswith(_TORCH) or file in ("<string>", "<__array_function__ internals>"):
        return True
    # site-packages lies inside the standard library's folder, and the user's networks may lie there
    standard = file.startswith(_STANDARD) and "-packages" + os.sep not in file
    return standard or file.startswith("<frozen ")


@cache
def inside_engine(file: str) -> bool:
    """True for the source files of the trace engine."""
    return file.startswith(_ENGINE)


@lru_cache(maxsize=4096)
def short_path(file: str) -> str:
    """A source file without what differs from machine to machine, or from copy to copy."""
    if file.startswith(_OF_FX):  # numbered as it was made
        return GENERATED
    # longest first, since a package's own folder may be on the path beside the one above it
    roots = sorted({os.path.abspath(path or ".") for path in sys.path}, key=len, reverse=True)
    for root in roots:
        if file.startswith(root.rstrip(os.sep) + os.sep):
            return os.path.relpath(file, root).replace(os.sep, "/")
    return os.path.basename(file)


def own_frames() -> Iterator[FrameType]:
    """Running frames of the network's own code, from the innermost outwards.

    A network made of library modules alone has none: whoever runs it does not count.
    """
    frame: FrameType | None = sys._getframe(1)
    inside_run = False  # past the frames that listen, which lie inside the network's own
    while frame is not None:
        file = frame.f_code.co_filename
        if inside_engine(file):
            if inside_run:
                return
        else:
            inside_run = True
            if not inside_library(file):
                yield frame
        frame = frame.f_back


def running_line() -> str:
    """The innermost line of the network's own code that is running."""
    return line_of(next(own_frames(), None))


def line_of(frame: FrameType | None) -> str:
    """Where a frame is; for generated code, whose lines nobody sees, the node that made it."""
    if frame is None:
        return _UNKNOWN
    file, line = frame.f_code.co_filename, frame.f_lineno
    if file.startswith(_OF_FX):
        text = linecache.getline(file, line, frame.f_globals)
        return f"{GENERATED}:{text.partition('=')[0].strip() or line}"
    return f"{short_path(file)}:{line}"


def line_in_text(stack: str) -> str:
    """The innermost frame of the network's own code in a stack that is written out as text."""
    frames = [(match["file"], match["line"]) for match in _FRAME.finditer(stack)]
    own = [frame for frame in frames if not inside_library(frame[0])] or frames
    return f"{short_path(own[-1][0])}:{own[-1][1]}" if own else _UNKNOWN


def line_of_error(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame of the network's own code that an exception left; None without one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not inside_library(f.filename) and not inside_engine(f.filename)]
    return own[-1] if own else None
