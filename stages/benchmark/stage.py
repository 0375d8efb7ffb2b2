"""The benchmark stage: every variant timed in turn, and scored on the test split."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipeline.claims import busy_clause, chance_sentence
from pipeline.data.images import Images
from pipeline.data.load import load_test
from pipeline.errors import ArtifactError, Command, EnvironmentProblem, Hint, Key, UsageError
from pipeline.models.files import read_model_file
from pipeline.paired import near_chance
from pipeline.run.stage import StageContext
from pipeline.run.store import sha256_file
from pipeline.run.variants import FP16, FP32, INT8, PRECISIONS
from pipeline.runtime.providers import CPU, find_provider
from pipeline.runtime.worker import Worker
from stages.benchmark.accuracy import Named, accuracy_change, onnx_named
from stages.benchmark.alignment_cache import cached_alignment
from stages.benchmark.comparison import Comparison, TimedFiles, time_files
from stages.benchmark.equal_work import first_call
from stages.benchmark.explain import explain_pairs
from stages.benchmark.fingerprint import fingerprint
from stages.benchmark.intervals import FASTER, SLOWER
from stages.benchmark.per_class import class_counts
from stages.benchmark.placement import check_placement
from stages.benchmark.protocol import Protocol, Setting
from stages.benchmark.variants import VariantFile, delivered, remarks, variant_rows, without_pruning

# kind of the fp32 file of each network; those of the others are called after it
_KINDS = {"base": "base_onnx", "final": "onnx"}


def external(config: Any) -> dict[str, str]:
    """sha256 of every file of `benchmark.against`. Raises ArtifactError for a missing one."""
    found = {}
    for name in config.benchmark.against:
        try:
            found[f"benchmark.against {name}"] = sha256_file(Path(name))
        except ArtifactError as error:
            hint = Hint(Key("benchmark.against"), " names it; relative to here")
            raise ArtifactError(error.message, hint=hint) from None
    return found


def run(ctx: StageContext) -> dict[str, Any]:
    """Time every variant against the original, all in the same rounds, and score each on test.

    Reads the ONNX files of export and quantize, their parity and both models; which variant is
    delivered was decided by the quantize stage, never here. Writes `benchmark.json`: settings (the
    delivered file against the original, a `Comparison` each), cost and accuracy of both, all
    variants and the files of `benchmark.against` likewise, what INT8 or fp16 alone would have
    given, and, with `benchmark.profile`, why there is no gain and which channel multiple pays here.

    Returns:
        verdict, speedup and intervals of the first setting, and both accuracies.
    Raises:
        ArtifactError: a file is not the one whose parity was checked, or cannot be run.
        EnvironmentProblem: the provider is absent, or leaves heavy nodes to the CPU.
        Interrupted: a stop was asked for; timings are not resumed but taken again.
    """
    quantization = ctx.read("quantization")
    variants = _variants(ctx, quantization)
    chosen = delivered(variants, quantization)
    further = [path for name in ctx.config.benchmark.against if _fits(ctx, path := Path(name))]
    timed = _time(ctx, [*(variant.path for variant in variants), *further])
    images = load_test(ctx.config.data)  # the first and only stage that reads them
    with Worker() as worker:
        named = [_named_by(ctx, variant.path, images, worker) for variant in variants]
    comparisons = timed.between(0, chosen)
    rows = variant_rows(variants, timed, named, chosen)
    names = [variant.name for variant in variants]
    alone = {}
    for precision in (INT8, FP16):
        if (name := f"base_{precision}") in names:
            number = names.index(name)
            direct = timed.between(number, chosen)[0]
            alone[precision] = without_pruning(direct, named[number], named[chosen])
    classes = getattr(ctx.data_card, "num_classes", 1)
    guessing = near_chance(rows[0]["accuracy"], len(images), classes)
    document: dict[str, Any] = {
        "settings": _rows(comparisons),
        "data": {"label": getattr(ctx.data_card, "label", ""), "test_images": len(images)},
        "base": {**_side(ctx, "base", rows[0]), "near_chance": guessing},
        "final": _side(ctx, "final", rows[chosen]),
        "variants": [{**row, "settings": _named(row["settings"])} for row in rows],
        "classes": class_counts(named[0], named[chosen], images.num_classes),
        "int8_alone": alone.get(INT8),
        "fp16_alone": alone.get(FP16),
        "remarks": [
            *([chance_sentence("the original", rows[0]["accuracy"], classes)] if guessing else []),
            *remarks(alone, quantization),
        ],
        "against": [
            _further(ctx, path, images, timed, number, named[0])
            for number, path in enumerate(further, start=len(variants))
        ],
    }
    if ctx.config.benchmark.profile:
        document |= _why(variants, timed, chosen)
        document["alignment"] = _alignment(ctx)
    document["machine"] = fingerprint()
    ctx.write("benchmark", document)
    _warn(ctx, document)
    return _summary(document)


def _variants(ctx: StageContext, quantization: dict[str, Any]) -> list[VariantFile]:
    """Those that there are, the original first."""
    parity, found = ctx.read("parity"), []
    for network, facts in (("base", quantization["base"]), ("final", quantization)):
        kind = _KINDS[network]
        found.append(VariantFile(network, FP32, ctx.input(kind), parity[network]["sha256"]))
        for precision, made in ((INT8, facts), (FP16, facts.get("fp16") or {})):
            if (path := ctx.optional(f"{kind}_{precision}")) is not None:
                found.append(VariantFile(network, precision, path, made["file"]["sha256"]))
    for variant in found:
        variant.require_checked()
    final = ("final", quantization["chosen"])
    return [
        variant
        for variant in found
        if variant.precision == FP32
        or (variant.network, variant.precision) == final
        or _runs_there(ctx, variant.path)
    ]


def _runs_there(ctx: StageContext, path: Path) -> bool:
    """Whether the provider takes a file that is not delivered; a note where it does not."""
    settings = ctx.config.benchmark
    if find_provider(settings.provider).name == CPU:
        return True
    try:
        check_placement(path, settings.provider, settings.allow_fallback, _input_shape(ctx))
    except EnvironmentProblem as error:
        ctx.note(f"not timed: {error.message}")
        return False
    return True


def _fits(ctx: StageContext, path: Path) -> bool:
    """Whether a file of `benchmark.against` takes the batches that are timed."""
    try:
        for setting in setting_list(ctx.config.benchmark):
            first_call(path, setting, _input_shape(ctx))
    except UsageError as error:
        ctx.warn(f"not timed: {error.message}")
        return False
    return True


def _time(ctx: StageContext, files: list[Path]) -> TimedFiles:
    """All files at every setting; settings after the first get half of the time."""
    settings, begin = ctx.config.benchmark, time.monotonic()

    def progress(done: int, total: int) -> None:
        if ctx.stopping():
            raise ctx.interrupted()
        left = (time.monotonic() - begin) / done * (total - done)
        ctx.progress(done, total, files=len(files), eta_s=left)

    return time_files(
        files,
        setting_list(settings),
        protocol=Protocol(
            min_seconds=settings.min_seconds,
            min_runs=settings.min_runs,
            launches=settings.launches,
            further=0.5,
        ),
        input_shape=_input_shape(ctx),
        allow_fallback=settings.allow_fallback,
        progress=progress,
    )


def _named_by(ctx: StageContext, path: Path, images: Images, worker: Worker | None = None) -> Named:
    if ctx.stopping():
        raise ctx.interrupted()
    return onnx_named(path, images, provider=ctx.config.benchmark.provider, worker=worker)


def _side(ctx: StageContext, network: str, row: dict[str, Any]) -> dict[str, Any]:
    """What was paid and what was bought: accuracy, costs and latency of one file."""
    model = read_model_file(ctx.input(f"{network}_model"))
    keys = ("accuracy", "macs", "bytes", "sha256", "latency_ms", "precision")
    return {"params": model.weights.parameters, **{key: row[key] for key in keys}}


def _further(
    ctx: StageContext,
    path: Path,
    images: Images,
    timed: TimedFiles,
    number: int,
    original: Named,
) -> dict[str, Any]:
    """A file of `benchmark.against`, timed in the same rounds; scored where it takes our images."""
    found = timed.between(0, number)
    accuracy = change = None
    try:
        named = _named_by(ctx, path, images)
        accuracy, change = named.accuracy, accuracy_change(original, named)
    except ArtifactError as error:
        # another network may want another size, and is timed all the same
        ctx.note(f"{path.name} was timed but not scored: {error.message}")
    first = found[0]
    low, high = first.ci95
    interval = f"ratio {first.ratio:.2f} ({low:.2f} to {high:.2f})"
    ctx.note(f"{path.name} against the base: {first.verdict}, {interval}")
    facts = {"sha256": first.b.sha256, "bytes": first.b.bytes, "macs": timed.facts[number]["macs"]}
    scored = {"accuracy": accuracy, "accuracy_change": change}
    return {"file": path.name, **facts, **scored, "settings": _rows(found)}


def _why(variants: list[VariantFile], timed: TimedFiles, chosen: int) -> dict[str, Any]:
    """Where the time of the delivered file goes, and why INT8 or fp16 gains nothing where it does
    not.
    """
    paths = {variant.name: variant.path for variant in variants}
    numbers = {variant.name: number for number, variant in enumerate(variants)}
    pairs = {"why": (variants[0].path, variants[chosen].path)}
    for precision in (INT8, FP16):
        if (name := f"final_{precision}") in paths:
            direct = timed.between(numbers["final"], numbers[name])[0]
            if direct.verdict != FASTER:
                pairs[f"why_{precision}"] = (paths["final"], paths[name])
    found = explain_pairs(pairs, timed.between(0, chosen)[0])
    return {name: explanation.to_dict() for name, explanation in found.items()}


def _alignment(ctx: StageContext) -> dict[str, Any] | None:
    """Which channel multiple pays here; None, with a note, where it could not be measured."""

    def progress(done: int, total: int) -> None:
        if ctx.stopping():
            raise ctx.interrupted()
        ctx.progress(done, total, what="convolutions timed by width")

    try:
        found, _ = cached_alignment(provider=ctx.config.benchmark.provider, progress=progress)
    except (ArtifactError, EnvironmentProblem) as error:
        ctx.note(f"the alignment of this machine could not be measured: {error.message}")
        return None
    return found.to_dict()


def setting_list(settings: Any) -> list[Setting]:
    """Batches paired with threads; the last number of threads serves all further batches."""
    threads = list(settings.threads) or [1]
    threads += [threads[-1]] * (len(settings.batches) - len(threads))
    return [
        Setting(settings.provider, batch, count, settings.static_batch)
        for batch, count in zip(settings.batches, threads, strict=False)
    ]


def _input_shape(ctx: StageContext) -> list[int] | None:
    shape = getattr(ctx.data_card, "image_shape", None)
    return list(shape) if shape else None


def _rows(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """Comparisons as JSON, files by name: the folder they were in says nothing to a reader."""
    return _named([comparison.to_dict() for comparison in comparisons])


def _named(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        for side in ("a", "b"):
            row[side]["file"] = Path(row[side]["file"]).name
    return rows


def _warn(ctx: StageContext, document: dict[str, Any]) -> None:
    """Say where there is no speedup, and why, and which files have denormal weights."""
    first = document["settings"][0]
    if first["doubts"]:
        again = Command("stage", "benchmark", "--run", str(ctx.run), "--force")
        ctx.warn(f"{first['verdict']}{busy_clause(first['doubts'], again)}")
    if first["verdict"] != FASTER:
        slower = first["verdict"] == SLOWER
        ctx.warn("slower than the base" if slower else "no speedup could be shown")
        for cause in document.get("why", {}).get("causes", []):
            ctx.note(cause)
    for remark in document["remarks"]:
        ctx.note(remark)
    for precision in (INT8, FP16):
        for cause in document.get(f"why_{precision}", {}).get("causes", []):
            ctx.note(f"{PRECISIONS[precision]}: {cause}")
    for row in [first, *(row["settings"][0] for row in document["against"])]:
        for side in ("a", "b"):
            count = row[side]["denormal_weights"]
            if not row["flushed"] or not count:
                continue
            times = row[side]["latency_ms"]["p50"], row["flushed"][f"{side}_p50_ms"]
            said = "{:.3f} ms as it is, {:.3f} ms flushed".format(*times)
            ctx.warn(f"{row[side]['file']} has {count:,} denormal weights: {said}")


def _summary(document: dict[str, Any]) -> dict[str, Any]:
    first = document["settings"][0]
    return {
        "verdict": first["verdict"],
        "speedup": first["ratio"],
        "ci95": first["ci95"],
        "aa_ci95": first["aa_ci95"],
        "base_accuracy": document["base"]["accuracy"],
        "final_accuracy": document["final"]["accuracy"],
        "precision": document["final"]["precision"],
    }
