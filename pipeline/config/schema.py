"""Settings of a run: one pydantic model a stage, every field with its sentence, bounds and unit.

A field declared here feeds validation, `--set`, `rlp config show`, the JSON Schema and the docs.
The images' and the search's stand in files of their own; loading is `pipeline/config/load.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.data import DataConfig
from pipeline.config.search import SearchConfig
from pipeline.config.section import Section


class ModelConfig(Section):
    """The network that is to become faster."""

    source: str = Field("mobilenet_v2", min_length=1)
    """Where the architecture comes from: a built-in name, `torchvision:NAME`, `timm:NAME`, or your
    own `package.module:factory` or `path/to/file.py:factory`, beside the config or below here."""
    kwargs: dict[str, Any] = {}  # noqa: RUF012 pydantic copies defaults
    """Keyword arguments for the architecture's factory, such as `width_mult: 0.5`."""
    weights: str | None = None
    """Trained weights (.safetensors or a .pth state dict): a path from the config or from here, or
    a file shipped with rlp; absent: train."""


class AugmentConfig(Section):
    """Random changes of the training images; large, streamed ones take a random resized crop
    when `crop` is not 0.
    """

    crop: int = Field(4, ge=0, le=64)
    """Zero padding in pixels on each side before a random crop back to the image's size; 0:
    none."""
    flip: bool = True
    """Whether half of the images are mirrored left to right; not for digits or text."""
    cutout: int = Field(0, ge=0, le=512)
    """Side in pixels of the square that is blanked in every image; 0: none."""
    mixup: float = Field(0.0, ge=0, le=10)
    """Parameter of Beta(a, a) for blending pairs of images; 0: none."""


class TrainingSection(Section):
    """What pretraining and distillation have in common: SGD with Nesterov momentum 0.9, warmed
    up, annealed to zero.
    """

    batch_size: int = Field(128, ge=2, le=8192)
    """Images a step."""
    weight_decay: float = Field(5e-4, ge=0, le=1)
    """L2 penalty; biases and normalisation parameters are exempt."""
    warmup: float = Field(0.15, ge=0, le=1)
    """Share of all steps in which the learning rate rises linearly to its peak."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls to zero after the warm-up."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay per step of the averaged weights that are scored and kept, such as 0.998; 0: the
    plain weights."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of the training images."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training; auto times both for a second and takes bf16 autocast when it is
    clearly faster."""


class PretrainConfig(TrainingSection):
    """Training of the original network where `model.weights` is not given."""

    epochs: int = Field(30, ge=1, le=2000)
    """Passes over the train split."""
    lr: float = Field(0.1, gt=0, le=10)
    """Peak learning rate."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target spread over the other classes."""
    init: str | None = None
    """Weights to start from, found like `model.weights`, of other classes too; absent: random."""


class TraceConfig(Section):
    """Detection of channel groups."""

    freeze: tuple[str, ...] = ()
    """Shell-style patterns of group ids that must not be pruned, such as `features.0.*`."""
    open_statistics: bool = False
    """Also cut below LayerNorm and GroupNorm(1, …); the statistics of what remains then change."""


class RotateConfig(Section):
    """Principal components for the channels of linear trunks, such as those of inverted residuals:
    the same function, in which the last units matter least.
    """

    images: int = Field(1024, ge=0, le=1_000_000)
    """Images of the train split that the components are of, without labels; 0 leaves the channels
    as they are."""


class PruneConfig(Section):
    """Cutting the channels out, and the proof that cut equals masked."""

    images: int = Field(8, ge=1, le=1024)
    """Real images on which the cut network is compared with the masked one."""
    # far above float64's round-off, far below a wrong channel
    tolerance: float = Field(1e-9, gt=0, le=1e-3)
    """Largest difference allowed in float64, relative to the largest output."""


class ReconstructConfig(Section):
    """New weights by least squares for what the cut has broken; no labels, no training."""

    images: int = Field(2048, ge=0, le=1_000_000)
    """Images of the train split that the layers are fitted on, a quarter of them held out; 0 leaves
    the network as it was cut."""
    memory_mb: int = Field(4096, ge=64, le=1 << 20)
    """Memory it may take, about, in MiB; where the images do not fit, only the first are used."""


