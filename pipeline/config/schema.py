"""Settings of a run: one pydantic model a stage, every field with its sentence, bounds and unit.

A field declared here feeds validation, `--set`, `rlp config show`, the JSON Schema and the docs.
Loading and its messages live in `pipeline/config/load.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: unknown keys, NaN and `true` for a number are errors."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelConfig(Section):
    """The network that is to become faster."""

    source: str = Field("mobilenet_v2", min_length=1)
    """Where the architecture comes from: a built-in name, `torchvision:NAME`, or your own
    `package.module:factory`."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments for the architecture's factory, such as `width_mult: 0.5`."""
    weights: str | None = None
    """Trained weights (.safetensors or a .pth state dict): a path, or a file shipped with rlp;
    absent: train."""


class DataConfig(Section):
    """The images, in three splits: train (weights), search (every choice), test (benchmark and
    report only).
    """

    source: str = Field("auto", min_length=1)
    """Kind of data: `auto` recognises what lies in `root`; `embedded` needs no files; see `rlp
    data ls`."""
    root: str | None = None
    """Folder that holds the images, relative to the current folder."""
    label: str | None = None
    """Name of the data printed beside every number; derived from the files when absent."""
    search_fraction: Fraction = 0.1
    """Share of the training images held out as the search split, stratified by class and seeded."""
    image_size: int | None = Field(None, ge=8, le=1024)
    """Height and width in pixels that images are resized to; absent: as they are (all must then
    have one size)."""
    max_corrupt: float = Field(0.01, ge=0, lt=1)
    """Share of unreadable images above which the run stops; below it they are skipped and
    counted."""
    workers: int = Field(2, ge=0, le=64)
    """Loader processes for data sets too large to be held decoded in memory."""
    download: bool = True
    """Whether a missing public data set may be downloaded."""
    in_memory_mb: int = Field(2048, ge=0)
    """Decoded size in MB up to which images of at most 96×96 pixels are kept as one tensor;
    others stream from disk."""
    cache: bool = True
    """Whether decoded images are kept in the user's cache folder, to start faster next time."""
    train_limit: int | None = Field(None, ge=20)
    """Most images used for train and search together, a fixed class-balanced draw; absent: all."""
    test_limit: int | None = Field(None, ge=10)
    """Most test images used, a fixed class-balanced draw; absent: all."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean of pixels scaled to 0 … 1 that the weights were trained with; absent:
    that of the data."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation that goes with `mean`; absent: that of the data."""


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
    """Side in pixels of one square an image that is blanked; 0: none."""
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
    """Decay a step of the averaged weights that are scored and kept, such as 0.998; 0: the
    plain weights."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of the training images."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training; auto times both for a second and takes bf16 autocast when it is
    clearly faster."""


class PretrainConfig(TrainingSection):
    """Training of the base network when `model.weights` is not given."""

    epochs: int = Field(30, ge=1, le=2000)
    """Passes over the train split."""
    lr: float = Field(0.1, gt=0, le=10)
    """Peak learning rate."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target spread over the other classes."""
    init: str | None = None
    """Weights to start from, found like `model.weights`; absent: random."""


class TraceConfig(Section):
    """Detection of channel groups."""

    freeze: tuple[str, ...] = ()
    """Shell-style patterns of group ids that must not be pruned, such as `features.0.*`."""
    open_statistics: bool = False
    """Also cut below LayerNorm and GroupNorm(1, …); the statistics of what remains then change."""


