"""Settings of the search: the budget, what proposes candidates, and how they are scored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Fraction, Section

ACCURACY_DROP = "accuracy_drop"
BUDGETS = ("macs", "params", "latency", "latency_ms", ACCURACY_DROP)


class Budget(Section):
    """What the small network may cost, as a fraction of the original, or how much accuracy it may
    lose; exactly one key, `of` and `before_recovery` aside.
    """

    macs: Fraction | None = None
    """Multiply-accumulates of one image."""
    params: Fraction | None = None
    """Parameters."""
    latency: Fraction | None = None
    """Latency in onnxruntime at `search.latency_batch`, `_threads` and `_provider`: what the small
    network takes at `search.precision`, as a fraction of what the original takes in fp32."""
    latency_ms: float | None = Field(None, gt=0, le=1e6)
    """The same as `latency`, in milliseconds instead of as a fraction."""
    accuracy_drop: float | None = Field(None, gt=0, lt=100)
    """Percentage points of accuracy on the search split that it may lose: the cheapest network
    within it is looked for. `pipeline run` checks that after distillation and goes back to the
    search up to twice, with less or more allowed before it."""
    before_recovery: float | None = Field(None, gt=0, lt=100)
    """With `accuracy_drop`: points that a reconstructed network may lack before distillation.
    Absent: twice `accuracy_drop`, or just that where no training follows, which `pipeline run`
    adjusts."""
    of: Literal["latency", "macs", "params"] | None = None
    """With `accuracy_drop`: what is to be small; absent: latency."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(BUDGETS)}")
        for name in ("of", "before_recovery"):
            if getattr(self, name) is not None and self.accuracy_drop is None:
                raise ValueError(f"{name} goes with accuracy_drop only")
        return self

    @property
    def given(self) -> tuple[str, float]:
        """The one key and its value."""
        values = ((name, getattr(self, name)) for name in BUDGETS)
        return next((name, value) for name, value in values if value is not None)

    @property
    def metric(self) -> str:
        """What is to be small: "macs", "params" or "latency"."""
        costs = {"macs": self.macs, "params": self.params}
        return next((key for key, value in costs.items() if value), self.of or "latency")


class PolicyConfig(Section):
    """The learned policy of strategy `rl`; spreads are standard deviations of keep-ratio logits."""

    batch: int = Field(8, ge=1, le=10_000)
    """Candidates between two updates."""
    # the best of single runs around the table's solution; not yet compared over seeds
    start_spread: float = Field(0.25, gt=0, le=8)
    """Spread at the beginning: keep ratio 0.5 varies between about 0.44 and 0.56."""
    least_spread: float = Field(0.05, gt=0, le=8)
    """Spread below which the policy may not fall: there, neighbours round to the same widths."""
    clip: float = Field(0.2, gt=0, lt=1)  # the paper's, arXiv 1707.06347
    """Change of a candidate's probability beyond which an update gains nothing (PPO)."""
    epochs: int = Field(8, ge=1, le=1000)
    """Gradient steps an update."""
    mean_step: float = Field(0.05, gt=0, le=8)
    """Adam step of the means, in logits."""
    spread_step: float = Field(0.05, gt=0, le=8)
    """Adam step of the logarithms of the spreads."""
    entropy: float = Field(0.02, ge=0, le=10)
    """Bonus that keeps the spreads from vanishing early."""
    follow: float = Field(0.5, ge=0, le=1)
    """Share of the way to the best candidate so far that the means go with every update."""
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
    """Spread of candidates drawn far from the best, around the uniform distribution."""
    anywhere_first: int = Field(0, ge=0, le=10_000)
    """Candidates of the kind of `anywhere` in the first batch."""


class EvolutionConfig(Section):
    """CMA-ES, strategy `evolution`."""

    population: int = Field(8, ge=2, le=10_000)
    """Candidates a generation."""
    spread: float = Field(0.5, gt=0, le=8)
    """Standard deviation of the first generation, in keep-ratio logits."""


class EvaluationConfig(Section):
    """How a candidate is scored: rungs first, then a few steps of distillation."""

    rungs: tuple[Annotated[int, Field(ge=2, le=1_000_000)], ...] = (64, 256)
    """Images of every rung, from which only some candidates are promoted to the next. Where no
    distillation follows, rungs of less than a quarter of the images are left out."""
    # with `promote` 1/4 every rung costs as much: four times the images of a quarter
    rung_shares: tuple[Fraction, ...] = (1 / 16, 1 / 4)
    """Share of `search.images` that each rung takes where that is more than `rungs` says."""
    promote: Fraction = 0.25
    """Share of the candidates that is promoted from a rung."""
    window: int = Field(32, ge=1, le=1_000_000)
    """Latest candidates that a rung's threshold is drawn from."""
    lookahead: int = Field(8, ge=1, le=1_000_000)
    """Where more or fewer than `promote` were promoted so far, the next so many make up for it."""
    step_images: int = Field(64, ge=2, le=8192)
    """Images of a step of distillation."""
    lr: float = Field(0.02, gt=0, le=10)
    """Learning rate of the steps of distillation: SGD with Nesterov momentum 0.9."""
    warmup: int = Field(5, ge=1, le=100_000)
    """Steps of distillation in which the learning rate rises linearly."""
    temperature: float = Field(2.0, gt=0, le=100)
    """Softening of the outputs of original and candidate in the steps of distillation."""
    final_images: int = Field(4, ge=1, le=1000)
    """Finalists are scored on up to this many times `search.images`."""
    final_steps: int = Field(2, ge=1, le=1000)
    """Finalists are trained for this many times `search.distill_steps`."""

    @model_validator(mode="after")
    def _a_share_a_rung(self) -> EvaluationConfig:
        if len(self.rungs) != len(self.rung_shares):
            raise ValueError("give as many rung_shares as rungs")
        return self


