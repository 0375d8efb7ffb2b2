"""Disk and memory that run out while a stage is running."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.schema import Config
from pipeline.errors import OutOfMemory, RlpError, Set
from pipeline.run import store
from pipeline.run.rounds import PlacedStage


@contextmanager
def resource_errors(stage: PlacedStage, config: Config, folder: Path) -> Iterator[None]:
    """Disk and memory that run out are exit 4, whichever library noticed."""
    try:
        yield
    except RlpError:
        raise
    except OSError as error:
        if error.errno in (  # any other is a bug of ours, and shows its traceback
            errno.ENOSPC,
            errno.EIO,
            errno.EROFS,
            errno.EACCES,
            errno.EDQUOT,
            errno.EMFILE,
        ):
            with store.disk_errors(Path(error.filename) if error.filename else folder):
                raise
        raise
    except (MemoryError, RuntimeError) as error:
        if OutOfMemory.said_by(error):
            raise OutOfMemory(stage.name, _less_memory(stage, config)) from error
        raise


def _less_memory(stage: PlacedStage, config: Config) -> Set | None:
    """Half of the setting that decides how much memory a stage takes; None where none does."""
    key = stage.stage.memory_key
    if not key:
        return None
    now: Any = config
    for name in key.split("."):
        now = getattr(now, name)
    # Two images are the least that a batch norm can be trained on.
    return Set(key, [1] if isinstance(now, tuple) else max(2, now // 2))
