"""State dicts saved by torch.save, read without ever running what a pickle names.

The zip is summed before anything is unpacked, torch.load takes weights only, and of what comes out
only dense tensors by name are kept.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ArtifactError, Hint, Key
from pipeline.system import file_type
from pipeline.words import first_three

CONVERT = (
    "save a plain state dict as safetensors: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)
_AGAIN = "download or make it again"
_MAX_ENTRIES = 100_000  # an entry a tensor: many times what any network has
# where training scripts keep the state dict
_NESTED = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "weights",
    "params",
    "model_ema",
    "state_dict_ema",
)
_HARMLESS = ("torch._utils", "torch.storage", "collections.OrderedDict")


def read_state_dict(
    path: Path, data: bytes, max_bytes: int, say: Callable[[str], None]
) -> dict[str, Tensor]:
    """Tensors by name from the bytes of a checkpoint in torch's zip format (since 1.6).

    Args:
        max_bytes: most that it may unpack to.
        say: told which of several state dicts is taken.
    Raises:
        ArtifactError: another type of file, damaged, or a pickle that holds more than tensors.
    """
    kind = file_type(data)
    if kind != "a zip archive":
        hint = "git lfs pull fetches the real file" if "lfs" in kind else CONVERT
        if kind == "a pickle":
            kind = "a bare pickle (a whole object, or a checkpoint of torch before 1.6)"
        raise ArtifactError(f"{path}: not a PyTorch checkpoint but {kind}", hint=hint)
    _check_zip(path, data, max_bytes)
    return _tensors_in(_unpickled(path, data), path, say)


def _unpickled(path: Path, data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"{path}: refused: a pickle that names {_foreign_names(data)}, "
            "not a plain state dict; nothing in it was run",
            hint=CONVERT,
        ) from None
    # the unpickler meets arbitrary bytes; whatever it raises, they are bad
    except Exception as error:
        what = f"a damaged PyTorch checkpoint ({type(error).__name__})"
        raise ArtifactError(f"{path}: {what}", hint=_AGAIN) from None


def _check_zip(path: Path, data: bytes, max_bytes: int) -> None:
    """Sum the directory before anything is unpacked.

    Raises:
        ArtifactError: not readable, compressed, entries that add up to more than the file,
            TorchScript, or no pickle.
    """
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArtifactError(f"{path}: a damaged zip archive ({error})", hint=_AGAIN) from None
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:  # before the sizes: it may be compressed
        raise ArtifactError(
            f"{path}: refused: TorchScript code, not a state dict",
            hint="torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth') makes one of it",
        )
    total = sum(entry.file_size for entry in entries)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or total > min(len(data), max_bytes):  # torch.save stores, bombs compress
        raise ArtifactError(
            f"{path}: refused: unpacks to {total} bytes from {len(data)}, as no checkpoint does",
            hint=CONVERT,
        )
    if len(entries) > _MAX_ENTRIES or "data.pkl" not in names:
        raise ArtifactError(f"{path}: a zip archive, but not a PyTorch checkpoint", hint=CONVERT)


def _foreign_names(data: bytes) -> str:
    """The first things outside torch that the pickle would call, read without running it."""
    unknown = "something other than tensors"
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entry = next(e for e in archive.infolist() if e.filename.endswith("data.pkl"))
        names = _globals(archive.read(entry))
    except Exception:  # a message is made of it, and the file is refused anyway
        return unknown
    foreign = [name for name in names if not name.startswith(_HARMLESS) and not _storage(name)]
    return first_three(foreign) if foreign else unknown


def _globals(raw: bytes) -> list[str]:
    """Classes and functions named by the opcodes of a pickle, each once."""
    found: list[str] = []
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name == "GLOBAL":
            found.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
            found.append(".".join(strings[-2:]))  # STACK_GLOBAL takes both off the stack
        elif isinstance(argument, str):
            strings.append(argument)
    return list(dict.fromkeys(found))


def _storage(name: str) -> bool:
    return name.startswith("torch.") and name.endswith("Storage")


def _tensors_in(loaded: Any, path: Path, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The name → tensor mapping in a loaded checkpoint, at the top or one or two keys down."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        if loaded and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
            return {name: _dense(tensor, name, path) for name, tensor in loaded.items()}
        keys = [key for key in _NESTED if isinstance(loaded.get(key), Mapping)]
        if not keys:
            break
        if len(keys) > 1:
            say(f"{path}: the weights under {keys[0]} are taken, not those under {keys[1]}")
        loaded = loaded[keys[0]]
    what = type(loaded).__name__
    if isinstance(loaded, Mapping):
        what = f"a mapping with the keys {first_three([str(k) for k in loaded])}"
    raise ArtifactError(f"{path}: holds {what}, not a state dict of tensors", hint=CONVERT)


def _dense(tensor: Tensor, name: str, path: Path) -> Tensor:
    """Refuses what is not dense, and views that expand to more than their storage holds."""
    if tensor.is_quantized:
        raise ArtifactError(
            f"{path}: {name} is quantised",
            hint=Hint("cut the float network; ", Key("quantize.mode"), " makes INT8 of it"),
        )
    plain = not tensor.is_sparse
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ArtifactError(f"{path}: {name} is no plain dense tensor", hint=CONVERT)
    return tensor.detach().contiguous()
