"""A finished run's plan against what a sceptic would try instead, at the same MACs: Torch-Pruning,
a narrower original trained by distillation, and INT8 alone. Same recovery, same export, same
benchmark, one table.

    python tests/bench/versus_alternatives.py CONFIG [--run-dir DIR] [--set KEY=VALUE]... [--epochs
                                              N] [--narrow-epochs N] [--images N] [--out DIR]

CONFIG's run must hold `pretrain/`, `prune/` and `reconstruct/` (`rlp pipeline run CONFIG --until
reconstruct`). Its network is distilled from the reconstructed start, as the pipeline does.
Torch-Pruning cuts the same base by L2 magnitude, uniformly and globally, with its default rounding
and with round_to 8 and 16, each time by the least ratio that leaves no more MACs than ours. Every
network is then distilled by `distill.*` with the same seed, exported, and timed against the same
base (batch 1, 1 thread). The narrower original starts from random weights and is distilled at
`pretrain.lr` for --narrow-epochs: give it the minutes that search and recovery took. INT8 is
onnxruntime's own static quantisation (QDQ, U8S8, per channel, 512 search images) of the uncut base.
The test split is opened last, through onnxruntime.

Rows are kept in DIR (default: the run's .work/versus) as they are finished: typed again, it goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn

from pipeline.cli.running import default_run_dir
from pipeline.config.load import find_config, load_config
from pipeline.config.schema import Config, DistillConfig
from pipeline.data import load_splits, load_test
from pipeline.data.images import balanced_indices
from pipeline.models import build_model, load_model
from pipeline.run import store
from pipeline.training import Recipe, fit
from pipeline.training.machine import all_cores, device_for
from stages.benchmark import Protocol, compare, onnx_accuracy
from stages.distill.engine import recover
from stages.export import export_onnx

ROUNDINGS: tuple[tuple[str, int | None], ...] = (("default", None), ("8", 8), ("16", 16))
INT8, NARROWER = "INT8 alone", "narrower original"
STEPS = 9  # of the bisection of Torch-Pruning's ratio


def macs(model: nn.Module, example: torch.Tensor) -> int:
    """Multiplications of convolutions and linear layers for one image."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        total += output[0].numel() * weight[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        model.eval()(example[:1])
    for hook in hooks:
        hook.remove()
    return total


def torch_pruned(
    base: nn.Module, example: torch.Tensor, limit: int, *, whole: bool, rounding: int | None
) -> nn.Module:
    """Torch-Pruning's largest network of at most `limit` MACs."""
    import torch_pruning as tp

    def cut(ratio: float) -> nn.Module:
        model = copy.deepcopy(base).requires_grad_(True)
        head = [m for m in model.modules() if isinstance(m, nn.Linear)]
        pruner = tp.pruner.MagnitudePruner(
            model,
            example[:1],
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            global_pruning=whole,
            round_to=rounding,
            ignored_layers=head,
        )
        pruner.step()
        return model

    low, high, best = 0.0, 0.98, None
    for _ in range(STEPS):
        ratio = (low + high) / 2
        model = cut(ratio)
        if macs(model, example) <= limit:
            high, best = ratio, model
        else:
            low = ratio
    if best is None:
        raise ValueError("no ratio leaves so few MACs")
    return best


