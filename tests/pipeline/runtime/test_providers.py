"""The names of execution providers, and what to install for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.engines import TENSORRT, engines_kept_in, options_for
from pipeline.errors import UsageError
from pipeline.runtime import find_provider, missing_provider
from pipeline.runtime.providers import CPU


def test_provider_names() -> None:
    missing = missing_provider("openvino", ["CPUExecutionProvider"])
    assert "pip install onnxruntime-openvino" in missing.hint
    with pytest.raises(UsageError, match="cdua"):
        find_provider("cdua")


def test_engines_of_files_are_kept_by_content_and_those_of_candidates_are_not(
    tmp_path: Path,
) -> None:
    first, second = (tmp_path / name for name in ("a.onnx", "b.onnx"))
    first.write_bytes(b"one")
    second.write_bytes(b"another")
    assert options_for(TENSORRT, first) == {}
    with engines_kept_in(tmp_path / "engines"):
        places = [options_for(TENSORRT, path)["trt_engine_cache_path"] for path in (first, second)]
        assert options_for(TENSORRT, b"one") == {}
        assert options_for(CPU, first) == {}
        second.write_bytes(b"one")
        assert options_for(TENSORRT, second)["trt_engine_cache_path"] == places[0]
        third = tmp_path / "elsewhere" / "a.onnx"  # perhaps with other weights beside it
        third.parent.mkdir()
        third.write_bytes(b"one")
        assert options_for(TENSORRT, third)["trt_engine_cache_path"] != places[0]
    assert places[0] != places[1]
    assert all(Path(place).parent == tmp_path / "engines" for place in places)
    assert options_for(TENSORRT, first) == {}
