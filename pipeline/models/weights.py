"""Published weights: safetensors or PyTorch state dicts, loaded without ever running what a
pickle names.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ArtifactError
from pipeline.models import filetype
from pipeline.run import store

MAX_BYTES = 4 << 30
_MAX_ENTRIES = 100_000
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
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin")
_CONVERT = "save a plain state dict as safetensors: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def find_weights(name: str) -> Path:
    """The file as given, relative to the current folder; else the copy of that name shipped with
    the package.

    Raises:
        ArtifactError: neither exists.
    """
    path = Path(name)
    if path.exists() or path.is_symlink():
        return path
    shipped = shipped_weights()
    if (shipped / path.name).is_file() and path.parent.name in ("", "pretrained_model"):
        return shipped / path.name
    known = ", ".join(sorted(p.name for p in shipped.glob("*.safetensors"))) or "none"
    raise ArtifactError(
        f"{name}: no such weights",
        hint=f"shipped with the package: {known}; or leave model.weights out to train",
    )


def how_trained(path: Path) -> dict[str, Any] | None:
    """What is recorded of shipped weights with the bytes of `path`, whatever it is called: `seed`,
    `data`, `command` …

    None for weights that are not shipped.
    """
    record = shipped_weights() / "MANIFEST.json"
    if not record.is_file():
        return None
    entries = store.read_json(record, max_bytes=1 << 20)["weights"]
    digest = store.sha256_file(path)
    return next((entry for entry in entries.values() if entry["sha256"] == digest), None)


def shipped_weights() -> Path:
    """The folder of the weights that come with the package."""
    return Path(str(resources.files("pipeline"))) / "bundled" / "pretrained_model"


def load_weights(path: Path, *, max_bytes: int = MAX_BYTES) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, as stored.

    Args:
        path: `.safetensors`, or a state dict saved by torch.save (`.pt`, `.pth`, …, the zip format
            of torch ≥ 1.6), bare or under a key such as `state_dict`.
    Raises:
        ArtifactError: missing, linked, too large, damaged, another type than its name says, or a
            pickle that holds more than tensors.
    """
    data = store.read_bytes(path, max_bytes=max_bytes)
    if path.suffix.lower() in _TORCH_SUFFIXES:
        tensors = _state_dict(_unpack(path, data, max_bytes), path)
    else:
        tensors = _safetensors(path, data)
    if not tensors:
        raise ArtifactError(
            f"{path}: holds no tensors", hint="point model.weights at trained weights"
        )
    check_finite(tensors, str(path))
    return tensors


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ArtifactError: naming the first three tensors that hold any.
    """
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        raise ArtifactError(
            f"{where}: NaN or infinity in {_first_three(bad)}",
            hint="the training that made it diverged; use other weights",
        )


def adopt_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy published weights into `model`, converting to its dtypes; common prefixes (`module.` …)
    are stripped.

    Raises:
        ArtifactError: names or shapes do not fit; the first three of each kind are listed.
    """
    target = named_tensors(model)
    tensors = _without_prefix(tensors, target)
    counters = {name for name in target if name.endswith("num_batches_tracked")}
    mismatches = compare(
        {
            name: tuple(t.shape)
            for name, t in target.items()
            if name in tensors or name not in counters
        },
        {name: tuple(t.shape) for name, t in tensors.items()},
    )
    if mismatches:
        raise ArtifactError(
            f"{where}: does not fit the network: {'; '.join(mismatches[:3])}" + _more(mismatches),
            hint="weights fit one architecture and one set of classes; --set model.weights=null trains new ones",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            target[name].copy_(tensor)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, each tensor once (tied weights under their first
    name).
    """
    saved = model.state_dict(keep_vars=True)
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    tensors |= {name: buffer for name, buffer in model.named_buffers() if name in saved}
    return tensors


def compare(
    wanted: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """One phrase for every name or shape that differs; shapes first, then missing, then
    unexpected.
    """
    shapes = [
        f"{n} is {list(given[n])}, expected {list(s)}"
        for n, s in wanted.items()
        if n in given and given[n] != s
    ]
    missing = [f"{n} {list(s)} is missing" for n, s in wanted.items() if n not in given]
    unexpected = [f"{n} {list(s)} is unexpected" for n, s in given.items() if n not in wanted]
    return shapes + missing + unexpected


def _first_three(names: list[str]) -> str:
    return ", ".join(names[:3]) + _more(names)


def _more(items: list[str]) -> str:
    return f" and {len(items) - 3} more" if len(items) > 3 else ""


def _without_prefix(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    tensors = dict(tensors)
    while not tensors.keys() & target.keys():
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not filetype.is_safetensors(data):
        kind = _describe(data)
        hint = {
            "a git-lfs pointer": "git lfs pull fetches the real file",
            "an HTML page": "download it again: the server sent a page instead of the file",
        }.get(kind, _CONVERT)
        if "PyTorch" in kind or "pickle" in kind:
            hint = f"if it is a state dict, rename it to {path.stem}.pth; better, {_CONVERT}"
        raise ArtifactError(f"{path}: not a safetensors file but {kind}", hint=hint)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: a damaged safetensors file ({error})", hint="download or make it again"
        ) from None


def _describe(data: bytes) -> str:
    kind = filetype.guess(data)
    if kind == "a zip archive" and b"data.pkl" in data[:4096]:
        return "a PyTorch checkpoint (a zip with a pickle inside)"
    return kind


def _unpack(path: Path, data: bytes, max_bytes: int) -> Any:
    """torch.load, weights only, of a checked zip."""
    if not data.startswith(b"PK\x03\x04"):
        kind = filetype.guess(data)
        hint = "git lfs pull fetches the real file" if "lfs" in kind else _CONVERT
        if kind == "a pickle":
            kind = "a bare pickle (a whole object, or a checkpoint of torch before 1.6)"
        raise ArtifactError(f"{path}: not a PyTorch checkpoint but {kind}", hint=hint)
    _check_zip(path, data, max_bytes)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"{path}: refused: a pickle that names {_globals(data)}, not a plain state dict; nothing in it was run",
            hint=_CONVERT,
        ) from None
    except (
        Exception
    ) as error:  # the unpickler meets arbitrary bytes; whatever it raises, the file is at fault
        raise ArtifactError(
            f"{path}: a damaged PyTorch checkpoint ({type(error).__name__})",
            hint="download or make it again",
        ) from None


def _check_zip(path: Path, data: bytes, max_bytes: int) -> None:
    """Sum the directory before anything is unpacked; torch.save stores without compression, bombs
    compress.

    Raises:
        ArtifactError: not readable, compressed, entries that add up to more than the file,
            TorchScript, or no pickle.
    """
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArtifactError(
            f"{path}: a damaged zip archive ({error})", hint="download or make it again"
        ) from None
    total = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or total > min(
        len(data), max_bytes
    ):
        raise ArtifactError(
            f"{path}: refused: unpacks to {total} bytes from {len(data)}, as no checkpoint does",
            hint=_CONVERT,
        )
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if len(entries) > _MAX_ENTRIES or "data.pkl" not in names:
        raise ArtifactError(f"{path}: a zip archive, but not a PyTorch checkpoint", hint=_CONVERT)
    if "constants.pkl" in names:
        raise ArtifactError(f"{path}: refused: TorchScript code, not a state dict", hint=_CONVERT)


def _globals(data: bytes) -> str:
    """The first classes or functions outside torch that the pickle would call, read without
    running it.
    """
    found: list[str] = []
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entry = next(e for e in archive.infolist() if e.filename.endswith("data.pkl"))
        strings: list[str] = []
        for opcode, argument, _ in pickletools.genops(archive.read(entry)):
            if opcode.name == "GLOBAL":
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                found.append(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception:
        return "something other than tensors"
    foreign = [
        n
        for n in dict.fromkeys(found)
        if not n.startswith(("torch._utils", "torch.storage", "collections.OrderedDict"))
    ]
    foreign = [n for n in foreign if not (n.startswith("torch.") and n.endswith("Storage"))]
    return _first_three(foreign) if foreign else "something other than tensors"


def _state_dict(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The name → tensor mapping in a loaded checkpoint, at the top or one key down."""
    for _ in range(3):
        if not isinstance(loaded, Mapping):
            break
        if loaded and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()):
            return {name: _plain(tensor, name, path) for name, tensor in loaded.items()}
        key = next((k for k in _NESTED if isinstance(loaded.get(k), Mapping)), None)
        if key is None:
            break
        loaded = loaded[key]
    what = (
        f"a mapping with the keys {_first_three([str(k) for k in loaded])}"
        if isinstance(loaded, Mapping)
        else type(loaded).__name__
    )
    raise ArtifactError(f"{path}: holds {what}, not a state dict of tensors", hint=_CONVERT)


def _plain(tensor: Tensor, name: str, path: Path) -> Tensor:
    """A dense copy; refuses views that expand to more than their storage holds."""
    if (
        tensor.is_sparse
        or tensor.is_quantized
        or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ):
        raise ArtifactError(f"{path}: {name} is no plain dense tensor", hint=_CONVERT)
    return tensor.detach().contiguous()
