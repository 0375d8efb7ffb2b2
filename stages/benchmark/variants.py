"""The variants of a run: original and final network, in fp32 and, where made, INT8 and fp16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.claims import change_text
from pipeline.errors import ArtifactError, Hint
from pipeline.run.store import sha256_file
from pipeline.run.variants import FP16, FP32, INT8, PRECISIONS
from stages.benchmark.accuracy import Named, accuracy_change
from stages.benchmark.comparison import Comparison, TimedFiles
from stages.benchmark.intervals import FASTER, NO_DIFFERENCE, SLOWER, quantiles


@dataclass(frozen=True)
class VariantFile:
    """One of base, base_int8, base_fp16, final, final_int8 and final_fp16.

    Attributes:
        network: "base" or "final": whose weights it holds.
        precision: "fp32", "int8" or "fp16".
        checked: sha256 of the file whose parity was checked.
    """

    network: str
    precision: str
    path: Path
    checked: str

    @property
    def name(self) -> str:
        """As `summary.json` names it."""
        return self.network if self.precision == FP32 else f"{self.network}_{self.precision}"

    def require_checked(self) -> None:
        """Raise ArtifactError where the file is not the one whose parity was checked."""
        if sha256_file(self.path) != self.checked:
            maker = "export" if self.precision == FP32 else "quantize"
            raise ArtifactError(
                f"{self.path}: not the file whose parity was checked", hint=Hint.rerun(maker)
            )


def delivered(variants: Sequence[VariantFile], quantization: Mapping[str, Any]) -> int:
    """The number of the variant that is delivered, as the quantize stage decided.

    Raises:
        ArtifactError: it decided for a file that it did not make.
    """
    precision = quantization["chosen"]
    for number, variant in enumerate(variants):
        if (variant.network, variant.precision) == ("final", precision):
            return number
    raise ArtifactError(
        f"quantize.json delivers {precision}, and there is no such file",
        hint=Hint.rerun("quantize"),
    )


def variant_rows(
    variants: Sequence[VariantFile],
    timed: TimedFiles,
    named: Sequence[Named],
    chosen: int,
) -> list[dict[str, Any]]:
    """Rows of `variants`: what each costs and how fast it is against the first, at every setting.

    The first is the original in fp32, and 1 by definition.

    Args:
        named: what each says of the test images.
    """
    rows = []
    for number, variant in enumerate(variants):
        compared = timed.between(0, number)
        first = compared[0]
        rows.append(
            {
                "name": variant.name,
                "precision": variant.precision,
                "file": variant.path.name,
                "sha256": first.b.sha256,
                "bytes": first.b.bytes,
                "macs": timed.facts[number]["macs"],
                "accuracy": named[number].accuracy,
                "accuracy_change": accuracy_change(named[0], named[number]) if number else None,
                "latency_ms": first.b.latency_ms,
                "quantiles_ms": quantiles(timed.samples[0].calls[number]),
                "memory_bytes": timed.samples[0].memory(number),
                "ratio": first.ratio if number else 1.0,
                "ci95": list(first.ci95) if number else [1.0, 1.0],
                "verdict": first.verdict if number else NO_DIFFERENCE,
                "chosen": number == chosen,
                "settings": [row.to_dict() for row in compared] if number else [],
            }
        )
    return rows


def without_pruning(row: Comparison, alone: Named, chosen: Named) -> dict[str, Any]:
    """What the chosen file buys over the original in INT8 or fp16 alone.

    Args:
        row: the chosen file against the original in that precision.
        alone, chosen: what they say of the test images.
    """
    change = accuracy_change(alone, chosen)
    return {
        "ratio": row.ratio,
        "ci95": list(row.ci95),
        "verdict": row.verdict,
        "points": change["points"],
        "accuracy_change": change,
        "better": row.verdict == SLOWER and change["points"] <= 0,
    }


def remarks(alone: Mapping[str, Mapping[str, Any]], quantization: Mapping[str, Any]) -> list[str]:
    """What a user should know before taking the delivered file.

    Args:
        alone: by precision, what the file buys over the original in it.
    """
    half = quantization.get("fp16")
    if quantization["mode"] == "off" and not half:
        return []
    found = []
    if quantization["chosen"] == FP32:
        found.append(f"fp32 is delivered: {quantization['reason']}")
    if INT8 not in alone and quantization["mode"] != "off":
        found.append(f"INT8 alone is not in the table: {quantization['base']['reason']}")
    if FP16 not in alone and half:
        found.append(f"fp16 alone is not in the table: {quantization['base']['fp16']['reason']}")
    return found + [text for key, row in alone.items() if (text := _over(PRECISIONS[key], row))]


def _over(precision: str, alone: Mapping[str, Any]) -> str:
    """A sentence where pruning gains nothing over this precision alone; else empty."""
    if alone["better"]:
        low, high = sorted(1 / edge for edge in alone["ci95"])
        return (
            f"{precision} alone is better here: the original in {precision} is "
            f"{1 / alone['ratio']:.2f}× ({low:.2f} to {high:.2f}) as fast as the delivered file "
            f"at no less accuracy ({abs(alone['points']):+.2f} points)"
        )
    if alone["verdict"] != FASTER:
        return (
            f"no gain over {precision} alone shown: {alone['ratio']:.2f}× "
            f"({alone['ci95'][0]:.2f} to {alone['ci95'][1]:.2f}) as fast, "
            f"{change_text(alone.get('accuracy_change'), alone['points'])} in accuracy"
        )
    return ""
