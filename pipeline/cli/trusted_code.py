"""Whose code may be imported: a config names a network's module, and a run may be a stranger's.

What a command line names is meant. What only a run names is imported once somebody said so, on
this machine and about this very file; that is noted in the cache folder, outside of any run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import system
from pipeline.errors import ArtifactError, Command, Hint
from pipeline.run import store

if TYPE_CHECKING:
    from pipeline.config.schema import Config


@contextmanager
def trusted_code(config: Config, config_name: str, *, named: bool) -> Iterator[None]:
    """Let `module:factory` be found beside the config file, and no other be imported.

    Args:
        named: whether this command line names the config, or says that its code is trusted.
    """
    from pipeline.models.user_source import asking, source_file

    folder, model = Path(config_name).resolve().parent, config.model

    def ask(source: str, kwargs: Mapping[str, Any]) -> None:
        asked = (source, dict(kwargs)) == (model.source, model.kwargs)
        note = _note(source, kwargs, source_file(source))
        if asked and named:
            _remember(note)
        elif not asked or note is None or not note.exists():
            raise _refusal(source, source_file(source))

    with asking(folder, ask):
        yield


def _refusal(source: str, file: Path | None) -> ArtifactError:
    where = f" ({file})" if file else ""
    anew = Command("pipeline", "run", "CONFIG", "--run-dir", "RUN")
    return ArtifactError(
        f"{source}{where}: code that only the run names; not imported, refused as unsafe",
        hint=Hint("look at it, then add --trust-code, which is remembered, or type ", anew),
    )


def _note(source: str, kwargs: Mapping[str, Any], file: Path | None) -> Path | None:
    """Where it is noted that this file is trusted as it is, called like this."""
    folder = system.cache_folder()
    if folder is None or file is None:
        return None
    code = {"file": str(file.resolve()), "sha256": store.sha256_file(file.resolve())}
    called = store.dump_json({**code, "source": source, "kwargs": dict(kwargs)})
    return folder / "trusted-code" / hashlib.sha256(called).hexdigest()


def _remember(note: Path | None) -> None:
    if note is not None and not note.exists():
        with suppress(OSError):  # then it is asked again
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
