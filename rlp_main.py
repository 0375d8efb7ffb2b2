"""What the console script `rlp` imports: a name that no project of a user's has.

The packages of rlp are called `pipeline` and `stages`, as folders of many projects are. Where such
a project is on the path, by PYTHONPATH say, its folders would be imported in their place.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """`pipeline.cli.main`, of the packages beside this file."""
    _prefer(Path(__file__).resolve().parent)
    from pipeline.cli import main as run

    run()


def _prefer(home: Path) -> None:
    """Look in `home` before other places that have packages of these names; nothing else moves."""
    entries = [entry for entry in sys.path if Path(entry).resolve() != home]
    rivals = [entry for entry in entries if _has_ours(Path(entry))]
    if rivals:
        others = [entry for entry in entries if entry not in rivals]
        sys.path[:] = [*others, str(home), *rivals]


def _has_ours(folder: Path) -> bool:
    names = ("pipeline", "stages")
    return any((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in names)


if __name__ == "__main__":
    main()
