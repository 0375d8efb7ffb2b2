"""The names of execution providers, and what to install for one."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.runtime import find_provider, missing_provider


def test_provider_names() -> None:
    missing = missing_provider("openvino", ["CPUExecutionProvider"])
    assert "pip install onnxruntime-openvino" in missing.hint
    with pytest.raises(UsageError, match="cdua"):
        find_provider("cdua")
