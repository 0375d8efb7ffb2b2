"""The Triton repository against the rules that Triton publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from deploy_folder import CLASSES, deployed
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deployed(tmp_path_factory.mktemp("run"))


def message(name: str, *fields: tuple[str, int, str]) -> descriptor_pb2.DescriptorProto:
    """A protobuf message with these fields: (name, type or 0 of an enum or message, its name)."""
    made = descriptor_pb2.DescriptorProto(name=name)
    for number, (field, kind, of) in enumerate(fields, 1):
        many = field in ("dims", "input", "output")
        made.field.add(
            name=field, number=number, label=3 if many else 1, type=kind or None,
            type_name=f".triton.{of}" if of else None,
        )  # fmt: skip
    return made


def published_model_config() -> Any:
    """Those parts of triton-inference-server/common: protobuf/model_config.proto that are used
    here; text with any other field does not parse.
    """
    text, whole = 9, 3
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="triton")
    types = file.enum_type.add(name="DataType")
    for number, name in enumerate(("INVALID", "BOOL", "UINT8", "INT8", "FP16", "FP32")):
        types.value.add(name=f"TYPE_{name}", number=number)
    tensor = (("name", text, ""), ("data_type", 14, "DataType"), ("dims", whole, ""))
    file.message_type.extend(
        [
            message("ModelInput", *tensor),
            message("ModelOutput", *tensor, ("label_filename", text, "")),
            message("ModelDynamicBatching"),
            message(
                "ModelConfig", ("name", text, ""), ("backend", text, ""),
                ("max_batch_size", 5, ""), ("input", 11, "ModelInput"),
                ("output", 11, "ModelOutput"), ("dynamic_batching", 11, "ModelDynamicBatching"),
            ),
        ]
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))()


def test_the_triton_repository_keeps_its_published_rules(folder: Path) -> None:
    """Triton's model_repository.md and model_configuration.md, rule by rule."""
    (model,) = (folder / "triton").iterdir()  # a folder a model
    versions = [path.name for path in model.iterdir() if path.is_dir()]
    assert versions  # at least one, named by a number that does not begin with 0
    assert all(name.isdecimal() and name[0] != "0" for name in versions)
    assert (model / versions[0] / "model.onnx").is_file()  # the name that onnxruntime's backend has
    config = text_format.Parse((model / "config.pbtxt").read_text(), published_model_config())
    assert config.name in ("", model.name)
    assert config.backend == "onnxruntime"
    assert config.max_batch_size >= 1
    session = onnxruntime.InferenceSession(str(model / versions[0] / "model.onnx"))
    types = {2: "tensor(uint8)", 5: "tensor(float)"}
    for said, found in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert [tensor.name for tensor in said] == [tensor.name for tensor in found]
        for one, other in zip(said, found, strict=True):
            assert types[one.data_type] == other.type
            assert isinstance(other.shape[0], str)  # a batch of any size, which dims leave out
            assert list(one.dims) == other.shape[1:]
    (output,) = config.output
    lines = (model / output.label_filename).read_text(encoding="utf-8").splitlines()
    assert lines == list(CLASSES)
    assert len(lines) == output.dims[0]


def test_a_field_that_triton_does_not_know_is_found(folder: Path) -> None:
    config = (folder / "triton" / "classifier" / "config.pbtxt").read_text()
    with pytest.raises(text_format.ParseError, match="max_batch"):
        text_format.Parse(config.replace("max_batch_size", "max_batch"), published_model_config())
