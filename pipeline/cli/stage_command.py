"""`rlp stage NAME`: one stage, the same artefacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import SetOption, command

if TYPE_CHECKING:
    from pipeline.config.schema import Config


Opened = tuple["Config", str, Path]
"""Settings, where they come from, and the run's folder."""


def register(app: typer.Typer) -> None:
    command(app, "stage", keys=("run", "stage", "action", "reason", "summary", "outputs"))(stage)


def stage(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="pretrain, trace, search, prune, distill, export, benchmark or report; "
            "round-1/search for that round.",
        ),
    ],
    config: Annotated[
        str | None, typer.Option("--config", metavar="CONFIG", help="A YAML config.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="A run folder; its own config is used."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", metavar="DIR", help="With --config: where artefacts go."),
    ] = None,
    sets: SetOption = None,
    force: Annotated[
        str | None, typer.Option("--force", metavar="", help="Run it even when it is fresh.")
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="FILE.onnx",
            help="Benchmark: one more file timed against the base.",
        ),
    ] = None,
    accept_edited: Annotated[
        bool,
        typer.Option(
            "--accept-edited", help="Take hand-edited artefacts as they are, and record it."
        ),
    ] = False,
) -> dict[str, Any]:
    """Run one stage of a run; the stages before it must be there and fresh."""
    from pipeline.cli import running
    from pipeline.errors import Hint, UsageError
    from pipeline.run.artifacts import kinds_of
    from pipeline.run.manifest import read_manifest

    if (config is None) == (run is None):
        raise UsageError(
            "give --config CONFIG or --run RUN",
            hint=Hint.command("stage", name, "--run", "artifacts/quickstart"),
        )
    if against:
        if name != "benchmark":
            raise UsageError(
                "--against is for the benchmark",
                hint=Hint.command("stage", "benchmark", "--run", "RUN", "--against", "FILE.onnx"),
            )
        sets = [*(sets or ()), f"benchmark.against={json.dumps([str(path) for path in against])}"]
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
    )
    step = next(s for s in steps if s.stage.name == name)
    manifest = read_manifest(folder, name)
    assert manifest is not None
    if step.action == "reuse":
        console.note(f"{name} is fresh, nothing to do (--force runs it anyway)")
    outputs = {
        kind_file: str(folder / name / kind_file)
        for kind in kinds_of(name)
        for kind_file in kind.files
    }
    for path in outputs.values():
        console.say(path)
    reason = {"action": step.action, "reason": step.reason}
    return {
        "run": str(folder),
        "stage": name,
        **reason,
        "summary": manifest["summary"],
        "outputs": outputs,
    }


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
