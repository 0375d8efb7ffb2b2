"""The parent's side of the child process in which every ONNX file is opened, run and timed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from pipeline.engines import TENSORRT, options_for
from pipeline.errors import ArtifactError
from pipeline.runtime.feed import Given, input_sizes, plain
from pipeline.runtime.providers import CPU, missing_provider
from pipeline.runtime.refusals import refusal, require_readable

FIRST_RUN_S = 60.0
_BUILD_S = 600.0  # TensorRT builds its engine in the first run
_CHILD = Path(__file__).with_name("child.py")


class Worker:
    """One child process with at most one open session.

        with Worker() as worker:
            worker.open(path, threads=1)
            worker.feed(batch=1)
            nanoseconds = worker.slot(seconds=0.05)

    A child that dies raises ArtifactError naming the file and the signal; the parent lives.

    Args:
        timeout: most seconds that one request may take; then the child is killed.
        first_run: most seconds of the first run of a file that is to be timed.
        command: what to start in the place of child.py, for tests.
    """

    def __init__(
        self,
        *,
        timeout: float = 600.0,
        first_run: float = FIRST_RUN_S,
        command: Sequence[str] | None = None,
    ) -> None:
        self.timeout, self.first_run = timeout, first_run
        self.subject = "no file yet"
        self._inputs: list[dict[str, Any]] = []
        self._builds = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            list(command) if command else [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,  # not a pipe: nobody empties it, and once full the child would hang
            env=_environment(),
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child: politely, then by force."""
        self.hang_up()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def hang_up(self) -> None:
        """Let the child end, which takes it a moment, and do not wait; `close` does."""
        for pipe in (self._process.stdin, self._process.stdout):  # the child ends with its input
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    # -- requests --------------------------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """pid, onnxruntime version and the execution providers it has."""
        return self._ask("hello")

    def pin(self, cores: Sequence[int]) -> list[int]:
        """Restrict the child to these cores before opening a session. Returns the cores it has."""
        return self._ask("pin", cores=list(cores))["cores"]

    def check(self, path: Path, *, label: str = "") -> None:
        """Run onnx's checker with shape inference on a file, called `label` in errors.

        Raises:
            ArtifactError: it finds something.
        """
        self.subject = label or str(path)
        self._ask("check", path=str(path))

    def scan(self, path: Path, shape: Given = None) -> dict[str, Any]:
        """Weights, denormals among them, opsets, nodes, MACs and layers of a file; no session.

        Args:
            shape: sizes after the batch, for files that leave them open.
        Raises:
            ArtifactError: it is no ONNX file, or its weights lie outside its folder.
        """
        self.subject = str(path)
        require_readable(path, self.subject)
        return self._ask("scan", path=str(path), shape=plain(shape))

    def describe(self, path: Path) -> dict[str, Any]:
        """Opsets, operators counted, metadata and layers' weight shapes of a file.

        Raises:
            ArtifactError: it is no ONNX file.
        """
        self.subject = str(path)
        require_readable(path, self.subject)
        return self._ask("describe", path=str(path))

    def open(
        self,
        model: Path | bytes,
        *,
        provider: str = CPU,
        provider_options: Mapping[str, str] | None = None,
        threads: int = 1,
        static_dims: Mapping[str, int] | None = None,
        flush_denormals: bool = False,
        profile: bool = False,
        label: str = "",
    ) -> dict[str, Any]:
        """Open a session, in the place of the one before.

        Args:
            model: a file, or a serialised graph.
            threads: intra-op threads; 0 lets onnxruntime choose.
            static_dims: sizes for named free dims, e.g. {"batch": 1}.
            profile: record every node, for `profile`.
            label: what to call the model in errors.
        Returns:
            inputs and outputs (name, shape, type), providers, metadata, and the seconds it took.
        Raises:
            ArtifactError: the file cannot be opened, or opening it killed the child.
            EnvironmentProblem: this onnxruntime lacks the provider.
        """
        self.subject = label or (
            str(model) if isinstance(model, Path) else "an ONNX graph in memory"
        )
        if isinstance(model, Path):
            require_readable(model, self.subject)
        source: dict[str, Any] = {"path": str(model)} if isinstance(model, Path) else {}
        opened = self._ask(
            "open",
            None if isinstance(model, Path) else model,
            provider=provider,
            provider_options=dict(provider_options or options_for(provider, model)),
            threads=threads,
            static_dims=dict(static_dims or {}),
            flush_denormals=flush_denormals,
            profile=profile,
            **source,
        )
        self._inputs, self._builds = opened["inputs"], provider == TENSORRT
        return opened

    def feed(
        self, *, batch: int, shape: Given = None, seed: int = 0, device: str | None = None
    ) -> dict[str, list[int]]:
        """Make the random input that `slot` runs on.

        Args:
            shape: sizes after the batch, for files that leave them open.
            device: where to bind it, such as "cuda"; None: host memory.
        Returns:
            sizes by the input's name.
        Raises:
            UsageError: a size stays open, or the file takes another number of images a call.
        """
        sizes = input_sizes(self._inputs, batch, shape, self.subject)
        self._ask("feed", sizes=sizes, seed=seed, device=device)
        return sizes

    def call(self) -> dict[str, Any]:
        """One call on what was fed.

        Returns:
            outputs (name, type, shape); memory_bytes: how much opening and calling added to the
            child's peak; seconds of a second call.
        """
        return self._ask("call")

    def warm(
        self, *, window: float = 0.05, tolerance: float = 0.03, limit: float = 2.0
    ) -> dict[str, Any]:
        """Run until medians of windows stop falling by more than `tolerance`, or `limit` seconds.

        The first run may take `first_run` more: a file that needs longer (a loop in it may have
        no end) cannot be timed.

        Returns:
            runs, seconds, stable (whether they stopped falling) and the last median in ns.
        """
        within = limit + max(self.first_run, _BUILD_S if self._builds else 0.0)
        return self._ask("warm", None, within, window=window, tolerance=tolerance, limit=limit)

    def slot(self, *, seconds: float, least: int = 1) -> list[int]:
        """Nanoseconds of every call of one timed slot, of `seconds` and `least` calls at least."""
        return self._ask("slot", seconds=seconds, least=least)["ns"]

    def copies(self, device: str, repeats: int = 20) -> float:
        """Median seconds of the copies to and from the device for one call."""
        return self._ask("copies", device=device, repeats=repeats)["seconds"]

    def profile(self, *, runs: int, skip: int = 2) -> list[dict[str, Any]]:
        """Per-node rows of a session opened with `profile=True`, which is closed.

        Returns:
            name, op, provider, input and output shapes, runs, median and mean microseconds (us,
            mean_us) of each node, without the first `skip` runs.
        """
        return self._ask("profile", runs=runs, skip=skip)["nodes"]

    def infer(self, x: np.ndarray) -> np.ndarray:
        """First output for one batch, of the file's own dtype."""
        x = np.ascontiguousarray(x)
        answer = self._ask("infer", x.tobytes(), shape=list(x.shape))
        return np.frombuffer(answer["payload"], dtype=answer["dtype"]).reshape(answer["shape"])

    # -- transport -------------------------------------------------------------------------------

    def _ask(
        self,
        command: str,
        payload: bytes | None = None,
        within: float | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        request = {"command": command, **fields}
        if payload is not None:
            request["payload"] = len(payload)
        try:
            pipe = self._process.stdin
            assert pipe is not None
            pipe.write(json.dumps(request).encode() + b"\n")
            if payload is not None:
                pipe.write(payload)
            pipe.flush()
            answer = self._receive(min(self.timeout, within or self.timeout))
        except (OSError, EOFError, ValueError) as error:
            raise self._died() from error
        if not answer["ok"]:
            if answer["kind"] == "ProviderMissing":
                raise missing_provider(fields["provider"], answer["message"].split(", "))
            raise refusal(command, answer, self.subject)
        return answer

    def _receive(self, within: float) -> dict[str, Any]:
        pipe = self._process.stdout
        assert pipe is not None
        # every answer is read to its end: select does not see what waits in Python's buffer
        if not select.select([pipe], [], [], within)[0]:
            self._process.kill()
            self._process.wait()
            raise ArtifactError(
                f"onnxruntime did not answer within {within:.0f} s on {self.subject}",
                hint="run a smaller batch, or export the model again",
            )
        line = pipe.readline()
        if not line.endswith(b"\n"):  # it died while it wrote
            raise EOFError
        answer = json.loads(line)
        if "payload" in answer:
            answer["payload"] = _read_exactly(pipe, answer["payload"])
        return answer

    def _died(self) -> ArtifactError:
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        said = self._last_words()
        return ArtifactError(
            f"onnxruntime died of {how} in a child process on {self.subject}",
            hint="export the model again; if it dies again, try another onnxruntime version",
            details=(said,) if said else (),
        )

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, self._log.tell() - 2000))
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""


def _environment() -> dict[str, str]:
    """Ours, without what would make the child import from, or spread over, the wrong place."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = os.pathsep.join(place for place in places if os.path.isabs(place))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": absolute}


def _read_exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError
    return data


def require_provider(worker: Worker, provider: str) -> None:
    """Refuse a provider, by its long name, that the child's onnxruntime lacks.

    Raises:
        EnvironmentProblem: naming the package that brings it.
    """
    available = worker.hello()["available"]
    if provider not in available:
        raise missing_provider(provider, available)
