"""Whether files do the same work: what one call of each takes and gives, before anything is timed.

A time per call says nothing where one file is fed other sizes, another number of images or another
type than the other, or answers something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import ArtifactError, UsageError
from pipeline.runtime.feed import FixedBatch, Given, OpenSizes
from pipeline.runtime.sizes import images_a_call
from pipeline.runtime.worker import Worker
from stages.benchmark.protocol import Protocol, open_at
from stages.benchmark.setting import Setting

_START = 0.3  # seconds that a child takes to start and to warm up
_ORT_NAMES = {"float": "float32", "double": "float64"}


class Tensor(NamedTuple):
    """What goes in or comes out: `float32 1×3×224×224`."""

    type: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.type} {'×'.join(map(str, self.shape))}".strip()


@dataclass(frozen=True)
class Call:
    """One call of one file.

    Attributes:
        inputs, outputs: by name, in the file's order.
        open_sizes: names of the sizes that the file leaves open, the batch first.
        memory_bytes: how much opening and calling it added to the peak of a fresh process.
        opening_seconds, seconds: of opening it, and of its second call.
    """

    file: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    open_sizes: tuple[str, ...]
    memory_bytes: int
    opening_seconds: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        sides = {
            side: {name: {"type": t.type, "shape": list(t.shape)} for name, t in tensors.items()}
            for side, tensors in (("inputs", self.inputs), ("outputs", self.outputs))
        }
        return {**sides, "memory_bytes": self.memory_bytes}


def first_call(
    path: Path,
    setting: Setting,
    shape: Given = None,
    *,
    worker: Worker | None = None,
    any_rows: bool = False,
) -> Call:
    """Open a file and call it once.

    Args:
        any_rows: take several rows an image for what the file is made to answer, as detectors do.
        worker: the child to open it in, whose peak of memory earlier files may have raised; None:
            one of its own.
    Raises:
        FixedBatch: it takes another number of images a call.
        UsageError: a size stays open; or it answers several rows an image, as a reshape does that
            was made for other sizes.
        ArtifactError: it cannot be opened, or does not run at these sizes.
        EnvironmentProblem: this onnxruntime lacks the provider, or there is too little memory.
    """
    with nullcontext(worker) if worker else Worker() as worker:
        opened = open_at(worker, path, setting, shape)
        try:
            called = worker.call()
        except ArtifactError as error:
            raise ArtifactError(
                f"{path} does not run at {_fed(opened)}: {error.message.split(': ', 1)[-1]}",
                hint="check --shape and --batch against what it was exported for",
            ) from error
    if not any_rows:
        _require_rows(path, opened, called["outputs"], setting.batch)
    dims = [dim for row in opened["inputs"] for dim in row["shape"]]
    return Call(
        str(path),
        {
            row["name"]: Tensor(_name(row["type"]), tuple(opened["sizes"][row["name"]]))
            for row in opened["inputs"]
        },
        {row["name"]: Tensor(row["type"], tuple(row["shape"])) for row in called["outputs"]},
        tuple(dict.fromkeys(dim for dim in dims if isinstance(dim, str))),
        called["memory_bytes"],
        opened["seconds"],
        called["seconds"],
    )


def _name(kind: str) -> str:
    """numpy's name of onnxruntime's `tensor(float)`."""
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return _ORT_NAMES.get(inner, inner)


def _fed(opened: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'×'.join(map(str, s))}" for name, s in opened["sizes"].items())


def _require_rows(
    path: Path, opened: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]], batch: int
) -> None:
    """Refuse a table of scores with a whole number of rows for each image of sizes left open."""
    table = [row["shape"] for row in outputs if len(row["shape"]) == 2][:1]
    sizes = opened["inputs"][0]["shape"] if opened["inputs"] else [1]
    free = images_a_call(sizes) is None and not all(isinstance(size, int) for size in sizes[1:])
    if free and table and table[0][0] > batch and table[0][0] % batch == 0:
        rows = table[0][0] // batch
        raise UsageError(
            f"{path} answers {rows} rows for one image of {_fed(opened)}: "
            "its layers were made for other sizes",
            hint="pass the sizes that it was exported for with --shape; "
            "--allow-different times a detector",
        )


def differences(a: Call, b: Call) -> list[str]:
    """What another file takes or gives that the first does not; none where the work is equal.

    Inputs are matched by name where both have the same names, else by their order; names alone
    make no difference.
    """
    found = []
    for side, verb in (("inputs", "takes"), ("outputs", "gives")):
        mine, theirs = getattr(a, side), getattr(b, side)
        names = list(mine)
        others = names if set(names) == set(theirs) else list(theirs)
        before, after = [mine[n] for n in names], [theirs[n] for n in others]
        if before != after:
            here, there = Path(a.file).name, Path(b.file).name
            found.append(f"{there} {verb} {_list(after)}, {here} {_list(before)}")
    return found


def _list(tensors: Sequence[Tensor]) -> str:
    return " and ".join(map(str, tensors)) or "nothing"


def require_known(calls: Sequence[Call], given: Mapping[str, Sequence[int]]) -> None:
    """Refuse sizes given for what no file has, and those that no file takes.

    Raises:
        UsageError: naming them.
    """
    inputs = {name: tensor for call in calls for name, tensor in call.inputs.items()}
    for name, sizes in given.items():
        size = "x".join(map(str, sizes))
        if name in inputs or not name:
            fed = [inputs[name]] if name else list(inputs.values())
            if not any(tensor.shape[1:] == tuple(sizes) for tensor in fed):
                raise UsageError(
                    f"--shape {name and name + '='}{size}: the files take {_list(fed)}",
                    hint="sizes are those after the batch, and a file's own are fixed",
                )
        elif name not in {size for call in calls for size in call.open_sizes}:
            raise UsageError(
                f"--shape {name}={size}: no file has an input or an open size of that name",
                hint=f"they have {', '.join(inputs)}",
            )


@dataclass(frozen=True)
class Refusal:
    """A row that is not timed."""

    file: str
    batch: int
    threads: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """Which files are timed at which setting.

    Attributes:
        files: how many there are.
        calls: by number of the file and of the setting.
        refused: the others.
    """

    files: int
    settings: tuple[Setting, ...]
    calls: Mapping[tuple[int, int], Call]
    refused: tuple[Refusal, ...]

    def groups(self) -> list[tuple[list[int], list[int]]]:
        """Numbers of files and of the settings that all of them take; the first file is in each,
        and by itself only where there is no other.
        """
        least = min(2, self.files)
        found: dict[tuple[int, ...], list[int]] = {}
        for index in range(len(self.settings)):
            files = tuple(number for number, at in self.calls if at == index)
            if 0 in files and len(files) >= least:
                found.setdefault(files, []).append(index)
        return [(list(files), indices) for files, indices in found.items()]

    def timed(self) -> list[Call]:
        """The calls of what is timed."""
        groups = self.groups()
        return [
            self.calls[number, at]
            for files, indices in groups
            for at in indices
            for number in files
        ]

    def estimate(self, files: Sequence[int], settings: Sequence[int], protocol: Protocol) -> float:
        """Seconds that timing takes, with the control's process and its warm-ups."""
        total = 0.0
        for index in settings:
            calls = [self.calls[number, index] for number in (*files, files[0])]
            starts = protocol.launches * sum(call.opening_seconds + _START for call in calls)
            least = [max(protocol.min_seconds, protocol.min_runs * call.seconds) for call in calls]
            total += starts + min(sum(least), protocol.limit_seconds)
        return total


