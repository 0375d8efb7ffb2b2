"""The arrows of the architecture, read from the source; and a command line that starts light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for top in ("pipeline", "stages") for path in (ROOT / top).rglob("*.py"))
# stages whose engines a stage may import, besides its own
ENGINES = {
    "search": {"trace", "prune", "reconstruct", "export", "quantize", "benchmark"},
    "prune": {"trace"},
    "rotate": {"trace", "reconstruct"},
    "quantize": {"export", "benchmark", "distill"},
    "pretrain": {"trace"},
}
LONGEST_CHAIN = 12  # modules from the command line down to the last that imports none of ours
UNSAFE = ("torch.save", "torch.jit.load", "torch.hub.load", "yaml.load", "yaml.unsafe_load")
HEAVY = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "numpy",
    "scipy",
    "matplotlib",
    "pyarrow",
    "PIL",
    "pydantic",
)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names a file imports, `from a import b` as both `a` and `a.b`."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _importers(package: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for name in _imports(path)
        if f"{name}.".startswith(f"{package}.")
    }


@cache
def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _paths() -> dict[str, Path]:
    return {_module(path): path for path in SOURCES}


@cache
def _imported_modules(path: Path) -> frozenset[str]:
    """Modules of ours that a file names in an import: at the top, in a function, or for type
    checkers; a package's `__init__` is one like any other.
    """
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in _paths() else node.module or "")
    return frozenset(found & _paths().keys() - {_module(path)})


def _longest(module: str, known: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The longest chain of imports that begins with a module; there are no circles."""
    if module not in known:
        targets = sorted(_imported_modules(_paths()[module]))
        rest = max((_longest(target, known) for target in targets), key=len, default=())
        known[module] = (module, *rest)
    return known[module]


def _calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_sources_are_found() -> None:
    assert len(SOURCES) > 60


def test_pipeline_knows_no_stage() -> None:
    assert {
        name
        for name in _importers("stages")
        if name.startswith("pipeline/") and "/cli/" not in name
    } == set()


@pytest.mark.parametrize(
    ("package", "home"), [("typer", "pipeline/cli/"), ("rich", "pipeline/console.py")]
)
def test_terminal_libraries_stay_at_home(package: str, home: str) -> None:
    found = _importers(package)
    assert found
    assert {name for name in found if not name.startswith(home)} == set()


def test_engines_import_each_other_along_the_arrows_only() -> None:
    wrong = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        if parts[0] != "stages" or len(parts) < 3:
            continue
        for name in _imports(path):
            target = name.split(".")
            if target[0] == "stages" and len(target) > 1:
                allowed = {parts[1], *ENGINES.get(parts[1], ())}
                if target[1] not in allowed or target[2:3] == ["stage"]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_no_import_circle() -> None:
    """Imports inside functions and for type checkers count: they hide a circle, not undo it."""
    left = {_module(path): _imported_modules(path) for path in SOURCES}
    while free := {module for module, targets in left.items() if not targets & left.keys()}:
        for module in free:
            del left[module]
    assert left == {}


def test_import_chains_are_short() -> None:
    """Every module on the way counts, faces of packages and imports inside functions too.

    What shortens one: import a name from the file that defines it, and move what two files share,
    a dataclass or a table, into a file of its own that imports neither.
    """
    known: dict[str, tuple[str, ...]] = {}
    longest = max((_longest(_module(path), known) for path in SOURCES), key=len)
    assert len(longest) <= LONGEST_CHAIN, " > ".join(longest)


def test_stage_modules_are_imported_by_the_list_of_stages_alone() -> None:
    names = {name for path in SOURCES for name in _imports(path) if name.startswith("stages.")}
    assert {name for name in names if name.split(".")[2:3] == ["stage"]} == set()


def test_only_the_console_prints() -> None:
    allowed = {
        "pipeline/console.py",
        "pipeline/runtime/worker.py",
    }  # the worker answers its parent over a pipe
    printers = {
        str(path.relative_to(ROOT))
        for path in SOURCES
        for name, _ in _calls(path)
        if name == "print"
    }
    assert printers <= allowed


def test_training_touches_no_disk() -> None:
    """Checkpoints are written by pipeline/run/checkpoints.py, through the store."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / "pipeline" / "training").glob("*.py")
        for name in _imports(path)
        if f"{name}.".startswith(("pipeline.run.", "tempfile.", "shutil.", "safetensors."))
    ]
    calls = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        for path in (ROOT / "pipeline" / "training").glob("*.py")
        for name, call in _calls(path)
        if name == "open" or name.rpartition(".")[2].startswith(("write", "save_file"))
    ]
    assert wrong + calls == []


def test_nothing_is_pickled() -> None:
    assert (
        _importers("dill") | _importers("joblib") | _importers("shelve") | _importers("marshal")
        == set()
    )
    wrong = []
    for path in SOURCES:
        for name, call in _calls(path):
            safe = any(
                k.arg == "weights_only" and getattr(k.value, "value", None) is True
                for k in call.keywords
            )
            unsafe = name.startswith("pickle.") or name in UNSAFE
            allows = any(
                k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in call.keywords
            )
            if unsafe or allows or (name == "torch.load" and not safe):
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert wrong == []


def test_nothing_is_evaluated_or_run_through_a_shell() -> None:
    wrong = []
    for path in SOURCES:
        for name, call in _calls(path):
            shell = any(k.arg == "shell" and getattr(k.value, "value", True) for k in call.keywords)
            if name in ("eval", "exec", "os.system", "os.popen") or shell:
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}")
    assert wrong == []


def _fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert _fresh(code) == "[]"


def test_the_parent_of_an_onnxruntime_child_needs_no_torch() -> None:
    code = (
        "import sys, pipeline.runtime\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    assert _fresh(code) == "[]"


@pytest.mark.parametrize("command", [["pipeline", "status"], ["check"]])
def test_looking_at_a_run_loads_no_stage(command: list[str], tmp_path: Path) -> None:
    """Read with the real declarations: what is there, what is fresh, and why."""
    run = tmp_path / "run"
    run.mkdir()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.config.load import build_config\n"
        "from pipeline.run.artifacts import RUN\n"
        "config = build_config({}).model_dump(mode='json')\n"
        "record = {'config_name': 'c', 'config': config}\n"
        f"RUN.write(Path({str(run / 'run.json')!r}), record)\n"
        "from pipeline.cli import main\n"
        f"try: main([*{command}, {str(run)!r}, '--json'])\n"
        "except SystemExit as end: assert end.code in (0, 3), end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name != 'pydantic'])"
    )
    assert _fresh(code) == "[]"


def test_reading_a_config_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try: main(['config', 'schema', '--json'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('torch', 'onnx', 'matplotlib') if name in sys.modules])"
    )
    assert _fresh(code) == "[]"
