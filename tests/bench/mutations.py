"""Mutated inputs for every reader: no input, however damaged or forged, may end in "a bug in rlp".

    python tests/bench/mutations.py [--seed 0] [--seconds 120] [--readers config,json] [--run RUN]

Each reader gets good inputs, changed at random, and is called as the command line calls it, in this
process. Every exit 70, every call of more than 60 s, and any exit code that is no contract is
printed with a number that repeats it: `--only READER:NUMBER`. Forged documents of a run have right
hashes, from the changed file up to run.json. Without --run a small run is made first (minutes).
Ends with 1 if anything was found. Nothing is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parents[1]), str(HERE.parents[1] / "pipeline/data")]

from pipeline.cli import main  # noqa: E402
from pipeline.run.artifacts import KINDS, MANIFEST, MODEL, RUN  # noqa: E402
from pipeline.run.documents import Document  # noqa: E402

LIMIT_S = 60
CODES = {0, 1, 2, 3, 4, 5}
ODD: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**63, 2**70, 10**400, 0.5, -1e308, "", "x", "\x1b[31m", "../x"),
    *([], {}, [[]], {"a": {}}, [None], ["x"] * 3, "NaN", "/dev/zero", "a" * 5000),
]


class TooSlow(BaseException):
    """A call that took longer than LIMIT_S."""


# -- what is changed ------------------------------------------------------------------------------


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits, cut or doubled parts, large numbers, foreign beginnings."""
    raw = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw) + 1)
        some = chance.randint(1, 1 + len(raw) // 3)
        kind = chance.randrange(8)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del raw[at:]
        elif kind == 2:
            del raw[at : at + some]
        elif kind == 3:
            raw[at:at] = chance.randbytes(min(some, 64))
        elif kind == 4:
            raw[at:at] = raw[at : at + some]
        elif kind == 5:
            number = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**64 - 1])
            raw[at : at + 8] = struct.pack(chance.choice("<>") + "Q", number)
        elif kind == 6:
            raw[:at] = b""
        else:
            raw[:4] = chance.choice([b"\x89PNG", b"PK\3\4", b"\x80\x02}q", b"%!PS", b"\0\0\0\0"])
    return bytes(raw)


