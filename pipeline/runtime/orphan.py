"""A process that ends with its parent, however that ended: a killed one says nothing."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import Any


def end_with(handle: int) -> None:
    """End this process at once when the other end of a pipe closes: the parent holds it, no other.

    A thread waits for it in the kernel, so that it takes no time from whatever is measured here.

    Args:
        handle: the end of the pipe that is read from; it is not read here.
    """
    gone = select.poll()
    gone.register(handle, 0)  # nothing is asked for: that the other end is closed is always told

    def wait() -> None:
        gone.poll()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class EndsWithParent:
    """To be sent to a spawned process: it ends with its parent from where this is unpacked.

        Pool(initializer=begin, initargs=(EndsWithParent(), install, evaluate))

    That is before `install` and `evaluate` are, whose packages take seconds to import.
    """

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return _end_after, (os.getpid(),)


def begin(ends: EndsWithParent, install: Callable[..., None], *arguments: Any) -> None:
    """Call `install`; `ends` has done its part by then."""
    install(*arguments)


def _end_after(parent: int) -> None:
    def wait() -> None:
        while os.getppid() == parent:  # an orphan is another's child
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
