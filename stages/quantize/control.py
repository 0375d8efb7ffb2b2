"""Accuracy control: biases are corrected, and nodes stay float where INT8 loses too much, or gains
too little.

A unit is a convolution or matrix product with the nodes up to the next one, so that no conversion
falls between a layer and its activation. Every float unit costs conversions at its edges, and a
graph is worth what is measured of it, so each set is timed and scored as the graph it makes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import onnx

from pipeline.words import count_of
from stages.quantize.candidate import Candidate
from stages.quantize.choice import Allowance
from stages.quantize.report import Tried
from stages.quantize.schemes import MULTIPLIES, Scheme
from stages.quantize.workbench import Workbench

BIAS_CORRECTION, EQUALISATION = "bias correction", "equalisation"
WORTHWHILE = 1.3  # times as fast; below it, looking for nodes that are faster in float pays
_SECONDS = 90.0  # for finding out which units lose most
_BLOCKS = 12  # of units, told apart before their units are
_CLOSER = 3  # blocks whose units are told apart
_IMAGES = 64  # the error of outputs, over all classes, varies little between images

Unit = tuple[str, ...]
"""Names of its nodes."""


def equalize(bench: Workbench, scheme: Scheme, calibrate: Callable[[], object]) -> None:
    """Go on with channels of like size where the outputs of `scheme` on a few search images are
    then nearer to those of fp32.

    Args:
        calibrate: the workbench, as it was before.
    """
    equalised = bench.equalize()
    if not equalised:
        return
    bench.tell("equalising channels")
    before, plain = _screened_error(bench, scheme), bench.float_graph
    bench.replace_float_graph(equalised)
    calibrate()
    if _screened_error(bench, scheme) < before:
        bench.steps = (EQUALISATION,)
        return
    bench.replace_float_graph(plain)
    calibrate()


def _screened_error(bench: Workbench, scheme: Scheme) -> float:
    graph = bench.quantize(scheme)
    score = bench.screen(graph.model) if graph else None
    return score.output_error if score else float("inf")


def with_corrected_biases(bench: Workbench, candidate: Candidate, tried: list[Tried]) -> Candidate:
    """The candidate with the mean errors of its channels in its biases, where its outputs on a few
    search images are then nearer to those of fp32; else as it is.
    """
    bench.tell(f"bias correction of {candidate.tried.scheme}")
    graph = bench.correct_biases(candidate.graph)
    score = bench.screen(graph.model) if graph else None
    if graph is None or score is None:
        return candidate
    steps = (*candidate.tried.steps, BIAS_CORRECTION)
    corrected = Candidate(replace(candidate.tried, score=score, steps=steps), graph)
    tried.append(corrected.tried)
    return min((corrected, candidate), key=lambda one: one.score.output_error)


def units_of(model: onnx.ModelProto) -> list[Unit]:
    """The graph's nodes in their order, cut before every convolution and matrix product."""
    found: list[list[str]] = [[]]
    for node in model.graph.node:
        if node.op_type in MULTIPLIES and found[-1]:
            found.append([])
        found[-1].append(node.name)
    return [tuple(unit) for unit in found]


def faster_in_part(bench: Workbench, fastest: Candidate) -> Candidate | None:
    """The sketch of the same scheme with a beginning or an end in float, where that is shown to be
    faster.

    INT8 gains least where maps are large and channels few, at the beginning of a network; and one
    conversion is all that a float beginning costs.
    """
    units = units_of(bench.proto)
    best = _fastest_part(bench, fastest, [_beginning(units, count) for count in (1, 4, 16)])
    if best is None or best.ratio < fastest.ratio:  # no beginning, so hardly its neighbours
        best = _fastest_part(bench, fastest, [_names(units[-1:])])
    else:
        more = [_beginning(units, count) for count in (2, 8)]
        nearby = _fastest_part(bench, fastest, [*more, (*best.tried.exclude, *units[-1])])
        best = max(filter(None, (best, nearby)), key=lambda one: one.ratio)
    if best is None:
        return None
    gain = bench.compare(fastest.graph.model, best.graph.model)  # it is the luckiest of a few
    return best if gain.faster else None


