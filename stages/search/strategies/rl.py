"""`rl`: an actor-critic over keep ratios, the default.

First the table's solution, the uniform distribution and what lies between them are scored: where
groups work together, a table of single groups may be worse than none (ResNet-20 at a third of its
MACs).

Actor: an independent Gaussian per group over the logit of its keep ratio, with learned mean and
learned spread, started at the best of those. Actions are projected onto the budget,
which ignores a constant added to all logits, so what is learned is the *distribution* of the
budget. Update: after every batch a few steps of clipped policy gradient (PPO, arXiv 1707.06347,
clipped per group), advantages normalised over the batch, with an entropy bonus that keeps the
spread from vanishing early; then the mean goes part of the way to the best candidate so far.

Critic: a Gaussian process over all trials so far (stages/search/strategies/critic.py) picks half of
every batch among many draws of the actor and many variations of the best candidates
(stages/search/strategies/variation.py). The other half stays as the actor drew it, because a batch
picked entirely by the critic leaves the gradient too little contrast (it then
learns fast for 60 trials and stalls). What the actor draws again costs no trial: the gradient sees
it with the score it has, and the critic picks something new. The gradient sees scores, and
predicted scores of candidates that were not promoted, never what the critic predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.channels.counts import Counts
from pipeline.words import count_of
from stages.search.space.candidate import WARM_START, Candidate, CountsKey
from stages.search.strategies.base import (
    START_LIMIT,
    Task,
    Vector,
    uniform_counts,
)
from stages.search.strategies.critic import Critic
from stages.search.strategies.variation import Variation

POLICY = "policy"
"""`proposed_as` of what the actor drew."""

BLENDS = (0.67, 0.33)  # shares of the warm start in what lies between it and the uniform one

_ENOUGH = 2  # scored candidates from which the critic says anything


class PolicyGradient:
    """The first batch holds the warm start, which is also among the finalists, the uniform
    distribution, what lies between, and as many from anywhere as asked for.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.settings = task, task.settings.rl
        self.rng = np.random.default_rng(task.seed)
        self.variation = Variation(task.projector, self.settings, self.rng)
        self.warm = task.start
        self.mean = self._action(self.warm)
        self.log_spread: Vector = np.full(len(self.mean), np.log(self.settings.start_spread))
        self.moments = np.zeros((2, 2, len(self.mean)))  # Adam's two, of mean and log spread
        self.updates = 0
        self.seen: dict[CountsKey, float] = {}
        self.repeats: list[Candidate] = []
        self.collapsed_at: int | None = None

    def ask(self, room: int) -> list[Candidate]:
        """A batch: half of it drawn by the actor, the rest picked by the critic."""
        count = min(room, self.settings.batch)
        if not self.seen:
            return self._start()[:count]
        if not self.settings.critic or len(self.seen) < _ENOUGH:
            return self._draw(count)
        new: dict[CountsKey, Candidate] = {}
        for draw in self._draw(-(-count // 2)):
            if draw.key in self.seen or draw.key in new:
                self.repeats.append(draw)
            else:
                new[draw.key] = draw
        pool = [*self._draw(self.settings.draws), *self.variation.pool(self.seen, self.spread)]
        pool = [draw for draw in pool if draw.key not in new]
        return [*new.values(), *self._picked(pool, count - len(new))]

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Updates the actor with the batch and with what it drew again; the critic remembers."""
        for candidate, score in zip(candidates, scores, strict=True):
            self.seen[candidate.key] = score
        if not self.updates:
            self.mean = self._action(self._best())
        self._note_collapse(candidates)
        known = [*candidates, *self.repeats]
        values = np.array([*scores, *(self.seen[draw.key] for draw in self.repeats)])
        self.repeats = []
        if len(values) > 1 and values.std() > 0:  # no contrast, no gradient
            # one broken candidate must not outweigh the rest of the batch
            advantage = np.clip((values - values.mean()) / values.std(), -2, 2)
            self._update(np.array([candidate.action for candidate in known]), advantage)
        self._follow()

    def state(self) -> dict[str, Vector]:
        return {"mean": self.mean.copy(), "log_spread": self.log_spread.copy()}

    def findings(self) -> list[str]:
        if self.collapsed_at is None:
            return []
        return [
            "the policy collapsed to a constant after "
            f"{count_of(self.collapsed_at, 'distinct candidate')}: it draws nothing new; lower "
            "search.trials or search.align"
        ]

    def _start(self) -> list[Candidate]:
        equal = np.zeros(len(self.task.space))
        between = np.outer(BLENDS, self.mean)
        starts = [
            Candidate(self.warm, self.mean.copy(), WARM_START),
            Candidate(uniform_counts(self.task), equal, "uniform"),
            *self.variation.projected(between, "between the two"),
            *self.variation.anywhere(self.settings.anywhere_first),
        ]
        return list({start.key: start for start in reversed(starts)}.values())[::-1]

    @property
    def spread(self) -> Vector:
        """Of the actor, (G,)."""
        return np.exp(self.log_spread)

    def _action(self, counts: Counts) -> Vector:
        centre = self.task.space.logits(counts).clip(max=START_LIMIT)
        return centre - centre.mean()

    def _follow(self) -> None:
        """Bring the actor's mean nearer to the best so far: a table that is wrong about how groups
        work together has put it far away.
        """
        self.mean = self.mean + self.settings.follow * (self._action(self._best()) - self.mean)

    def _best(self) -> Counts:
        return np.array(max(self.seen, key=self.seen.__getitem__))

    def _draw(self, count: int) -> list[Candidate]:
        """Candidates of the actor, in mirrored pairs.

        m + s*e and m - s*e halve the variance of the gradient of a smooth score.
        """
        half = self.rng.standard_normal((-(-count // 2), len(self.task.space)))
        noise = np.stack([half, -half], axis=1).reshape(-1, half.shape[1])[:count]
        return self.variation.projected(self.mean + np.exp(self.log_spread) * noise, POLICY)

    def _picked(self, pool: list[Candidate], count: int) -> list[Candidate]:
        """The `count` that the critic finds most promising among those not scored before."""
        distinct = {draw.key: draw for draw in pool}
        new = [draw for key, draw in distinct.items() if key not in self.seen]
        if len(new) <= count:
            return new + pool[: count - len(new)]
        removed = self.task.removed
        known, asked = np.array(list(self.seen)), np.array([draw.counts for draw in new])
        cut, would_cut = (np.array([removed(row) for row in rows]) for rows in (known, asked))
        critic = Critic.fit(self._points(known), cut, np.array(list(self.seen.values())))
        chosen = critic.choose(self._points(asked), would_cut, count, self.settings.curiosity)
        return [new[index] for index in chosen]

    def _points(self, counts: Vector) -> Vector:
        """What the critic sees of counts (n, G): halving a width is one step, whatever it was."""
        space = self.task.space
        return np.log(np.where(counts == 0, space.floors / 4, counts) / space.sizes) / 2

    def _update(self, actions: Vector, advantage: Vector) -> None:
        """PPO on actions (n, G) with advantages (n,)."""
        rules = self.settings
        old_mean, old_log = self.mean.copy(), self.log_spread.copy()
        old = -0.5 * ((actions - old_mean) / np.exp(old_log)) ** 2 - old_log
        for _ in range(rules.epochs):
            spread = np.exp(self.log_spread)
            offset = (actions - self.mean) / spread
            # candidates that the critic picked may be far from the mean: their ratios overflow
            ratio = np.exp(np.clip(-0.5 * offset**2 - self.log_spread - old, -20, 20))
            gain = advantage[:, None]
            active = np.where(gain > 0, ratio < 1 + rules.clip, ratio > 1 - rules.clip)
            weight = np.where(active, ratio * gain, 0.0) / len(actions)
            upwards = (weight * (offset**2 - 1)).sum(axis=0) + rules.entropy
            self.mean = self.mean + self._adam(
                0, (weight * offset / spread).sum(axis=0), rules.mean_step
            )
            self.log_spread = self.log_spread + self._adam(1, upwards, rules.spread_step)
            self.updates += 1
        bounds = np.log(rules.least_spread), np.log(2 * rules.start_spread)
        self.log_spread = np.clip(self.log_spread, *bounds)
        self.mean -= self.mean.mean()  # the projection ignores a common shift

    def _adam(self, which: int, gradient: Vector, step: float) -> Vector:
        """Step of Adam ascent (arXiv 1412.6980) of the mean (0) or of the log spread (1)."""
        first, second = self.moments[which]
        first += 0.1 * (gradient - first)
        second += 0.01 * (gradient**2 - second)
        time = self.updates + 1
        return step * (first / (1 - 0.9**time)) / (np.sqrt(second / (1 - 0.99**time)) + 1e-8)

    def _note_collapse(self, candidates: Sequence[Candidate]) -> None:
        drawn = [*(one for one in candidates if one.proposed_as == POLICY), *self.repeats]
        same = len(drawn) > 1 and len({draw.key for draw in drawn}) == 1
        if self.collapsed_at is None and same:
            self.collapsed_at = len(self.seen)
