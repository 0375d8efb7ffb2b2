"""A stage's manifest: what went in, what came out, with which settings; written last, it is the
commit.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from pipeline.errors import ArtifactError, Hint
from pipeline.run import store
from pipeline.run.artifacts import KINDS, MANIFEST, kinds_of
from pipeline.run.documents import Document, Kind
from pipeline.system import cpu_name, package_versions

_PACKAGES = ("rlp-cnn", "torch", "torchvision", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Dependencies:
    """All that a stage's result depends on; equal needs mean a fresh result.

    `inputs` maps `stage/file` to sha256 (`counted`), `external` a file outside the run to sha256,
    `data` is the content hash of the images (empty where the stage uses none).
    """

    stage: str
    version: int
    seed: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    external: Mapping[str, str]
    data: str

    def differences(
        self, manifest: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Why a committed result is not fresh; empty when it is.

        Args:
            defaults: of the settings in `config`. One that the manifest does not know was added to
                rlp later, and the result was made as its default has it.
        """
        reasons: list[str] = []
        if manifest["stage_version"] != self.version:
            reasons.append("the stage's method changed")
        if manifest["seed"] != self.seed:
            reasons.append(f"seed {manifest['seed']} → {self.seed}")
        reasons += _config_changes(manifest["config"], self.config, defaults or {})
        reasons += _changed("input", manifest["inputs"], self.inputs)
        reasons += _changed("file", manifest["external"], self.external)
        if manifest["data"] != self.data:
            reasons.append("the images changed")
        return reasons


