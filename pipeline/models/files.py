"""A network on disk without pickle: `model.json` rebuilds it, `model.safetensors` fills it.

    {"kind": "model", "schema_version": 1,
     "source": "mobilenet_v2", "kwargs": {}, "in_channels": 1, "num_classes": 10,
     "input": {"shape": [1, 28, 28], "dtype": "float32"}, "channels_last": [],
     "widths": {"features.1.conv.0.0.weight": [8, 1, 3, 3]},
     "attributes": {"features.1.conv.0.0": {"groups": 8}},
     "weights": {"sha256": "…", "tensors": 314, "parameters": 1234}}

Widths are shapes of tensors, attributes integers of modules, and of both only what differs from the
freshly built source. Where layers hold a weight that the source computes, `folded` lists them;
where residual branches have gone, `dropped` says what stands in for their modules.
Loading runs the code that `source` names, as importing it would, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from pipeline.channels.branch import stand_ins_of
from pipeline.errors import ArtifactError, UsageError
from pipeline.models import reshape
from pipeline.models.folding import folded_layers
from pipeline.models.registry import build_from
from pipeline.models.source import ModelSource, note_source, source_of
from pipeline.models.tensors import check_finite, mismatches, saved_tensors, shapes_of
from pipeline.models.weights import MAX_BYTES
from pipeline.run import store
from pipeline.run.artifacts import MODEL

MODEL_FILE, WEIGHTS_FILE = MODEL.file, "model.safetensors"

Size = Annotated[int, Field(ge=0, lt=2**40)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class InputSignature(_Strict):
    """One image as the network takes it: (channels, height, width), normalised float32."""

    shape: tuple[Size, ...] | None = None
    dtype: Literal["float32"] = "float32"


class WeightsRecord(_Strict):
    """What model.safetensors must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tensors: Size
    parameters: Size


class ModelFile(ModelSource):
    """model.json; the fields are explained at the top of this file.

    Attributes:
        channels_last: tensors in that memory format: another one rounds differently.
    """

    input: InputSignature = InputSignature()
    channels_last: tuple[str, ...] = ()
    widths: dict[str, tuple[Size, ...]] = Field(default_factory=dict)
    attributes: dict[str, dict[str, int | tuple[int, ...]]] = Field(default_factory=dict)
    weights: WeightsRecord


def save_model(
    model: nn.Module,
    folder: str | Path,
    *,
    source: str | ModelSource | None = None,
    kwargs: dict[str, Any] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    search_path: Sequence[Path] = (),
) -> ModelFile:
    """Write `model.json` and `model.safetensors` into `folder`, which is made when missing.

    Args:
        model: the network, cut or not; its widths may differ from the source's, its tensor names
            may not.
        source: a built-in name, `torchvision:NAME` or `package.module:factory`; absent: where
            `load_model` or `build_model` got it.
        kwargs: of the source's factory.
        in_channels, num_classes: of the source; absent: read off the first convolution and the
            last linear layer.
        input_shape: (C, H, W) of one image.
        search_path: folders to look in for the user's own module.
    Raises:
        UsageError: no source is known, or it does not build.
        ArtifactError: the source builds a network with other tensors, or a tensor holds NaN or
            infinity.
        EnvironmentProblem: the disk said no.
    """
    if isinstance(source, str):
        source = ModelSource(
            source=source,
            kwargs=kwargs or {},
            in_channels=in_channels or reshape.guess_in_channels(model),
            num_classes=num_classes or reshape.guess_num_classes(model),
        )
    source = _as_it_is_now(source or _noted_source(model), model)
    tensors = {name: tensor.detach() for name, tensor in saved_tensors(model).items()}
    check_finite(tensors, f"{type(model).__name__}")
    # before the folder is made: a source of another network is refused here
    widths, attributes = reshape.differences(build_from(source, search_path), model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = ModelFile(
        **_fields(source),
        input=InputSignature(shape=tuple(input_shape) if input_shape else None),
        channels_last=reshape.channels_last_names(tensors),
        widths=widths,
        attributes=attributes,
        weights=_write_weights(folder, model, tensors),
    )
    _write_record(folder, record)
    return record


def _as_it_is_now(source: ModelSource, model: nn.Module) -> ModelSource:
    """Layers may have been folded, or branches dropped, since the source was noted."""
    now = {"folded": folded_layers(model), "dropped": stand_ins_of(model)}
    return source.model_copy(update=now)


def _write_weights(folder: Path, model: nn.Module, tensors: dict[str, Tensor]) -> WeightsRecord:
    return WeightsRecord(
        sha256=store.write_tensors(folder / WEIGHTS_FILE, tensors),
        tensors=len(tensors),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def _write_record(folder: Path, record: ModelFile) -> None:
    # as files were before layers could be folded and branches dropped, where none is
    nothing = {name for name in ("folded", "dropped") if not getattr(record, name)}
    MODEL.write(folder / MODEL_FILE, record.model_dump(mode="json", exclude=nothing))


def _noted_source(model: nn.Module) -> ModelSource:
    source = source_of(model)
    if source is None:
        example = 'save_model(model, folder, source="torchvision:resnet18")'
        raise UsageError(
            f"no source is known for this {type(model).__name__}",
            hint=f'{example}, or "package.module:factory"',
        )
    return source


def _fields(source: ModelSource) -> dict[str, Any]:
    """What a `ModelFile` and the source in it have in common."""
    return {name: getattr(source, name) for name in ModelSource.model_fields}


def read_model_file(folder: str | Path) -> ModelFile:
    """Read and validate model.json.

    Raises:
        ArtifactError: missing, damaged, another kind, or of a newer schema.
    """
    path = Path(folder) / MODEL_FILE
    body = MODEL.body(MODEL.read(path))
    try:
        # as JSON again: strict validation of Python objects would ask for tuples
        return ModelFile.model_validate_json(store.dump_json(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ArtifactError(
            f"{path}: {where}: {first['msg']}",
            hint="re-make it; a model file is not edited by hand",
        ) from None


def load_model(folder: str | Path, *, search_path: Sequence[Path] = ()) -> nn.Module:
    """The network saved in `folder`, in eval mode, on the CPU, bit for bit.

    Args:
        search_path: folders to look in for the user's own module, besides what is installed and the
            current folder.
    Raises:
        ArtifactError: a file is missing, linked, damaged or unsafe, or the two disagree; the first
            three mismatches are listed.
    """
    folder = Path(folder)
    record = read_model_file(folder)
    path = folder / WEIGHTS_FILE
    tensors = store.read_tensors(path, max_bytes=MAX_BYTES, sha256=record.weights.sha256)
    check_finite(tensors, str(path))
    try:
        model = build_from(record, search_path)
    except UsageError as error:  # of model.json, not of the command line
        raise ArtifactError(f"{folder / MODEL_FILE}: {error.message}", hint=error.hint) from error
    expected = shapes_of(saved_tensors(model)) | record.widths
    _refuse(mismatches(expected, shapes_of(tensors)), folder)
    reshape.apply(model, record.attributes, tensors, str(folder / MODEL_FILE), record.channels_last)
    return note_source(model, ModelSource(**_fields(record))).eval()


def _refuse(differ: str, folder: Path) -> None:
    if differ:
        raise ArtifactError(
            f"{folder}: {MODEL_FILE} and {WEIGHTS_FILE} disagree: {differ}",
            hint="the source that model.json names has changed, or a file is from elsewhere; "
            "re-make the model",
        )