def _beginning(units: Sequence[Unit], count: int) -> Unit:
    """The nodes of the first `count` units; none of a network that is not twice as long."""
    return _names(units[:count]) if 2 * count <= len(units) else ()


def _fastest_part(bench: Workbench, like: Candidate, sets: Sequence[Unit]) -> Candidate | None:
    """The fastest sketch with one of these sets of nodes in float, briefly looked at."""
    made = [(exclude, bench.sketch(like.tried.scheme, exclude)) for exclude in sets if exclude]
    sketches = [(exclude, graph) for exclude, graph in made if graph]
    looks = bench.look([graph.model for _, graph in sketches])
    found = [
        Candidate(Tried(like.tried.scheme, timing, exclude=exclude), graph)
        for (exclude, graph), timing in zip(sketches, looks, strict=True)
        if timing
    ]
    return max(found, key=lambda one: one.ratio, default=None)


def accurate_in_part(
    bench: Workbench, missed: Candidate, allowance: Allowance, tried: list[Tried]
) -> Candidate:
    """The first within the allowance of graphs with growing numbers of units in float.

    Units whose return to float brings the outputs nearest to fp32 go first; every graph is scored
    on all search images and timed with an interval. Where none keeps the allowance, `missed`.
    """
    order = _most_harmful(bench, missed)
    for count in _numbers(len(order)):
        exclude = (*missed.tried.exclude, *_names(order[:count]))
        found = _measured(bench, missed, exclude, tried)
        if found is None:
            continue
        if not allowance.problem(found.score):
            return found
        timing = found.tried.timing
        if timing is not None and timing.ci95 is not None and timing.ci95[1] <= 1:  # slower
            break
    return missed


def _numbers(units: int) -> Iterator[int]:
    count = 1
    while count < units:
        yield count
        count = max(count + 1, round(1.6 * count))


def _measured(
    bench: Workbench, like: Candidate, exclude: Unit, tried: list[Tried]
) -> Candidate | None:
    bench.tell(f"{count_of(len(exclude), 'node')} in float")
    graph = bench.quantize(like.tried.scheme, exclude)
    score = bench.screen(graph.model) if graph else None
    if graph is None or score is None:
        return None
    how = Tried(like.tried.scheme, score=score, exclude=exclude, steps=bench.steps)
    plain = Candidate(how, graph)
    found = with_corrected_biases(bench, plain, [])
    timing, score = bench.time(found.graph.model), bench.score(found.graph.model)
    found = replace(found, tried=replace(found.tried, score=score, timing=timing))
    tried.append(found.tried)
    return found


def _most_harmful(bench: Workbench, missed: Candidate) -> list[Unit]:
    """Units that are in INT8, by what the outputs' squared error loses without them: first in
    blocks of neighbours, then one by one in the worst of these.
    """
    left_out = set(missed.tried.exclude)
    units = [unit for unit in units_of(bench.proto) if not left_out.intersection(unit)]
    size = -(-len(units) // _BLOCKS)
    blocks = [units[at : at + size] for at in range(0, len(units), size)]
    until = time.monotonic() + _SECONDS
    worth = {id(block): _error(bench, missed, _names(block), until) for block in blocks}
    ranked = sorted(blocks, key=lambda block: worth[id(block)])
    rows: list[tuple[float, Unit]] = []
    for place, block in enumerate(ranked):
        for unit in block:
            alone = size > 1 and place < _CLOSER
            error = _error(bench, missed, unit, until) if alone else worth[id(block)]
            rows.append((error, unit))
    return [unit for _, unit in sorted(rows, key=lambda row: row[0])]


def _error(bench: Workbench, missed: Candidate, exclude: Unit, until: float) -> float:
    """Of the outputs with these nodes in float too; infinite where that cannot be told."""
    if time.monotonic() > until:
        return float("inf")
    bench.tell("which nodes lose most")
    graph = bench.quantize(missed.tried.scheme, (*missed.tried.exclude, *exclude))
    graph = bench.correct_biases(graph, _IMAGES // 8) if graph else None
    score = bench.screen(graph.model, _IMAGES) if graph else None
    return score.output_error if score else float("inf")


def _names(units: Sequence[Unit]) -> Unit:
    return tuple(name for unit in units for name in unit)