def mutate_text(data: bytes, chance: random.Random) -> bytes:
    """The same, or a line, a word or a number put in the place of another."""
    if chance.random() < 0.3:
        return mutate_bytes(data, chance)
    lines = data.decode().splitlines()
    at, other = chance.randrange(len(lines)), chance.choice(lines)
    key = lines[at].partition(":")[0]
    odd = json.dumps(chance.choice(ODD))
    lines[at] = chance.choice(
        [other, f"{key}: {odd}", f"{key}: !!python/name:os.system", f"{key}: &a [*a]", "  " + other,
         f"{key}: {other.strip()}", lines[at] + "\0", f"? {other}", f"{key}: {'[' * 2000}"]
    )  # fmt: skip
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_json(value: Any, chance: random.Random) -> Any:
    """A document with one to three of its nodes replaced, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        nodes = list(_nodes(value))
        if not nodes:
            return value
        parent, key = chance.choice(nodes)
        kind = chance.randrange(6)
        if kind < 3:
            parent[key] = chance.choice(ODD)
        elif kind == 3:
            del parent[key]
        elif kind == 4:
            _, source = chance.choice(nodes), chance.choice(nodes)
            with contextlib.suppress(KeyError, IndexError):
                parent[key] = json.loads(json.dumps(source[0][source[1]]))
        elif isinstance(parent, dict):
            parent[chance.choice(["x", "", key + "x", "\x1b[1m"])] = parent.pop(key)
        else:
            parent.insert(key, parent[key])
    return value


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys if isinstance(value, (dict, list)) else ():
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _nodes(value[key])


# -- readers --------------------------------------------------------------------------------------

Case = Callable[[random.Random, Path], list[list[str]]]
"""Makes one mutated input in a folder; gives the command lines that read it."""


def config_reader() -> Case:
    shipped = sorted((HERE.parents[2] / "configs").glob("*.yaml"))

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "c.yaml"
        path.write_bytes(mutate_text(chance.choice(shipped).read_bytes(), chance))
        return [["config", "show", str(path)]]

    return case


def damaged_reader(run: Path) -> Case:
    """Any file of a run with changed bytes."""
    files = [p for p in run.rglob("*") if p.is_file() and p.name != ".lock"]

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        copy, path = _copied(run, folder), chance.choice(files).relative_to(run)
        (copy / path).write_bytes(mutate_bytes((copy / path).read_bytes(), chance))
        show = [["inspect", str(copy / path)]] if path.suffix in (".json", ".jsonl") else []
        return [["check", str(copy)], ["pipeline", "status", str(copy)], *show]

    return case


_READ_BY = {  # stages that read a document and take no time
    "model.json": ("trace", "prune", "export"),
    "graph.json": ("rotate", "prune", "report"),
    "plan.json": ("prune", "report"),
    "data.json": ("deploy",),
    "benchmark.json": ("deploy", "report"),
    "quantize.json": ("deploy", "report"),
    "parity.json": ("report",),
}


def forged_reader(run: Path) -> Case:
    """A document of a run with other contents and right hashes."""
    documents = [(k.maker, k.file) for k in KINDS.values() if isinstance(k, Document) and k.maker]
    models = [(at.parent.name, MODEL.file) for at in run.glob(f"*/{MODEL.file}")]

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        copy = _copied(run, folder)
        if chance.random() < 0.2:
            sealed = chance.choice([(copy / RUN.file, RUN)] + [
                (copy / stage / MANIFEST.file, MANIFEST) for stage, _ in documents
            ])  # fmt: skip
            _write_sealed(*sealed, chance)
            return [["check", str(copy)], ["pipeline", "status", str(copy)], ["report", str(copy)]]
        stage, name = chance.choice([*documents, *models])
        path = copy / stage / name
        body = mutate_json(json.loads(path.read_bytes()), chance)
        path.write_bytes(json.dumps(body, indent=2).encode())
        _rehash(copy, stage, name)
        reader = chance.choice(_READ_BY.get(name, ("report",)))
        again = ["stage", reader, "--run", str(copy), "--trust-code"]
        return [["check", str(copy)], ["inspect", str(path)], again]

    return case


def _write_sealed(path: Path, kind: Any, chance: random.Random) -> None:
    body = mutate_json(json.loads(path.read_bytes()), chance)
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(body, dict):
            path.write_bytes(kind._bytes(body))


def _rehash(run: Path, stage: str, name: str) -> None:
    """Make every manifest of the run agree with the changed file."""
    data = (run / stage / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for path in run.glob(f"*/{MANIFEST.file}"):
        body = json.loads(path.read_bytes())
        if path.parent.name == stage:
            body["outputs"][name] |= {"sha256": digest, "bytes": len(data)}
        if f"{stage}/{name}" in body["inputs"]:
            body["inputs"][f"{stage}/{name}"] = digest
        path.write_bytes(MANIFEST._bytes(body))


def _copied(run: Path, folder: Path) -> Path:
    """The run again, in no file shared."""
    return Path(shutil.copytree(run, folder / "run"))


def weights_reader(suffix: str) -> Case:
    """Weights of one's own, adopted."""
    import torch
    from safetensors.torch import save

    from pipeline.models.registry import BUILTIN

    torch.manual_seed(0)
    state = {k: v.contiguous() for k, v in BUILTIN["resnet20"](num_classes=3).state_dict().items()}
    small = dict(list(state.items())[:12])
    buffer = io.BytesIO()
    torch.save({"state_dict": small, "epoch": 3}, buffer)
    whole = save(small) if suffix == ".safetensors" else buffer.getvalue()
    header = 8 + int.from_bytes(whole[:8], "little") if suffix == ".safetensors" else len(whole)

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / f"w{suffix}"
        if chance.random() < 0.7:  # the header, where all meaning is
            path.write_bytes(mutate_bytes(whole[:header], chance) + whole[header:])
        else:
            path.write_bytes(mutate_bytes(whole, chance))
        return [["weights", str(path)]]

    return case


def onnx_reader(run: Path) -> Case:
    """Described without a session, as `rlp inspect` does; in this process, for speed."""
    whole = (run / "export" / "base.onnx").read_bytes()
    graph = whole[:3000] + whole[-20000:]

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        path = folder / "m.onnx"
        path.write_bytes(mutate_bytes(chance.choice([whole, graph]), chance))
        return [["inspect", str(path)]]

    return case


def images_reader(kind: str) -> Case:
    """A data set in one of its layouts, one file of which is changed."""
    import tiny_sets

    made = Path(tempfile.mkdtemp(prefix="rlp-mutations-"))
    if kind == "parquet":
        for split in ("train", "test"):
            tiny_sets.write_parquet(made / f"{split}-00000-of-00001.parquet", tiny_sets.rows(9))
    elif kind == "idx":
        import numpy as np

        for split in ("train", "t10k"):
            pixels = np.arange(9 * 64).reshape(9, 8, 8)
            tiny_sets.write_idx(made / f"{split}-images-idx3-ubyte", pixels)
            tiny_sets.write_idx(made / f"{split}-labels-idx1-ubyte", np.arange(9) % 3)
    elif kind == "cifar":
        tiny_sets.write_cifar_binary(made)
    else:
        _write_folders(made)
    files = sorted(p for p in made.rglob("*") if p.is_file())

    def case(chance: random.Random, folder: Path) -> list[list[str]]:
        root = Path(shutil.copytree(made, folder / "data"))
        path = root / chance.choice(files).relative_to(made)
        if kind == "folders" and chance.random() < 0.4:
            _strange(path, chance)
        else:
            path.write_bytes(mutate_bytes(path.read_bytes(), chance))
        return [["data", "import", str(root)]]

    return case


