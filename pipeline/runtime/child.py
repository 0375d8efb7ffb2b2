"""The child process that opens ONNX files, so that a crash of the runtime kills the child and not
the run.

Run by path, as `python -P child.py`, and therefore self-contained: standard library, numpy and
onnxruntime only, so that it starts in a fraction of a second and that no `pipeline` folder in the
current directory can shadow it.

Protocol, both ways: one line of JSON; where it has `"payload": n`, n raw bytes follow. A request
names its `command`; an answer has `ok`, and on failure `kind` and `message`. The child ends when
its standard input does, so it never outlives its parent.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import deque
from typing import Any

import numpy as np

_ELEMENT = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


class Session:
    """One open onnxruntime session with the feed it is timed on."""

    def __init__(self, request: dict, model: bytes | None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if request["flush_denormals"]:
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        for name, size in request["static_dims"].items():
            options.add_free_dimension_override_by_name(name, size)
        self.profiling = request["profile"]
        if self.profiling:
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(
                tempfile.mkdtemp(prefix="rlp-profile-"), "nodes"
            )
        provider = request["provider"]
        missing = provider not in ort.get_available_providers()
        if missing:
            raise ProviderMissing(", ".join(ort.get_available_providers()))
        chain = [(provider, request["provider_options"])]
        if provider != "CPUExecutionProvider":
            chain.append(("CPUExecutionProvider", {}))
        source = model if model is not None else request["path"]
        self.session = ort.InferenceSession(source, options, providers=chain)
        self.provider = provider
        self.feed: dict[str, np.ndarray] = {}
        self.binding: Any = None

    def describe(self) -> dict:
        def row(value) -> dict:
            return {"name": value.name, "shape": list(value.shape), "type": value.type}

        return {
            "providers": self.session.get_providers(),
            "inputs": [row(value) for value in self.session.get_inputs()],
            "outputs": [row(value) for value in self.session.get_outputs()],
            "metadata": dict(self.session.get_modelmeta().custom_metadata_map),
        }

    def make_feed(self, batch: int, shape: list[int] | None, seed: int, device: str | None) -> None:
        """Standard normal inputs; unknown dims take `batch` first and `shape` after it, else 1."""
        generator = np.random.default_rng(seed)
        self.feed = {}
        for value in self.session.get_inputs():
            dims = [size if isinstance(size, int) else None for size in value.shape]
            if dims and dims[0] is None:
                dims[0] = batch
            for at in range(1, len(dims)):
                if dims[at] is None:
                    dims[at] = shape[at - 1] if shape and at - 1 < len(shape) else 1
            data = generator.standard_normal([size or 1 for size in dims])
            self.feed[value.name] = np.ascontiguousarray(
                data.astype(_ELEMENT.get(value.type, np.float32))
            )
        self.binding = None
        if device:
            self._bind(device)

    def _bind(self, device: str) -> None:
        import onnxruntime as ort

        self.binding = self.session.io_binding()
        for name, data in self.feed.items():
            self.binding.bind_ortvalue_input(
                name, ort.OrtValue.ortvalue_from_numpy(data, device, 0)
            )
        for value in self.session.get_outputs():
            self.binding.bind_output(value.name, device)

    def once(self) -> None:
        if self.binding is None:
            self.session.run(None, self.feed)
        else:
            self.session.run_with_iobinding(self.binding)
            self.binding.synchronize_outputs()

    def copies(self, device: str, repeats: int) -> float:
        """Median seconds of moving one feed to the device and the outputs back."""
        import onnxruntime as ort

        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            for data in self.feed.values():
                ort.OrtValue.ortvalue_from_numpy(data, device, 0)
            if self.binding is not None:
                self.binding.copy_outputs_to_cpu()
            times.append(time.perf_counter() - start)
        return statistics.median(times)


class ProviderMissing(RuntimeError):
    """The execution provider asked for is not in this onnxruntime; the message lists those that
    are.
    """


def warm_up(session: Session, window: float, tolerance: float, limit: float) -> dict:
    """Run until the medians of the last three windows agree within `tolerance`, at most `limit`
    seconds.
    """
    medians: deque[float] = deque(maxlen=3)
    begin = time.perf_counter()
    runs = 0
    while True:
        times = timed(session, window, 3)
        runs += len(times)
        medians.append(statistics.median(times))
        spent = time.perf_counter() - begin
        stable = len(medians) == 3 and max(medians) <= min(medians) * (1 + tolerance)
        if stable or spent >= limit:
            return {"runs": runs, "seconds": spent, "stable": stable, "median_ns": medians[-1]}


def timed(session: Session, seconds: float, least: int) -> list[int]:
    """Nanoseconds of each call, for at least `seconds` and at least `least` calls."""
    times: list[int] = []
    clock, once = time.perf_counter_ns, session.once
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        once()
        now = clock()
        times.append(now - start)
        if now >= end and len(times) >= least:
            return times


class Child:
    """Answers requests; holds at most one open session."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.device: str | None = None

    def _open_session(self) -> Session:
        if self.session is None:
            raise ValueError("no session is open")
        return self.session

    def hello(self, request: dict, payload: bytes | None) -> dict:
        import onnxruntime as ort

        return {
            "pid": os.getpid(),
            "onnxruntime": ort.__version__,
            "available": ort.get_available_providers(),
        }

    def pin(self, request: dict, payload: bytes | None) -> dict:
        """Restrict this process to the given cores; threads made later inherit it."""
        if hasattr(os, "sched_setaffinity") and request["cores"]:
            os.sched_setaffinity(0, request["cores"])
            return {"cores": sorted(os.sched_getaffinity(0))}
        return {"cores": []}

    def open(self, request: dict, payload: bytes | None) -> dict:
        self.close(request, None)
        start = time.perf_counter()
        self.session = Session(request, payload)
        return {**self.session.describe(), "seconds": time.perf_counter() - start}

    def feed(self, request: dict, payload: bytes | None) -> dict:
        self.device = request["device"]
        self._open_session().make_feed(
            request["batch"], request["shape"], request["seed"], self.device
        )
        return {}

    def warm(self, request: dict, payload: bytes | None) -> dict:
        return warm_up(
            self._open_session(), request["window"], request["tolerance"], request["limit"]
        )

    def slot(self, request: dict, payload: bytes | None) -> dict:
        """One timed slot; its first call is run and thrown away: caches are another process's."""
        session = self._open_session()
        session.once()
        return {"ns": timed(session, request["seconds"], request["least"])}

    def copies(self, request: dict, payload: bytes | None) -> dict:
        return {"seconds": self._open_session().copies(request["device"], request["repeats"])}

    def infer(self, request: dict, payload: bytes | None) -> dict:
        """Outputs of one batch. Payload: the input's bytes, C order. Answer's payload: the
        first output's.
        """
        session = self._open_session().session
        value = session.get_inputs()[0]
        x = np.frombuffer(payload or b"", dtype=_ELEMENT.get(value.type, np.float32)).reshape(
            request["shape"]
        )
        y = np.ascontiguousarray(session.run(None, {value.name: x})[0])
        return {"shape": list(y.shape), "dtype": str(y.dtype), "payload": y.tobytes()}

    def profile(self, request: dict, payload: bytes | None) -> dict:
        """End profiling and return one row a node: name, op, provider, shapes, runs and median
        microseconds.
        """
        session = self._open_session()
        for _ in range(request["runs"]):
            session.once()
        path = session.session.end_profiling()
        try:
            with open(path, encoding="utf-8") as file:
                events = json.load(file)
        finally:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))
        self.session = None
        return {"nodes": _node_rows(events, skip=request["skip"])}

    def check(self, request: dict, payload: bytes | None) -> dict:
        """onnx's own checker, with shape inference."""
        import onnx

        onnx.checker.check_model(request["path"], full_check=True)
        return {"onnx": onnx.__version__}

    def scan(self, request: dict, payload: bytes | None) -> dict:
        """What a file holds, without a session; refuses external data outside the file's folder."""
        return _neighbour("graph_facts").scan(request["path"], request["shape"])

    def describe(self, request: dict, payload: bytes | None) -> dict:
        """What a file says about itself, without a session and without reading its weights."""
        return _neighbour("graph_facts").describe(request["path"])

    def close(self, request: dict, payload: bytes | None) -> dict:
        self.session = None
        gc.collect()
        return {}


