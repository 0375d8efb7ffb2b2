"""`rlp search compare`: strategies at equal evaluations, then equal distillation, in one table.
`rlp search front`: what every budget costs in accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import SetOption, command
from pipeline.cli.completion import complete_config
from pipeline.errors import Hint, Interrupted

if TYPE_CHECKING:
    from torch import nn

    from pipeline.config.schema import Config
    from pipeline.data.images import Images
    from pipeline.data.splits import Splits
    from pipeline.training.loop import Fit
    from pipeline.training.objectives import Objective
    from stages.search.compare_run import Distill

app = typer.Typer(
    help="The front over all budgets; strategies at equal budgets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_KEYS = (
    "run", "strategies", "seeds", "budget", "trials", "distill", "table", "differences",
    "rank_correlation_score_recovered", "rank_correlation_p", "rank_correlation_candidates", "runs",
)  # fmt: skip


@app.callback()
def _root() -> None:
    """The front over all budgets; strategies at equal budgets."""


_Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML config.", autocompletion=complete_config)
]
_Strategies = Annotated[
    str,
    typer.Option("--strategies", metavar="A,B", help="The first is compared with each other one."),
]
_Seeds = Annotated[
    int, typer.Option("--seeds", min=1, max=100, help="Repetitions, with seeds 0, 1, …")
]
_Trials = Annotated[
    int | None, typer.Option("--trials", min=1, help="Evaluations each; default search.trials.")
]
_Distill = Annotated[
    bool,
    typer.Option(
        "--distill/--no-distill",
        help="Also recover the best of each, for distill.epochs, or 5 where that is auto.",
    ),
]
_DistillSeeds = Annotated[
    int | None,
    typer.Option(
        "--distill-seeds", min=1, max=100, help="Recover for the first so many seeds only."
    ),
]
_DistillImages = Annotated[
    int | None,
    typer.Option(
        "--distill-images",
        min=2,
        help="Recover on a class-balanced draw of so many train images.",
    ),
]
_Measured = Annotated[
    int,
    typer.Option("--measured", min=0, max=1000, help="Plans reconstructed and scored."),
]
_RunDir = Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="Run to work in.")]
_FRONT_KEYS = ("kind", "schema_version", "run", "file", "metric", "original", "points")


@command(app, "front", keys=_FRONT_KEYS)
def front(
    config: _Config,
    measured: _Measured = 10,
    run_dir: _RunDir = None,
    sets: SetOption = None,
) -> dict[str, Any]:
    """The most accurate plan for each of two dozen budgets; some are cut, reconstructed and scored,
    and the others' accuracy is predicted from them.

    Nothing is trained. Costs are in what search.budget names, whatever its value; accuracies are on
    the search split. Typing the same command again continues where it stopped.
    """
    from pipeline import console
    from pipeline.cli import running
    from pipeline.cli.search_table import show_front
    from pipeline.config.load import find_config, load_config
    from pipeline.run.artifacts import document
    from pipeline.run.lock import lock
    from stages.search.front_run import RunFront

    file = find_config(config)
    settings, folder = load_config(file, sets or ()), run_dir or running.default_run_dir(file)
    options = {"--run-dir": str(run_dir) if run_dir else None, "--measured": str(measured)}
    again = running.as_typed(["search", "front", config], options, sets or ())
    running.execute(settings, str(file), folder, last="rotate", resume_command=str(again))
    watcher = console.RunWatcher()
    with lock(folder), running.user_modules(settings, str(file)):
        watcher.watch("front")
        try:
            body = RunFront(folder, settings, watcher).run(measured)
        except KeyboardInterrupt as error:
            raise Interrupted(hint=Hint("resume with: ", again)) from error
        finally:
            watcher.close()
    kind = document("front")
    doc = {**kind.stamp(body), "run": str(folder), "file": str(folder / kind.file)}
    show_front(doc)
    return doc


@command(app, "compare", keys=_KEYS)
def compare(
    config: _Config,
    strategies: _Strategies = "rl,rlpruner,evolution,random,global-taylor,uniform",
    seeds: _Seeds = 3,
    trials: _Trials = None,
    distill: _Distill = True,
    distill_seeds: _DistillSeeds = None,
    distill_images: _DistillImages = None,
    run_dir: _RunDir = None,
    sets: SetOption = None,
) -> dict[str, Any]:
    """Give every strategy and seed the same number of evaluations, and print one table with
    spreads and paired intervals; a difference whose interval includes 0 is "not shown".

    Accuracies are on the search split. Typing the same command again continues where it stopped.
    """
    from pipeline import console
    from pipeline.cli import running
    from pipeline.cli.search_table import show
    from pipeline.config.load import find_config, load_config
    from pipeline.run.lock import lock
    from stages.search.compare_run import ComparisonRequest, RunComparison

    file = find_config(config)
    settings, folder = load_config(file, sets or ()), run_dir or running.default_run_dir(file)
    names = _known(strategies)
    recover_seeds = min(seeds, distill_seeds or seeds) if distill else 0
    request = ComparisonRequest(names, seeds, recover_seeds, trials, distill_images)
    running.execute(
        settings, str(file), folder, last="rotate", resume_command=f"rlp search compare {config}"
    )
    with lock(folder), running.user_modules(settings, str(file)):
        session = RunComparison(folder, settings, distill=_distiller(settings), note=console.note)
        compared = session.run(request)
    recipe = {
        "epochs": _epochs(settings),
        "images": compared.train_images,
        "seeds": list(range(recover_seeds)),
    }
    budget = compared.problem.budget
    doc = {
        "run": str(folder),
        "strategies": names,
        "seeds": seeds,
        "budget": {"metric": budget.metric, "share": budget.share},
        "trials": trials or settings.search.trials,
        "distill": recipe if recover_seeds else None,
        **compared.comparison.to_dict(),
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


def _epochs(settings: Config) -> int:
    """The same for every plan: at its own length each would have another price."""
    epochs = settings.distill.epochs
    return 5 if epochs == "auto" else epochs


def _distiller(settings: Config) -> Distill:
    """The run's own distillation, as the comparison wants it."""
    from pipeline.training.loop import fit
    from pipeline.training.recipe import Recipe
    from stages.distill.engine import recover

    section = settings.distill.model_copy(update={"epochs": _epochs(settings)})

    def distilled(student: nn.Module, original: nn.Module, splits: Splits, seed: int) -> float:
        def train(net: nn.Module, objective: Objective, images: Images, epochs: int) -> Fit:
            recipe = Recipe.from_config(section, epochs=epochs, lr=section.lr)
            return fit(net, images, splits.search, recipe, seed=seed, objective=objective)

        return recover(student, original, splits, section, seed=seed, train=train).final

    return distilled
