"""Write the parts of the pages that are declared in code: commands, settings, stages, imports.

    python -m tools.make_docs            writes them
    python -m tools.make_docs --check    exits 1 when one of them is not current

docs/cli.md and docs/config.md are written whole. In other pages a block between
`<!-- NAME: written by make docs -->` and `<!-- end -->` is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from tools.pages import cli, config, rooms, stages, weights

ROOT = Path(__file__).resolve().parents[1]
WHOLE: dict[str, Callable[[], str]] = {"docs/cli.md": cli.page, "docs/config.md": config.page}
BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"chain": stages.chain},
    "artifacts/README.md": {"layout": stages.layout},
    "docs/architecture.md": {"chain": stages.chain, "rooms": rooms.diagram},
    "docs/artifacts.md": {"stages": stages.table},
    "pretrained_model/README.md": {"weights": weights.table},
}
PAGES = (*WHOLE, *BLOCKS)


def current(page: str) -> str:
    """The page as it should be.

    Raises:
        ValueError: a block is missing from it.
    """
    if page in WHOLE:
        return WHOLE[page]()
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, content in BLOCKS[page].items():
        head = f"<!-- {name}: written by make docs -->"
        pattern = re.compile(rf"{head}\n.*?<!-- end -->", re.DOTALL)
        block = f"{head}\n{content()}<!-- end -->"
        text, count = pattern.subn(block.replace("\\", r"\\"), text)
        if count != 1:
            raise ValueError(f"{page}: {count} blocks {head!r}")
    return text


def is_current(page: str) -> bool:
    """Whether the file says what the code says."""
    path = ROOT / page
    return path.exists() and path.read_text(encoding="utf-8") == current(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when stale")
    check = parser.parse_args().check
    stale = [page for page in PAGES if not is_current(page)]
    for page in [] if check else stale:
        (ROOT / page).write_text(current(page), encoding="utf-8")
        print(f"{page} written")
    if check and stale:
        raise SystemExit(f"not current: {', '.join(stale)}; make docs writes them anew")


if __name__ == "__main__":
    main()