class DistillConfig(TrainingSection):
    """Recovery of accuracy: teacher is the original network, student the pruned one."""

    mode: Literal["distill", "finetune", "bn_only"] = "distill"
    """Learn from teacher and labels, from the labels alone, or only fit the batch-norm
    statistics."""
    epochs: Annotated[int, Field(ge=0, le=2000)] | Literal["auto"] = "auto"
    """Passes over the train split; 0 re-estimates the batch-norm statistics only; auto: two for
    every point of search accuracy that is missing, at most 30, and none below a quarter."""
    lr: float = Field(0.05, gt=0, le=10)
    """Peak learning rate."""
    temperature: float = Field(2.0, gt=0, le=100)  # RL-Pruner's, as is `alpha`; arXiv 2411.06463
    """Softening of teacher and student outputs."""
    alpha: float = Field(0.75, ge=0, le=1)
    """Weight of the distillation term; the rest is cross-entropy."""
    weights: str | None = None
    """Weights of the pruned network that you trained elsewhere (.safetensors or a .pth state dict),
    taken as they are in place of all training here; absent: train here."""
    bn_images: int = Field(2048, ge=2, le=1_000_000)
    """Images of the train split on which the batch-norm statistics are re-estimated before
    training."""


class ExportConfig(Section):
    """ONNX files of original and final network, and their parity with PyTorch."""

    opset: int | None = Field(None, ge=13, le=30)
    """ONNX operator-set version; absent: the exporter's recommended one."""
    images: int = Field(256, ge=1, le=100_000)
    """Real images of the search split on which outputs are compared."""
    min_top1_agreement: float = Field(0.99, gt=0, le=1)
    """Share of images on which onnxruntime and PyTorch must name the same class."""
    max_accuracy_drop: float = Field(0.005, ge=0, le=1)
    """How much lower, as a fraction of the images, accuracy may be in onnxruntime than in
    PyTorch."""
    exporter: Literal["auto", "torch.export", "torchscript"] = "auto"
    """Which of PyTorch's exporters; `auto` tries torch.export, and the other one when that
    fails or parity does."""


class QuantizeConfig(Section):
    """INT8 files of original and final network: the scheme that is measured to be fast and accurate
    here, or none, with the reason; and fp16 files for GPUs.
    """

    mode: Literal["auto", "int8", "off"] = "auto"
    """`auto` delivers INT8 where it is measured faster and within `max_accuracy_drop`, and fp32
    otherwise; `int8` fails rather than deliver fp32; `off` makes no INT8 file."""
    max_accuracy_drop: float = Field(0.5, ge=0, le=100)
    """Points of accuracy on the search split that INT8 may cost against the same network in
    fp32."""
    images: int = Field(256, ge=1, le=1_000_000)
    """Images of the train split, without labels, from which the ranges of the activations are
    taken."""
    search_images: int = Field(5000, ge=1, le=1_000_000)
    """Most images of the search split on which INT8 is compared with fp32."""
    min_top1_agreement: float = Field(0.9, ge=0, le=1)
    """Share of those images on which INT8 and fp32 must name the same class."""
    max_output_error: float = Field(0.3, gt=0, le=100)
    """Largest root-mean-square error of the outputs, relative to the spread of the fp32 outputs."""
    qat_epochs: int = Field(0, ge=0, le=2000)
    """Passes over the train split in which an INT8 network learns weights and scales from the
    original network, where it costs more than `max_accuracy_drop` without; batches, augmentation
    and loss are those of `distill`."""
    qat_lr: float = Field(0.002, gt=0, le=10)
    """Peak learning rate of the `qat_epochs`."""
    fp16: Literal["auto", "on", "off"] = "auto"
    """`on` also makes files that compute in fp16, and delivers theirs where it is measured faster
    than fp32 and INT8 and names the same classes; `auto` does where `benchmark.provider` is a
    GPU."""
    fp16_keep: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Types of ONNX nodes that stay float32 in them, besides those without an fp16 kernel and
    those that see values beyond its range."""


class BenchmarkConfig(Section):
    """Interleaved A/B latency in onnxruntime."""

    provider: str = "CPUExecutionProvider"
    """Execution provider that must run every convolution."""
    batches: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = (1, 32)
    """Batch sizes timed; the first is the headline."""
    threads: tuple[Annotated[int, Field(ge=0, le=1024)], ...] = (1, 0)
    """Intra-op threads for each batch size in turn, the last repeated; 0 means all cores."""
    min_seconds: float = Field(2.0, gt=0, le=3600)
    """Least measured time per variant and setting, in seconds."""
    min_runs: int = Field(100, ge=3, le=10_000_000)  # a p90 needs 64, a p99 660
    """Least number of timed inferences per variant and setting."""
    launches: int = Field(4, ge=2, le=100)
    """Fresh processes per variant; their spread is part of the interval."""
    static_batch: bool = False
    """Fix the batch size in the graph before onnxruntime optimises it."""
    allow_fallback: bool = False
    """Go on when the provider leaves convolutions to the CPU, instead of exit 4."""
    profile: bool = True
    """Profile both files node by node and, once on each machine, time convolutions by width, to say
    where the time went."""
    against: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Further ONNX files timed against the original by the same protocol: paths relative to the
    current folder."""


