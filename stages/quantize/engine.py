"""From a float ONNX file to an INT8 one: schemes by their time, calibrators by their error.

Not every combination is tried. The time of a graph depends on its types and not on its numbers, so
each scheme is timed as a sketch that takes no calibration. On the fastest, calibrators are told
apart by the error of the outputs on a few images. The best is scored on all of them; where it
misses the allowance, the next scheme that is faster than fp32 is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import Hint, Key, Refused, Set
from pipeline.run.store import write_bytes
from pipeline.run.variants import FP32, INT8
from pipeline.runtime.quantizer import QuantizedGraph
from pipeline.system import int8_features
from stages.benchmark.protocol import Protocol, Setting
from stages.export import check_file
from stages.quantize.candidate import Candidate
from stages.quantize.choice import AUTO, Allowance, choose
from stages.quantize.control import (
    WORTHWHILE,
    accurate_in_part,
    equalize,
    faster_in_part,
    with_corrected_biases,
)
from stages.quantize.images import Batches, Unlabelled
from stages.quantize.operators import Unsupported
from stages.quantize.report import QuantizeReport, Tried
from stages.quantize.retraining import Start, Train, retrained
from stages.quantize.schemes import CALIBRATORS, SCHEMES, Scheme, fastest_first
from stages.quantize.workbench import Progress, Workbench

# takes longer than all the others, and is tried, with one scale a weight, where they do not do
_LAST = "entropy"


def quantize_onnx(
    path: Path | str,
    out: Path | str,
    calibration: Batches,
    search: Batches | None = None,
    *,
    mode: str = AUTO,
    allowance: Allowance | None = None,
    images: int = 256,
    search_images: int = 5000,
    setting: Setting | None = None,
    protocol: Protocol | None = None,
    train: Train | None = None,
    start: Start | None = None,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Write the INT8 form of `path` that is fastest here within the allowance to `out`.

    `out` is written whenever there is an INT8 graph, also where fp32 is chosen: the report says
    which one to deliver. `path` is opened in child processes and never changed.

    Args:
        calibration: images whose activations give the ranges; labels are not read.
        search: labelled images that choices are made on; None: `calibration`, without its labels,
            by agreement with fp32.
        mode: "auto" or "int8"; the latter raises where INT8 misses the allowance.
        images, search_images: most that are used of each.
        setting: provider, batch and threads timed; one image on one thread of the CPU where None.
        protocol: how long it is timed where it is close; the benchmark's where None.
        train: trains the network where INT8 could not be delivered otherwise; None: nobody does.
        start: what `train` was given before it was interrupted: it is asked again, at once.
        progress: told what begins.
    Raises:
        Refused: `mode` is "int8" and INT8 misses the allowance.
        ArtifactError: `path` is no float32 ONNX classifier or quantised already; or no images.
        EnvironmentProblem: `out` cannot be written.
    """
    path, out, allowance = Path(path), Path(out), allowance or Allowance()
    search = search or Unlabelled(calibration)
    with Workbench(path, setting, protocol, progress or (lambda what: None)) as bench:
        if start is not None:
            bench.score_on(search, search_images)
            found = _Found(start.best, list(start.tried))
        else:
            found = _without_training(bench, calibration, images, search, search_images, allowance)
            start = found.start(bench) if found.wants_training(allowance) else None
        untrained = _train(bench, found, start, train, allowance)
        if found.best is None:
            why = f"INT8 could not be made of it: {bench.refusals[-1]}"
            report = _none(bench, found.tried, why)
            return report if mode == AUTO else _insist(report)
        report = _report(bench, mode, allowance, found.best, found.tried)
        report = replace(report, reason=report.reason + untrained)
        if start is not None:
            report = replace(report, calibration=start.calibration)
        if mode == INT8 and report.chosen == FP32:
            _insist(report)
        return replace(report, file=_written(out, found.best.graph.model, bench.opset))


