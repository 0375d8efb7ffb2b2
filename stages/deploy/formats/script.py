"""`predict.py`: the very source of `stages/deploy/predict.py` and of the preprocessing that it
imports, in one file that needs nothing of rlp.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from pipeline import preprocessing
from stages.deploy import predict
from stages.deploy.deployment import Deployment, Files

_OURS = ("pipeline", "stages")
_NO_TELEMETRY = 'os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported'
_NOTE = "# Written by rlp from its own source, which is under the MIT License.\n"


def files(made: Deployment) -> Files:
    """`predict.py`, which needs nothing of rlp."""
    return {"predict.py": script().encode()}


def script() -> str:
    """The text of the file: docstring, imports of both modules, and their bodies word for word."""
    sources = [
        Path(module.__file__ or "").read_text("utf-8") for module in (preprocessing, predict)
    ]
    docstring = ast.get_source_segment(sources[1], ast.parse(sources[1]).body[0])
    bodies = "\n\n\n".join(body(source) for source in sources)
    head = "from __future__ import annotations\n"
    return f"{docstring}\n\n{_NOTE}\n{head}\n{_imports(sources)}\n\n{bodies}\n"


def body(source: str) -> str:
    """What follows the imports of a module, which all stand at its top."""
    last = max(
        node.end_lineno or 0
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    return "\n".join(source.splitlines()[last:]).strip("\n")


def _imports(sources: list[str]) -> str:
    """Those of all modules together, without ours: the standard library's first."""
    plain = {"import os"}
    names: dict[str, set[str]] = {}
    for node in (node for source in sources for node in ast.parse(source).body):
        if isinstance(node, ast.Import):
            plain |= {ast.unparse(ast.Import([alias])) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.setdefault(node.module, set()).update(alias.name for alias in node.names)
    foreign = [key for key in names if key.partition(".")[0] not in (*_OURS, "__future__")]
    lines = sorted(plain) + [_from(key, names[key]) for key in sorted(foreign)]
    own = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    return "\n".join([*own, "", _NO_TELEMETRY, "", *(line for line in lines if line not in own)])


def _from(module: str, names: set[str]) -> str:
    return f"from {module} import {', '.join(sorted(names))}"
