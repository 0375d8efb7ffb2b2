"""What is changed of any input: its bytes, its lines, or the nodes of a document."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Case = Callable[[random.Random, Path], list[list[str]]]
"""Makes one mutated input in a folder; gives the command lines that read it."""

ODD: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**63, 2**70, 10**400, 0.5, -1e308, "", "x", "\x1b[31m", "../x"),
    *([], {}, [[]], {"a": {}}, [None], ["x"] * 3, "NaN", "/dev/zero", "a" * 5000),
]


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
