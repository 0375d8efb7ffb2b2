"""Whether the execution providers of a run are there: asked before it computes for hours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from pipeline.config.schema import Config
from pipeline.errors import Hint, RlpError
from pipeline.run.step import Step

_CPU = ("cpu", "cpuexecutionprovider")  # every onnxruntime has it


def missing_provider(config: Config, steps: Sequence[Step]) -> RlpError | None:
    """The error for the first provider that a stage which would run needs and there is not."""
    keys = [step.stage.stage.provider_key for step in steps if step.action == "run"]
    for key in dict.fromkeys(filter(None, keys)):
        name = reduce(getattr, key.split("."), config)
        if str(name).lower() in _CPU:
            continue
        if error := _problem(str(name)):
            return type(error)(f"{key}: {error.message}", hint=Hint(error.hint))
    return None


def _problem(name: str) -> RlpError | None:
    from pipeline.runtime.providers import find_provider  # numpy comes with its neighbours
    from pipeline.runtime.worker import Worker, require_provider

    try:
        with Worker() as worker:
            require_provider(worker, find_provider(name).name)
    except RlpError as error:
        return error
    return None