@dataclass
class _Found:
    """What was found without training.

    Attributes:
        best: None where no INT8 graph runs.
        plain: of the fastest scheme, with all nodes in INT8 that can be; None where even that is
            slower than fp32.
    """

    best: Candidate | None
    tried: list[Tried]
    plain: Candidate | None = None

    def wants_training(self, allowance: Allowance) -> bool:
        """Whether the best cannot be delivered, and a faster one might learn to keep to it."""
        if self.plain is None or self.best is None:
            return self.plain is not None
        timing = self.best.tried.timing
        slow = timing is not None and timing.ci95 is not None and not timing.faster
        return slow or bool(allowance.problem(self.best.score))

    def start(self, bench: Workbench) -> Start:
        assert self.plain is not None
        assert self.best is not None
        assert bench.calibration is not None
        facts = tuple(self.tried), bench.calibration.to_dict()
        return Start(bench.float_graph, self.plain, self.best, *facts)


def _without_training(
    bench: Workbench,
    calibration: Batches,
    images: int,
    search: Batches,
    search_images: int,
    allowance: Allowance,
) -> _Found:
    speeds = speeds_of_schemes(bench, SCHEMES)
    if not speeds:
        return _Found(None, [])
    speeds = _with_part(bench, speeds)
    tensors = sorted({name for one in speeds for name in one.graph.tensors})
    bench.score_on(search, search_images)
    calibrate = partial(bench.calibrate, tensors, calibration, images)
    calibrate()
    equalize(bench, _with_enough_range(bench, speeds[0].tried.scheme), calibrate)
    found = _Found(None, [one.tried for one in speeds])
    _find_best(bench, speeds, allowance, found)
    return found


def _train(
    bench: Workbench,
    found: _Found,
    start: Start | None,
    train: Train | None,
    allowance: Allowance,
) -> str:
    """Let the best be what training makes of `start`; what the report says where it cannot be."""
    if train is None or start is None:
        return ""
    try:
        found.best = retrained(bench, start, train, allowance)
    except Unsupported as refusal:
        return f"; {refusal}"
    return ""


def speeds_of_schemes(bench: Workbench, schemes: Sequence[Scheme]) -> list[Candidate]:
    """Sketches of the schemes that onnxruntime can make, timed briefly, fastest first."""
    bench.tell("timing the schemes")
    sketches: dict[bytes, tuple[Scheme, QuantizedGraph]] = {}
    for scheme in schemes:
        graph = bench.sketch(scheme)
        if graph is not None:
            sketches.setdefault(graph.model, (scheme, graph))  # two schemes may mean the same graph
    timings = bench.look([graph.model for _, graph in sketches.values()])
    found = [
        Candidate(Tried(scheme, timing), graph)
        for (scheme, graph), timing in zip(sketches.values(), timings, strict=True)
        if timing is not None
    ]
    return fastest_first(found, lambda one: one.ratio)


def _with_part(bench: Workbench, speeds: list[Candidate]) -> list[Candidate]:
    """The speeds, and before them a graph that is partly float where that is faster."""
    if speeds[0].ratio >= WORTHWHILE:
        return speeds
    bench.tell("looking for nodes that are faster in float")
    part = faster_in_part(bench, speeds[0])
    return [part, *speeds] if part else speeds


def _find_best(
    bench: Workbench, speeds: Sequence[Candidate], allowance: Allowance, so_far: _Found
) -> None:
    """Set the first scheme in order of speed whose best calibrator keeps the allowance; where none
    does, with some of its nodes in float; and where none does, the one that loses least.
    """
    missed: list[Candidate] = []
    for speed in speeds:
        if missed and speed.ratio <= 1:  # as slow as fp32, which loses nothing
            break
        found = _calibrated(bench, speed.tried, allowance, so_far.tried)
        if found is not None and allowance.problem(found.score) and speed.ratio > 1:
            so_far.plain = so_far.plain or found
            found = accurate_in_part(bench, found, allowance, so_far.tried)
        if found is None:
            continue
        missed.append(found)
        if not allowance.problem(found.score):
            so_far.best = found
            return
    so_far.best = min(missed, key=lambda one: one.score.drop, default=None)


