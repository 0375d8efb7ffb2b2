"""One open onnxruntime session, run and timed. Loaded by path in the child process."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import tempfile
import time
from collections import deque
from typing import Any

import numpy as np

ELEMENT = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}
_CPU = "CPUExecutionProvider"


class ProviderMissing(RuntimeError):
    """This onnxruntime lacks the execution provider; the message lists those that it has."""


class Session:
    """One open onnxruntime session with the feed it is timed on.

    Args:
        request: of the command `open` (`Worker.open`).
        model: a graph in memory; None: the file that the request names.
    Raises:
        ProviderMissing: the execution provider asked for is not in this onnxruntime.
    """

    def __init__(self, request: dict, model: bytes | None) -> None:
        import onnxruntime as ort

        provider = request["provider"]
        if provider not in ort.get_available_providers():  # onnxruntime would warn and take the CPU
            raise ProviderMissing(", ".join(ort.get_available_providers()))
        chain = [(provider, request["provider_options"])]
        if provider != _CPU:
            chain.append((_CPU, {}))  # for shape arithmetic, which no accelerator takes
        source = model if model is not None else request["path"]
        self.session = ort.InferenceSession(source, _options(request), providers=chain)
        self.feed: dict[str, np.ndarray] = {}
        self.binding: Any = None

    def describe(self) -> dict:
        """Providers, inputs, outputs and metadata."""

        def row(value) -> dict:
            return {"name": value.name, "shape": list(value.shape), "type": value.type}

        return {
            "providers": self.session.get_providers(),
            "inputs": [row(value) for value in self.session.get_inputs()],
            "outputs": [row(value) for value in self.session.get_outputs()],
            "metadata": dict(self.session.get_modelmeta().custom_metadata_map),
        }

    def make_feed(self, sizes: dict[str, list[int]], seed: int, device: str | None) -> None:
        """Inputs of these sizes by name: standard normal, pixels where they are bytes, and of other
        integers 0 and 1, which any table has rows for.
        """
        generator = np.random.default_rng(seed)
        self.feed = {
            value.name: _numbers(generator, ELEMENT[value.type], sizes[value.name])
            for value in self.session.get_inputs()
        }
        self.binding = None
        if device:
            self._bind(device)

    def _bind(self, device: str) -> None:
        """Keep inputs and outputs on the device: a call is then timed without its copies."""
        import onnxruntime as ort

        self.binding = self.session.io_binding()
        for name, data in self.feed.items():
            value = ort.OrtValue.ortvalue_from_numpy(data, device, 0)
            self.binding.bind_ortvalue_input(name, value)
        for value in self.session.get_outputs():
            self.binding.bind_output(value.name, device)

    def once(self) -> None:
        """One call on the feed, to its end."""
        if self.binding is None:
            self.session.run(None, self.feed)
        else:
            self.session.run_with_iobinding(self.binding)
            self.binding.synchronize_outputs()

    def outputs(self) -> list[dict]:
        """Names, types and shapes of what one call on the feed gives."""
        names = [value.name for value in self.session.get_outputs()]
        given = self.session.run(None, self.feed)
        return [
            {"name": name, "type": str(y.dtype), "shape": list(y.shape)}
            if isinstance(y, np.ndarray)
            else {"name": name, "type": type(y).__name__, "shape": []}
            for name, y in zip(names, given, strict=True)
        ]

    def infer(self, data: bytes, shape: list[int]) -> np.ndarray:
        """The first output for the bytes (C order) of one batch."""
        value = self.session.get_inputs()[0]
        element = ELEMENT.get(value.type, np.float32)
        x: np.ndarray = np.frombuffer(data, dtype=element).reshape(shape)
        return np.ascontiguousarray(self.session.run(None, {value.name: x})[0])

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


def _options(request: dict) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1  # nodes run one after the other; a second pool would only idle
    options.log_severity_level = 3  # errors; they come back as exceptions anyway
    if request["flush_denormals"]:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    for name, size in request["static_dims"].items():
        options.add_free_dimension_override_by_name(name, size)
    if request["profile"]:
        folder = tempfile.mkdtemp(prefix="rlp-profile-")
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "nodes")
    return options


def _numbers(generator: np.random.Generator, element: type, sizes: list[int]) -> np.ndarray:
    if element in (np.uint8, np.int8):
        limits = np.iinfo(element)
        return generator.integers(limits.min, limits.max, sizes, dtype=element, endpoint=True)
    if np.issubdtype(element, np.floating):
        return generator.standard_normal(sizes, dtype=np.float32).astype(element)
    return generator.integers(0, 2, sizes).astype(element)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        # not `getrusage`: on Linux its peak outlives `exec`, and is then the parent's
        with open("/proc/self/status", encoding="ascii") as status:
            line = next((line for line in status if line.startswith("VmHWM:")), "")
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def warm_up(session: Session, window: float, tolerance: float, limit: float) -> dict:
    """Run until the medians of windows no longer fall: three windows or more, of which the last is
    not faster than both before it by more than `tolerance`.

    A cold session only gets faster. Other work makes medians rise as well as fall, and warming up
    for longer is no cure for that.

    Args:
        window, limit: seconds of one window, and of all at most.
    Returns:
        runs, seconds, stable (whether they stopped falling) and the last median in ns.
    """
    medians: deque[float] = deque(maxlen=3)
    begin = time.perf_counter()
    runs = 0
    while True:
        times = timed(session, window, 3)
        runs += len(times)
        medians.append(statistics.median(times))
        spent = time.perf_counter() - begin
        stable = len(medians) == 3 and medians[2] >= min(medians[0], medians[1]) * (1 - tolerance)
        if stable or spent >= limit:
            return {"runs": runs, "seconds": spent, "stable": stable, "median_ns": medians[-1]}


def timed(session: Session, seconds: float, least: int) -> list[int]:
    """Nanoseconds of each call, for at least `seconds` and at least `least` calls."""
    times: list[int] = []
    clock, once = time.perf_counter_ns, session.once  # looked up once: this loop is what is timed
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        once()
        now = clock()
        times.append(now - start)
        if now >= end and len(times) >= least:
            return times


def node_rows(events: list[dict], skip: int) -> list[dict]:
    """One row a node from the events of onnxruntime's profiler, in the order they first ran.

    name, op, provider, input and output shapes, runs, median and mean microseconds; the first
    `skip` calls do not count where there are more.
    """
    rows: dict[str, dict] = {}
    for event in events:
        # Older versions record fences around a kernel as well.
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        # The index tells nodes of one name apart.
        key = f"{event['args'].get('node_index')}:{event['name']}"
        rows.setdefault(key, _node_row(event))["times"].append(event["dur"])
    for row in rows.values():
        times = row.pop("times")
        kept = times[skip:] or times
        row["runs"] = len(kept)
        row["us"] = statistics.median(kept)
        row["mean_us"] = statistics.fmean(kept)
    return list(rows.values())


def _node_row(event: dict) -> dict:
    detail = event["args"]

    def shapes(key: str) -> list:  # each is {element type: sizes}
        return [next(iter(shape.values())) for shape in detail.get(key, []) if shape]

    return {
        "name": event["name"].removesuffix("_kernel_time"),
        "op": detail.get("op_name", ""),
        "provider": detail.get("provider", ""),
        "inputs": shapes("input_type_shape"),
        "outputs": shapes("output_type_shape"),
        "times": [],
    }
