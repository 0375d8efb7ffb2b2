"""Checkpoints on disk, and `fit` as a stage runs it: continued after a kill, stopped on request.

A checkpoint is `checkpoint-<step>.safetensors` and then `checkpoint.json`, which names it with its
sha256 and is the commit; a kill at any instant leaves the old pair or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from pipeline.errors import ArtifactError, EnvironmentProblem, Hint, OutOfMemory, RlpError
from pipeline.run import store
from pipeline.run.documents import Sealed
from pipeline.training.loop import Callbacks, Fit, Stopped, fit
from pipeline.training.machine import device_for
from pipeline.training.objectives import Objective
from pipeline.training.recipe import Recipe
from pipeline.training.state import Checkpoint

if TYPE_CHECKING:
    from pipeline.data.splits import Splits
    from pipeline.run.stage import StageContext

_CHECKPOINT = Sealed("checkpoint", "", ("checkpoint.json",), 16 << 20, "how far a training is")
_MAX_BYTES = 16 << 30  # weights, momentum, average and best of the largest model that is taken


class CheckpointFolder:
    """The newest checkpoint of one training in a scratch folder.

    Args:
        folder: exists.
        belongs_to: plain data that decides the result (recipe, seed, hashes of what is trained and
            on what); a checkpoint of anything else is not resumed.
    """

    def __init__(self, folder: Path, belongs_to: Mapping[str, Any]) -> None:
        self.folder = folder
        self.fingerprint = hashlib.sha256(store.dump_json(belongs_to)).hexdigest()

    def save(self, checkpoint: Checkpoint) -> None:
        """Write atomically, then drop the one before.

        Raises:
            EnvironmentProblem: the disk said no; the one before stays.
        """
        name = f"checkpoint-{checkpoint.progress['step']}.safetensors"
        digest = store.write_tensors(self.folder / name, checkpoint.tensors)
        record = {"of": self.fingerprint, "tensors": name, "sha256": digest}
        _CHECKPOINT.write(
            self.folder / _CHECKPOINT.file, record | {"progress": checkpoint.progress}
        )
        # until the record names the new one, the old one is the checkpoint
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def load(self) -> Checkpoint | None:
        """The saved state; None when there is none, or it is of another training.

        Raises:
            ArtifactError: it is damaged.
        """
        path = self.folder / _CHECKPOINT.file
        if not path.exists():
            return None
        record = _CHECKPOINT.read(path)
        if record["of"] != self.fingerprint:
            return None
        name = Path(record["tensors"]).name  # whatever the record says, no file of another folder
        tensors = store.read_tensors(
            self.folder / name, max_bytes=_MAX_BYTES, sha256=record["sha256"]
        )
        return Checkpoint(tensors, record["progress"])


class Keys(NamedTuple):
    """Settings of the config that a training takes these from."""

    lr: str
    batch_size: str


_PRETRAIN = Keys("pretrain.lr", "pretrain.batch_size")


def fit_resumable(
    ctx: StageContext,
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    belongs_to: Mapping[str, Any],
    objective: Objective | None = None,
    keys: Keys = _PRETRAIN,
) -> Fit:
    """`fit` on the config's device, with checkpoints in `ctx.work`.

    The model is trained in place and comes back on the CPU.

    Args:
        belongs_to: see `CheckpointFolder`; recipe and seed are added.
        keys: of the settings that hints name.
    Raises:
        Refused: training diverged.
        Interrupted: a stop was asked for, and the state is saved.
        EnvironmentProblem: out of memory.
    """
    identity = {**belongs_to, "recipe": recipe.as_dict(), "seed": ctx.seed}
    keeper = CheckpointFolder(ctx.work, identity)
    resume = _resume(ctx, keeper)
    device = device_for(ctx.config.device)
    seen = splits.to(device)
    try:
        with _advice(ctx, recipe, keys):
            return fit(
                model.to(device),
                seen.train,
                seen.search,
                recipe,
                seed=ctx.seed,
                objective=objective,
                resume=resume,
                callbacks=Callbacks(save=keeper.save, progress=ctx.progress, stopping=ctx.stopping),
            )
    finally:
        model.to("cpu")


@contextmanager
def _advice(ctx: StageContext, recipe: Recipe, keys: Keys) -> Iterator[None]:
    """Turn what `fit` raises into errors that name the setting to change."""
    try:
        yield
    except Stopped:
        raise ctx.interrupted() from None
    except RlpError as error:
        if error.exit_code == 1:  # training diverged
            says = "trains more gently; the last good checkpoint was kept"
            error.hint = Hint.set(keys.lr, recipe.lr / 2, says)
        raise
    except RuntimeError as error:
        if not OutOfMemory.said_by(error):
            raise
        raise EnvironmentProblem(
            f"out of memory on {device_for(ctx.config.device)} "
            f"with {recipe.batch_size} images a step",
            hint=Hint.set(keys.batch_size, max(2, recipe.batch_size // 2)),
        ) from error


def _resume(ctx: StageContext, keeper: CheckpointFolder) -> Checkpoint | None:
    """The checkpoint to go on from; says what became of one that is there."""
    try:
        checkpoint = keeper.load()
    except ArtifactError as error:
        ctx.warn(f"the checkpoint cannot be used, training starts over: {error.message}")
        return None
    if checkpoint is None:
        if (keeper.folder / _CHECKPOINT.file).exists():
            others = "a checkpoint of other settings, data or weights was set aside"
            ctx.note(f"{others}; training starts over")
        return None
    done = checkpoint.progress
    ctx.note(f"resumed after step {done['step']}, epoch {done['epoch'] + 1}")
    return checkpoint