def _write_folders(root: Path) -> None:
    import tiny_sets

    formats = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
    for split in ("train", "test"):
        for label, name in enumerate(tiny_sets.CLASSES):
            for k, fmt in enumerate(formats):
                path = root / split / name / f"{k}.{fmt.lower()}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tiny_sets.picture(label, k, fmt=fmt))


def _strange(path: Path, chance: random.Random) -> None:
    """Something in the place of an image that is no file, or under a name that is no text."""
    kind = chance.randrange(7)
    path.unlink()
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind == 3:
        path.mkdir()
    elif kind == 4:
        path.symlink_to(path.name)
    elif kind == 5:
        path.touch()
        os.truncate(path, 40 << 30)
    else:
        (path.parent / "\udcff\x1b[31m.png").write_bytes(b"\x89PNG")


READERS = ("config", "damaged", "forged", "safetensors", "pth", "onnx", "parquet", "idx", "cifar",
           "folders")  # fmt: skip


def reader(name: str, run: Path) -> Case:
    if name == "config":
        return config_reader()
    if name in ("damaged", "forged", "onnx"):
        return {"damaged": damaged_reader, "forged": forged_reader, "onnx": onnx_reader}[name](run)
    if name in ("safetensors", "pth"):
        return weights_reader(f".{name}")
    return images_reader(name)


# -- calling --------------------------------------------------------------------------------------


def call(arguments: list[str]) -> tuple[int, str]:
    """Exit code and what was said; TooSlow after LIMIT_S."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            _load_weights(arguments[1]) if arguments[0] == "weights" else main(arguments)
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def _load_weights(path: str) -> None:
    """As `model.weights` is read, under the command line's funnel."""
    from pipeline.errors import RlpError
    from pipeline.models import load_weights

    try:
        load_weights(Path(path))
    except RlpError as error:
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        print(f"a bug in rlp: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(70) from error


def _slow(number: int, frame: Any) -> None:
    raise TooSlow


def make_run(home: Path) -> Path:
    """A finished run of the whole chain on a few made-up images, from beside its config."""
    import test_chain

    home.mkdir()
    test_chain.make_images(home / "images")
    (home / "my_nets.py").write_text(test_chain.NETS)
    config = test_chain.CONFIG.replace("ROOT", str(home / "images"))
    (home / "my.yaml").write_text(config.replace("epochs: 12", "epochs: 1"))
    code, said = call(["pipeline", "run", str(home / "my.yaml"), "--run-dir", str(home / "run")])
    assert code == 0, said
    return home / "run"


def one(case: Case, name: str, number: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Exit codes of one mutated input, and what was wrong."""
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rlp-mutation-") as folder:
        for arguments in case(random.Random(f"{seed} {name} {number}"), Path(folder)):
            began = time.monotonic()
            signal.alarm(LIMIT_S)
            try:
                code, said = call(arguments)
            except TooSlow:
                code, said = -1, f"took more than {LIMIT_S} s"
            finally:
                signal.alarm(0)
            codes[str(code)] += 1
            if code not in CODES:
                took = time.monotonic() - began
                wrong.append(f"{name}:{number} exit {code} in {took:.1f} s: rlp "
                             f"{' '.join(arguments)!a}\n    {said.strip()[:400]!a}")  # fmt: skip
    return codes, wrong


def run_all(options: argparse.Namespace, run: Path) -> int:
    """Every reader for its share of the time; 1 if anything was found."""
    for module in ("torch", "matplotlib.pyplot", "pipeline.data.load", "stages.report.page"):
        importlib.import_module(module)  # unhurried: the alarm would leave half of it
    names = [options.only.partition(":")[0]] if options.only else options.readers.split(",")
    found = 0
    for name in names:
        case, codes, began = reader(name, run), Counter[str](), time.monotonic()
        numbers = [int(options.only.partition(":")[2])] if options.only else range(10**9)
        count = 0
        for number in numbers:
            if time.monotonic() - began > options.seconds / len(names):
                break
            one_codes, wrong = one(case, name, number, options.seed)
            codes += one_codes
            count += 1
            found += len(wrong)
            for line in wrong:
                print(line, flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        shown = ", ".join(f"exit {code}: {n}" for code, n in sorted(codes.items()))
        print(f"{name}: {count} inputs in {time.monotonic() - began:.0f} s; {shown}; "
              f"peak of the process so far {peak:,.0f} MB", flush=True)  # fmt: skip
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="for all readers together")
    parser.add_argument("--readers", default=",".join(READERS))
    parser.add_argument("--run", type=Path, help="a finished run to forge; made when absent")
    parser.add_argument("--only", default="", help="READER:NUMBER, to repeat one input")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGALRM, _slow)
    with tempfile.TemporaryDirectory(prefix="rlp-mutations-") as home:
        os.environ["XDG_CACHE_HOME"] = str(Path(home) / "cache")
        chosen = _options()
        ended = run_all(chosen, chosen.run or make_run(Path(home) / "made"))
    sys.exit(ended)
