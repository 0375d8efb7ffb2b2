"""`rlp stage NAME`: one stage, the same artefacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import SetOption, command
from pipeline.cli.completion import complete_config, complete_run

if TYPE_CHECKING:
    from pipeline.config.schema import Config


Opened = tuple["Config", str, Path]
"""Settings, where they come from, and the run's folder."""


def register(app: typer.Typer) -> None:
    command(app, "stage", keys=("run", "stage", "action", "reason", "summary", "outputs"))(stage)


_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="pretrain, trace, rotate, search, prune, reconstruct, distill, export, quantize, "
        "benchmark, deploy or report; round-1/search for that round.",
    ),
]
_Config = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="CONFIG", help="A YAML config.", autocompletion=complete_config
    ),
]
_Run = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="A run folder; its own config is used.",
        autocompletion=complete_run,
    ),
]
_RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", metavar="DIR", help="With --config: where artefacts go."),
]
_Force = Annotated[
    str | None, typer.Option("--force", metavar="", help="Run it even when it is fresh.")
]
_Against = Annotated[
    list[Path] | None,
    typer.Option(
        "--against",
        metavar="FILE.onnx",
        help="Benchmark: one more file timed against the original; repeatable.",
    ),
]
_TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="With --run: import the network's module that the run names; remembered.",
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Distill: adopt weights of the pruned network from your own training.",
    ),
]
_AcceptEdited = Annotated[
    bool,
    typer.Option("--accept-edited", help="Take hand-edited artefacts as they are, and record it."),
]


def stage(
    name: _Name,
    config: _Config = None,
    run: _Run = None,
    run_dir: _RunDir = None,
    sets: SetOption = None,
    force: _Force = None,
    against: _Against = None,
    weights: _Weights = None,
    accept_edited: _AcceptEdited = False,
    trust_code: _TrustCode = False,
) -> dict[str, Any]:
    """Run one stage of a run; the stages before it must be there and fresh."""
    from pipeline.cli import running
    from pipeline.errors import Hint, UsageError
    from pipeline.run.manifest import read_manifest

    if (config is None) == (run is None):
        raise UsageError(
            "give --config CONFIG or --run RUN",
            hint=Hint.command("stage", name, "--run", "artifacts/quickstart"),
        )
    sets = [*(sets or ()), *_of_one_stage(name, against or [], weights)]
    settings, origin, folder = _of_run(run, sets) if run else _of_config(str(config), run_dir, sets)
    options = {
        "--config": config,
        "--run": str(run) if run else None,
        "--run-dir": str(run_dir) if run_dir else None,
    }
    steps = running.execute(
        settings,
        origin,
        folder,
        first=name,
        last=name,
        force=name if force else None,
        accept_edited=accept_edited,
        resume_command=running.as_typed(("stage", name), options, sets or ()),
        named=trust_code or run is None,
    )
    step = next(s for s in steps if s.stage.name == name)
    if step.action == "reuse":
        console.note(f"{name} is fresh, nothing to do (--force runs it anyway)")
    if weights is not None:
        place = {"--run-dir": str(run or run_dir) if run or run_dir else None}
        rest = running.as_typed(("pipeline", "run", origin), place, sets)
        console.note(f"the stages behind it: {rest}")
    manifest = read_manifest(folder, name)
    assert manifest is not None
    return {
        "run": str(folder),
        "stage": name,
        "action": step.action,
        "reason": step.reason,
        "summary": manifest["summary"],
        "outputs": _shown_outputs(folder, name),
    }


def _of_one_stage(name: str, against: list[Path], weights: Path | None) -> list[str]:
    """`--against FILE.onnx …` and `--weights FILE` as the settings that they stand for."""
    from pipeline.errors import Hint, Set, UsageError

    if against and name != "benchmark":
        raise UsageError(
            "--against is for the benchmark",
            hint=Hint.command("stage", "benchmark", "--run", "RUN", "--against", "FILE.onnx"),
        )
    if weights is not None and name != "distill":
        raise UsageError(
            "--weights is for the stage distill",
            hint=Hint.command("stage", "distill", "--run", "RUN", "--weights", "FILE"),
        )
    further = f"benchmark.against={json.dumps([str(path) for path in against])}"
    own = [] if weights is None else [Set("distill.weights", weights).words[1]]
    return [further] * bool(against) + own


def _shown_outputs(folder: Path, name: str) -> dict[str, str]:
    """{file of the stage: its path}, after printing the paths."""
    from pipeline.run.artifacts import kinds_of

    outputs = {file: str(folder / name / file) for kind in kinds_of(name) for file in kind.files}
    for path in outputs.values():
        console.say(path)
    return outputs


def _of_config(config: str, run_dir: Path | None, sets: list[str] | None) -> Opened:
    from pipeline.cli import running
    from pipeline.config.load import find_config, load_config

    file = find_config(config)
    return load_config(file, sets or ()), str(file), run_dir or running.default_run_dir(file)


def _of_run(run: Path, sets: list[str] | None) -> Opened:
    from pipeline.config.load import build_config
    from pipeline.run.runner import read_run

    recorded, origin = read_run(run)
    return build_config(recorded.model_dump(mode="json"), sets or ()), origin, run
