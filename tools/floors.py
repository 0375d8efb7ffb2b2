"""The lowest versions that pyproject.toml declares, as requirements for pip: `make floors`.

    python tools/floors.py [--pinned torch,torchvision]

prints `name==lowest` for every dependency. Those of `--pinned` are taken from constraints.txt
instead: another torch is gigabytes.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FLOOR = re.compile(r"^(?P<name>[\w.-]+)>=(?P<version>[\w.]+)$")


def floors(root: Path = ROOT) -> dict[str, str]:
    """{dependency: its lowest version}, of those that have one."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (_FLOOR.match(line) for line in project["dependencies"])
    return {match["name"]: match["version"] for match in found if match}


def pins(root: Path = ROOT) -> dict[str, str]:
    """{package: version} of constraints.txt."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pinned", default="torch,torchvision", metavar="NAMES")
    pinned = parser.parse_args().pinned.split(",")
    for name, lowest in floors().items():
        print(f"{name}=={pins()[name] if name in pinned else lowest}")


if __name__ == "__main__":
    main()
