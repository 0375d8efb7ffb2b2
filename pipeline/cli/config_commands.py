"""`rlp config show | explain | schema | ls`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import console
from pipeline.cli.common import SetOption, command
from pipeline.cli.completion import complete_config

app = typer.Typer(
    help="Configs: list, resolve, schema.", no_args_is_help=True, rich_markup_mode=None
)


@command(app, "ls", keys=("configs",))
def ls() -> dict[str, Any]:
    """List the configs that travel with rlp."""
    from pipeline.config.load import bundled_configs

    rows = []
    for name, path in bundled_configs().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        rows.append({"name": f"configs/{name}", "about": first, "path": str(path)})
    console.table(("config", "about"), [(row["name"], row["about"]) for row in rows])
    return {"configs": rows}


@command(app, "show", keys=("config", "settings"))
def show(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG",
            help="A YAML config, or a run: the one that made it.",
            autocompletion=complete_config,
        ),
    ],
    sets: SetOption = None,
) -> dict[str, Any]:
    """Print CONFIG with every default filled in, as YAML."""
    from pipeline.config import yaml_nodes
    from pipeline.config.load import find_config, load_config
    from pipeline.errors import Hint, UsageError
    from pipeline.run.artifacts import RUN
    from pipeline.run.runner import read_run

    if (Path(config) / RUN.file).is_file():
        if sets:
            hint = Hint.command("stage", "search", "--run", config, says="takes settings")
            raise UsageError("--set changes nothing of a run that was made", hint=hint)
        settings = read_run(Path(config))[0].model_dump(mode="json")
    else:
        settings = load_config(find_config(config), sets or ()).model_dump(mode="json")
    console.raw(yaml_nodes.dump(settings))
    return {"config": config, "settings": settings}


@command(app, "explain", keys=("keys",))
def explain(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="A key such as search.halving, or a section.")
    ],
) -> dict[str, Any]:
    """Say what KEY means, what it takes and what it is by default."""
    from pipeline.config.explain import explain_keys

    found = explain_keys(key)
    for row in found:
        default = f"; default {row['default']}" if row["default"] else ""
        console.say(f"{row['key']}: {row['values']}{default}")
        console.say(f"  {row['meaning']}")
    return {"keys": found}


@command(app, "schema", keys=("schema",))
def schema() -> dict[str, Any]:
    """Print the JSON Schema: every key with its sentence and bounds."""
    from pipeline.config.load import schema_text

    text = schema_text()
    console.raw(text)
    return {"schema": json.loads(text)}
