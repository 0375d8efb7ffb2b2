"""Requests a second of examples/server/server.py, and how long they take: original against final.

    python tests/bench/server_load.py RUN [--seconds 8] [--clients 1,4] [--python PYTHON]

The server is one process of one worker on loopback; this one is the second, and sends one test
picture after the other over connections that stay open, one a client. The original is put into a
deploy folder by the same code. Both servers are up all the time and are visited in turn, there and
back, so that a slow minute of the machine hits both. PYTHON has fastapi and uvicorn.
"""

from __future__ import annotations

import argparse
import http.client
import io
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from other_tools import served  # noqa: E402
from PIL import Image  # noqa: E402

from pipeline.data.load import load_test  # noqa: E402
from pipeline.run.manifest import Dependencies, write_manifest  # noqa: E402
from pipeline.run.runner import read_run  # noqa: E402
from stages.deploy.networks import named  # noqa: E402

_PICTURES = 100


def of_original(run: Path, home: Path) -> Path:
    """A folder like the run's, with the original network in it."""
    folder = Path(shutil.copytree(run / "deploy", home / "original"))
    chosen = onnx.load(run / "deploy" / "model.onnx")
    notes = {entry.key: entry.value for entry in chosen.metadata_props}
    made = named(onnx.load(run / "export" / "base.onnx"), notes)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    (folder / "manifest.json").unlink()
    needs = Dependencies("deploy", 1, 0, {}, {}, {}, "")
    write_manifest(folder, needs, {}, "2026-01-01T00:00:00+00:00", 0.0)
    return folder


def pictures(run: Path) -> list[bytes]:
    """Test images as JPEG files, as a client would send them."""
    images = load_test(read_run(run)[0].data)
    x, _ = next(images.batches(_PICTURES))
    values = 255 * (x.permute(0, 2, 3, 1).numpy() * np.array(images.std) + np.array(images.mean))
    found = []
    for pixels in np.rint(values).astype(np.uint8):
        stream = io.BytesIO()
        plain = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        Image.fromarray(plain).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


class Server:
    """One worker, and how long it took to answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.times: dict[int, list[float]] = {}
        self.seconds: dict[int, float] = {}

    def asked(self, line: http.client.HTTPConnection, picture: bytes) -> int:
        line.request("POST", "/predict?top=1", body=picture)
        answer = line.getresponse()
        answer.read()
        return answer.status

    def visit(self, clients: int, seconds: float, sent: list[bytes]) -> None:
        """Load it by so many clients at a time."""
        end = time.perf_counter() + seconds
        times = self.times.setdefault(clients, [])

        def client() -> None:
            line = http.client.HTTPConnection("127.0.0.1", self.port)
            count = 0
            while (start := time.perf_counter()) < end:
                status = self.asked(line, sent[count % len(sent)])
                assert status == 200, status
                times.append(time.perf_counter() - start)
                count += 1

        start = time.perf_counter()
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds[clients] = self.seconds.get(clients, 0) + time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=8, help="for each server and load")
    parser.add_argument("--clients", default="1,4")
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    given = parser.parse_args()
    sent, visits = pictures(given.run), 8
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as until:
        folders = {"original": of_original(given.run, Path(temporary))}
        folders["final"] = given.run / "deploy"
        servers = {
            name: Server(until.enter_context(served(given.python, folder)))
            for name, folder in folders.items()
        }
        for clients in map(int, given.clients.split(",")):
            for visit in range(visits):
                for server in list(servers.values())[:: -1 if visit % 2 else 1]:
                    server.visit(clients, given.seconds / visits, sent)
            for name, server in servers.items():
                show(name, clients, server)


def show(name: str, clients: int, server: Server) -> None:
    times = server.times[clients]
    cuts = statistics.quantiles(times, n=100)
    rate = len(times) / server.seconds[clients]
    print(
        f"{clients} client(s)  {name:<9} {rate:7.1f} requests/s   "
        f"p50 {1000 * cuts[49]:.2f} ms   p99 {1000 * cuts[98]:.2f} ms   ({len(times):,} requests)"
    )


if __name__ == "__main__":
    main()