def check_files(
    files: Sequence[Path],
    settings: Sequence[Setting],
    given: Mapping[str, Sequence[int]],
    *,
    allow_different: bool = False,
) -> Checked:
    """Call every file once at every setting.

    Raises:
        UsageError: a size stays open, or is not one of any file; the files do different work,
            unless that is allowed; or no file takes the batches asked for.
    """
    calls: dict[tuple[int, int], Call] = {}
    refused: list[FixedBatch] = []
    rows: list[Refusal] = []
    for index, setting in enumerate(settings):
        for number, path in enumerate(files):
            try:
                calls[number, index] = first_call(path, setting, given, any_rows=allow_different)
            except OpenSizes as error:
                if (0, index) in calls:  # the likeliest answer
                    error.hint = f"say what it is used with: {_as_option(calls[0, index])}"
                raise
            except FixedBatch as error:
                refused.append(error)
                rows.append(Refusal(str(path), setting.batch, setting.threads, error.message))
    found = Checked(len(files), tuple(settings), dict(sorted(calls.items())), tuple(rows))
    if not found.groups():
        raise refused[0]
    require_known(list(calls.values()), given)
    if not allow_different:
        _require_equal(found, files)
    return found


def _as_option(base: Call) -> str:
    sizes = next(iter(base.inputs.values())).shape[1:]
    return f"{Path(base.file).name} takes --shape {'x'.join(map(str, sizes))}"


def _require_equal(found: Checked, files: Sequence[Path]) -> None:
    for (number, index), call in found.calls.items():
        base = found.calls.get((0, index))
        other = differences(base, call) if base and number else []
        if other:
            raise UsageError(
                f"not the same work: {other[0]}",
                hint="--allow-different times them all the same",
                details=other[1:],
            )
