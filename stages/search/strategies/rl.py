"""`rl`: an actor-critic over keep ratios, the default.

Actor: an independent Gaussian per group over the logit of its keep ratio, with learned mean and
learned spread, started at the global-taylor distribution. Actions are projected onto the budget,
which ignores a constant added to all logits, so what is learned is the *distribution* of the
budget. Update: after every batch a few steps of clipped policy gradient (PPO, arXiv 1707.06347,
clipped per group), advantages normalised over the batch, with an entropy bonus that keeps the
spread from vanishing early. Critic: a Gaussian process over all trials so far
(stages/search/critic.py) picks half of every batch among many draws of the actor, many changes of
the best candidate, of all its groups or of one, and many candidates from anywhere, since a better
distribution may lie beyond one that is worse (ResNet-20's trunk of 16 channels is kept or halved);
the other half stays as the actor drew it, because a batch picked entirely by the critic leaves the
gradient too little contrast (it then learns fast for 60 trials and stalls). What the actor draws
again costs no trial: the gradient sees it with the score it has, and the critic picks something
new. The gradient sees scores, and forecasts of candidates that were given up at a glance, never
what the critic predicts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.search.critic import Critic
from stages.search.strategies.base import (
    WARM_START,
    Key,
    Problem,
    Proposal,
    Vector,
    greedy_counts,
    uniform_counts,
)

POLICY = "policy"  # origin of what the actor drew
BATCH = 8
START_SPREAD = 0.55  # logits: keep ratio 0.5 varies between about 0.37 and 0.63
LEAST_SPREAD = 0.05  # below this the mean's neighbours round to the same blocks
CLIP = 0.2
EPOCHS = 8
MEAN_STEP, SPREAD_STEP = 0.05, 0.05  # Adam step sizes, in logits and in log spread
ENTROPY = 0.02
DRAWS = 48  # draws of the actor that the critic chooses from, and as many of each other kind
CHANGE, NUDGE = 0.8, 0.3  # of the actor's spread: for changes of all groups, and beside that of one
EXTREME = 4.0  # logit; a single group changes to anything between its negative and it
ANYWHERE, FIRST = (
    1.0,
    3,
)  # spread of candidates from anywhere, and how many of them the first batch holds
CURIOSITY = 1.0  # weight of the critic's uncertainty
ENOUGH = 2  # scored candidates from which the critic says anything


class PolicyGradient:
    """The first batch holds the warm start, which is also among the finalists, the uniform
    distribution, and others from anywhere, from which the critic learns what each group does.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, size = problem, len(problem.space)
        self.rng = np.random.default_rng(problem.seed)
        self.batch = int(problem.options.get("batch", BATCH))
        self.critic_on = bool(problem.options.get("critic", True))
        self.warm = greedy_counts(problem)
        centre = problem.space.logits(self.warm).clip(-4, 4)
        self.mean: Vector = centre - centre.mean()
        self.log_spread: Vector = np.full(size, np.log(START_SPREAD))
        self.moments = np.zeros((2, 2, size))
        self.updates = 0
        self.seen: dict[Key, float] = {}
        self.repeats: list[Proposal] = []
        self.collapsed_at: int | None = None

    def ask(self, room: int) -> list[Proposal]:
        out = self._start()[: min(room, self.batch)] if not self.seen else []
        count = min(room, self.batch) - len(out)
        if not self.critic_on or len(self.seen) < ENOUGH:
            return out + self._draw(count)
        new: dict[Key, Proposal] = {}
        for draw in self._draw(-(-count // 2)):
            key = draw.key
            if key in self.seen or key in new:
                self.repeats.append(draw)
            else:
                new[key] = draw
        pool = (
            self._draw(DRAWS)
            + self._changed(DRAWS)
            + self._changed_in_one(DRAWS)
            + self._anywhere(DRAWS)
        )
        return [
            *new.values(),
            *self._screened([draw for draw in pool if draw.key not in new], count - len(new)),
        ]

    def _start(self) -> list[Proposal]:
        equal = np.zeros(len(self.problem.space))
        return [
            Proposal(self.warm, self.mean.copy(), WARM_START),
            Proposal(uniform_counts(self.problem), equal, "uniform"),
            *self._anywhere(FIRST),
        ]

    def _draw(self, count: int) -> list[Proposal]:
        """Mirrored pairs: m + s*e and m - s*e halve the variance of the gradient of a smooth
        score.
        """
        half = self.rng.standard_normal((-(-count // 2), len(self.problem.space)))
        noise = np.stack([half, -half], axis=1).reshape(-1, half.shape[1])[:count]
        actions = self.mean + np.exp(self.log_spread) * noise
        return self._proposed(actions, POLICY)

    def _anywhere(self, count: int) -> list[Proposal]:
        actions = ANYWHERE * self.rng.standard_normal((count, len(self.problem.space)))
        return self._proposed(actions, "anywhere")

    def _proposed(self, actions: Vector, origin: str) -> list[Proposal]:
        counts = self.problem.projector.logits(actions)
        return [Proposal(row, action, origin) for row, action in zip(counts, actions, strict=True)]

    def _changed(self, count: int) -> list[Proposal]:
        """Around the best candidate so far, nearer than the actor draws around its mean."""
        actions = self._around_best(count, CHANGE)
        return self._proposed(actions, "change of the best")

    def _changed_in_one(self, count: int) -> list[Proposal]:
        """The best candidate so far with one group as wide or narrow as may be; the budget
        moves the others.
        """
        actions = self._around_best(count, NUDGE)
        groups = self.rng.integers(actions.shape[1], size=count)
        actions[np.arange(count), groups] = self.rng.uniform(-EXTREME, EXTREME, count)
        return self._proposed(actions, "one group changed")

    def _around_best(self, count: int, share: float) -> Vector:
        """(count, G) actions around the best candidate's, by a share of the actor's spread."""
        best = np.array(max(self.seen, key=self.seen.__getitem__))
        centre = self.problem.space.logits(best).clip(-EXTREME, EXTREME)
        noise = self.rng.standard_normal((count, len(centre)))
        return centre - centre.mean() + share * np.exp(self.log_spread) * noise

    def _screened(self, draws: list[Proposal], count: int) -> list[Proposal]:
        """The `count` draws that the critic finds most promising among those not scored before."""
        fresh = {draw.key: draw for draw in draws}
        new = [draw for key, draw in fresh.items() if key not in self.seen]
        if len(new) <= count:
            return new + draws[: count - len(new)]
        sizes = self.problem.space.sizes
        removed = self.problem.removed
        known, asked = np.array(list(self.seen)), np.array([draw.counts for draw in new])
        cut = np.array([removed(counts) for counts in known])
        critic = Critic.fit(known / sizes, cut, np.array(list(self.seen.values())))
        chosen = critic.choose(
            asked / sizes, np.array([removed(counts) for counts in asked]), count, CURIOSITY
        )
        return [new[index] for index in chosen]

    def tell(self, proposals: Sequence[Proposal], scores: Sequence[float]) -> None:
        for proposal, score in zip(proposals, scores, strict=True):
            self.seen[proposal.key] = score
        self._note_collapse(proposals)
        known = [*proposals, *self.repeats]
        values = np.array([*scores, *(self.seen[draw.key] for draw in self.repeats)])
        self.repeats = []
        if len(values) < 2 or values.std() == 0:
            return
        advantage = np.clip((values - values.mean()) / values.std(), -2, 2)
        self._update(np.array([proposal.action for proposal in known]), advantage)

    def _update(self, actions: Vector, advantage: Vector) -> None:
        old_mean, old_log = self.mean.copy(), self.log_spread.copy()
        old = -0.5 * ((actions - old_mean) / np.exp(old_log)) ** 2 - old_log
        for _ in range(EPOCHS):
            spread = np.exp(self.log_spread)
            offset = (actions - self.mean) / spread
            ratio = np.exp(np.clip(-0.5 * offset**2 - self.log_spread - old, -20, 20))
            gain = advantage[:, None]
            active = np.where(gain > 0, ratio < 1 + CLIP, ratio > 1 - CLIP)
            weight = np.where(active, ratio * gain, 0.0) / len(actions)
            self._adam(0, (weight * offset / spread).sum(axis=0), MEAN_STEP)
            self._adam(1, (weight * (offset**2 - 1)).sum(axis=0) + ENTROPY, SPREAD_STEP)
            self.updates += 1
        self.log_spread = np.clip(self.log_spread, np.log(LEAST_SPREAD), np.log(2 * START_SPREAD))
        self.mean -= self.mean.mean()

    def _adam(self, which: int, gradient: Vector, step: float) -> None:
        """Adam ascent (arXiv 1412.6980) on the mean (0) or the log spread (1)."""
        first, second = self.moments[which]
        first += 0.1 * (gradient - first)
        second += 0.01 * (gradient**2 - second)
        time = self.updates + 1
        move = step * (first / (1 - 0.9**time)) / (np.sqrt(second / (1 - 0.99**time)) + 1e-8)
        if which == 0:
            self.mean = self.mean + move
        else:
            self.log_spread = self.log_spread + move

    def _note_collapse(self, proposals: Sequence[Proposal]) -> None:
        drawn = [*(p for p in proposals if p.origin == POLICY), *self.repeats]
        same = len(drawn) > 1 and len({draw.key for draw in drawn}) == 1
        if self.collapsed_at is None and same:
            self.collapsed_at = len(self.seen)

    def state(self) -> dict[str, Vector]:
        return {"mean": self.mean.copy(), "log_spread": self.log_spread.copy()}

    def findings(self) -> list[str]:
        if self.collapsed_at is None:
            return []
        return [
            f"the policy collapsed to a constant after {self.collapsed_at} distinct candidates: "
            "it draws nothing new; lower search.trials or search.align"
        ]
