"""onnxruntime, opened in child processes: sessions, providers, inference.

This side imports neither torch nor onnxruntime.
"""

from __future__ import annotations

from pipeline.runtime.providers import CPU, PROVIDERS, Provider, find_provider, missing_provider
from pipeline.runtime.worker import Worker, require_provider

__all__ = [
    "CPU",
    "PROVIDERS",
    "Provider",
    "Worker",
    "find_provider",
    "missing_provider",
    "require_provider",
]
