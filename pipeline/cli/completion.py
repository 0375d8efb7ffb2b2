"""What a tab completes where a run or a config is meant; files of other names too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def complete_run(incomplete: str) -> list[str]:
    """Runs below `artifacts`, and folders that begin as typed."""
    from pipeline.run.artifacts import RUN

    runs = [str(path.parent) for path in Path("artifacts").glob(f"*/{RUN.file}")]
    return _beginning([*sorted(runs), *_below(incomplete, folders=True)], incomplete)


def complete_config(incomplete: str) -> list[str]:
    """YAML files and folders that begin as typed, and the configs that travel with rlp."""
    from pipeline.config.load import bundled_configs

    shipped = [f"configs/{name}" for name in bundled_configs()]
    return _beginning([*_below(incomplete), *shipped], incomplete)


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _below(incomplete: str, *, folders: bool = False) -> Iterator[str]:
    """Folders, and YAML files unless only folders are asked for, beside what was typed."""
    typed = incomplete.rpartition("/")[0]
    folder = Path(f"{typed}/" if incomplete.startswith("/") else typed or ".")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name = f"{typed}/{path.name}" if "/" in incomplete else path.name
        if path.is_dir() and not path.name.startswith("."):
            yield f"{name}/"
        elif path.suffix in (".yaml", ".yml") and not folders:
            yield name
