"""The table of commands. Each group lives in a small file of its own and imports nothing heavy
at the top.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli import (
    bench_command,
    check_command,
    config_commands,
    data_commands,
    diff_command,
    doctor_command,
    init_command,
    inspect_command,
    pipeline_commands,
    predict_command,
    quantize_command,
    report_command,
    runs_command,
    search_commands,
    stage_command,
)


class _PipelineFirst(TyperGroup):
    """Help lists what most people want first; Typer would put groups of commands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: name != "pipeline")


app = typer.Typer(
    name="rlp",
    cls=_PipelineFirst,
    help="Make a trained CNN classifier measurably faster in onnxruntime, and prove it.",
    epilog="Start with: rlp pipeline run configs/quickstart.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"rlp {version('rlp-cnn')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Make a trained CNN classifier measurably faster in onnxruntime, and prove it."""


init_command.register(app)
app.add_typer(pipeline_commands.app, name="pipeline")
stage_command.register(app)
predict_command.register(app)
check_command.register(app)
bench_command.register(app)
quantize_command.register(app)
app.add_typer(search_commands.app, name="search")
report_command.register(app)
runs_command.register(app)
diff_command.register(app)
inspect_command.register(app)
app.add_typer(config_commands.app, name="config")
doctor_command.register(app)
app.add_typer(data_commands.app, name="data")