class Budget(Section):
    """What the small network may cost, as a fraction of the base; exactly one key."""

    macs: Fraction | None = None
    """Multiply-accumulates of one image."""
    params: Fraction | None = None
    """Parameters."""
    latency: Fraction | None = None
    """Latency in onnxruntime at `search.latency_batch`, `_threads` and `_provider`."""
    latency_ms: float | None = Field(None, gt=0, le=1e6)
    """The same in milliseconds instead of as a fraction."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of macs, params, latency, latency_ms")
        return self

    @property
    def given(self) -> tuple[str, float]:
        """The one key and its value."""
        values = ((name, getattr(self, name)) for name in type(self).model_fields)
        return next((name, value) for name, value in values if value is not None)


class PolicyConfig(Section):
    """The learned policy of strategy `rl`; spreads are standard deviations of keep-ratio logits."""

    batch: int = Field(8, ge=1, le=10_000)
    """Candidates between two updates."""
    start_spread: float = Field(0.55, gt=0, le=8)
    """Spread at the beginning: keep ratio 0.5 varies between about 0.37 and 0.63."""
    least_spread: float = Field(0.05, gt=0, le=8)
    """Spread below which the policy may not fall: there, neighbours round to the same widths."""
    clip: float = Field(0.2, gt=0, lt=1)
    """Change of a candidate's probability beyond which an update gains nothing (PPO)."""
    epochs: int = Field(8, ge=1, le=1000)
    """Gradient steps an update."""
    mean_step: float = Field(0.05, gt=0, le=8)
    """Adam step of the means, in logits."""
    spread_step: float = Field(0.05, gt=0, le=8)
    """Adam step of the logarithms of the spreads."""
    entropy: float = Field(0.02, ge=0, le=10)
    """Bonus that keeps the spreads from vanishing early."""
    critic: bool = True
    """Whether a critic, fitted to the trials so far, picks half of every batch."""
    draws: int = Field(48, ge=1, le=10_000)
    """Candidates of each kind that the critic picks from."""
    curiosity: float = Field(1.0, ge=0, le=100)
    """Weight of the critic's uncertainty beside its prediction."""
    change: float = Field(0.8, gt=0, le=100)
    """Spread of changes of all groups of the best candidate, as a share of the policy's."""
    nudge: float = Field(0.3, ge=0, le=100)
    """Spread of the other groups where one group is changed a lot, as a share of the policy's."""
    extreme: float = Field(4.0, gt=0, le=8)
    """Largest logit, and with a minus the smallest, that one group is changed to."""
    anywhere: float = Field(1.0, gt=0, le=8)
    """Spread of candidates drawn from anywhere."""
    anywhere_first: int = Field(3, ge=0, le=10_000)
    """How many of those the first batch holds."""


class EvolutionConfig(Section):
    """CMA-ES, strategy `evolution`."""

    population: int = Field(8, ge=2, le=10_000)
    """Candidates a generation."""
    spread: float = Field(0.5, gt=0, le=8)
    """Standard deviation of the first generation, in keep-ratio logits."""


class EvaluationConfig(Section):
    """How a candidate is scored: rungs first, then a few steps of distillation."""

    rungs: tuple[Annotated[int, Field(ge=2, le=1_000_000)], ...] = (64, 256)
    """Images of every rung: looks from which only some candidates are promoted to the next."""
    rung_shares: tuple[Fraction, ...] = (1 / 16, 1 / 4)
    """Share of `search.images` that each rung takes where that is more."""
    promote: Fraction = 0.25
    """Share of the candidates that is promoted from a rung."""
    window: int = Field(32, ge=1, le=1_000_000)
    """Latest candidates that a rung's threshold is drawn from."""
    lookahead: int = Field(8, ge=1, le=1_000_000)
    """Next candidates over which a share that was missed is made up for."""
    step_images: int = Field(64, ge=2, le=8192)
    """Images of a step of distillation."""
    lr: float = Field(0.02, gt=0, le=10)
    """Learning rate of those steps: SGD with Nesterov momentum 0.9."""
    warmup: int = Field(5, ge=1, le=100_000)
    """Steps in which it rises linearly."""
    temperature: float = Field(2.0, gt=0, le=100)
    """Softening of original and candidate outputs in those steps."""
    final_images: int = Field(4, ge=1, le=1000)
    """Finalists are scored on up to this many times `search.images`."""
    final_steps: int = Field(2, ge=1, le=1000)
    """Finalists are trained for this many times `search.distill_steps`."""

    @model_validator(mode="after")
    def _a_share_a_rung(self) -> EvaluationConfig:
        if len(self.rungs) != len(self.rung_shares):
            raise ValueError("give as many rung_shares as rungs")
        return self


