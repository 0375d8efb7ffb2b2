"""Published weights: found, read and copied into a network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ArtifactError, Hint, Key
from pipeline.models.tensors import check_finite, mismatches, saved_tensors, shapes_of
from pipeline.models.torch_checkpoint import CONVERT, read_state_dict
from pipeline.run import store
from pipeline.system import file_type, is_safetensors

MAX_BYTES = 4 << 30
# put in front of every name by DataParallel, torch.compile and training scripts
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_ORIGINAL = Key("model.weights")
_OTHERS = Hint(
    "weights fit one architecture and one set of classes; ",
    Hint.set("model.weights", None, "trains new ones"),
)
_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin")


def find_weights(name: str, setting: Key = _ORIGINAL) -> Path:
    """The file as given, relative to the current folder; else the shipped one of that name.

    Args:
        setting: key of the config that names it.
    Raises:
        ArtifactError: neither exists.
    """
    path = Path(name)
    # a broken link is refused, not replaced by a shipped file
    if path.exists() or path.is_symlink():
        return path
    shipped = shipped_weights()
    if (shipped / path.name).is_file() and path.parent.name in ("", "pretrained_model"):
        return shipped / path.name
    known = ", ".join(sorted(p.name for p in shipped.glob("*.safetensors"))) or "none"
    raise ArtifactError(
        f"{name}: no such weights",
        hint=Hint(
            f"shipped with the package: {known}; or leave ",
            setting,
            " out to train",
        ),
    )


def how_trained(path: Path) -> dict[str, Any] | None:
    """What is recorded of shipped weights with the bytes of `path`, whatever it is called.

    `seed`, `data`, `command` and more; None for weights that are not shipped.
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
        tensors = read_state_dict(path, data, max_bytes)
    else:
        tensors = _safetensors(path, data)
    if not tensors:
        raise ArtifactError(
            f"{path}: holds no tensors",
            hint=CONVERT,
        )
    check_finite(tensors, str(path))
    return tensors


def adopt_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], where: str, *, hint: str = _OTHERS
) -> None:
    """Copy published weights into `model`, converting to its dtypes.

    Prefixes that all names have in common (`module.` …) are stripped. Counters of batch norms may
    be missing: they change no output.

    Args:
        where: what the weights are called in a message.
        hint: what to do where they do not fit.
    Raises:
        ArtifactError: names or shapes do not fit; the first three of each kind are listed.
    """
    target = saved_tensors(model)
    tensors = _without_prefix(tensors, target)
    wanted = {
        name: shape
        for name, shape in shapes_of(target).items()
        if name in tensors or not name.endswith("num_batches_tracked")
    }
    differ = mismatches(wanted, shapes_of(tensors))
    if differ:
        raise ArtifactError(f"{where}: does not fit the network: {differ}", hint=hint)
    with torch.no_grad():
        for name, tensor in tensors.items():
            target[name].copy_(tensor)


def _without_prefix(
    tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    tensors = dict(tensors)
    while not tensors.keys() & target.keys():  # one wrapper may be inside another
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not is_safetensors(data):
        raise _not_safetensors(path, data)
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: a damaged safetensors file ({error})", hint="download or make it again"
        ) from None


def _not_safetensors(path: Path, data: bytes) -> ArtifactError:
    kind = file_type(data)
    if kind == "a zip archive" and b"data.pkl" in data[:4096]:  # torch writes it first
        kind = "a PyTorch checkpoint (a zip with a pickle inside)"
    hint = {
        "a git-lfs pointer": "git lfs pull fetches the real file",
        "an HTML page": "download it again: the server sent a page instead of the file",
    }.get(kind, CONVERT)
    if "PyTorch" in kind or "pickle" in kind:
        hint = f"if it is a state dict, rename it to {path.stem}.pth; better, {CONVERT}"
    return ArtifactError(f"{path}: not a safetensors file but {kind}", hint=hint)
