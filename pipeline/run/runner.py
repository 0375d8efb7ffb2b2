"""Execute a plan: lock, recover, run what is not fresh, commit each stage, resume after
anything.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.load import build_config
from pipeline.config.schema import Config
from pipeline.engines import engines_kept_in
from pipeline.errors import (
    ArtifactError,
    Command,
    Hint,
    Interrupted,
    RlpError,
    UsageError,
)
from pipeline.run import rounds, store
from pipeline.run.artifacts import KINDS, RUN
from pipeline.run.commit import commit, recover, staging
from pipeline.run.going_back import Tried, ends
from pipeline.run.inside import WORK, open_run
from pipeline.run.lock import lock
from pipeline.run.manifest import (
    HashCache,
    accept_edits,
    read_manifest,
    write_manifest,
)
from pipeline.run.other_config import takeover
from pipeline.run.planner import EVERYTHING, Planner, Selection
from pipeline.run.progress import ProgressFile, first_lost
from pipeline.run.provider import missing_provider
from pipeline.run.resources import resource_errors
from pipeline.run.rounds import PlacedStage
from pipeline.run.scratch import drop_scratch, nothing_kept, prepare_scratch
from pipeline.run.signals import stop_signals
from pipeline.run.stage import Reporter, StageContext
from pipeline.run.step import Step


class Watcher(Reporter, Protocol):
    """A Reporter that is also told which stage starts and ends."""

    def begin(self, step: Step, index: int, total: int) -> None: ...

    def end(self, step: Step, summary: Mapping[str, Any], seconds: float) -> None: ...


@dataclass(frozen=True)
class Request:
    """One command to the runner.

    Attributes:
        resume_command: printed when it is interrupted.
        hashes: of files, each taken once a command however often the run is planned.
    """

    stages: Sequence[PlacedStage]
    config: Config
    run: Path
    config_name: str
    selection: Selection = EVERYTHING
    resume_command: str = ""
    accept_edited: bool = False
    hashes: HashCache = field(default_factory=HashCache, compare=False)


def read_run(run: Path) -> tuple[Config, str]:
    """The resolved config of a run, and the name of the config file it came from.

    Raises:
        ArtifactError: no run, or its run.json is damaged.
    """
    path = run / RUN.file
    if not path.exists():
        raise ArtifactError(
            f"{run}: not a run (no {RUN.file})",
            hint=Hint.command("pipeline", "run", "CONFIG", says="makes one"),
        )
    anew = Command("pipeline", "run", "CONFIG", "--run-dir", str(run))
    hint = Hint(anew, " writes it anew; finished stages are kept")
    try:
        record = RUN.read(path)
    except ArtifactError as error:
        raise ArtifactError(error.message, hint=error.hint or hint) from None
    config, name = record["config"], record["config_name"]
    try:
        return build_config(config, name=str(path)), name
    except UsageError as error:  # written by another release of rlp
        raise ArtifactError(error.message, hint=hint, details=error.details) from None


def describe_data(config: Config) -> Any:
    """The DataCard of the config's images.

    Raises:
        EnvironmentProblem: the images cannot be obtained.
    """
    from pipeline.data.load import describe

    return describe(config.data)


def data_key(card: Any) -> str:
    """One hash for "the same images": content, classes, shape; not where they lie or what they
    are called.
    """
    facts = {
        key: card.to_dict()[key]
        for key in ("sha256", "classes", "image_shape", "counts", "skipped")
    }
    return hashlib.sha256(store.dump_json(facts)).hexdigest()


def execute(request: Request, watcher: Watcher) -> list[Step]:
    """Run every selected stage that is not fresh.

    Returns:
        the steps as they were taken, reused ones included.
    Raises:
        RlpError: of any kind; everything committed so far is kept.
    """
    with lock(request.run), stop_signals(watcher) as stop_signal:
        try:
            return _walk(request, watcher, stop_signal)
        except (Interrupted, KeyboardInterrupt) as error:
            number = (
                error.exit_code - 128
                if isinstance(error, Interrupted)
                else stop_signal() or signal.SIGINT
            )
            word = "terminated" if number == signal.SIGTERM else "interrupted"
            raise Interrupted(
                f"{word}; finished stages and checkpoints are kept",
                signal_number=int(number),
                hint=Hint("resume with: ", request.resume_command),
            ) from None


def _walk(request: Request, watcher: Watcher, stop_signal: Callable[[], int]) -> list[Step]:
    _recover(request, watcher)
    for folder in rounds.stale_rounds(request.run, request.config.rounds):
        watcher.warn(
            f"{folder}: left by a run of more rounds, and no part of this one; it may be deleted"
        )
    # before planning, which refuses them
    for stage in request.stages if request.accept_edited else ():
        for name in accept_edits(request.run, stage.name):
            watcher.warn(
                f"{stage.name}/{name}: edited by hand, accepted and recorded in its manifest"
            )
    card = describe_data(request.config)
    steps = _planner(request, card).plan(request.selection)
    for step in steps:
        _refuse_blocked(step)  # before anything is written or computed
    if absent := missing_provider(request.config, steps):
        raise absent
    lost = first_lost(request.run, steps, request.selection.force)
    if refusal := takeover(request.config_name, request.config, request.run, lost):
        raise refusal
    done: set[str] = set()
    tried = Tried.read(request.stages, request.config, request.run)
    while True:
        with _recorded(request, tried, done):
            settled = replace(request, config=tried.settled(request.config))
            again = partial(_again, request, tried)
            taken = _take_steps(settled, card, watcher, stop_signal, done, again)
        if (found := again(taken[-1])) is None:
            return taken
        watcher.note(str(found))
        tried = found


def _again(request: Request, tried: Tried, step: Step) -> Tried | None:
    """What to try next, where this step ended recovery and the search may be run as well."""
    names = [stage.name for stage in request.stages]
    asked = (KINDS["plan"].maker, step.stage.name)
    if not ends(step.stage) or not all(request.selection.covers(names, one) for one in asked):
        return None
    return tried.after(request.stages, request.config, request.run)


def _planner(request: Request, card: Any) -> Planner:
    return Planner(
        request.stages, request.config, request.run, data_key(card), hashes=request.hashes
    )


@contextmanager
def _recorded(request: Request, tried: Tried, done: set[str]) -> Iterator[None]:
    """`run.json` of this request; the one before again where it failed before anything was `done`.

    Otherwise a setting that no stage can work with would fail every later command on the run. Of a
    new run of which nothing is kept, none stays.
    """
    path = request.run / RUN.file
    before = None
    with suppress(ArtifactError):
        before = store.read_bytes(path, max_bytes=RUN.max_bytes)
    body = {"config_name": request.config_name, "config": request.config.model_dump(mode="json")}
    RUN.write(path, body | ({"tried": tried.to_dict()} if tried.tries else {}))
    try:
        yield
    except Exception as error:
        if not done and not isinstance(error, Interrupted):
            with suppress(RlpError):  # what went wrong first is what is said
                if before is not None:
                    store.write_bytes(path, before)
                elif isinstance(error, RlpError) and nothing_kept(request.run):
                    with open_run(request.run) as home:
                        for name in (WORK, RUN.file):
                            home.remove(name)
        raise


def _take_steps(
    request: Request,
    card: Any,
    watcher: Watcher,
    stop_signal: Callable[[], int],
    done: set[str],
    again: Callable[[Step], Any],
) -> list[Step]:
    """The steps in order, to the end or to the first one after which the run goes back; names of
    stages that have run are added to `done`.
    """
    planner, taken = _planner(request, card), list[Step]()
    names = [stage.name for stage in request.stages]
    total = len(names)
    for index, stage in enumerate(request.stages):
        # Planned anew before each stage: an upstream that ran may have made the very same bytes.
        # forced once: then it is fresh, or all behind it would wait for it
        selection = replace(request.selection, force=request.selection.force - done)
        step = planner.plan(selection)[index]
        _refuse_blocked(step)
        if not selection.covers(names, stage.name):
            taken.append(step)
            continue
        watcher.begin(step, index, total)
        if step.action == "run":
            _run_stage(request, step, card, watcher, stop_signal)
            done.add(stage.name)
        elif step.action == "reuse":  # killed after its commit: the checkpoints are still there
            drop_scratch(request.run, stage)
        taken.append(step)
        if again(step) is not None:
            break
    return taken


def _recover(request: Request, watcher: Watcher) -> None:
    """Of the run and of its earlier rounds; a link in the place of one of its own is refused."""
    run, count = request.run, request.config.rounds
    stale = rounds.stale_rounds(run, count)
    for sentence in recover(run):
        watcher.note(sentence)
    for folder in rounds.folders(run):
        if folder not in stale or (folder.is_dir() and not folder.is_symlink()):
            for sentence in recover(run, folder.name):
                watcher.note(f"{folder.name}/{sentence}")


def _refuse_blocked(step: Step) -> None:
    if step.action == "blocked":
        raise ArtifactError(f"{step.stage.name} is blocked: {step.reason}", hint=step.hint)


def _run_stage(
    request: Request, step: Step, card: Any, watcher: Watcher, stop_signal: Callable[[], int]
) -> None:
    stage, needs = step.stage, step.needs
    assert needs is not None
    if stop_signal():
        raise Interrupted(signal_number=stop_signal())
    *rounds_folder, leaf = stage.name.split("/")
    work = prepare_scratch(request.run, stage, needs)
    before = _manifests(request, stage)
    # how long it took is not the wall clock's to say: that may be set back
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with open_run(request.run, *rounds_folder) as home, staging(home, leaf) as out:
        ctx = StageContext(
            config=request.config,
            out=out,
            work=work,
            inputs=_inputs(request.run, stage, before),
            reporter=ProgressFile(work, watcher),
            stop_signal=stop_signal,
            data_card=card,
            run_name=request.run.resolve().name,
            config_name=request.config_name,
            places={key: source.place for key, source in stage.input_sources.items()},
            depends=needs.config,
            manifests=before,
            round=stage.round,
            run=request.run,
        )
        with resource_errors(stage, request.config, out), engines_kept_in(work / "engines"):
            _seed(request.config.seed)  # a stage draws the same whatever ran before it
            summary = stage.stage.run(ctx)
            write_manifest(out, needs, summary, started, time.monotonic() - clock)
            commit(home, leaf)
    drop_scratch(request.run, stage)
    watcher.end(step, summary, time.monotonic() - clock)


def _inputs(
    run: Path, stage: PlacedStage, before: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[Path, dict[str, str]]]:
    """Folder and committed bytes of what a stage reads."""
    found = {}
    for key, (place, kind) in stage.input_sources.items():
        made = before[place]["outputs"]  # one that is optional may not be there
        hashes = {name: made[name]["sha256"] for name in KINDS[kind].files if name in made}
        found[key] = (run / place, hashes)
    return found


def _manifests(request: Request, stage: PlacedStage) -> dict[str, Mapping[str, Any]]:
    """Of the stages before this one that are there."""
    before = request.stages[: request.stages.index(stage)]
    found = {placed.name: read_manifest(request.run, placed.name) for placed in before}
    return {name: manifest for name, manifest in found.items() if manifest}


def _seed(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
