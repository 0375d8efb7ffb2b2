"""The names of execution providers, and what to install for one."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.runtime import find_provider, missing_provider


def test_provider_names() -> None:
    assert find_provider("CUDA").name == "CUDAExecutionProvider"
    assert find_provider("CPUExecutionProvider").short == "cpu"
    assert "rlp-cnn[openvino]" in missing_provider("openvino", ["CPUExecutionProvider"]).hint
    with pytest.raises(UsageError, match="cdua"):
        find_provider("cdua")
