"""`rlp search compare`: strategies at equal evaluations, then equal distillation, in one table."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.common import SetOption, command

app = typer.Typer(
    help="Compare search strategies at equal budgets.", no_args_is_help=True, rich_markup_mode=None
)

_KEYS = (
    "run", "strategies", "seeds", "budget", "trials", "distill", "table", "differences",
    "rank_correlation_score_recovered", "rank_correlation_p", "rank_correlation_candidates", "runs",
)  # fmt: skip


@app.callback()
def _root() -> None:
    """Compare search strategies at equal budgets."""


@command(app, "compare", keys=_KEYS)
def compare(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML config.")],
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies", metavar="A,B", help="The first is compared with each other one."
        ),
    ] = "rl,rlpruner,evolution,random,global-taylor,uniform",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=100, help="Repetitions, with seeds 0, 1, …")
    ] = 3,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Evaluations each; default search.trials.")
    ] = None,
    distill: Annotated[
        bool, typer.Option("--distill/--no-distill", help="Also recover each one's best.")
    ] = True,
    distill_seeds: Annotated[
        int | None,
        typer.Option(
            "--distill-seeds", min=1, max=100, help="Recover for the first so many seeds only."
        ),
    ] = None,
    distill_images: Annotated[
        int | None,
        typer.Option(
            "--distill-images",
            min=2,
            help="Recover on a class-balanced draw of so many train images.",
        ),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="DIR", help="Run to work in.")
    ] = None,
    sets: SetOption = None,
) -> dict[str, Any]:
    """Equal evaluations for every strategy and seed; spread, paired intervals, and "not shown" when
    it is not.

    Accuracies are on the search split. Typing the same command again continues where it stopped.
    """
    from pipeline.cli import running
    from pipeline.cli.search_compare import Journal, prepared, show
    from pipeline.config.load import find_config, load_config
    from pipeline.run import store
    from stages.search.compare import compare as compare_strategies

    file = find_config(config)
    settings, folder = load_config(file, sets or ()), run_dir or running.default_run_dir(file)
    names = _known(strategies)
    running.execute(
        settings, str(file), folder, last="trace", resume_command=f"rlp search compare {config}"
    )
    again = range(min(seeds, distill_seeds or seeds)) if distill else range(0)
    with store.lock(folder), running.user_modules(settings, str(file)), ExitStack() as stack:
        journal = Journal(folder, _subject(settings, folder, trials, distill_images))
        ready = prepared(settings, folder, journal, distill_images, stack)
        found = compare_strategies(
            ready.setup,
            names,
            range(seeds),
            trials=trials,
            recover=ready.recover if again else None,
            recover_seeds=again,
            fit=ready.fit,
            on_run=journal.on_run,
            known=journal.runs,
        )
    recipe = {
        "epochs": settings.distill.epochs,
        "images": ready.distill_images,
        "seeds": list(again),
    }
    doc = {
        "run": str(folder),
        "strategies": names,
        "seeds": seeds,
        "budget": {"metric": ready.setup.metric, "share": ready.setup.share},
        "trials": trials or settings.search.trials,
        "distill": recipe if again else None,
        **found.to_dict(),
    }
    show(doc, settings.search.score)
    return doc


def _known(strategies: str) -> list[str]:
    """Their names, each once; an unknown one is refused before any work."""
    from pipeline.errors import UsageError
    from stages.search.strategies import STRATEGIES

    names = list(dict.fromkeys(name.strip() for name in strategies.split(",") if name.strip()))
    for name in names:
        if name not in STRATEGIES:
            raise UsageError(
                f"unknown search strategy {name!r}", hint=f"one of {', '.join(STRATEGIES)}"
            )
    return names


def _subject(
    settings: Any, folder: Path, trials: int | None, distill_images: int | None
) -> dict[str, Any]:
    """What finished runs may be reused for: everything they depend on but strategy and seed."""
    from pipeline.run import store

    sections = settings.model_dump(
        mode="json", include={"seed", "model", "data", "search", "distill", "trace"}
    )
    for name in ("strategy", "trials", "workers"):
        sections["search"].pop(name)
    weights = store.sha256_file(folder / "pretrain" / "model.safetensors")
    count = trials or settings.search.trials
    return {
        "version": 3,
        "settings": sections,
        "weights": weights,
        "trials": count,
        "images": distill_images,
    }
