"""The child process that opens ONNX files: a crash of the runtime kills it, and not the run.

Run by path, as `python -P child.py`, and therefore with the files beside it loaded by path too:
standard library, numpy and onnxruntime only, so that it starts in a fraction of a second and that
no `pipeline` folder in the current directory can shadow it.

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
import sys
import time
from typing import Any

import numpy as np


def _beside(name: str) -> Any:
    """A module of this folder: the folder itself is not importable in the child."""
    path = os.path.join(os.path.dirname(__file__), f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sessions = _beside("session")


class Child:
    """Answers requests; holds at most one open session.

    Every command takes its request and payload and returns the answer; `Worker` describes them.
    """

    def __init__(self) -> None:
        self.session: Any = None
        self._peak_before = 0
        self._quantization: Any = None
        self._activations: Any = None

    def _open_session(self) -> Any:
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
        if hasattr(os, "sched_setaffinity") and request["cores"]:  # macOS has none
            os.sched_setaffinity(0, request["cores"])
            return {"cores": sorted(os.sched_getaffinity(0))}
        return {"cores": []}

    def open(self, request: dict, payload: bytes | None) -> dict:
        self.close(request, None)  # first: two sessions at once might not fit in memory
        import onnxruntime  # noqa: F401 (its own memory is not the file's)

        self._peak_before = sessions.peak_bytes()
        start = time.perf_counter()
        self.session = sessions.Session(request, payload)
        return {**self.session.describe(), "seconds": time.perf_counter() - start}

    def feed(self, request: dict, payload: bytes | None) -> dict:
        keys = ("sizes", "seed", "device")
        self._open_session().make_feed(*(request[key] for key in keys))
        return {}

    def warm(self, request: dict, payload: bytes | None) -> dict:
        keys = ("window", "tolerance", "limit")
        return sessions.warm_up(self._open_session(), *(request[key] for key in keys))

    def slot(self, request: dict, payload: bytes | None) -> dict:
        """One timed slot; its first call is run and thrown away: caches are another process's."""
        session = self._open_session()
        session.once()
        return {"ns": sessions.timed(session, request["seconds"], request["least"])}

    def call(self, request: dict, payload: bytes | None) -> dict:
        """One call, what it gave, and by how much opening and calling raised the peak of memory."""
        outputs = self._open_session().outputs()
        (nanoseconds,) = sessions.timed(self.session, 0.0, 1)
        return {
            "outputs": outputs,
            "memory_bytes": sessions.peak_bytes() - self._peak_before,
            "seconds": nanoseconds / 1e9,
        }

    def copies(self, request: dict, payload: bytes | None) -> dict:
        return {"seconds": self._open_session().copies(request["device"], request["repeats"])}

    def infer(self, request: dict, payload: bytes | None) -> dict:
        """Payloads: the input's bytes, and the first output's."""
        y = self._open_session().infer(payload or b"", request["shape"])
        return {"shape": list(y.shape), "dtype": str(y.dtype), "payload": y.tobytes()}

    def profile(self, request: dict, payload: bytes | None) -> dict:
        """End profiling, and with it the session; one row a node."""
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
        return {"nodes": sessions.node_rows(events, skip=request["skip"])}

    def check(self, request: dict, payload: bytes | None) -> dict:
        """onnx's own checker, with shape inference."""
        import onnx

        onnx.checker.check_model(request["path"], full_check=True)
        return {"onnx": onnx.__version__}

    def scan(self, request: dict, payload: bytes | None) -> dict:
        """What a file holds, without a session; refuses external data outside the file's folder."""
        return _beside("graph_facts").scan(request["path"], request["shape"], _beside("sizes"))

    def describe(self, request: dict, payload: bytes | None) -> dict:
        """What a file says about itself, without a session and without reading its weights."""
        return _beside("graph_facts").describe(request["path"])

    def prepare(self, request: dict, payload: bytes | None) -> dict:
        """A float file made ready for quantising; payload back: the prepared graph."""
        _beside("graph_facts").check_external_data(request["path"])
        self._begin_quantization()
        self._quantization.prepare(request["path"])
        model = _beside("rewrites").rewritten(self._quantization.model)
        return {"payload": model.SerializeToString(deterministic=True)}

    def load(self, request: dict, payload: bytes | None) -> dict:
        if self._quantization is None:
            self._begin_quantization()
        self._quantization.load(payload)
        return {}

    def hold(self, request: dict, payload: bytes | None) -> dict:
        """A float file as it is, to be halved; payload back: the graph with shapes and names."""
        _beside("graph_facts").check_external_data(request["path"])
        self._begin_quantization()
        model = _beside("halving").prepared(request["path"])
        self._quantization.hold(model)
        return {"payload": model.SerializeToString(deterministic=True)}

    def halve(self, request: dict, payload: bytes | None) -> dict:
        """Payload back: the float16 graph of the one that is held."""
        how = request["operators"], request["exclude"]
        graph, stayed = _beside("halving").halved(self._quantization.model, *how)
        return {"payload": graph, "float_nodes": stayed}

    def _begin_quantization(self) -> None:
        self._quantization = _beside("quantization").Quantization(_beside("rescaling"))

    def watch(self, request: dict, payload: bytes | None) -> dict:
        self._activations = _beside("activations").Activations(
            self._quantization.model, request["tensors"], request["threads"]
        )
        return {"bytes": self._activations.bytes_per_image(request["shape"])}

    def observe(self, request: dict, payload: bytes | None) -> dict:
        x = np.frombuffer(payload or b"", np.float32).reshape(request["shape"])
        self._activations.observe(x)
        return {}

    def ranges(self, request: dict, payload: bytes | None) -> dict:
        found, infinite = self._activations.ranges(request["method"], request["percentile"])
        return {"ranges": found, "infinite": infinite}

    def quantize(self, request: dict, payload: bytes | None) -> dict:
        graph, facts = self._quantization.quantize(request)
        if "HardSigmoid" in request["operators"]:
            graph = _beside("lookups").with_lookups(graph)
        return {**facts, "payload": graph}

    def correct(self, request: dict, payload: bytes | None) -> dict:
        """Payloads: an INT8 graph and the images' bytes behind it; the graph with other biases."""
        graph, x = (payload or b"")[: request["graph"]], (payload or b"")[request["graph"] :]
        images = np.frombuffer(x, np.float32).reshape(request["shape"])
        correct = _beside("bias_correction").corrected
        return {"payload": correct(self._quantization.model, graph, images, request["batch"])}

    def equalize(self, request: dict, payload: bytes | None) -> dict:
        """Payloads: images; the equalised graph, or nothing where no channel can be moved."""
        x = np.frombuffer(payload or b"", np.float32).reshape(request["shape"])
        batches = np.split(x, range(request["batch"], len(x), request["batch"]))
        watch, model = _beside("activations").Activations, self._quantization.model
        made = _beside("equalization").equalized(
            model, lambda names: watch(model, names, 0).reach(batches)
        )
        return {"payload": made}

    def saturates(self, request: dict, payload: bytes | None) -> dict:
        module = _beside("saturation")
        return {"saturates": module.saturates(request["activation"], request["weight"])}

    def close(self, request: dict, payload: bytes | None) -> dict:
        self.session = None
        gc.collect()  # collection is off while timing, and a session is large
        return {}


def _failure(error: BaseException) -> dict:
    kind = type(error).__name__
    return {"ok": False, "kind": kind, "message": " ".join(str(error).split())[:2000]}


def serve() -> None:
    """Answer requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent decides
    requests = sys.stdin.buffer
    _beside("orphan").end_with(requests.fileno())  # in the middle of a request as well
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land between two answers
    gc.disable()  # a collection in the middle of a timed slot would be measured
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
        answers.write(json.dumps(answer).encode() + b"\n" + (data or b""))
        answers.flush()


if __name__ == "__main__":
    serve()