def _calibrated(
    bench: Workbench, sketch: Tried, allowance: Allowance, tried: list[Tried]
) -> Candidate | None:
    """The scheme with the calibrator of the smallest error, scored on all images."""
    scheme = _with_enough_range(bench, sketch.scheme)
    quick = [one.name for one in CALIBRATORS if one.name != _LAST]
    variants = [replace(scheme, calibrator=name) for name in quick]
    best = _least_error(bench, variants, sketch.exclude, tried)
    if best is None or not allowance.problem(best.score):
        return best
    rest = [replace(scheme, calibrator=_LAST), replace(scheme, per_channel=False)]
    again = _least_error(bench, rest, sketch.exclude, tried)
    return min((best, again or best), key=lambda one: one.score.drop)


def _with_enough_range(bench: Workbench, scheme: Scheme) -> Scheme:
    return replace(scheme, reduce_range=bench.saturates(scheme))


def _least_error(
    bench: Workbench, variants: Sequence[Scheme], exclude: tuple[str, ...], tried: list[Tried]
) -> Candidate | None:
    """The variant whose outputs are nearest to those of fp32 on a few images, scored on all."""
    screened = [found for scheme in variants if (found := _screened(bench, scheme, exclude))]
    tried += [one.tried for one in screened]
    if not screened:
        return None
    best = min(screened, key=lambda one: one.score.output_error)
    best = with_corrected_biases(bench, best, tried)
    bench.tell(f"scoring {best.tried.scheme}")
    return replace(best, tried=replace(best.tried, score=bench.score(best.graph.model)))


def _screened(bench: Workbench, scheme: Scheme, exclude: tuple[str, ...]) -> Candidate | None:
    bench.tell(f"trying {scheme}")
    graph = bench.quantize(scheme, exclude)
    score = bench.screen(graph.model) if graph else None
    if graph is None or score is None:
        return None
    return Candidate(Tried(scheme, score=score, exclude=exclude, steps=bench.steps), graph)


def _report(
    bench: Workbench, mode: str, allowance: Allowance, best: Candidate, tried: Sequence[Tried]
) -> QuantizeReport:
    """The best candidate timed with an interval, and what follows."""
    bench.tell(f"timing {best.tried.scheme}")
    timing = bench.time(best.graph.model)
    chosen, reason = choose(mode, best.score, timing, allowance)
    final = replace(best.tried, timing=timing)
    return QuantizeReport(
        chosen=chosen,
        reason=reason,
        best=final,
        float_nodes=best.graph.float_nodes,
        tried=(*tried, final),
        **_facts(bench),
    )


def _written(out: Path, model: bytes, opset: int) -> dict[str, Any]:
    """Write the INT8 file; what the report says of it."""
    digest = write_bytes(out, model, check=partial(check_file, label=str(out)))
    return {"name": out.name, "sha256": digest, "bytes": len(model), "opset": opset}


def _none(bench: Workbench, tried: Sequence[Tried], reason: str) -> QuantizeReport:
    """There is no INT8 graph."""
    return QuantizeReport(chosen=FP32, reason=reason, tried=tuple(tried), **_facts(bench))


def _facts(bench: Workbench) -> dict[str, Any]:
    saturating = dict.fromkeys(scheme.name for scheme in SCHEMES if bench.saturates(scheme))
    return {
        "calibration": bench.calibration.to_dict() if bench.calibration else {},
        "machine": {"features": int8_features(), "saturates": list(saturating)},
        "seconds": dict(bench.seconds),
    }


def _insist(report: QuantizeReport) -> QuantizeReport:
    """Raise Refused: INT8 was asked for and cannot be delivered."""
    raise Refused(
        report.reason,
        hint=Hint(
            "allow more with ",
            Key("quantize.max_accuracy_drop"),
            ", or deliver fp32 where INT8 does not pay: ",
            Set("quantize.mode", AUTO),
        ),
    )
