"""Published weights: found, read and copied into a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import places
from pipeline.errors import ArtifactError, Hint, Key
from pipeline.models.tensors import check_finite, mismatches, saved_tensors, shapes_of
from pipeline.models.torch_checkpoint import CONVERT, read_state_dict
from pipeline.run import store
from pipeline.system import file_type, is_safetensors
from pipeline.words import first_three

MAX_BYTES = 4 << 30
_ORIGINAL = Key("model.weights")
_OTHERS = Hint(
    "weights fit one architecture and one set of classes; ",
    Hint.set("model.weights", None, "trains new ones"),
)
_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin")


def find_weights(name: str, setting: Key = _ORIGINAL) -> Path:
    """The file beside the config, or as given from here; else the shipped one of that name.

    Args:
        setting: key of the config that names it.
    Raises:
        ArtifactError: neither exists.
    """
    path = Path(name)
    # a broken link is refused, not replaced by a shipped file
    if (found := places.find(name)) is not None:
        return found
    shipped = shipped_weights()
    if (shipped / path.name).is_file() and path.parent.name in ("", "pretrained_model"):
        return shipped / path.name
    known = ", ".join(sorted(p.name for p in shipped.glob("*.safetensors"))) or "none"
    raise ArtifactError(
        f"{name}: no such weights; {places.looked_for(name)}",
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


def load_weights(
    path: Path, *, max_bytes: int = MAX_BYTES, say: Callable[[str], None] = lambda text: None
) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, as stored.

    Args:
        path: `.safetensors`, or a state dict saved by torch.save (`.pt`, `.pth`, …, the zip format
            of torch ≥ 1.6), bare or under a key such as `state_dict`.
        say: told which of several state dicts in the file is taken.
    Raises:
        ArtifactError: missing, linked, too large, damaged, another type than its name says, or a
            pickle that holds more than tensors.
    """
    data = store.read_bytes(path, max_bytes=max_bytes)
    # whatever it is called: safetensors are known by their first bytes
    if path.suffix.lower() in _TORCH_SUFFIXES and not is_safetensors(data):
        tensors = read_state_dict(path, data, max_bytes, say)
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
) -> list[str]:
    """Copy published weights into `model`, converting to its dtypes.

    What a wrapper put in front of every name (`module.`, `model.backbone.` …) is stripped, and what
    stands outside of it is left out. Counters of batch norms may be missing: they change no output.

    Args:
        where: what the weights are called in a message.
        hint: what to do where they do not fit.
    Returns:
        what was left out, in words.
    Raises:
        ArtifactError: names or shapes do not fit; the first three of each kind are listed.
    """
    target = saved_tensors(model)
    needed = [name for name in target if not name.endswith("num_batches_tracked")]
    prefix = _prefix(tensors, needed)
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    wanted = {n: s for n, s in shapes_of(target).items() if n in own or n in needed}
    if differ := mismatches(wanted, shapes_of(own)):
        hint = _of_other_images(wanted, shapes_of(own)) or hint
        raise ArtifactError(f"{where}: does not fit the network: {differ}", hint=hint)
    with torch.no_grad():
        for name, tensor in own.items():
            target[name].copy_(tensor)
    outside = [name for name in tensors if not name.startswith(prefix)]
    return [f"{where}: taken from {prefix}*, left out: {first_three(outside)}"] if outside else []


def _of_other_images(
    wanted: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]]
) -> Hint | None:
    """What to set where weights of colour images meet grey ones, or the other way round: they
    differ in the input channels of one layer, and in nothing else.
    """
    other = [name for name, shape in wanted.items() if list(own.get(name, ())) != list(shape)]
    if len(other) != 1 or other[0] not in own:
        return None
    ours, theirs = list(wanted[other[0]]), list(own[other[0]])
    elsewhere = ours[:1] + ours[2:] == theirs[:1] + theirs[2:]
    if elsewhere and len(ours) == 4 and {ours[1], theirs[1]} == {1, 3}:
        return Hint.set("data.channels", theirs[1], "reads the images as the weights do")
    return None


def with_own_head(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], str]:
    """Weights to start from that were trained for other classes: the network's own last layer in
    the place of theirs, and its name. As they are, and no name, where anything else differs too.
    """
    target = saved_tensors(model)
    prefix = _prefix(tensors, list(target))
    other = [
        name
        for name, tensor in target.items()
        if prefix + name in tensors and tensors[prefix + name].shape != tensor.shape
    ]
    parameters = [name for name, _ in model.named_parameters()]  # buffers come after them all
    head = parameters[-1].rpartition(".")[0] if parameters else ""
    classes_alone = all(
        name.rpartition(".")[0] == head
        and tensors[prefix + name].shape[1:] == target[name].shape[1:]
        for name in other
    )
    if not other or not classes_alone:
        return tensors, ""
    return {**tensors, **{prefix + name: target[name].detach().clone() for name in other}}, head


def _prefix(tensors: Mapping[str, Tensor], needed: Sequence[str]) -> str:
    """What stands in front of the network's own names; of several copies the first, of none that
    is whole the one that holds most.
    """
    if not needed:
        return ""
    first = needed[0]
    found = [n.removesuffix(first) for n in tensors if n == first or n.endswith(f".{first}")]
    # of the network below itself: a wrapper's name may end like one of its own
    found += [f"{name.partition('.')[0]}." for name in tensors if "." in name]
    return max(
        ["", *dict.fromkeys(found)], key=lambda p: sum(p + name in tensors for name in needed)
    )


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