class SearchConfig(Section):
    """Distribution of the budget over the channel groups."""

    strategy: Literal["rl", "rlpruner", "evolution", "random", "uniform", "global-taylor"] = "rl"
    """What proposes candidates: a learned policy, RL-Pruner's as published, CMA-ES, chance, or
    no search at all."""
    budget: Budget = Budget(macs=0.5)
    """What the pruned network may cost, as a fraction of the base."""
    trials: int = Field(100, ge=1, le=100_000)
    """Candidates scored."""
    align: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = 8
    """Widths are multiples of this, for runtimes block channels; auto measures once what pays
    on this machine."""
    min_keep: float = Field(0.1, gt=0, le=1)
    """Least share of a group's channels that is kept, rounded up to the alignment."""
    images: int = Field(1000, ge=10, le=1_000_000)
    """Images of the search split that score a candidate."""
    fit_images: int = Field(512, ge=2, le=1_000_000)
    """Images of the train split that rank channels and to which a candidate's batch-norm
    statistics are fitted."""
    criterion: Literal["taylor", "l2", "l1", "bn_scale", "random"] = "taylor"
    """How important a channel is; decides which of a group's channels stay."""
    score: Literal["divergence", "likelihood", "accuracy"] = "divergence"
    """What a candidate is scored by: closeness to the base network's outputs, log-likelihood,
    or accuracy."""
    distill_steps: int = Field(16, ge=0, le=100_000)
    """Steps of distillation on fit images that a candidate gets before its score; 0: as cut."""
    halving: bool = True
    """Successive halving: only candidates promoted from the rungs are trained and scored."""
    finalists: int = Field(5, ge=1, le=1000)
    """Best candidates scored once more, with the warm start, on more images after more steps."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that score candidates; more than 1 gives each one thread."""
    latency: Literal["predicted", "hybrid", "measured"] = "hybrid"
    """For latency budgets: trust the table fitted to this machine, time the finalists too, or
    time every candidate."""
    latency_samples: int = Field(40, ge=10, le=10_000)
    """Candidates timed to fit the latency table."""
    latency_batch: int = Field(1, ge=1, le=65536)
    """Images per inference when latency is the budget."""
    latency_threads: int = Field(1, ge=0, le=1024)
    """Intra-op threads then; 0 means all cores."""
    latency_provider: str = "CPUExecutionProvider"
    """Execution provider then."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How candidates are scored."""
    rl: PolicyConfig = PolicyConfig()
    """Strategy rl."""
    evolution: EvolutionConfig = EvolutionConfig()
    """Strategy evolution."""

    @field_validator("align", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if value == "auto" or (
            isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256
        ):
            return value
        raise ValueError("give a whole number from 1 to 256, or auto")


class PruneConfig(Section):
    """Cutting the channels out, and the proof that cut equals masked."""

    images: int = Field(8, ge=1, le=1024)
    """Real images on which the cut network is compared with the masked one."""
    tolerance: float = Field(1e-9, gt=0, le=1e-3)
    """Largest difference allowed in float64, relative to the largest output."""


class DistillConfig(TrainingSection):
    """Recovery of accuracy: teacher is the base network, student the pruned one."""

    mode: Literal["distill", "finetune", "bn_only"] = "distill"
    """Learn from teacher and labels, from the labels alone, or only fit the batch-norm
    statistics."""
    epochs: int = Field(5, ge=0, le=2000)
    """Passes over the train split; 0 re-estimates the batch-norm statistics only."""
    lr: float = Field(0.05, gt=0, le=10)
    """Peak learning rate."""
    temperature: float = Field(2.0, gt=0, le=100)
    """Softening of teacher and student outputs."""
    alpha: float = Field(0.75, ge=0, le=1)
    """Weight of the distillation term; the rest is cross-entropy."""
    bn_images: int = Field(2048, ge=2, le=1_000_000)
    """Images of the train split on which the batch-norm statistics are re-estimated before
    training."""


class ExportConfig(Section):
    """ONNX file of base and final network, and their parity with PyTorch."""

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
    min_runs: int = Field(100, ge=3, le=10_000_000)
    """Least number of timed inferences per variant and setting."""
    launches: int = Field(4, ge=2, le=100)
    """Fresh processes per variant; their spread is part of the interval."""
    static_batch: bool = False
    """Fix the batch size in the graph before onnxruntime optimises it."""
    allow_fallback: bool = False
    """Go on when the provider leaves convolutions to the CPU, instead of exit 4."""
    profile: bool = True
    """Profile both files node by node, and once a machine time convolutions by width, to say
    where the time went."""
    against: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Further ONNX files timed against the base by the same protocol: paths relative to the
    current folder."""


class ReportConfig(Section):
    """The page."""

    title: str | None = None
    """Heading of the page; absent: the run's name."""


class Config(Section):
    """One run of the pipeline."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Seeds splits, initialisation, data order and search."""
    rounds: int = Field(1, ge=1, le=20)
    """How often search, prune and distill are repeated, the budget shared out geometrically; 1:
    all in one cut."""
    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataConfig = DataConfig()
    """The images."""
    pretrain: PretrainConfig = PretrainConfig()
    """Stage pretrain."""
    trace: TraceConfig = TraceConfig()
    """Stage trace."""
    search: SearchConfig = SearchConfig()
    """Stage search."""
    prune: PruneConfig = PruneConfig()
    """Stage prune."""
    distill: DistillConfig = DistillConfig()
    """Stage distill."""
    export: ExportConfig = ExportConfig()
    """Stage export."""
    benchmark: BenchmarkConfig = BenchmarkConfig()
    """Stage benchmark."""
    report: ReportConfig = ReportConfig()
    """Stage report."""