class Table:
    """Rows by name in `rows.json`, networks beside it as ONNX; what is there is not made again."""

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        self.folder, self.path, self.of = folder, folder / "rows.json", of
        folder.mkdir(parents=True, exist_ok=True)
        old = store.read_json(self.path) if self.path.exists() else {}
        self.rows: dict[str, dict[str, Any]] = old.get("rows", {}) if old.get("of") == of else {}

    def fill(self, name: str, key: str, make: Callable[[], dict[str, Any]]) -> None:
        """Add what `make` returns to the row unless it has `key` already; a failure is kept as
        the row's verdict.
        """
        row = self.rows.setdefault(name, {})
        if key in row or "failed" in row:
            return
        start = time.perf_counter()
        try:
            row |= make()
        except Exception as error:  # a library that cannot cut this network is a result too
            if name.startswith("ours") or name == "base":
                raise
            row["failed"] = f"{type(error).__name__}: {error}"
        store.write_json(self.path, {"of": self.of, "rows": self.rows})
        print(f"{name}: {key} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    def onnx(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.onnx"

    def show(self) -> None:
        head = (
            "network",
            "MACs",
            "params",
            "search acc.",
            "test acc.",
            "p50 ms",
            "ratio (95 % CI)",
            "verdict",
        )
        print(" | ".join(head) + "\n" + " | ".join("---" for _ in head))
        for name, row in self.rows.items():
            if "failed" in row:
                print(f"{name} | " + " | ".join([""] * 6) + f" | failed: {row['failed'][:80]}")
                continue
            ratio = (
                ""
                if name == "base"
                else f"{row['ratio']:.2f}× ({row['ci95'][0]:.2f} to {row['ci95'][1]:.2f})"
            )
            numbers = (
                f"{row['macs']:,} | {row['params']:,} | {row['search']:.2%} | {row['test']:.2%}"
            )
            print(f"{name} | {numbers} | {row['p50_ms']:.3f} | {ratio} | {row.get('verdict', '')}")
        controls = [row["aa_ci95"] for row in self.rows.values() if "aa_ci95" in row]
        if controls:
            low, high = min(low for low, _ in controls), max(high for _, high in controls)
            print(f"base against itself, all rows: {low:.2f} to {high:.2f}")


class Contest:
    """The base and what is done with every network cut from it."""

    def __init__(
        self, config: Config, run: Path, images: int | None, narrow_epochs: int, table: Table
    ) -> None:
        self.config, self.run, self.table = config, run, table
        self.narrow_epochs = narrow_epochs
        self.base = load_model(run / "pretrain").eval()
        self.device = device_for(config.device)
        self.splits = load_splits(config.data, seed=config.seed)
        if images:
            some = self.splits.train.subset(
                balanced_indices(self.splits.train.labels, images, config.seed)
            )
            self.splits = dataclasses.replace(self.splits, train=some)
        self.example = self.splits.search.take(2, seed=0)[0].contiguous()
        self.placed = self.splits.to(self.device)

    def recovered(
        self, name: str, cut: Callable[[], nn.Module], section: DistillConfig | None = None
    ) -> dict[str, Any]:
        """Cut, distil, export."""
        student, section = cut().to(self.device), section or self.config.distill

        def train(model: nn.Module, objective: Any, images: Any, epochs: int) -> Any:
            recipe = Recipe.from_config(section, epochs=epochs, lr=section.lr)
            return fit(
                model,
                images,
                self.placed.search,
                recipe,
                seed=self.config.seed,
                objective=objective,
            )

        found = recover(
            student,
            copy.deepcopy(self.base).to(self.device),
            self.placed,
            section,
            seed=self.config.seed,
            train=train,
        )
        return {
            **self.exported(name, student),
            "cut": found.cut,
            "search": found.final,
            "kept": found.kept,
        }

    def exported(self, name: str, model: nn.Module) -> dict[str, Any]:
        report = export_onnx(model.cpu().eval(), self.example, self.table.onnx(name))
        sizes = {
            "macs": macs(model, self.example),
            "params": sum(p.numel() for p in model.parameters()),
        }
        return {"onnx": report.sha256, **sizes}

    def quantised(self, name: str) -> dict[str, Any]:
        """The base in INT8, by onnxruntime alone."""
        from onnxruntime import quantization as ort
        from onnxruntime.quantization.shape_inference import quant_pre_process

        images, _ = self.splits.search.take(512, seed=0)

        class Reader(ort.CalibrationDataReader):
            def __init__(self, key: str) -> None:
                self.feeds = iter([{key: part.numpy()} for part in images.split(64)])

            def get_next(self) -> dict[str, Any] | None:
                return next(self.feeds, None)

        ready, out = self.table.folder / "base-ready.onnx", self.table.onnx(name)
        quant_pre_process(str(self.table.onnx("base")), str(ready))
        key = onnxruntime.InferenceSession(ready, providers=["CPUExecutionProvider"]).get_inputs()
        ort.quantize_static(ready, out, Reader(key[0].name), per_channel=True)
        base = self.table.rows["base"]
        search = onnx_accuracy(out, self.splits.search)
        sizes = {key: base[key] for key in ("macs", "params")}
        return {"onnx": store.sha256_file(out), **sizes, "search": search}

    def narrower(self, name: str) -> dict[str, Any]:
        """The widest original of fewer channels that has no more MACs than ours, distilled."""
        limit, model = macs(load_model(self.run / "prune"), self.example), None
        for percent in range(100, 4, -1):
            torch.manual_seed(self.config.seed)
            kwargs = {**self.config.model.kwargs, "width_mult": percent / 100}
            model = build_model(
                self.config.model.model_copy(update={"kwargs": kwargs}),
                in_channels=self.example.shape[1],
                num_classes=self.splits.train.num_classes,
            )
            if macs(model, self.example) <= limit:
                break
        assert model is not None
        narrow = self.config.distill.model_copy(
            update={"epochs": self.narrow_epochs, "lr": self.config.pretrain.lr}
        )
        return {**self.recovered(name, lambda: model, narrow), "width_mult": percent / 100}

    def timed(self, name: str) -> dict[str, Any]:
        settings = self.config.benchmark
        protocol = Protocol(
            min_seconds=settings.min_seconds, min_runs=settings.min_runs, launches=settings.launches
        )
        found = compare(self.table.onnx("base"), self.table.onnx(name), protocol=protocol)
        numbers = {
            "ratio": found.ratio,
            "ci95": found.ci95,
            "aa_ci95": found.aa_ci95,
            "verdict": found.verdict,
        }
        return {
            "p50_ms": found.b.latency_ms["p50"],
            "base_p50_ms": found.a.latency_ms["p50"],
            **numbers,
        }

    def rows(self) -> dict[str, Callable[[], nn.Module]]:
        """Names and how each network is cut."""
        limit = macs(load_model(self.run / "prune"), self.example)
        found: dict[str, Callable[[], nn.Module]] = {
            "ours": lambda: load_model(self.run / "reconstruct")
        }
        for whole, kind in ((False, "uniform"), (True, "global")):
            for label, rounding in ROUNDINGS:
                found[f"torch-pruning {kind} round_to {label}"] = (
                    lambda whole=whole, rounding=rounding: torch_pruned(
                        self.base, self.example, limit, whole=whole, rounding=rounding
                    )
                )
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--epochs", type=int, help="instead of distill.epochs")
    parser.add_argument("--narrow-epochs", type=int, default=20, help="of the narrower original")
    parser.add_argument(
        "--images", type=int, help="class-balanced draw of so many train images for recovery"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    file = find_config(options.config)
    sets = [*options.set, *([] if options.epochs is None else [f"distill.epochs={options.epochs}"])]
    config, run = load_config(file, sets), options.run_dir or default_run_dir(file)
    files = [
        store.sha256_file(run / stage / "model.safetensors")
        for stage in ("pretrain", "prune", "reconstruct")
    ]
    settings = config.model_dump(mode="json", include={"seed", "data", "distill", "benchmark"})
    table = Table(
        options.out or run / ".work" / "versus",
        {"files": files, "images": options.images, "narrow": options.narrow_epochs, **settings},
    )
    contest = Contest(config, run, options.images, options.narrow_epochs, table)
    rows = contest.rows()
    with all_cores():
        for name, cut in {"base": lambda: contest.base, **rows}.items():
            if name == "base":
                table.fill(name, "onnx", lambda: contest.exported("base", contest.base))
            else:
                table.fill(name, "onnx", lambda name=name, cut=cut: contest.recovered(name, cut))
        table.fill(INT8, "onnx", lambda: contest.quantised(INT8))
        table.fill(NARROWER, "onnx", lambda: contest.narrower(NARROWER))
    others = [*rows, INT8, NARROWER]
    for name in others:
        table.fill(name, "ratio", lambda name=name: contest.timed(name))
    test = load_test(config.data)
    for name in ("base", *others):
        table.fill(name, "test", lambda name=name: {"test": onnx_accuracy(table.onnx(name), test)})
    base = table.rows["base"]
    base["search"] = onnx_accuracy(table.onnx("base"), contest.splits.search)
    base["p50_ms"] = next(row["base_p50_ms"] for row in table.rows.values() if "base_p50_ms" in row)
    table.show()


if __name__ == "__main__":
    main()
