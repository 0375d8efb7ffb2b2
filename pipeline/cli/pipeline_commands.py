"""`rlp pipeline run | plan | status`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import SetOption, attach, command
from pipeline.cli.completion import complete_config, complete_run
from pipeline.cli.running import SUMMARY_KEYS
from pipeline.errors import Hint, RlpError

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.data.card import DataCard
    from pipeline.run.step import Step

app = typer.Typer(
    help="Run the whole chain, see what would run, see what is there.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ConfigArgument = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A YAML config; `rlp config ls` lists the shipped ones.",
        autocompletion=complete_config,
    ),
]
RunDirOption = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", metavar="DIR", help="Where artefacts go; default artifacts/<config name>."
    ),
]

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="STAGE", help="Take the stages before this one as they are."),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")
]


@command(app, "run", keys=(*SUMMARY_KEYS, "stages"))
def run(
    config: ConfigArgument,
    run_dir: RunDirOption = None,
    sets: SetOption = None,
    first: FromOption = None,
    until: UntilOption = None,
    force: Annotated[
        str | None,
        typer.Option(
            "--force", metavar="[=STAGE]", help="Run all selected stages, or one, even when fresh."
        ),
    ] = None,
    accept_edited: Annotated[
        bool,
        typer.Option(
            "--accept-edited", help="Take hand-edited artefacts as they are, and record it."
        ),
    ] = False,
) -> dict[str, Any]:
    """Run all stages of CONFIG; typing it again resumes, and re-runs only what changed."""
    from pipeline.cli import running
    from pipeline.config.load import find_config, load_config

    file = find_config(config)
    folder = run_dir or running.default_run_dir(file)
    options = {"--run-dir": str(run_dir) if run_dir else None, "--from": first, "--until": until}
    steps = running.execute(
        load_config(file, sets or ()),
        str(file),
        folder,
        first=first,
        last=until,
        force=force,
        accept_edited=accept_edited,
        resume_command=running.as_typed(("pipeline", "run", config), options, sets or ()),
    )
    return _finish(folder, steps, complete=until is None)


def _finish(folder: Path, steps: list[Any], complete: bool) -> dict[str, Any]:
    from pipeline.cli import running

    doc = running.run_document(folder)
    if complete:
        running.show_result(doc)
    else:
        doc = {**dict.fromkeys(SUMMARY_KEYS), "run": str(folder)}
        look = Hint.command("pipeline", "status", str(folder), says="shows what is there")
        console.note(f"stopped as asked; {look}")
    if not any(step.action == "run" for step in steps):
        console.note("nothing to do, everything is fresh")
    return {**doc, "stages": _rows(steps)}


def _rows(steps: list[Any]) -> list[dict[str, Any]]:
    return [
        {"stage": step.stage.name, "action": step.action, "reason": step.reason} for step in steps
    ]


_EXPECTED = ("minutes", "memory_bytes", "device_memory_bytes", "device_memory")


@command(app, "plan", keys=("run", "stages", *_EXPECTED))
def plan(
    config: ConfigArgument,
    run_dir: RunDirOption = None,
    sets: SetOption = None,
    first: FromOption = None,
    until: UntilOption = None,
) -> dict[str, Any]:
    """Show what `run` would do, stage by stage, with the reason, and what it would take; writes
    nothing. Where something is to run, the network is built and looked at as a run would.
    """
    from pipeline.cli import planned, running
    from pipeline.config.load import find_config, load_config
    from pipeline.run.lock import holder
    from pipeline.run.other_config import takeover
    from pipeline.run.planner import Planner, Selection
    from pipeline.run.progress import first_lost
    from pipeline.run.provider import missing_provider
    from pipeline.run.runner import data_key, describe_data

    file = find_config(config)
    folder = run_dir or running.default_run_dir(file)
    settings = load_config(file, sets or ())
    stages = planned.stages_of(settings)
    selection = Selection.of(stages, first, until, None)
    with running.user_modules(settings, str(file)):
        card = describe_data(settings)
        steps = Planner(stages, settings, folder, data_key(card)).plan(selection)
        live = holder(folder)
        rows = [_planned(folder, step, live["pid"] if live else None) for step in steps]
        console.table(("stage", "action", "why"), rows)
        lost = first_lost(folder, steps)
        refusal = missing_provider(settings, steps) or takeover(str(file), settings, folder, lost)
        if refusal:
            console.warn(f"would be refused: {refusal.message}; {refusal.hint}")
        doc = {"run": str(folder), "stages": _rows(steps), **dict.fromkeys(_EXPECTED)}
        if refusal or not any(step.action == "run" for step in steps):
            return doc
        try:
            return doc | expected(settings, card, file.parent, steps)
        except RlpError as error:
            raise attach(error, doc) from error


def expected(config: Config, card: DataCard, folder: Path, steps: Sequence[Step]) -> dict[str, Any]:
    """Minutes by stage, bytes of memory, and of a GPU's by stage, printed and for the document.

    Args:
        folder: of the config, where the user's own module may lie.
    Raises:
        RlpError: of any kind; what a run would say to this network.
    """
    from pipeline.cli.expected import expect  # torch, which a run that is fresh does without
    from pipeline.cli.init_look import looked_at

    network = looked_at(config, card, folder)
    found = expect(network, card, config, steps)
    for remark in network.remarks:
        console.warn(remark)
    console.note(str(found))
    values = (found.minutes, found.memory_bytes, found.device_memory_bytes, found.on_gpu)
    return dict(zip(_EXPECTED, values, strict=True))


def _planned(run: Path, step: Step, pid: int | None) -> tuple[str, str, str]:
    """A stage in the table: what it is, what would be done, and why, or how far it is."""
    from pipeline.run.progress import unfinished

    far = unfinished(run, step, pid)
    return step.stage.name, step.action, str(far or step.reason)


@command(app, "status", keys=("run", "config", "stages"))
def status(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A run folder, such as artifacts/quickstart.",
            autocompletion=complete_run,
        ),
    ],
) -> dict[str, Any]:
    """Show the stages of a run: fresh or not, sizes, durations."""
    from pipeline.cli.status import run_status

    return run_status(run)