class TableConfig(Section):
    """Losses of every group at several widths, the others being whole."""

    images: int = Field(256, ge=2, le=1_000_000)
    """Images of the search split that the losses are measured on."""
    widths: int = Field(8, ge=1, le=1000)
    """Most widths of a group that are measured; the others are interpolated."""


class SearchConfig(Section):
    """Distribution of the budget over the channel groups."""

    strategy: Literal[
        "rl", "table", "rlpruner", "evolution", "random", "uniform", "global-taylor"
    ] = "rl"
    """What proposes candidates: a learned policy, the solution of the loss tables, RL-Pruner's
    policy as published, CMA-ES, chance, or no search at all."""
    budget: Budget = Budget(macs=0.5)
    """What the pruned network may cost, as a fraction of the original, or may lose."""
    trials: int = Field(100, ge=1, le=100_000)
    """Candidates scored."""
    align: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """Widths are multiples of this, since runtimes work on blocks of channels; auto measures once
    which multiple pays on this machine. A number makes plans the same on every machine."""
    min_keep: float = Field(0.1, gt=0, le=1)
    """Least share of a group's channels that is kept, rounded up to the alignment."""
    branches: bool = False
    """Whether residual branches may go altogether, as if `min_keep` did not hold for them."""
    images: int = Field(1000, ge=10, le=1_000_000)
    """Images of the search split on which a candidate is scored."""
    fit_images: int = Field(512, ge=2, le=1_000_000)
    """Images of the train split that rank channels and to which a candidate's weights, or its
    batch-norm statistics, are fitted."""
    criterion: Literal["obs", "taylor", "l2", "l1", "bn_scale", "random"] = "obs"
    """How important a channel is; decides which of a group's channels stay. obs: what is lost
    without it once the others have made up for it."""
    score: Literal["divergence", "likelihood", "accuracy"] = "divergence"
    """What a candidate is scored by: closeness to the original's outputs, log-likelihood, or
    accuracy."""
    reconstruct: bool = True
    """Whether a candidate gets weights by least squares before its score; if not, its batch-norm
    statistics are re-estimated."""
    distill_steps: int = Field(0, ge=0, le=100_000)
    """Steps of distillation on fit images that a candidate gets before its score."""
    halving: bool = True
    """Successive halving: only candidates promoted from the rungs are trained and scored."""
    finalists: int = Field(5, ge=1, le=1000)
    """Best candidates, which are scored once more, with the warm start, on more images and after
    more steps."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that score candidates; more than 1 gives each one thread."""
    latency: Literal["predicted", "hybrid", "measured"] = "hybrid"
    """For latency budgets: `predicted` trusts the table fitted to this machine, `hybrid` times the
    finalists too, `measured` every candidate."""
    precision: Literal["fp32", "int8", "auto"] = "fp32"
    """Precision in which candidates are timed, and for which `align: auto` is measured. auto: int8
    where INT8 is measured faster than fp32 here, `quantize.mode` is not off and INT8 alone does not
    keep the budget. With fp32 a budget is kept even where INT8 turns out too inaccurate later."""
    latency_samples: int = Field(40, ge=10, le=10_000)  # two a fold of the table's fit, at least
    """Candidates timed to fit the latency table."""
    latency_batch: int = Field(1, ge=1, le=65536)
    """Images per inference, where latency is the budget."""
    latency_threads: int = Field(1, ge=0, le=1024)
    """Intra-op threads, where latency is the budget; 0: all cores."""
    latency_provider: str = "CPUExecutionProvider"
    """Execution provider, where latency is the budget."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How candidates are scored."""
    table: TableConfig = TableConfig()
    """Loss tables, from which the search starts."""
    rl: PolicyConfig = PolicyConfig()
    """Strategy rl."""
    evolution: EvolutionConfig = EvolutionConfig()
    """Strategy evolution."""

    # of a union pydantic reports every side; this is one sentence
    @field_validator("align", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if value == "auto" or (
            isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256
        ):
            return value
        raise ValueError("give a whole number from 1 to 256, or auto")