def _config_changes(old: Any, new: Any, defaults: Any, path: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        usual = defaults if isinstance(defaults, Mapping) else {}
        found: list[str] = []
        for key in sorted({*old, *new}):
            then, default = old.get(key, usual.get(key)), usual.get(key)
            name = f"{path}.{key}" if path else key
            found += _config_changes(then, new.get(key), default, name)
        return found
    if old == new:
        return []
    whole = isinstance(old, Mapping) or isinstance(new, Mapping)  # of a section, or of none of it
    return [f"{path} changed" if whole else f"{path} {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _changed(noun: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"{noun} {name} changed" for name in names]


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    return {"python": platform.python_version(), **package_versions(_PACKAGES)}


def device() -> str:
    """The processor, in words, and the GPU where this process has used one."""
    torch = sys.modules.get("torch")  # a command that only looks at a run does without
    if torch is None or not torch.cuda.is_initialized():
        return cpu_name()
    return f"{cpu_name()}, {torch.cuda.get_device_name(torch.cuda.current_device())}"


def write_manifest(
    folder: Path, needs: Dependencies, summary: Mapping[str, Any], started: str, seconds: float
) -> None:
    """Hash every output in `folder` and write `manifest.json`, the last file of a commit.

    Raises:
        ArtifactError: the stage did not write a file it promised.
    """
    outputs: dict[str, Any] = {}
    for kind in kinds_of(needs.stage):
        for name in kind.files:
            if kind.optional and not os.path.lexists(folder / name):
                continue
            outputs[name] = {"kind": kind.name, **_measured(kind, folder / name)}
    MANIFEST.write(
        folder / MANIFEST.file,
        {
            "stage": needs.stage,
            "stage_version": needs.version,
            "seed": needs.seed,
            "config": needs.config,
            "inputs": needs.inputs,
            "external": needs.external,
            "data": needs.data,
            "outputs": outputs,
            "summary": summary,
            "versions": versions(),
            "device": device(),
            "started": started,
            "duration_s": round(seconds, 3),
            "accepted_edits": [],
        },
    )


def _measured(kind: Kind, path: Path) -> dict[str, Any]:
    """Size and hashes of an output."""
    size, digest = store.check_regular(path, kind.max_bytes), store.sha256_file(path)
    if isinstance(kind, Document) and kind.matters:
        return {"sha256": digest, "bytes": size, "content": kind.content(path)}
    return {"sha256": digest, "bytes": size}


def counted(entry: Mapping[str, Any]) -> str:
    """The hash of an output that what is made from it depends on: of what matters in it, where
    that is not every byte.
    """
    return str(entry.get("content", entry["sha256"]))


def read_manifest(run: Path, stage: str) -> dict[str, Any] | None:
    """The manifest of a committed stage, None when the stage was never committed.

    Raises:
        ArtifactError: it is there but damaged; the hint names the stage.
    """
    path = run / stage / MANIFEST.file
    for folder in (path.parent, *([path.parents[1]] if "/" in stage else [])):
        if folder.is_symlink():  # else the stage of another run could pass as this one's
            raise ArtifactError(
                f"{folder}: a link, not the folder of a stage", hint=Hint.rerun(stage, run)
            )
    if not path.is_symlink() and not path.exists():  # a link to nothing is damage, not absence
        return None
    try:
        manifest = MANIFEST.read(path)
    except ArtifactError as error:
        raise ArtifactError(error.message, hint=error.hint or Hint.rerun(stage, run)) from None
    if wrong := _wrong(manifest, stage):
        raise ArtifactError(f"{path}: {wrong}", hint=Hint.rerun(stage, run))
    return manifest


def _wrong(manifest: Mapping[str, Any], stage: str) -> str:
    """What is wrong with a manifest whose seal is right; empty when nothing is.

    The seal keeps accidents out, not forgers: files are named by KINDS alone, never by the
    manifest.
    """
    if manifest["stage"] != stage:
        return f"is the manifest of stage {manifest['stage']}"
    known = {name: kind.name for kind in kinds_of(stage) for name in kind.files}
    for name, entry in manifest["outputs"].items():
        if not isinstance(entry, dict) or entry.get("kind") != known.get(name, ""):
            return f"{name} is not an output of {stage}"
        if not isinstance(entry.get("sha256"), str) or not isinstance(entry.get("bytes"), int):
            return f"the entry of {name} has no hash or no size"
    return ""


@dataclass
class HashCache:
    """sha256 of files, each read once for as long as path, inode, size and both times stay the
    same.

    For deciding what is fresh within one command. What a stage reads is hashed again when it is
    read.
    """

    _known: dict[tuple[str, int, int, int, int], str] = field(default_factory=dict)

    def __call__(self, path: Path) -> str:
        info = path.lstat()
        # mtime can be set back, ctime cannot
        key = (str(path), info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        if key not in self._known:
            self._known[key] = store.sha256_file(path)
        return self._known[key]


def damaged_outputs(
    run: Path,
    stage: str,
    manifest: Mapping[str, Any],
    sha256: Callable[[Path], str] = store.sha256_file,
) -> dict[str, str]:
    """What is wrong with a stage's files: `{"changed": sentence}`, `{"missing": sentence}`, both or
    neither.

    A missing file is simply made again; changed bytes are refused until someone says what to do.
    """
    found: dict[str, str] = {}
    described = {name: kind for kind in kinds_of(stage) for name in kind.files}
    for name, kind in described.items():
        path, entry = run / stage / name, manifest["outputs"].get(name)
        if entry is None and kind.optional:
            continue
        if any((run / stage / part).is_symlink() for part in PurePath(name).parents):
            found.setdefault("changed", f"{path}: lies behind a link")
            continue
        if entry is None or not os.path.lexists(path):
            found.setdefault("missing", f"{path} is missing")
            continue
        try:
            store.check_regular(path, kind.max_bytes, single=True)
            if sha256(path) != entry["sha256"]:
                found.setdefault(
                    "changed", f"{path}: the bytes differ from those committed (sha256 mismatch)"
                )
        except ArtifactError as error:
            found.setdefault("changed", error.message)
    return found


def unlisted(run: Path, stage: str) -> list[str]:
    """Names in a stage's folder that no manifest speaks of; nothing reads them."""
    known = {MANIFEST.file, *(name for kind in kinds_of(stage) for name in kind.files)}
    return sorted(_unlisted(run / stage, "", known))


def _unlisted(folder: Path, prefix: str, known: set[str]) -> Iterator[str]:
    for path in folder.iterdir() if folder.is_dir() else ():
        name = prefix + path.name
        if name in known:
            continue
        # a folder that the stage has is looked into, and no other, nor a link to one
        if any(other.startswith(f"{name}/") for other in known) and not path.is_symlink():
            yield from _unlisted(path, f"{name}/", known)
        else:
            yield name


def accept_edits(run: Path, stage: str) -> list[str]:
    """Take edited files of a committed stage as they are, and record that in its manifest.

    Returns:
        names of the files whose bytes had changed.
    """
    manifest = read_manifest(run, stage)
    edited = []
    for name, entry in (manifest or {"outputs": {}})["outputs"].items():
        path = run / stage / name
        if path.exists() and store.sha256_file(path) != entry["sha256"]:
            entry.update(_measured(KINDS[entry["kind"]], path))
            edited.append(name)
    if manifest and edited:
        manifest["accepted_edits"] = sorted({*manifest["accepted_edits"], *edited})
        MANIFEST.write(run / stage / MANIFEST.file, manifest)
    return edited