def _node_rows(events: list[dict], skip: int) -> list[dict]:
    rows: dict[str, dict] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        detail = event["args"]
        key = f"{detail.get('node_index')}:{event['name']}"
        row = rows.setdefault(
            key,
            {
                "name": event["name"].removesuffix("_kernel_time"),
                "op": detail.get("op_name", ""),
                "provider": detail.get("provider", ""),
                "inputs": [
                    next(iter(shape.values()))
                    for shape in detail.get("input_type_shape", [])
                    if shape
                ],
                "outputs": [
                    next(iter(shape.values()))
                    for shape in detail.get("output_type_shape", [])
                    if shape
                ],
                "times": [],
            },
        )
        row["times"].append(event["dur"])
    for row in rows.values():
        times = row.pop("times")
        kept = times[skip:] or times
        row["runs"] = len(kept)
        row["us"] = statistics.median(kept)
        row["mean_us"] = statistics.fmean(kept)
    return list(rows.values())


def _neighbour(name: str) -> Any:
    """A module of this folder, loaded by path: the folder itself is not importable in the child."""
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(os.path.dirname(__file__), f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _failure(error: BaseException) -> dict:
    kind = type(error).__name__
    return {"ok": False, "kind": kind, "message": " ".join(str(error).split())[:2000]}


def serve() -> None:
    """Answer requests from standard input until it ends."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the parent decides
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land between two answers
    gc.disable()
    child = Child()
    for line in iter(requests.readline, b""):
        request = json.loads(line)
        payload = requests.read(request["payload"]) if "payload" in request else None
        try:
            answer = {"ok": True, **getattr(child, request["command"])(request, payload)}
        except Exception as error:  # whatever it is, the parent gets a sentence and decides
            answer = _failure(error)
        data = answer.pop("payload", None)
        if data is not None:
            answer["payload"] = len(data)
        answers.write(json.dumps(answer).encode() + b"\n")
        if data is not None:
            answers.write(data)
        answers.flush()


if __name__ == "__main__":
    serve()
