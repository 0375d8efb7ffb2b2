"""At what a file is timed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runtime.providers import CPU


@dataclass(frozen=True)
class Setting:
    """What is timed.

    Attributes:
        provider: execution provider, short or long name.
        batch: images a call.
        threads: intra-op threads; 0: all cores that this process may use.
        static_batch: whether the batch is fixed in the graph before it is optimised.
    """

    provider: str = CPU
    batch: int = 1
    threads: int = 1
    static_batch: bool = False
