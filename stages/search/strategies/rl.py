"""`rl`: an actor-critic over keep ratios, the default.

Actor: an independent Gaussian per group over the logit of its keep ratio, with learned mean and
learned spread, started at the table's solution. Actions are projected onto the budget,
which ignores a constant added to all logits, so what is learned is the *distribution* of the
budget. Update: after every batch a few steps of clipped policy gradient (PPO, arXiv 1707.06347,
clipped per group), advantages normalised over the batch, with an entropy bonus that keeps the
spread from vanishing early.

Critic: a Gaussian process over all trials so far (stages/search/strategies/critic.py) picks half of
every batch among many draws of the actor, many changes of the best candidate, of all its groups or
of one, and many candidates from anywhere, since a better distribution may lie beyond one that is
worse (ResNet-20's trunk of 16 channels is kept or halved). The other half stays as the actor drew
it, because a batch picked entirely by the critic leaves the gradient too little contrast (it then
learns fast for 60 trials and stalls). What the actor draws again costs no trial: the gradient sees
it with the score it has, and the critic picks something new. The gradient sees scores, and
predicted scores of candidates that were not promoted, never what the critic predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.search.space.candidate import WARM_START, Candidate, CountsKey
from stages.search.strategies.base import (
    START_LIMIT,
    Task,
    Vector,
    uniform_counts,
)
from stages.search.strategies.critic import Critic

POLICY = "policy"
"""`proposed_as` of what the actor drew."""

_ENOUGH = 2  # scored candidates from which the critic says anything


class PolicyGradient:
    """The first batch holds the warm start, which is also among the finalists, the uniform
    distribution, and others from anywhere, from which the critic learns what each group does.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.settings = task, task.settings.rl
        self.rng = np.random.default_rng(task.seed)
        self.warm = task.start
        centre = task.space.logits(self.warm).clip(max=START_LIMIT)
        self.mean: Vector = centre - centre.mean()
        self.log_spread: Vector = np.full(len(centre), np.log(self.settings.start_spread))
        self.moments = np.zeros((2, 2, len(centre)))  # Adam's two, of mean and log spread
        self.updates = 0
        self.seen: dict[CountsKey, float] = {}
        self.repeats: list[Candidate] = []
        self.collapsed_at: int | None = None

    def ask(self, room: int) -> list[Candidate]:
        """A batch: half of it drawn by the actor, the rest picked by the critic."""
        size = min(room, self.settings.batch)
        out = self._start()[:size] if not self.seen else []
        count = size - len(out)
        if not self.settings.critic or len(self.seen) < _ENOUGH:
            return out + self._draw(count)
        new: dict[CountsKey, Candidate] = {}
        for draw in self._draw(-(-count // 2)):
            if draw.key in self.seen or draw.key in new:
                self.repeats.append(draw)
            else:
                new[draw.key] = draw
        pool = [draw for draw in self._pool() if draw.key not in new]
        return [*new.values(), *self._picked(pool, count - len(new))]

    def tell(self, candidates: Sequence[Candidate], scores: Sequence[float]) -> None:
        """Updates the actor with the batch and with what it drew again; the critic remembers."""
        for candidate, score in zip(candidates, scores, strict=True):
            self.seen[candidate.key] = score
        self._note_collapse(candidates)
        known = [*candidates, *self.repeats]
        values = np.array([*scores, *(self.seen[draw.key] for draw in self.repeats)])
        self.repeats = []
        if len(values) < 2 or values.std() == 0:  # no contrast, no gradient
            return
        # one broken candidate must not outweigh the rest of the batch
        advantage = np.clip((values - values.mean()) / values.std(), -2, 2)
        self._update(np.array([candidate.action for candidate in known]), advantage)

    def state(self) -> dict[str, Vector]:
        return {"mean": self.mean.copy(), "log_spread": self.log_spread.copy()}

    def findings(self) -> list[str]:
        if self.collapsed_at is None:
            return []
        return [
            f"the policy collapsed to a constant after {self.collapsed_at} distinct candidates: "
            "it draws nothing new; lower search.trials or search.align"
        ]

    def _start(self) -> list[Candidate]:
        equal = np.zeros(len(self.task.space))
        return [
            Candidate(self.warm, self.mean.copy(), WARM_START),
            Candidate(uniform_counts(self.task), equal, "uniform"),
            *self._anywhere(self.settings.anywhere_first),
        ]

    def _draw(self, count: int) -> list[Candidate]:
        """Candidates of the actor, in mirrored pairs.

        m + s*e and m - s*e halve the variance of the gradient of a smooth score.
        """
        half = self.rng.standard_normal((-(-count // 2), len(self.task.space)))
        noise = np.stack([half, -half], axis=1).reshape(-1, half.shape[1])[:count]
        return self._projected(self.mean + np.exp(self.log_spread) * noise, POLICY)

    def _pool(self) -> list[Candidate]:
        """What the critic picks from: as many of each kind."""
        draws = self.settings.draws
        return [
            *self._draw(draws),
            *self._changed(draws),
            *self._changed_in_one(draws),
            *self._anywhere(draws),
        ]

    def _changed(self, count: int) -> list[Candidate]:
        """Around the best candidate so far, nearer than the actor draws around its mean."""
        actions = self._around_best(count, self.settings.change)
        return self._projected(actions, "change of the best")

    def _changed_in_one(self, count: int) -> list[Candidate]:
        """The best candidate so far with one group as wide or narrow as may be.

        The budget moves the others.
        """
        actions, extreme = self._around_best(count, self.settings.nudge), self.settings.extreme
        groups = self.rng.integers(actions.shape[1], size=count)
        actions[np.arange(count), groups] = self.rng.uniform(-extreme, extreme, count)
        return self._projected(actions, "one group changed")

    def _anywhere(self, count: int) -> list[Candidate]:
        noise = self.rng.standard_normal((count, len(self.task.space)))
        return self._projected(self.settings.anywhere * noise, "anywhere")

    def _around_best(self, count: int, share: float) -> Vector:
        """(count, G) actions around the best candidate's, by a share of the actor's spread."""
        extreme = self.settings.extreme
        best = np.array(max(self.seen, key=self.seen.__getitem__))
        centre = self.task.space.logits(best).clip(max=extreme)
        noise = self.rng.standard_normal((count, len(centre)))
        return centre - centre.mean() + share * np.exp(self.log_spread) * noise

    def _projected(self, actions: Vector, proposed_as: str) -> list[Candidate]:
        """Candidates for actions (n, G)."""
        rows = self.task.projector.logits(actions)
        pairs = zip(rows, actions, strict=True)
        return [Candidate(counts, action, proposed_as) for counts, action in pairs]

    def _picked(self, pool: list[Candidate], count: int) -> list[Candidate]:
        """The `count` that the critic finds most promising among those not scored before."""
        distinct = {draw.key: draw for draw in pool}
        new = [draw for key, draw in distinct.items() if key not in self.seen]
        if len(new) <= count:
            return new + pool[: count - len(new)]
        sizes, removed = self.task.space.sizes, self.task.removed
        known, asked = np.array(list(self.seen)), np.array([draw.counts for draw in new])
        cut, would_cut = (np.array([removed(row) for row in rows]) for rows in (known, asked))
        critic = Critic.fit(known / sizes, cut, np.array(list(self.seen.values())))
        chosen = critic.choose(asked / sizes, would_cut, count, self.settings.curiosity)
        return [new[index] for index in chosen]

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