class DeployConfig(Section):
    """The folder to hand over."""

    license: str | None = Field(None, max_length=200)
    """Licence of the network, best as an SPDX identifier such as `mit`: stands in the model card
    and in the ONNX files."""
    data_license: str | None = Field(None, max_length=200)
    """Licence of the images it was trained on: stands in the model card."""


class ReportConfig(Section):
    """The page."""

    title: str | None = None
    """Heading of the page; absent: the run's name."""


class Config(Section):
    """One run of the pipeline."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seeds splits, initialisation, data order and search."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$")
    """What torch computes on: auto, which is the GPU where torch sees one, cpu, cuda, or cuda:1 and
    so on. Any device reads what another wrote. onnxruntime's execution providers are settings of
    their own, such as `benchmark.provider`."""
    rounds: int = Field(1, ge=1, le=20)
    """How often the stages from trace to distill are repeated, the budget shared out geometrically;
    1: all in one cut."""
    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataConfig = DataConfig()
    """The images."""
    pretrain: PretrainConfig = PretrainConfig()
    """Stage pretrain."""
    trace: TraceConfig = TraceConfig()
    """Stage trace."""
    rotate: RotateConfig = RotateConfig()
    """Stage rotate."""
    search: SearchConfig = SearchConfig()
    """Stage search."""
    prune: PruneConfig = PruneConfig()
    """Stage prune."""
    reconstruct: ReconstructConfig = ReconstructConfig()
    """Stage reconstruct."""
    distill: DistillConfig = DistillConfig()
    """Stage distill."""
    export: ExportConfig = ExportConfig()
    """Stage export."""
    quantize: QuantizeConfig = QuantizeConfig()
    """Stage quantize."""
    benchmark: BenchmarkConfig = BenchmarkConfig()
    """Stage benchmark."""
    deploy: DeployConfig = DeployConfig()
    """Stage deploy."""
    report: ReportConfig = ReportConfig()
    """Stage report."""

    @model_validator(mode="after")
    def _one_round_within_a_drop(self) -> Config:
        if self.search.budget.accuracy_drop is not None and self.rounds > 1:
            raise ValueError("search.budget.accuracy_drop is for a single round: give rounds: 1")
        return self

    @model_validator(mode="after")
    def _one_round_of_own_weights(self) -> Config:
        if self.distill.weights is not None and self.rounds > 1:
            raise ValueError("distill.weights fit one cut network: give rounds: 1")
        return self

    @model_validator(mode="after")
    def _int8_is_delivered(self) -> Config:
        if self.search.precision == "int8" and self.quantize.mode == "off":
            raise ValueError("search.precision: int8 is in vain with quantize.mode: off")
        return self
