"""`Classifier(folder)`: a deploy folder from Python. Imports onnxruntime, NumPy and Pillow only."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ArtifactError, EnvironmentProblem, Hint
from pipeline.runtime.providers import find_provider, missing_provider
from stages.deploy import predict

STAGE = "deploy"


class Classifier(predict.Classifier):
    """The network of a deploy folder; its files are compared with their manifest first.

    >>> classify = Classifier("artifacts/quickstart")
    >>> classify("photo.jpg")[0]        # Label(label='Sneaker', probability=0.98, index=7)

    Args:
        folder: a deploy folder, or a run that has one.
        model: the file to load; `model_int8.onnx`, say.
        provider: execution provider, short ("cuda") or onnxruntime's own name.
        threads: of one call; 0: as many as onnxruntime thinks best.
    Raises:
        ArtifactError: no deploy folder, or not as it was written.
        EnvironmentProblem: this onnxruntime lacks the provider.
        UsageError: there is no provider of that name.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        model: str = "model.onnx",
        provider: str = "cpu",
        threads: int = 0,
    ) -> None:
        name = find_provider(provider).name
        available = predict.onnxruntime.get_available_providers()
        if name not in available:
            raise missing_provider(name, available)
        place = deploy_folder(Path(folder))
        try:
            super().__init__(place, model=model, provider=name, threads=threads)
        except predict.DamagedFolder as error:
            raise ArtifactError(str(error), hint=_again(Path(folder), place)) from None
        except MemoryError:
            raise EnvironmentProblem(f"{place}: not enough memory for its network") from None
        except Exception as error:  # onnxruntime's own have no common base
            said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            what = f"{place / model}: onnxruntime refused it: {said}"
            raise ArtifactError(what, hint=_again(Path(folder), place)) from None


def deploy_folder(folder: Path) -> Path:
    """The folder itself, or that of its stage where it is a run.

    Raises:
        ArtifactError: neither.
    """
    if (folder / "run.json").is_file():
        found = folder / STAGE
        if not found.is_dir():
            hint = Hint.command("stage", STAGE, "--run", str(folder), says="makes one")
            raise ArtifactError(f"{folder}: a run without a deploy folder", hint=hint)
        return found
    if not folder.is_dir():
        hint = Hint.command("pipeline", "run", "CONFIG", says="makes a run with one")
        raise ArtifactError(f"{folder}: no such folder", hint=hint)
    return folder


def _again(given: Path, place: Path) -> Hint:
    run = given if place != given else place.parent
    return Hint.rerun(STAGE, run if (run / "run.json").is_file() else "RUN")
