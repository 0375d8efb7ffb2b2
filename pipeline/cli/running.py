"""From a command line to a run: config, folder, selection, the runner, and the table at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console
from pipeline.claims import busy_clause, change_text
from pipeline.cli.planned import stages_of
from pipeline.errors import ArtifactError, Command, EnvironmentProblem, Hint, Set
from pipeline.places import beside
from pipeline.run.artifacts import RUN, document
from pipeline.run.documents import as_written
from pipeline.run.lock import OWN
from pipeline.run.variants import VARIANTS
from pipeline.words import count_of

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.run.rounds import PlacedStage

SUMMARY_KEYS = (
    "kind",
    "schema_version",
    "run",
    "data",
    "base",
    "final",
    "variants",
    "speedup",
    "parity",
    "remarks",
    "report",
    "onnx",
    "deploy",
)


def default_run_dir(config_file: Path) -> Path:
    """`artifacts/<config name>` below the current folder; another name, and a note, where that is
    a run of another config.
    """
    from pipeline.run.other_config import run_folder

    folder = run_folder(config_file)
    if folder.name != config_file.stem:
        usual = folder.with_name(config_file.stem)
        console.note(f"{usual} is a run of another config; this one goes to {folder}")
    return folder


def unknown_files(run: Path, stages: Sequence[PlacedStage], rounds: int) -> list[str]:
    """Files and folders of a run that belong to no stage of it, relative to the run; nothing
    reads them.
    """
    from pipeline.run.manifest import unlisted
    from pipeline.run.rounds import stale_rounds

    stale = stale_rounds(run, rounds)
    found = _beside_stages(run, {stage.name for stage in stages}, {path.name for path in stale})
    found += [f"{stage.name}/{name}" for stage in stages for name in unlisted(run, stage.name)]
    return found + [f"{folder.name}/" for folder in stale]


def _beside_stages(run: Path, stages: set[str], stale: set[str]) -> list[str]:
    """What lies beside the stages' folders and is none of rlp's, in the run and in its rounds."""
    from pipeline.run.inside import WORK

    ours = {*stages, *stale, RUN.file, WORK, document("front").file, *OWN}
    found: list[str] = []
    for home in sorted({"", *(stage.rpartition("/")[0] for stage in stages)}):
        ours |= {home, f"{home}/{WORK}"}
        folder = run / home
        # a link was refused before, when the stages were planned
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        found += [f"{home}/{name}" if home else name for name in names]
    return sorted(set(found) - ours)


def execute(
    config: Config,
    config_name: str,
    run: Path,
    *,
    first: str | None = None,
    last: str | None = None,
    force: str | None = None,
    accept_edited: bool = False,
    resume_command: str = "",
    named: bool = True,
) -> list[Any]:
    """Run the selected stages and return the steps taken.

    Args:
        named: whether this command line names the config, and with it the code of its network.
    """
    from pipeline.run.planner import Selection
    from pipeline.run.runner import Request
    from pipeline.run.runner import execute as run_stages

    stages = stages_of(config)
    selection = Selection.of(stages, first, last, force)
    watcher = console.RunWatcher()
    request = Request(stages, config, run, config_name, selection, resume_command, accept_edited)
    try:
        with user_modules(config, config_name, named=named):
            return run_stages(request, watcher)
    finally:
        watcher.close()


@contextmanager
def user_modules(config: Config, config_name: str, *, named: bool = True) -> Iterator[None]:
    """Let the network, weights and images be found beside the config file, its code if it may be
    imported; complete the hints about images.
    """
    from pipeline.cli.trusted_code import trusted_code

    try:
        with trusted_code(config, config_name, named=named), beside(Path(config_name).parent):
            yield
    except EnvironmentProblem as error:
        from pipeline.data.sources import EMBEDDED

        if isinstance(error.hint, Hint):
            command = Command("pipeline", "run", config_name)
            whole = command.with_settings(EMBEDDED, *_of_other_images(config))
            error.hint = error.hint.with_part(EMBEDDED, whole)
        raise


def _of_other_images(config: Config) -> list[Set]:
    """What must be left out to run the same on the embedded images: it belongs to others."""
    data = config.data
    given = [
        (Set("model.weights", None), config.model.weights),
        (Set("data.classes", None), data.classes),
        (Set("data.mean", None), data.mean),
        (Set("data.std", None), data.std),
    ]
    return [setting for setting, value in given if value]


def as_typed(words: Sequence[str], options: dict[str, str | None], sets: Sequence[str]) -> Command:
    """The command to type again."""
    parts = list(words)
    for option, value in options.items():
        if value is not None:
            parts += [option, value]
    for item in sets:
        parts += ["--set", item]
    return Command(*parts)


def run_document(run: Path) -> dict[str, Any]:
    """`summary.json` of a finished run with usable paths; the same keys, null, while there is
    none.
    """
    doc: dict[str, Any] = dict.fromkeys(SUMMARY_KEYS)
    kind = document("summary")
    path = run / kind.maker / kind.file
    if path.is_file():
        summary = kind.read(path)
        doc |= {key: summary[key] for key in SUMMARY_KEYS}
        # relative in the file, so that a run can be moved
        doc |= {key: str(run / summary[key]) for key in ("report", "onnx", "deploy")}
    doc["run"] = str(run)
    return doc


def load_summary(run: Path) -> dict[str, Any]:
    """The summary of a run that came to its end.

    Raises:
        ArtifactError: there is none yet.
    """
    doc = run_document(run)
    if doc["schema_version"] is None:
        hint = Hint.command("pipeline", "status", str(run), says="shows what is missing")
        raise ArtifactError(f"{run}: has no summary yet", hint=hint)
    return doc


def show_result(doc: dict[str, Any]) -> None:
    """The before/after table, the paths of report and ONNX, and what to type next."""
    with as_written(f"the summary of {doc['run']}"):
        _show_result(doc)


def _show_result(doc: dict[str, Any]) -> None:
    base, final, speed, data = doc["base"], doc["final"], doc["speedup"], doc["data"]

    def change(key: str) -> str:
        return f"{final[key] / base[key] - 1:+.1%}"

    def ms(side: dict[str, Any], key: str) -> str:
        return "" if side["latency_ms"][key] is None else f"{side['latency_ms'][key]:.3f} ms"

    points = 100 * (final["accuracy"] - base["accuracy"])
    ratio = f"{speed['ratio']:.2f}×  (95 % CI {speed['ci95'][0]:.2f} to {speed['ci95'][1]:.2f})"
    change_shown = next(row.get("accuracy_change") for row in doc["variants"] if row["chosen"])
    claim = ratio if speed["verdict"] == "faster" else f"{speed['verdict']}: ratio {ratio}"
    provider = speed["provider"].removesuffix("ExecutionProvider")
    setting = f"{provider}, batch {speed['batch']}, {count_of(speed['threads'], 'thread')}"
    rows = [
        (
            "test accuracy (onnxruntime)",
            f"{base['accuracy']:.2%}",
            f"{final['accuracy']:.2%}",
            change_text(change_shown, points),
        ),
        ("MACs", f"{base['macs']:,}", f"{final['macs']:,}", change("macs")),
        ("parameters", f"{base['params']:,}", f"{final['params']:,}", change("params")),
        ("ONNX file", console.size(base["bytes"]), console.size(final["bytes"]), change("bytes")),
        (f"p50 latency ({setting})", ms(base, "p50"), ms(final, "p50"), claim),
    ]
    console.say()
    title = f"{data['label']}, {data['test_images']:,} test images"
    console.table(("", "before", "after", "change"), rows, title=title, right=("before", "after"))
    if len(doc["variants"]) > 2:  # otherwise the table above says it all
        _show_variants(doc["variants"], setting)
    for remark in doc["remarks"]:
        console.say(remark)
    if doubts := speed.get("doubts"):
        again = Command("stage", "benchmark", "--run", doc["run"], "--force")
        console.warn(f"{speed['verdict']}{busy_clause(doubts, again)}")
    console.say()
    console.say(f"report  {doc['report']}")
    console.say(f"onnx    {doc['onnx']}")
    console.say(f"deploy  {Command('predict', doc['deploy'], 'IMAGE')}")


def _show_variants(variants: Sequence[dict[str, Any]], setting: str) -> None:
    """Each against the original in fp32, so that what INT8 alone gives stands beside the rest."""
    rows = [
        (
            VARIANTS[row["name"]] + (" (delivered)" if row["chosen"] else ""),
            f"{row['accuracy']:.2%}",
            console.size(row["bytes"]),
            f"{row['latency_ms']['p50']:.3f} ms",
            *_ratio(row),
        )
        for row in variants
    ]
    columns = ("variant", "accuracy", "file", "p50", "speed", "95 % CI")
    console.say()
    console.table(columns, rows, title=setting, right=columns[1:])


def _ratio(row: dict[str, Any]) -> tuple[str, str]:
    if row["name"] == "base":
        return "1", ""
    low, high = row["ci95"]
    shown = row["verdict"] != "no difference shown"
    return f"{row['ratio']:.2f}×" if shown else "–", f"{low:.2f} to {high:.2f}"
